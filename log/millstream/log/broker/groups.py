"""One consumer group: Kafka's classic group protocol as a state machine.

    EMPTY --join--> PREPARING_REBALANCE --all joined, or time--> COMPLETING_REBALANCE
                     ^   join, leave, session over                     | leader synced
                     +-------------------------------- STABLE <--------+
    no members left: EMPTY.  deleted: DEAD

A rebalance: every member joins again; the coordinator waits for all it knows, at most for the
longest rebalance time-out; the leader is told everybody's subscriptions and works out the
assignment; sync hands it out. Each rebalance is a new generation, and who speaks for an old one is
refused: a zombie that wakes up can neither commit nor stay.

Synchronous: every call is told the time (monotonic milliseconds), and answers that come later are
collected in `take_replies`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from millstream.log.errors import (
    ConfigError,
    IllegalGenerationError,
    LogError,
    RebalanceInProgressError,
    UnknownMemberError,
)
from millstream.log.events import event

__all__ = ["Group", "GroupState", "JoinRequest", "JoinResult", "Member", "Reply", "SyncResult"]


class GroupState(Enum):
    """Where a group is between two rebalances."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


class JoinRequest(NamedTuple):
    """A member wants to be part of the next generation. `protocols`: assignor and subscription, in
    order of preference."""

    member_id: str
    client_id: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]


class JoinResult(NamedTuple):
    """A member of a new generation. `members` (id and subscription) is for the leader only."""

    member_id: str
    generation: int
    protocol: str
    leader: str
    members: tuple[tuple[str, bytes], ...]


class SyncResult(NamedTuple):
    """What the leader assigned to this member."""

    assignment: bytes


class Reply(NamedTuple):
    """An answer to a join or a sync that had to wait."""

    member_id: str
    result: JoinResult | SyncResult | LogError


class Member:
    """One member. `deadline_ms`: when its session is over, unless it is heard of."""

    __slots__ = ("assignment", "deadline_ms", "joining", "request", "syncing")

    def __init__(self, request: JoinRequest, deadline_ms: int) -> None:
        self.request = request
        self.deadline_ms = deadline_ms
        self.joining = False
        self.syncing = False
        self.assignment = b""

    @property
    def member_id(self) -> str:
        return self.request.member_id


class Group:
    """One group and its members."""

    def __init__(self, name: str, *, initial_delay_ms: int, generation: int = 0) -> None:
        self.name = name
        self.state = GroupState.EMPTY
        self.generation = generation
        self.protocol_type = ""
        self.protocol: str | None = None
        self.leader: str | None = None
        self.members: dict[str, Member] = {}
        self._initial_delay_ms = initial_delay_ms
        self._rebalance_deadline_ms: int | None = None
        self._may_end_early = True
        self._replies: list[Reply] = []

    def take_replies(self) -> list[Reply]:
        """Answers that became ready; each is given once."""
        replies, self._replies = self._replies, []
        return replies

    def next_deadline_ms(self) -> int | None:
        """When `let_time_pass` has something to do."""
        deadlines = [each.deadline_ms for each in self.members.values() if not each.joining]
        if self._rebalance_deadline_ms is not None:
            deadlines.append(self._rebalance_deadline_ms)
        return min(deadlines, default=None)

    def members_to_call(self) -> list[str]:
        """Who should join again, and did not yet."""
        if self.state is not GroupState.PREPARING_REBALANCE:
            return []
        return [each.member_id for each in self.members.values() if not each.joining]

    # Requests

    def join(self, request: JoinRequest, now_ms: int) -> None:
        """Be part of the next generation; the answer comes as a reply.

        Raises:
            UnknownMemberError: the group is gone.
            ConfigError: the member shares no assignor with the others.
        """
        if self.state is GroupState.DEAD:
            raise self._unknown(request.member_id)
        self._check_protocols(request)
        member = self.members.get(request.member_id)
        is_new = member is None
        if member is None:
            member = Member(request, now_ms + request.session_timeout_ms)
            self.members[request.member_id] = member
            self.leader = self.leader or request.member_id
            self.protocol_type = request.protocol_type
        unchanged = not is_new and member.request.protocols == request.protocols
        member.request = request
        self._heard_of(member, now_ms)
        member.joining = True
        if self.state is GroupState.PREPARING_REBALANCE:
            self._complete_join_if_all_joined(now_ms)
        elif unchanged and self._answers_as_before(member):
            member.joining = False
            self._replies.append(Reply(member.member_id, self._join_result(member)))
        else:
            self._prepare_rebalance(now_ms)

    def _answers_as_before(self, member: Member) -> bool:
        """A follower that joins without a change missed an answer; a leader wants a rebalance."""
        if self.state is GroupState.COMPLETING_REBALANCE:
            return True
        return self.state is GroupState.STABLE and member.member_id != self.leader

    def sync(
        self, member_id: str, generation: int, assignments: Mapping[str, bytes], now_ms: int
    ) -> bool:
        """Ask for the assignment; the leader brings everybody's. The answer comes as a reply.

        Returns:
            Whether the group became stable: its state is worth writing down.

        Raises:
            UnknownMemberError, IllegalGenerationError: not a member of this generation.
            RebalanceInProgressError: join again.
        """
        member = self._member(member_id, generation)
        self._heard_of(member, now_ms)
        if self.state is GroupState.PREPARING_REBALANCE:
            raise self._rebalancing()
        member.syncing = True
        if self.state is GroupState.STABLE:
            self._answer_syncs()
            return False
        if member_id != self.leader:
            return False
        for each in self.members.values():
            each.assignment = assignments.get(each.member_id, b"")
        self.state = GroupState.STABLE
        self._rebalance_deadline_ms = None
        self._answer_syncs()
        return True

    def heartbeat(self, member_id: str, generation: int, now_ms: int) -> None:
        """The member is alive.

        Raises:
            UnknownMemberError, IllegalGenerationError: not a member of this generation.
            RebalanceInProgressError: it should join again.
        """
        member = self._member(member_id, generation)
        self._heard_of(member, now_ms)
        if self.state is GroupState.PREPARING_REBALANCE:
            raise self._rebalancing()

    def leave(self, member_id: str, now_ms: int) -> None:
        """The member goes; unknown ones are gone already."""
        if member_id in self.members:
            self._remove(member_id, now_ms)

    def check_commit(
        self, member_id: str, generation: int, now_ms: int, *, transactional: bool
    ) -> None:
        """Whether this member may commit offsets for the group.

        Raises:
            UnknownMemberError, IllegalGenerationError: it may not: the group moved on without it.
            RebalanceInProgressError: the new generation is not complete; sync first.
        """
        if generation < 0 and not member_id and (transactional or not self.members):
            return  # no member of a group speaks; in a transaction its producer is fenced instead
        member = self._member(member_id, generation)
        self._heard_of(member, now_ms)
        if self.state is GroupState.COMPLETING_REBALANCE and not transactional:
            raise self._rebalancing()

    def delete(self) -> None:
        """The group is gone; only for one without members."""
        assert not self.members
        self.state = GroupState.DEAD

    # Time

    def let_time_pass(self, now_ms: int) -> None:
        """Sessions end, and a rebalance stops waiting for those who did not come."""
        for member in list(self.members.values()):
            if not member.joining and member.deadline_ms <= now_ms:
                event(
                    "member timed out",
                    logging.WARNING,
                    group=self.name,
                    member=member.member_id,
                    session_timeout_ms=member.request.session_timeout_ms,
                )
                self._remove(member.member_id, now_ms)
        if self._rebalance_deadline_ms is not None and self._rebalance_deadline_ms <= now_ms:
            if self.state is GroupState.PREPARING_REBALANCE:
                self._complete_join(now_ms)
            else:
                self._drop_those_who_did_not_sync(now_ms)

    def _drop_those_who_did_not_sync(self, now_ms: int) -> None:
        self._rebalance_deadline_ms = None
        for member in [each for each in self.members.values() if not each.syncing]:
            self._remove(member.member_id, now_ms)

    # Steps

    def _prepare_rebalance(self, now_ms: int) -> None:
        for member in self.members.values():
            if member.syncing:
                member.syncing = False
                self._replies.append(Reply(member.member_id, self._rebalancing()))
        first = self.state is GroupState.EMPTY
        self.state = GroupState.PREPARING_REBALANCE
        self._may_end_early = not first or not self._initial_delay_ms
        wait_ms = self._initial_delay_ms
        if self._may_end_early:
            wait_ms = max(each.request.rebalance_timeout_ms for each in self.members.values())
        self._rebalance_deadline_ms = now_ms + wait_ms
        self._complete_join_if_all_joined(now_ms)

    def _complete_join_if_all_joined(self, now_ms: int) -> None:
        if self._may_end_early and all(each.joining for each in self.members.values()):
            self._complete_join(now_ms)

    def _complete_join(self, now_ms: int) -> None:
        self.members = {each: who for each, who in self.members.items() if who.joining}
        self.generation += 1
        self._rebalance_deadline_ms = None
        if not self.members:
            self.state, self.leader, self.protocol = GroupState.EMPTY, None, None
            return
        if self.leader not in self.members:
            self.leader = next(iter(self.members))
        self.protocol = self._chosen_protocol()
        self.state = GroupState.COMPLETING_REBALANCE
        self._rebalance_deadline_ms = now_ms + max(
            each.request.rebalance_timeout_ms for each in self.members.values()
        )
        for member in self.members.values():
            member.joining = False
            self._heard_of(member, now_ms)
            self._replies.append(Reply(member.member_id, self._join_result(member)))

    def _join_result(self, member: Member) -> JoinResult:
        assert self.protocol is not None
        assert self.leader is not None
        everybody: Sequence[Member] = ()
        if member.member_id == self.leader:
            everybody = list(self.members.values())
        return JoinResult(
            member.member_id,
            self.generation,
            self.protocol,
            self.leader,
            tuple(
                (each.member_id, dict(each.request.protocols)[self.protocol]) for each in everybody
            ),
        )

    def _chosen_protocol(self) -> str:
        """Of the assignors all members know, the one most of them prefer; ties go by the leader."""
        shared = self._shared_protocols()
        votes = dict.fromkeys(
            (name for name, _ in self.members[self.leader or ""].request.protocols), 0
        )
        for member in self.members.values():
            votes[next(name for name, _ in member.request.protocols if name in shared)] += 1
        return max(votes, key=lambda name: votes[name])

    def _shared_protocols(self, without: str = "") -> set[str]:
        known = [
            {name for name, _ in each.request.protocols}
            for each in self.members.values()
            if each.member_id != without
        ]
        return set.intersection(*known) if known else set()

    def _check_protocols(self, request: JoinRequest) -> None:
        others = len(self.members) - (request.member_id in self.members)
        own = {name for name, _ in request.protocols}
        if not own:
            raise ConfigError(f"Group {self.name}: a member that knows no assignor cannot join.")
        if others and not (
            request.protocol_type == self.protocol_type
            and own & self._shared_protocols(without=request.member_id)
        ):
            raise ConfigError(
                f"Group {self.name}: the members share no assignor with this one, which offers "
                f"{', '.join(sorted(own))}. Give all the same partition.assignment.strategy."
            )

    def _answer_syncs(self) -> None:
        for member in self.members.values():
            if member.syncing:
                member.syncing = False
                self._replies.append(Reply(member.member_id, SyncResult(member.assignment)))

    def _remove(self, member_id: str, now_ms: int) -> None:
        member = self.members.pop(member_id)
        if member.joining or member.syncing:
            self._replies.append(Reply(member_id, self._unknown(member_id)))
        if self.leader == member_id:
            self.leader = next(iter(self.members), None)
        if self.state is GroupState.PREPARING_REBALANCE:
            self._complete_join_if_all_joined(now_ms)
        elif self.members:
            self._prepare_rebalance(now_ms)
        else:
            self._complete_join(now_ms)

    def _heard_of(self, member: Member, now_ms: int) -> None:
        member.deadline_ms = now_ms + member.request.session_timeout_ms

    def _member(self, member_id: str, generation: int) -> Member:
        member = self.members.get(member_id)
        if member is None:
            raise self._unknown(member_id)
        if generation != self.generation:
            raise IllegalGenerationError(
                f"Group {self.name}: member {member_id} speaks for generation {generation}, the "
                f"group is at {self.generation}. Its partitions belong to others now: join again."
            )
        return member

    def _unknown(self, member_id: str) -> UnknownMemberError:
        return UnknownMemberError(
            f"Group {self.name} has no member {member_id!r}: it left, or was not heard of for "
            "session.timeout.ms. Its partitions belong to others now: join again."
        )

    def _rebalancing(self) -> RebalanceInProgressError:
        return RebalanceInProgressError(f"Group {self.name} is rebalancing; join again.")

"""One consumer group: Kafka's classic group protocol as a state machine.

    EMPTY --join--> PREPARING_REBALANCE --all joined, or time--> COMPLETING_REBALANCE
                     ^   join, leave, session over                     | leader synced
                     +-------------------------------- STABLE <--------+
    no members left: EMPTY.  deleted: DEAD

A rebalance: every member joins again; the coordinator waits for all it knows, at most for the
longest rebalance time-out; the leader is told everybody's subscriptions and works out the
assignment; sync hands it out. Each rebalance is a new generation, and who speaks for an old one is
refused: a zombie that wakes up can neither commit nor stay.

A static member (one with a group.instance.id) stays while it is away, until its session is over.
Who joins with the same instance id takes its place, gets its assignment without a rebalance, and
whoever had it before is fenced (KIP-345).

Synchronous: every call is told the time (monotonic milliseconds), and answers that come later are
collected in `take_replies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .group_fencing import fenced, outdated, rebalancing, unknown
from .group_protocols import check_protocols, chosen_protocol
from .group_values import GroupState, JoinRequest, JoinResult, Member, Reply, SyncResult

__all__ = ["Group"]


class Group:
    """One group and its members. Its coordinator keeps `state_since_ms` (wall clock) for it."""

    def __init__(self, name: str, *, initial_delay_ms: int, generation: int = 0) -> None:
        self.name = name
        self.state = GroupState.EMPTY
        self.state_since_ms = 0
        self.generation = generation
        self.protocol_type = ""
        self.protocol: str | None = None
        self.leader: str | None = None
        self.members: dict[str, Member] = {}
        self._pending: dict[str, int] = {}  # ids given out and not used yet, until when
        self._initial_delay_ms = initial_delay_ms
        self._initial_left_ms = 0
        self._newcomers = False  # since the initial delay began
        self._rebalance_deadline_ms: int | None = None
        self._may_end_early = True
        self._replies: list[Reply] = []

    def take_replies(self) -> list[Reply]:
        """Answers that became ready; each is given once."""
        replies, self._replies = self._replies, []
        return replies

    def next_deadline_ms(self) -> int | None:
        """When `let_time_pass` has something to do."""
        deadlines = [each.deadline_ms for each in self.members.values() if not each.is_waiting]
        deadlines += self._pending.values()
        if self._rebalance_deadline_ms is not None:
            deadlines.append(self._rebalance_deadline_ms)
        return min(deadlines, default=None)

    def members_to_call(self) -> list[str]:
        """Who should join again, and did not yet."""
        if self.state is not GroupState.PREPARING_REBALANCE:
            return []
        return [each.member_id for each in self.members.values() if not each.joining]

    def member_of_instance(self, group_instance_id: str | None) -> str | None:
        """The id of the static member with this instance id."""
        if group_instance_id is None:
            return None
        return next(
            (
                each.member_id
                for each in self.members.values()
                if each.request.group_instance_id == group_instance_id
            ),
            None,
        )

    def is_expected(self, member_id: str) -> bool:
        """Whether this id was given out by `expect` and not used yet."""
        return member_id in self._pending

    def size(self) -> int:
        """Members, those that are expected included."""
        return len(self.members) + len(self._pending)

    # Requests

    def expect(self, member_id: str, deadline_ms: int) -> None:
        """A new member was told its id, and will join with it; a rebalance waits for it."""
        self._pending[member_id] = deadline_ms

    def join(self, request: JoinRequest, now_ms: int, *, takes_over: bool = False) -> None:
        """Be part of the next generation; the answer comes as a reply.

        Args:
            takes_over: the member is new, and takes the place of one with its instance id, if any.

        Raises:
            UnknownMemberError: the group is gone.
            FencedInstanceIdError: another member has its instance id now.
            InconsistentGroupProtocolError: the member shares no assignor with the others.
        """
        if self.state is GroupState.DEAD:
            raise unknown(self.name, request.member_id)
        former = self.member_of_instance(request.group_instance_id)
        if former is not None and former != request.member_id and not takes_over:
            raise fenced(self.name, request.member_id, request.group_instance_id)
        others = [
            each
            for each in self.members.values()
            if each.member_id not in (request.member_id, former)
        ]
        check_protocols(self.name, self.protocol_type, others, request)
        self._pending.pop(request.member_id, None)
        if former is not None and takes_over:
            self._take_over(former, request, now_ms)
        else:
            self._join(request, now_ms)

    def _join(self, request: JoinRequest, now_ms: int) -> None:
        member = self.members.get(request.member_id)
        unchanged = member is not None and member.request.protocols == request.protocols
        if member is None:
            member = Member(request, now_ms)
            self.members[request.member_id] = member
            self.leader = self.leader or request.member_id
            self.protocol_type = request.protocol_type
            self._newcomers = self._newcomers or self.state is GroupState.PREPARING_REBALANCE
        member.request = request
        self._heard_of(member, now_ms)
        member.joining, member.syncing = True, False  # it waits for one answer at a time
        if self.state is GroupState.PREPARING_REBALANCE:
            self._complete_join_if_all_joined(now_ms)
        elif unchanged and self._answers_as_before(member):
            member.joining = False
            self._replies.append(Reply(member.member_id, self._join_result(member)))
        else:
            self._prepare_rebalance(now_ms)

    def _take_over(self, former: str, request: JoinRequest, now_ms: int) -> None:
        """The member is back, under another id; or a second one uses its instance id."""
        member = self.members[former]
        suits = member.suits(request)
        if member.is_waiting:
            error = fenced(self.name, former, request.group_instance_id)
            self._replies.append(Reply(former, error))
        member.request = request
        member.joining = member.syncing = False
        self._heard_of(member, now_ms)
        self.members = {each.member_id: each for each in self.members.values()}
        if self.leader == former:
            self.leader = request.member_id
        stays = (
            self.state is GroupState.STABLE
            and chosen_protocol(self.members, self.leader or "") == self.protocol
            and suits
        )
        if stays:
            self._replies.append(
                Reply(request.member_id, self._join_result(member)._replace(members=()))
            )
            return
        member.joining = True
        if self.state is GroupState.PREPARING_REBALANCE:
            self._complete_join_if_all_joined(now_ms)
        else:
            self._prepare_rebalance(now_ms)

    def _answers_as_before(self, member: Member) -> bool:
        """A follower that joins without a change missed an answer; a leader wants a rebalance."""
        if self.state is GroupState.COMPLETING_REBALANCE:
            return True
        return self.state is GroupState.STABLE and member.member_id != self.leader

    def sync(
        self,
        member_id: str,
        generation: int,
        assignments: Mapping[str, bytes],
        now_ms: int,
        *,
        group_instance_id: str | None = None,
    ) -> None:
        """Ask for the assignment; the leader brings everybody's. The answer comes as a reply.
        Raises as `heartbeat`."""
        member = self._member(member_id, generation, group_instance_id)
        self._heard_of(member, now_ms)
        if self.state is GroupState.PREPARING_REBALANCE:
            raise rebalancing(self.name)
        member.syncing, member.owes_sync = True, False
        if self.state is GroupState.COMPLETING_REBALANCE and member_id == self.leader:
            for each in self.members.values():
                each.assignment = assignments.get(each.member_id, b"")
            self.state = GroupState.STABLE
        if self.state is GroupState.STABLE:
            self._answer_syncs(now_ms)
            if not any(each.owes_sync for each in self.members.values()):
                self._rebalance_deadline_ms = None

    def heartbeat(
        self, member_id: str, generation: int, now_ms: int, *, group_instance_id: str | None = None
    ) -> None:
        """The member is alive.

        Raises:
            UnknownMemberError, IllegalGenerationError, FencedInstanceIdError: not a member of this
                generation.
            RebalanceInProgressError: it should join again.
        """
        member = self._member(member_id, generation, group_instance_id)
        self._heard_of(member, now_ms)
        if self.state is GroupState.PREPARING_REBALANCE:
            raise rebalancing(self.name)

    def leave(self, member_id: str, now_ms: int) -> None:
        """The member goes; unknown ones are gone already."""
        if self._pending.pop(member_id, None) is not None:
            self._complete_join_if_all_joined(now_ms)
        if member_id in self.members:
            self._remove(member_id, now_ms)

    def rebalance(self, now_ms: int) -> None:
        """Have everybody join again: what there is to share out has changed."""
        if self.state in (GroupState.STABLE, GroupState.COMPLETING_REBALANCE):
            self._prepare_rebalance(now_ms)

    def check_commit(
        self,
        member_id: str,
        generation: int,
        now_ms: int,
        *,
        transactional: bool,
        group_instance_id: str | None = None,
    ) -> None:
        """Whether this member may commit offsets for the group. Raises as `heartbeat`."""
        nobody = not member_id and group_instance_id is None
        if generation < 0 and (not self.members or (nobody and transactional)):
            return  # no member of a group speaks; in a transaction its producer is fenced instead
        member = self._member(member_id, generation, group_instance_id)
        self._heard_of(member, now_ms)
        if self.state is GroupState.COMPLETING_REBALANCE and not transactional:
            raise rebalancing(self.name)

    def delete(self) -> None:
        """The group is gone; only for one without members."""
        assert not self.members
        self.state = GroupState.DEAD

    # Time

    def let_time_pass(self, now_ms: int) -> None:
        """Sessions end, and a rebalance stops waiting for those who did not come."""
        for member_id in [each for each, deadline in self._pending.items() if deadline <= now_ms]:
            self.leave(member_id, now_ms)
        for member in list(self.members.values()):
            if not member.is_waiting and member.deadline_ms <= now_ms:
                self._remove(member.member_id, now_ms)
        if self._rebalance_deadline_ms is not None and self._rebalance_deadline_ms <= now_ms:
            if self.state is GroupState.PREPARING_REBALANCE:
                self._stop_waiting(now_ms)
            else:
                self._drop_those_who_did_not_sync(now_ms)

    def _stop_waiting(self, now_ms: int) -> None:
        """As long as new members come, the first rebalance waits once more for others."""
        if not self._may_end_early and self._newcomers and self._initial_left_ms:
            wait_ms = min(self._initial_delay_ms, self._initial_left_ms)
            self._initial_left_ms -= wait_ms
            self._rebalance_deadline_ms = now_ms + wait_ms
            self._newcomers = False
        else:
            self._complete_join(now_ms)

    def _drop_those_who_did_not_sync(self, now_ms: int) -> None:
        self._rebalance_deadline_ms = None
        for member in [each for each in self.members.values() if each.owes_sync]:
            self._remove(member.member_id, now_ms)

    # Steps

    def _prepare_rebalance(self, now_ms: int) -> None:
        for member in self.members.values():
            member.owes_sync = False
            if member.syncing:
                member.syncing = False
                self._heard_of(member, now_ms)
                self._replies.append(Reply(member.member_id, rebalancing(self.name)))
        first = self.state is GroupState.EMPTY
        self.state = GroupState.PREPARING_REBALANCE
        self._may_end_early = not first or not self._initial_delay_ms
        wait_ms = rebalance_ms = self._rebalance_timeout_ms()
        if not self._may_end_early:
            wait_ms, self._newcomers = self._initial_delay_ms, False
            self._initial_left_ms = max(rebalance_ms - wait_ms, 0)
        self._rebalance_deadline_ms = now_ms + wait_ms
        self._complete_join_if_all_joined(now_ms)

    def _rebalance_timeout_ms(self) -> int:
        return max(each.request.rebalance_timeout_ms for each in self.members.values())

    def _complete_join_if_all_joined(self, now_ms: int) -> None:
        if (
            self.state is GroupState.PREPARING_REBALANCE
            and self._may_end_early
            and not self._pending
            and all(each.joining for each in self.members.values())
        ):
            self._complete_join(now_ms)

    def _complete_join(self, now_ms: int) -> None:
        """The generation is complete. Static members that did not come are in it all the same,
        until their sessions end; but somebody has to lead."""
        self.members = {
            each: who for each, who in self.members.items() if who.joining or who.is_static
        }
        if self.members and not any(each.joining for each in self.members.values()):
            self._rebalance_deadline_ms = now_ms + self._rebalance_timeout_ms()
            return
        self.generation += 1
        self._rebalance_deadline_ms = None
        if not self.members:
            self.state, self.leader, self.protocol = GroupState.EMPTY, None, None
            return
        if self.leader not in self.members or not self.members[self.leader].joining:
            self.leader = next(each for each, who in self.members.items() if who.joining)
        self.protocol = chosen_protocol(self.members, self.leader)
        self.state = GroupState.COMPLETING_REBALANCE
        self._rebalance_deadline_ms = now_ms + self._rebalance_timeout_ms()
        for member in self.members.values():
            member.owes_sync = True
            if member.joining:
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
                (
                    each.member_id,
                    each.request.group_instance_id,
                    dict(each.request.protocols)[self.protocol],
                )
                for each in everybody
            ),
        )

    def _answer_syncs(self, now_ms: int) -> None:
        for member in self.members.values():
            if member.syncing:
                member.syncing = False
                self._heard_of(member, now_ms)
                self._replies.append(Reply(member.member_id, SyncResult(member.assignment)))

    def _remove(self, member_id: str, now_ms: int) -> None:
        member = self.members.pop(member_id)
        if member.is_waiting:
            self._replies.append(Reply(member_id, unknown(self.name, member_id)))
        if self.leader == member_id:
            self.leader = next(iter(self.members), None)
        if not self.members:
            self._complete_join(now_ms)
        elif self.state is GroupState.PREPARING_REBALANCE:
            self._complete_join_if_all_joined(now_ms)
        else:
            self._prepare_rebalance(now_ms)

    def _heard_of(self, member: Member, now_ms: int) -> None:
        member.deadline_ms = now_ms + member.request.session_timeout_ms

    def _member(self, member_id: str, generation: int, group_instance_id: str | None) -> Member:
        current = self.member_of_instance(group_instance_id)
        if current is not None and current != member_id:
            raise fenced(self.name, member_id, group_instance_id)
        member = self.members.get(member_id)
        if member is None or (group_instance_id is not None and current is None):
            raise unknown(self.name, member_id)
        if generation != self.generation:
            raise outdated(self.name, member_id, generation, self.generation)
        return member

"""One group of KIP-848 as a state machine: the coordinator assigns, members move to it one by one.

    group epoch        rises when members, subscriptions or topics change
    target assignment  who should have what in that epoch; made anew by the next heartbeat
    member epoch       the epoch a member has reached

A member on its way to the target first gives up what it should no longer have (UNREVOKED: it stays
in its epoch until it says that it owns none of it), then gets what nobody else has any more, in the
target's epoch (UNRELEASED while something is still with others). So no partition has two owners,
and only members that a change concerns do anything. One that does not give up within its rebalance
time-out, or is not heard of for the session time-out, is out.

Synchronous: every call is told the time (monotonic milliseconds). A call that raises changed
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from millstream.log.errors import GroupMaxSizeReachedError
from millstream.log.ids import random_id

from .group_fencing import fenced, unknown
from .modern_assignors import chosen_assignor, shared_out
from .modern_values import (
    JOIN,
    LEAVE_FOR_A_WHILE,
    Heartbeat,
    HeartbeatResult,
    MemberState,
    ModernMember,
    Place,
    StaleMemberEpochError,
    TopicFacts,
    UnreleasedInstanceIdError,
    fenced_epoch,
)

__all__ = ["ModernGroup"]


class ModernGroup:
    """One group and its members."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = 0
        self.assignment_epoch = 0
        self.members: dict[str, ModernMember] = {}
        self.target: dict[str, frozenset[Place]] = {}
        self.changed = False
        """Whether there is something that its coordinator has not written down."""
        self.empty_since_ms = 0
        """Wall clock; its coordinator keeps it. 0 when it is not known since a restart."""
        self._topics: TopicFacts | None = None  # of the target assignment
        self._subscribed: frozenset[str] | None = None  # when it is known
        self._holders: dict[Place, str] = {}
        self._sessions: dict[str, int] = {}  # member id -> until when
        self._revocations: dict[str, int] = {}

    def restore(
        self,
        epoch: int,
        assignment_epoch: int,
        members: Mapping[str, ModernMember],
        target: Mapping[str, frozenset[Place]],
    ) -> None:
        """Take over what was written down; `start_sessions` follows."""
        self.epoch, self.assignment_epoch = epoch, assignment_epoch
        self.target = dict(target)
        for member in members.values():
            self._put(member)
        self.changed = False

    def start_sessions(self, now_ms: int, session_timeout_ms: int) -> None:
        """After a restart every member has its whole time to be heard of again."""
        for member in self.members.values():
            self._sessions[member.member_id] = now_ms + session_timeout_ms
            self._watch_revocation(member, now_ms)

    def recall(self, name_of: Callable[[str], str | None]) -> None:
        """Before the first heartbeat after a restart: a pattern is about the topics of which its
        member should have something, until it is heard of. `name_of`: of a topic's id."""
        if self._topics is not None:
            return
        for member in list(self.members.values()):
            if member.regex:
                places = member.held | self.target.get(member.member_id, frozenset())
                found = {name_of(topic_id) for topic_id in {each for each, _ in places}}
                topics = frozenset(each for each in found if each is not None)
                self.members[member.member_id] = member._replace(regex_topics=topics)
                self._subscribed = None

    @property
    def knows_topics(self) -> bool:
        """Whether it is known what all members read: not with members that were restored, and none
        of which was heard of since."""
        return self._topics is not None or not self.members

    @property
    def state(self) -> str:
        """Kafka's name of it."""
        if not self.members:
            return "Empty"
        if self.epoch > self.assignment_epoch:
            return "Assigning"
        if all(self._is_there(each) for each in self.members.values()):
            return "Stable"
        return "Reconciling"

    @property
    def assignor(self) -> str:
        """The name of the assignor that is used."""
        return chosen_assignor(self.members.values())

    def subscribed_topics(self) -> frozenset[str]:
        """What the members want to read."""
        if self._subscribed is None:
            everybody = self.members.values()
            self._subscribed = frozenset().union(*(each.subscribed for each in everybody))
        return self._subscribed

    def member_of_instance(self, instance_id: str) -> ModernMember | None:
        """The static member with this instance id."""
        return next((e for e in self.members.values() if e.instance_id == instance_id), None)

    # Requests

    def heartbeat(
        self,
        request: Heartbeat,
        topics: TopicFacts,
        now_ms: int,
        *,
        session_timeout_ms: int,
        size_max: int,
    ) -> HeartbeatResult:
        """A member joins, or is alive. `topics`: those that exist of those anybody wants.

        Raises:
            UnknownMemberError, FencedMemberEpochError: it has to join again.
            FencedInstanceIdError, UnreleasedInstanceIdError: another member has its instance id.
            GroupMaxSizeReachedError: there is no room for a new member.
        """
        if len(self.members) >= size_max and request.member_id not in self.members:
            raise GroupMaxSizeReachedError(
                f"Group {self.name} has {size_max} members already. Raise "
                "group.consumer.max.size, or use fewer consumers."
            )
        before = self._member_before(request)
        if before.member_id not in self.members or request.epoch == JOIN:
            self._take_place(before)
        member = _with_news(before, request)
        is_other = member.subscribed != before.subscribed or member.regex != before.regex
        self._put(member)
        wanted = self.subscribed_topics()
        facts = {name: topics[name] for name in topics if name in wanted}
        if is_other or facts != self._topics or before.assignor != member.assignor:
            self.epoch += 1
            self.changed = True
            self._topics = facts
        if self.epoch > self.assignment_epoch:
            self.target = shared_out(self.members.values(), self.target, facts)
            self.assignment_epoch = self.epoch
        member = self._on_its_way(member, request.owned)
        self._put(member)
        if member.state is not MemberState.UNREVOKED:
            self._revocations.pop(member.member_id, None)
        elif member.state is not before.state or member.epoch != before.epoch:
            self._watch_revocation(member, now_ms)
        self._sessions[member.member_id] = now_ms + session_timeout_ms
        tells = request.is_full or member.assigned != before.assigned
        return HeartbeatResult(member.member_id, member.epoch, member.assigned if tells else None)

    def leave(self, member_id: str, instance_id: str | None, *, for_a_while: bool) -> None:
        """The member goes. A static one `for_a_while` keeps its place until its session ends.

        Raises:
            UnknownMemberError, FencedInstanceIdError: it is no member.
        """
        member = self._known(member_id, instance_id)
        if for_a_while:
            self._put(member._replace(epoch=LEAVE_FOR_A_WHILE, revoking=frozenset()))
            self._revocations.pop(member_id, None)
        else:
            self.remove(member_id)

    def remove(self, member_id: str) -> None:
        """The member is out; the others share out what it had."""
        self._drop(member_id)
        self.target.pop(member_id, None)
        self.epoch += 1

    def let_time_pass(self, now_ms: int) -> list[str]:
        """Take out who was not heard of, or gave nothing up, in time; returns their ids."""
        late = {
            member_id
            for deadlines in (self._sessions, self._revocations)
            for member_id, deadline_ms in deadlines.items()
            if deadline_ms <= now_ms
        }
        for member_id in sorted(late):
            self.remove(member_id)
        return sorted(late)

    def next_deadline_ms(self) -> int | None:
        """When `let_time_pass` has something to do."""
        return min((*self._sessions.values(), *self._revocations.values()), default=None)

    def check_epoch(self, member_id: str, epoch: int) -> None:
        """Whether a member may commit or read offsets.

        Raises:
            UnknownMemberError, StaleMemberEpochError: it may not.
        """
        member = self._known(member_id, None)
        if epoch != member.epoch:
            raise StaleMemberEpochError(
                f"Group {self.name}: member {member_id} speaks for epoch {epoch}, its epoch is "
                f"{member.epoch}. Ask again with that."
            )

    # Steps

    def _member_before(self, request: Heartbeat) -> ModernMember:
        """The member as it was; one that joins has nothing yet, or what it left for a while."""
        if request.epoch != JOIN:
            member = self._known(request.member_id, request.instance_id)
            is_repeated = (
                request.epoch == member.previous_epoch
                and request.owned is not None
                and request.owned <= member.assigned
            )
            if request.epoch != member.epoch and not (is_repeated and request.epoch < member.epoch):
                raise fenced_epoch(self.name, member, request.epoch)
            return member
        member_id = request.member_id or random_id()
        former = None
        if request.instance_id is not None:
            former = self.member_of_instance(request.instance_id)
        if former is not None and former.epoch == LEAVE_FOR_A_WHILE:
            return former._replace(member_id=member_id, epoch=JOIN, previous_epoch=JOIN)
        if former is not None and former.member_id != member_id:
            raise UnreleasedInstanceIdError(
                f"Group {self.name}: member {former.member_id} has group.instance.id="
                f"{request.instance_id} and has not left. Give every consumer an instance id of "
                "its own, or wait until the session of the other one is over."
            )
        known = self.members.get(member_id, ModernMember(member_id))
        return known._replace(
            epoch=JOIN,
            previous_epoch=JOIN,
            state=MemberState.STABLE,
            assigned=frozenset(),
            revoking=frozenset(),
        )

    def _take_place(self, member: ModernMember) -> None:
        """Put in who joins; who comes back under another id takes over from who left."""
        former = None
        if member.instance_id is not None:
            former = self.member_of_instance(member.instance_id)
        if former is not None and former.member_id != member.member_id:
            self._drop(former.member_id)
            self.target[member.member_id] = self.target.pop(former.member_id, frozenset())
        self._put(member)

    def _on_its_way(self, member: ModernMember, owned: frozenset[Place] | None) -> ModernMember:
        """The member, as far as it can go now towards what it should have."""
        if self._is_there(member):
            return member
        was_asked = False
        if member.state is MemberState.UNREVOKED:
            if owned is None or owned & member.revoking:
                return member
            member = member._replace(revoking=frozenset())
            self._put(member)
            was_asked = True
        target = self.target.get(member.member_id, frozenset())
        keeps = member.assigned & target
        revoking = member.assigned - keeps
        if revoking and (owned is None or owned & revoking):
            if was_asked:  # it has done what its next epoch asked for
                member = member.moved_to(member.epoch + 1)
            return member._replace(state=MemberState.UNREVOKED, assigned=keeps, revoking=revoking)
        own = member.member_id
        free = {each for each in target - keeps if self._holders.get(each, own) == own}
        waits = bool(target - keeps - free)
        return member.moved_to(self.assignment_epoch)._replace(
            state=MemberState.UNRELEASED if waits else MemberState.STABLE,
            assigned=keeps | free,
            revoking=frozenset(),
        )

    def _is_there(self, member: ModernMember) -> bool:
        return member.state is MemberState.STABLE and member.epoch == self.assignment_epoch

    def _watch_revocation(self, member: ModernMember, now_ms: int) -> None:
        if member.state is MemberState.UNREVOKED:
            self._revocations[member.member_id] = now_ms + member.rebalance_timeout_ms

    def _known(self, member_id: str, instance_id: str | None) -> ModernMember:
        if instance_id is None:
            member = self.members.get(member_id)
        else:
            member = self.member_of_instance(instance_id)
            if member is not None and member.member_id != member_id:
                raise fenced(self.name, member_id, instance_id)
        if member is None:
            raise unknown(self.name, member_id)
        return member

    def _put(self, member: ModernMember) -> None:
        before = self.members.get(member.member_id)
        self.changed |= before != member
        if (
            before is None
            or before.topics is not member.topics
            or before.regex_topics is not member.regex_topics
        ):
            self._subscribed = None
        if before is not None:
            for place in before.held:
                self._holders.pop(place, None)
        self.members[member.member_id] = member
        for place in member.held:
            self._holders[place] = member.member_id

    def _drop(self, member_id: str) -> None:
        self.changed = True
        self._subscribed = None
        for place in self.members.pop(member_id).held:
            self._holders.pop(place, None)
        self._sessions.pop(member_id, None)
        self._revocations.pop(member_id, None)


def _with_news(member: ModernMember, request: Heartbeat) -> ModernMember:
    timeout_ms = request.rebalance_timeout_ms
    return member._replace(
        client_id=request.client_id,
        client_host=request.client_host,
        instance_id=request.instance_id or member.instance_id,
        rack_id=request.rack_id or member.rack_id,
        rebalance_timeout_ms=member.rebalance_timeout_ms if timeout_ms == -1 else timeout_ms,
        topics=member.topics if request.topics is None else request.topics,
        regex=member.regex if request.regex is None else request.regex,
        regex_topics=request.regex_topics,
        assignor=request.assignor or member.assignor,
    )

"""Which assignor a group uses: one that all members know, by vote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from millstream.log.errors import InconsistentGroupProtocolError

from .group_values import JoinRequest, Member

__all__ = ["check_protocols", "chosen_protocol"]


def chosen_protocol(members: Mapping[str, Member], leader: str) -> str:
    """Of the assignors all members know, the one most of them prefer; ties go by the leader."""
    shared = _shared_protocols(members.values())
    votes = dict.fromkeys((name for name, _ in members[leader].request.protocols), 0)
    for member in members.values():
        votes[next(name for name, _ in member.request.protocols if name in shared)] += 1
    return max(votes, key=lambda name: votes[name])


def check_protocols(
    group: str, protocol_type: str, others: Iterable[Member], request: JoinRequest
) -> None:
    """Raises InconsistentGroupProtocolError when the member shares no assignor with the others."""
    own = {name for name, _ in request.protocols}
    if not own or not request.protocol_type:
        raise InconsistentGroupProtocolError(
            f"Group {group}: a member that knows no assignor cannot join. Give it one in "
            "partition.assignment.strategy."
        )
    known = list(others)
    if not known:
        return
    if request.protocol_type != protocol_type:
        raise InconsistentGroupProtocolError(
            f"Group {group} is of type {protocol_type!r}, the member is of type "
            f"{request.protocol_type!r}. Use another group."
        )
    if not own & _shared_protocols(known):
        raise InconsistentGroupProtocolError(
            f"Group {group}: the members share no assignor with this one, which offers "
            f"{', '.join(sorted(own))}. Give all the same partition.assignment.strategy."
        )


def _shared_protocols(members: Iterable[Member]) -> set[str]:
    return set.intersection(*({name for name, _ in each.request.protocols} for each in members))

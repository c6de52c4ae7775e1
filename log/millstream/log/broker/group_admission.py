"""Who can join a group of the classic protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from millstream.log.config import BrokerConfig
from millstream.log.errors import (
    GroupMaxSizeReachedError,
    InconsistentGroupProtocolError,
    InvalidRequestError,
    InvalidSessionTimeoutError,
)
from millstream.log.ids import random_id
from millstream.log.limits import MEMBER_METADATA_BYTES_MAX

from .group_values import JoinRequest
from .groups import Group
from .modern_group import ModernGroup
from .primitives import check_string

__all__ = ["admitted", "check_assigned", "check_empty_for_classic", "check_size"]


def admitted(config: BrokerConfig, group: str, request: JoinRequest) -> JoinRequest:
    """The request, with an id where the member is new.

    Raises:
        InvalidSessionTimeoutError: session.timeout.ms is out of bounds.
        InvalidRequestError: the subscription is too long, or a name, with which a new id begins.
    """
    check_string("Group", group)
    _check_size_of(f"Group {group}: a subscription", (data for _, data in request.protocols))
    low, high = config.group_min_session_timeout_ms, config.group_max_session_timeout_ms
    if not low <= request.session_timeout_ms <= high:
        raise InvalidSessionTimeoutError(
            f"session.timeout.ms is {request.session_timeout_ms}; it can be "
            f"group.min.session.timeout.ms={low} to group.max.session.timeout.ms={high}."
        )
    if not request.member_id:
        prefix = request.group_instance_id or request.client_id
        request = request._replace(member_id=f"{prefix}-{random_id()}")
    check_string("Member", request.member_id)
    return request


def check_assigned(group: str, assignments: Mapping[str, bytes]) -> None:
    """Raises InvalidRequestError for one that is too long."""
    for each in assignments.values():
        _check_size_of(f"Group {group}: an assignment", (each,))


def _check_size_of(what: str, parts: Iterable[bytes]) -> None:
    size_bytes = sum(map(len, parts))
    if size_bytes > MEMBER_METADATA_BYTES_MAX:
        raise InvalidRequestError(
            f"{what} of {size_bytes} bytes; it can have {MEMBER_METADATA_BYTES_MAX}. Use more "
            "groups, with fewer topics each."
        )


def check_size(config: BrokerConfig, group: Group, member_id: str | None) -> None:
    """Raises GroupMaxSizeReachedError when there is no room for this member."""
    known = member_id is not None and (member_id in group.members or group.is_expected(member_id))
    if not known and group.size() >= config.group_max_size:
        raise GroupMaxSizeReachedError(
            f"Group {group.name} has group.max.size={config.group_max_size} members already. "
            "Raise it, or use fewer consumers."
        )


def check_empty_for_classic(group: ModernGroup | None) -> None:
    """Raises InconsistentGroupProtocolError when members of KIP-848 are in the group."""
    if group is not None and group.members:
        raise InconsistentGroupProtocolError(
            f"Group {group.name} has members with group.protocol=consumer. Use it here too, "
            "another group.id, or stop them first."
        )

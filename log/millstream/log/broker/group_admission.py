"""Who can join a group of the classic protocol."""

from __future__ import annotations

from millstream.log.config import BrokerConfig
from millstream.log.errors import (
    GroupMaxSizeReachedError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
)
from millstream.log.ids import random_id

from .group_values import JoinRequest
from .groups import Group
from .modern_group import ModernGroup
from .primitives import check_string

__all__ = ["check_empty_for_classic", "check_session_timeout", "check_size", "named"]


def named(request: JoinRequest) -> JoinRequest:
    """The request, with an id where the member is new. It begins with what the client calls itself:
    raises InvalidRequestError when no record can hold it."""
    if not request.member_id:
        prefix = request.group_instance_id or request.client_id
        request = request._replace(member_id=f"{prefix}-{random_id()}")
    check_string("Member", request.member_id)
    return request


def check_session_timeout(config: BrokerConfig, request: JoinRequest) -> None:
    """Raises InvalidSessionTimeoutError."""
    low, high = config.group_min_session_timeout_ms, config.group_max_session_timeout_ms
    if not low <= request.session_timeout_ms <= high:
        raise InvalidSessionTimeoutError(
            f"session.timeout.ms is {request.session_timeout_ms}; it can be "
            f"group.min.session.timeout.ms={low} to group.max.session.timeout.ms={high}."
        )


def check_size(config: BrokerConfig, group: Group, member_id: str | None) -> None:
    """Raises GroupMaxSizeReachedError when there is no room for this member."""
    known = member_id is not None and (member_id in group.members or group.is_expected(member_id))
    if not known and group.size() >= config.group_max_size:
        raise GroupMaxSizeReachedError(
            f"Group {group.name} has group.max.size={config.group_max_size} members already. "
            "Raise it, or use fewer consumers."
        )


def check_empty_for_classic(group: ModernGroup) -> None:
    """Raises InconsistentGroupProtocolError when members of KIP-848 are in the group."""
    if group.members:
        raise InconsistentGroupProtocolError(
            f"Group {group.name} has members with group.protocol=consumer. Use it here too, "
            "another group.id, or stop them first."
        )

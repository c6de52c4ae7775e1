"""ApiVersions: what the server speaks (KIP-35, KIP-511).

One who asks in a version that is not there is told which are, in version 0, and asks again.
"""

from __future__ import annotations

import re
from typing import Any

from millstream.log.server.dispatch import API_VERSIONS, UNSUPPORTED_VERSION, apis
from millstream.log.server.handler import Context, Fields, Handler

__all__ = ["HANDLERS"]

_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?")
_INVALID_REQUEST = 42
_KNOWS_LEVEL_0_FROM = 4
"""Older clients do not understand a feature that may be off (KIP-1022)."""
_SUPPORTED = [
    {"name": "group.version", "min_version": 0, "max_version": 1},
    {"name": "transaction.version", "min_version": 0, "max_version": 2},
]
_FINALIZED: Fields = {
    "finalized_features_epoch": 0,
    "finalized_features": [
        {"name": "group.version", "min_version_level": 1, "max_version_level": 1},
        {"name": "transaction.version", "min_version_level": 2, "max_version_level": 2},
    ],
}
"""Groups may be of KIP-848; clients that know KIP-890 need not announce what they write to in a
transaction."""


async def _api_versions(request: Any, context: Context) -> Fields:
    if request is None:
        entry = _entry(API_VERSIONS, HANDLERS[API_VERSIONS])
        return {"error_code": UNSUPPORTED_VERSION, "api_keys": [entry]}
    if context.version >= 3:
        software = (request.client_software_name, request.client_software_version)
        if not all(_SOFTWARE.fullmatch(each) for each in software):
            return {"error_code": _INVALID_REQUEST}
        context.peer.client_software = " ".join(software)
    api_keys = [_entry(key, handler) for key, handler in apis().items()]
    supported = _SUPPORTED if context.version >= _KNOWS_LEVEL_0_FROM else []
    return {"api_keys": api_keys, "supported_features": supported, **_FINALIZED}


def _entry(key: int, handler: Handler) -> Fields:
    versions = handler.versions
    advertised_from = handler.advertised_from
    return {
        "api_key": key,
        "min_version": versions.start if advertised_from is None else advertised_from,
        "max_version": versions.stop - 1,
    }


HANDLERS = {API_VERSIONS: Handler(range(5), _api_versions)}

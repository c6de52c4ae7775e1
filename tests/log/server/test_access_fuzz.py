"""Any request of any API, from who may do nothing, little or everything, and with quotas: it is
answered, and nobody without rights changes anything."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from millstream.log import open_log
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.config import INTERNAL_TOPICS
from millstream.log.security.acl import Acl, Operation, Pattern, Permission, Resource
from millstream.log.security.authorizer import Authorizer
from millstream.log.security.quotas import DEFAULT, QUOTAS, Entity, Quotas
from millstream.log.server.decoding import MalformedRequestError
from millstream.log.server.dispatch import LOGIN_APIS, apis, call_of, respond
from millstream.log.server.handler import Context, HangUpError, Identity, Peer
from shared.hostile import changed, random_request, recorded_requests

NOBODY, ANNA, ROOT = "User:nobody", "User:anna", "User:root"


def authorizer() -> Authorizer:
    """anna may do everything to what begins with "fuzzed"."""
    found = Authorizer([ROOT], allow_if_no_acl=False)
    kinds = (Resource.TOPIC, Resource.GROUP, Resource.TRANSACTIONAL_ID)
    allow = ("*", Operation.ALL, Permission.ALLOW)
    found.set_acls(Acl(kind, "fuzzed", Pattern.PREFIXED, ANNA, *allow) for kind in kinds)
    return found


def frames(source: random.Random) -> list[bytes]:
    """Of every version of every API, and of clients, as they were and changed."""
    found = [
        random_request(source, key, version)
        for key, handler in apis().items()
        if key not in LOGIN_APIS
        for version in handler.versions
        for _ in range(3)
    ]
    recorded = recorded_requests()
    return [*found, *recorded, *(changed(source, each) for each in (*found, *recorded))]


async def asked(log: EmbeddedLog, peer: Peer, frame: bytes) -> None:
    """Nothing but what closes the connection may be raised."""
    with suppress(MalformedRequestError, HangUpError, TimeoutError):
        call = call_of(frame)
        header = call.header
        context = Context(
            log._broker, Identity("c", "h", 1), peer, header.client_id, header.api_key,
            call.version,
        )  # fmt: skip
        async with asyncio.timeout(0.05):  # some wait, for records or for members
            await respond(call, context)


def state(log: EmbeddedLog) -> Any:
    broker = log._broker
    return (
        [(each, broker.partitions.topic(each)) for each in broker.partitions.topics()],
        [(each.topic_partition, each.log_end_offset) for each in broker.partitions],
        [each.name for each in broker.groups],
        (broker.security().users, broker.security().acls, broker.security().quotas),
        broker.transactions.stats(),
    )


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("principal", [NOBODY, ANNA, ROOT])
def test_any_request(principal: str, seed: int) -> None:
    source = random.Random(seed)
    limits = Quotas({Entity(DEFAULT, None): dict.fromkeys(QUOTAS, 1.0)})

    async def main() -> None:
        async with open_log("memory:") as log:
            assert isinstance(log, EmbeddedLog)
            await log.create_topic("t")
            before = state(log)
            for number, frame in enumerate(frames(source)):
                peer = Peer("10.0.0.1", authorizer(), limits if number % 2 else Quotas({}))
                peer.principal = principal
                await asked(log, peer, frame)
            after = state(log)
            assert (after == before) is (principal == NOBODY)
            if principal == ANNA:
                names = {name for name, _ in after[0]} | set(after[2])
                assert names - {"t", *INTERNAL_TOPICS} <= {"fuzzed", "fuzzed-2"}
                assert after[3] == before[3]

    asyncio.run(asyncio.wait_for(main(), 100))

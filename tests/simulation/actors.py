"""Who works on the log. Each is a coroutine that does a number of random things and keeps the books
of them. Errors that the log may answer end what was being done, not the actor."""

from __future__ import annotations

import asyncio

from .administration import administrate
from .consumers import chain, consume, read
from .plan import AUTO_GROUP, STEADY_GROUP
from .producers import produce, transact
from .world import World


async def act(world: World, name: str) -> None:
    """The actor of this name."""
    kind, _, argument = name.partition(":")
    await asyncio.sleep(world.rng.random() * world.life.duration_ms / 5000)
    if kind == "produce":
        await produce(world)
    elif kind == "transact":
        await transact(world, argument)
    elif kind == "chain":
        await chain(world, argument)
    elif kind == "read":
        await read(world)
    elif kind == "administrate":
        await administrate(world)
    else:
        await consume(world, {"steady": STEADY_GROUP, "auto": AUTO_GROUP}[kind])

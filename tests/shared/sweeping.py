"""What sweeps share: each disk judged once, a failure that says where, an order that finds soon."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from millstream.log.testing.sim_files import SimFiles


def distinct(disks: Iterable[SimFiles]) -> Iterator[SimFiles]:
    """Each disk once: one that holds what another held, all of it synced, is the same again."""
    seen = set()
    for disk in disks:
        contents = disk.contents()
        if contents not in seen:
            seen.add(contents)
            yield disk


@contextmanager
def noting(where: object) -> Iterator[None]:
    """Whatever is raised goes on as it is, with this note. As it is, so that a test which puts a
    bug in on purpose can tell that the sweep caught it from an error of the test's own."""
    try:
        yield
    except Exception as error:
        error.add_note(str(where))
        raise


def coarse_first(sweep: Callable[..., object], *, step: int = 11) -> None:
    """Every point, from one end to the other and again: a bug that only late ones show is found
    after a part of the points before them."""
    for offset in range(step):
        sweep(step=step, offset=offset)

"""What sweeps share: a failure that says where the sweep was; an order that finds bugs soon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


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

"""What every sweep needs: a failure that says where the sweep was."""

from __future__ import annotations

from collections.abc import Iterator
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

"""The sweep of failing disks finds bugs: each of these is put in on purpose and must be caught."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import pytest

from millstream.log.broker import catalog
from millstream.log.broker.producer_ids import ProducerIds
from millstream.log.errors import LogError, StorageError
from millstream.log.storage.flush import Flush
from millstream.log.storage.log_dir import LogDir
from millstream.log.storage.partition import Partition
from shared.error_sweep import sweep

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch


def errors_of_the_system_escape(patch: Patch) -> None:
    patch.setattr(catalog, "disk_errors", nullcontext)


def a_failed_fsync_is_taken_for_a_good_one(patch: Patch) -> None:
    original = Flush.run

    def run(self: Any) -> None:
        with suppress(OSError):
            original(self)

    patch.setattr(Flush, "run", run)


def writing_goes_on_after_half_a_batch(patch: Patch) -> None:
    original = Partition._write

    def write(self: Any, *arguments: Any) -> Any:
        try:
            return original(self, *arguments)
        except StorageError:
            self._error = None
            raise

    patch.setattr(Partition, "_write", write)


def a_failed_start_keeps_the_lock(patch: Patch) -> None:
    original = LogDir.close

    def close(self: Any, *, clean: bool = True) -> None:
        if clean:
            original(self)

    patch.setattr(LogDir, "close", close)


def a_read_that_fails_ends_all_writing(patch: Patch) -> None:
    original = Partition._unreadable

    def unreadable(self: Any, error: OSError) -> StorageError:
        self._error = error
        return original(self, error)

    patch.setattr(Partition, "_unreadable", unreadable)


def files_stay_open_behind_one_that_fails(patch: Patch) -> None:
    def close_partitions(self: Any, *, clean: bool) -> None:
        for partition in self.partitions.values():
            partition.close(clean=clean)

    patch.setattr(LogDir, "_close_partitions", close_partitions)


def what_a_checkpoint_could_not_remove_is_forgotten(patch: Patch) -> None:
    patch.setattr(Partition, "drop_again", lambda _self, _segment: None)


def an_error_that_says_nothing(patch: Patch) -> None:
    def fill(self: Any) -> None:
        try:
            original(self)
        except StorageError:
            raise StorageError("disk error") from None

    original = ProducerIds.fill
    patch.setattr(ProducerIds, "fill", fill)


@pytest.mark.parametrize(
    "mutation",
    [
        errors_of_the_system_escape,
        a_failed_fsync_is_taken_for_a_good_one,
        writing_goes_on_after_half_a_batch,
        a_failed_start_keeps_the_lock,
        a_read_that_fails_ends_all_writing,
        files_stay_open_behind_one_that_fails,
        what_a_checkpoint_could_not_remove_is_forgotten,
        an_error_that_says_nothing,
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_the_sweep_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, OSError, LogError)):
        sweep("EIO", step=3)

"""The sweep of failing disks finds bugs: each of these is put in on purpose and must be caught."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import pytest

from millstream.log.broker import catalog, flusher
from millstream.log.broker.catalog import Catalog
from millstream.log.broker.producer_ids import ProducerIds
from millstream.log.errors import StorageError
from millstream.log.storage.log_dir import LogDir
from millstream.log.storage.partition import Partition
from millstream.log.storage.txn_index import TxnIndex
from shared.error_sweep import sweep

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch


def errors_of_the_system_escape(patch: Patch) -> None:
    patch.setattr(catalog, "disk_errors", nullcontext)


def a_failed_fsync_is_taken_for_a_good_one(patch: Patch) -> None:
    original = Partition.finish_flush
    patch.setattr(Partition, "finish_flush", lambda self, flush, _: original(self, flush, None))
    patch.setattr(flusher, "_failed", lambda *_: None)


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


def a_topic_that_was_not_written_down_is_there(patch: Patch) -> None:
    original = Catalog._write_table

    def write(self: Any, topics: Any) -> None:
        with suppress(OSError):
            original(self, topics)

    patch.setattr(Catalog, "_write_table", write)


def an_abort_is_forgotten_when_its_index_cannot_be_read(patch: Patch) -> None:
    original = TxnIndex.entries

    def entries(self: Any) -> Any:
        try:
            return original(self)
        except OSError:
            self._aborted = []
            return self._aborted

    patch.setattr(TxnIndex, "entries", entries)


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
        a_topic_that_was_not_written_down_is_there,
        an_abort_is_forgotten_when_its_index_cannot_be_read,
        files_stay_open_behind_one_that_fails,
        what_a_checkpoint_could_not_remove_is_forgotten,
        an_error_that_says_nothing,
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_the_sweep_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, OSError)):
        sweep("EIO", step=3)

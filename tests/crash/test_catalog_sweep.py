"""Topics are created, altered, cleaned and deleted while the machine stops, or the disk refuses, at
every operation; and the sweep finds bugs that are put in on purpose.

The workload, the disks and what must hold on them are in shared/catalog_sweep.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest

from millstream.log.broker import catalog
from millstream.log.broker.catalog import Catalog
from millstream.log.broker.topics import TopicTable
from millstream.log.errors import LogError
from millstream.log.storage import log_dir
from millstream.log.storage.checkpointing import Checkpoints
from shared.catalog_sweep import sweep, sweep_errors
from shared.sweeping import coarse_first

Patch = pytest.MonkeyPatch


def test_crashes_at_many_points() -> None:
    assert sweep(step=19) > 140


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
def test_operations_fail(kind: Literal["EIO", "ENOSPC"]) -> None:
    assert sweep_errors(kind, step=53, offset=7) > 15


@pytest.mark.slow
@pytest.mark.parametrize("offset", range(4))
def test_every_crash_point_on_every_disk(offset: int) -> None:
    assert sweep(step=4, offset=offset, all_of_them=True) > 800


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
def test_every_operation_fails(kind: Literal["EIO", "ENOSPC"]) -> None:
    assert sweep_errors(kind) > 950


# What must be caught


def table_not_synced(patch: Patch) -> None:
    def replace_file(files: Any, path: str, data: bytes) -> None:
        handle = files.open(path + ".tmp", create=True)
        handle.truncate(0)
        handle.append(data)
        handle.close()
        files.rename(path + ".tmp", path)

    patch.setattr(catalog, "replace_file", replace_file)


def altered_in_two_steps(patch: Patch) -> None:
    original = Catalog.alter

    def alter(self: Catalog, topic: Any, now_ms: int) -> None:
        before = self.topics.get(topic.name)
        original(self, topic._replace(partitions=before.partitions), now_ms)
        original(self, topic, now_ms)

    patch.setattr(Catalog, "alter", alter)


def folders_go_before_the_entry(patch: Patch) -> None:
    original = Catalog.forget

    def forget(self: Catalog, name: str) -> None:
        topic = self.topics.get(name)
        self._log_dir.remove(self.detach(topic), topic.topic_id)
        original(self, name)

    patch.setattr(Catalog, "forget", forget)


def deleted_ids_are_not_kept(patch: Patch) -> None:
    original = TopicTable.without

    def without(self: TopicTable, name: str) -> TopicTable:
        table = original(self, name)
        table.deleted_ids.clear()
        return table

    patch.setattr(TopicTable, "without", without)


def folders_not_synced(patch: Patch) -> None:
    class NoFolderSync:
        def __init__(self, files: Any) -> None:
            self._files = files

        def __getattr__(self, name: str) -> Any:
            return getattr(self._files, name)

        def fsync_dir(self, path: str) -> None:
            if path.count("/"):
                self._files.fsync_dir(path)

    original = log_dir.create_partition

    def create(request: Any, *, topic_id: str) -> Any:
        quiet = replace(request, files=NoFolderSync(request.files))
        return original(quiet, topic_id=topic_id)

    patch.setattr(log_dir, "create_partition", create)


def segments_go_before_their_checkpoint_newest_first(patch: Patch) -> None:
    original = Checkpoints.write

    def write(self: Checkpoints, partitions: Any) -> None:
        for partition in partitions.values():
            for segment in reversed(partition.take_dropped()):
                segment.remove()
        original(self, partitions)

    patch.setattr(Checkpoints, "write", write)


def partitions_made_for_good_before_the_entry(patch: Patch) -> None:
    """What a change that failed had made is opened as if it had not."""
    patch.setattr(Catalog, "_fate", lambda *_: "open")


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutation",
    [
        table_not_synced,
        altered_in_two_steps,
        folders_go_before_the_entry,
        deleted_ids_are_not_kept,
        folders_not_synced,
        segments_go_before_their_checkpoint_newest_first,
        partitions_made_for_good_before_the_entry,
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_the_sweep_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, ValueError, KeyError, LogError)):
        coarse_first(sweep)

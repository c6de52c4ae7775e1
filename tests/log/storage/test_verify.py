"""verify_log: silent about every log that is as it was written, and about no damage."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.log.open import open_log_on
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.verify import log_size_bytes, verify_log
from millstream.log.testing.fake_clock import FakeClock
from shared.damage import FOLDER, copy_of, errors, files_of, whole_log
from shared.log_sweep import CONFIG

WHOLE = whole_log()
PATHS = [path for path, node in files_of(WHOLE) if node.content]
KINDS = sorted({path.rpartition("/")[2].lstrip("0123456789") for path in PATHS})


def of_kind(kind: str) -> list[str]:
    return [path for path in PATHS if path.rpartition("/")[2].lstrip("0123456789") == kind]


def content(files: MemoryFiles, path: str) -> bytearray:
    return dict(files_of(files))[path].content


def lower_offsets(before: bytes, after: bytes) -> bool:
    """Whether two transaction indexes differ in first offsets and stable offsets that are lower."""
    return all(
        old[:2] == new[:2] and old[3] == new[3] and 0 <= new[2] <= old[2] and 0 <= new[4] <= old[4]
        for old, new in zip(
            struct.iter_unpack(">hqqqq", before), struct.iter_unpack(">hqqqq", after), strict=True
        )
    )


def is_harmless(path: str, before: bytes, after: bytes) -> bool:
    """Damage that makes no difference, or that nothing on disk could tell. Everything else has to
    be found."""
    if path.endswith("meta.properties"):
        return len(after.splitlines()) == 4  # an id that nothing refers to
    if path.endswith("producer-id-block"):
        text = after[:-1]  # above every producer id in use
        return after[-1:] == b"\n" and text.isdigit() and int(text) > 4
    if path.endswith("topics.json"):
        return b'"config"' in after  # another valid setting: checked below by hand
    if path.endswith("log-start-offset-checkpoint"):
        return len(after) == len(before)  # another offset within the first segment
    if path.endswith(".index") and not path.endswith(("timeindex", "txnindex")):
        return before.startswith(after) and len(after) % 8 == 0  # slower, not wrong
    if path.endswith(".txnindex") and "/__" in path and len(before) == len(after):
        return lower_offsets(before, after)  # as if compaction had taken what was there
    return path.endswith(".lock")


def test_a_log_as_it_was_written() -> None:
    seen: list[int] = []
    assert list(verify_log(WHOLE, FOLDER, records=True, on_bytes=seen.append)) == []
    assert sum(seen) == log_size_bytes(WHOLE, FOLDER) > 10_000
    assert {".log", ".index", ".timeindex", ".txnindex", ".snapshot"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(data=st.data())
def test_damage_of_every_kind_of_file_is_found(kind: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(of_kind(kind)))
    files = copy_of(WHOLE)
    found = content(files, path)
    before = bytes(found)
    at = data.draw(st.integers(0, len(before) - 1))
    how = data.draw(st.sampled_from(["flip", "flip", "cut", "zero", "add"]))
    if how == "flip":
        found[at] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del found[at:]
    elif how == "zero":
        end = data.draw(st.integers(at + 1, len(before)))
        found[at:end] = bytes(end - at)
    else:
        found += data.draw(st.sampled_from([b"\0" * 5, b"\0" * 61, before]))
    if bytes(found) == before or is_harmless(path, before, bytes(found)):
        return
    assert errors(files), f"{how} at {at} of {path}: {bytes(found[at : at + 20])!r}"


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_is_gone_is_missed(path: str) -> None:
    files = copy_of(WHOLE)
    files.remove(path)
    name = path.rpartition("/")[2]
    if name in {".lock", "meta.properties", ".kafka_cleanshutdown"}:
        return  # made anew, and nothing in the log depends on it
    if name.endswith(".snapshot"):
        return  # the state comes from an older one and the batches behind it
    assert errors(files), f"{path} is gone"


def replace(path: str, old: bytes, new: bytes) -> Callable[[MemoryFiles], None]:
    def damage(files: MemoryFiles) -> None:
        found = content(files, path)
        assert old in found
        found[:] = found.replace(old, new, 1)

    return damage


def rename(path: str, name: str) -> Callable[[MemoryFiles], None]:
    return lambda files: files.rename(path, f"{path.rpartition('/')[0]}/{name}")


def add(path: str, data: bytes = b"") -> Callable[[MemoryFiles], None]:
    return lambda files: files.open(path, create=True).append(data)


SEGMENT = "00000000000000000000"
DAMAGE = {
    "a topic with more partitions": (
        replace("log/topics.json", b'"partitions": 2', b'"partitions": 3'),
        "the folder is missing",
    ),
    "a topic with fewer": (
        replace("log/topics.json", b'"partitions": 2', b'"partitions": 1'),
        "does not know this partition",
    ),
    "a topic of another name": (
        replace("log/topics.json", b'"in"', b'"on"'),
        "does not know this partition",
    ),
    "a folder with another name": (rename("log/in-0", "in-1"), "the folder is missing"),
    "a segment with another name": (
        rename(f"log/in-0/{SEGMENT}.log", "0.log"),
        "no offset of 20 digits",
    ),
    "a segment at another offset": (
        rename(f"log/in-0/{SEGMENT}.log", "00000000000000000001.log"),
        "the first segment begins at 1, the log at 0",
    ),
    "a recovery point that moved": (
        replace("log/recovery-point-offset-checkpoint", b"indexed 0 40", b"indexed 0 39"),
        "the recovery point is 39",
    ),
    "a log start before the first segment": (
        replace("log/log-start-offset-checkpoint", b"indexed 0 20", b"indexed 0 00"),
        "not as the log writes it",
    ),
    "producer ids that come back": (
        replace("log/producer-id-block", b"2000", b"1"),
        "the largest producer id in use",
    ),
    "producer ids that are used up": (
        replace("log/producer-id-block", b"2000", b"%d" % (2**63 - 1)),
        "the largest producer id in use",
    ),
    "a producer id that nobody could read": (
        replace("log/producer-id-block", b"2000", b"2" * 5000),
        "the largest producer id in use",
    ),
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_files_that_disagree(name: str) -> None:
    damage, expected = DAMAGE[name]
    files = copy_of(WHOLE)
    damage(files)
    found = [str(each) for each in verify_log(files, FOLDER)]
    assert any(expected in each for each in found), found


CHECKPOINTS = ("recovery-point-offset-checkpoint", "replication-offset-checkpoint")


def follow(advice: str, path: str, files: MemoryFiles) -> None:
    """Remove what the advice says."""
    stem = path.rpartition(".")[0]
    gone = [f"{FOLDER}/.kafka_cleanshutdown"]
    if advice.startswith("Remove the file"):
        gone += [path]
    elif advice.startswith("Remove the index files of the segment "):
        gone += [f"{stem}.index", f"{stem}.timeindex", f"{stem}.txnindex"]
    elif "or give up the records from there on: remove " in advice:
        gone += [f"{FOLDER}/{name}" for name in CHECKPOINTS]
    else:
        assert advice == "Open and close the log"
    for each in gone:
        if files.exists(each):
            files.remove(each)


@pytest.mark.parametrize("kind", [".log", ".index", ".timeindex", ".txnindex", ".snapshot"])
@settings(max_examples=12)
@given(data=st.data())
def test_who_follows_the_advice_has_a_sound_log(kind: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(of_kind(kind)))
    files = copy_of(WHOLE)
    found = content(files, path)
    at = data.draw(st.integers(0, len(found) - 1))
    found[at:] = data.draw(st.sampled_from([b"", b"\xff" * (len(found) - at)]))
    for each in errors(files):
        follow(each.advice, each.path, files)
    open_and_close(files)
    assert errors(files) == []


@pytest.mark.parametrize("kind", [".index", ".timeindex"])
def test_an_index_that_is_gone_needs_nobody(kind: str) -> None:
    files = copy_of(WHOLE)
    for path in of_kind(kind):
        files.remove(path)
    found = errors(files)
    assert [each.path for each in found] == of_kind(kind)
    assert {each.advice for each in found} == {"The next opening builds it anew"}
    open_and_close(files)
    assert errors(files) == []


def open_and_close(files: MemoryFiles) -> None:
    async def main() -> None:
        async with open_log_on(files, FOLDER, config=CONFIG):
            pass

    asyncio.run(main())


LEFT = {
    f"log/in-0/{SEGMENT}.log.cleaned": "a compaction or a recovery was cut short",
    f"log/in-0/{SEGMENT}.index.cleaned": "a compaction or a recovery was cut short",
    "log/in-0/00000000000000000003.index": "the removal of its segment was cut short",
    "log/topics.json.tmp": "being replaced",
    "log/in-0/notes.txt": "no file of a partition",
    "log/readme": "no file of a log",
}


@pytest.mark.parametrize("path", list(LEFT))
def test_leftovers_are_no_damage(path: str) -> None:
    files = copy_of(WHOLE)
    add(path)(files)
    [found] = verify_log(files, FOLDER)
    assert (found.severity, found.path) == ("notice", path)
    assert LEFT[path] in found.what


@pytest.mark.parametrize("name", ["old-0.0-stray", "old-0.abc-delete"])
def test_folders_that_were_put_away(name: str) -> None:
    files = copy_of(WHOLE)
    files.make_dir(f"log/{name}")
    [found] = verify_log(files, FOLDER)
    assert (found.severity, found.path) == ("notice", f"log/{name}")


def test_one_damaged_batch_is_one_finding() -> None:
    files = copy_of(WHOLE)
    content(files, f"log/in-0/{SEGMENT}.log")[70] ^= 1
    [found] = verify_log(files, FOLDER)
    assert found.path == f"log/in-0/{SEGMENT}.log"
    assert found.position == 0
    assert "CRC-32C" in found.what
    assert str(found).endswith("open the log.")


@pytest.mark.parametrize("left", [b"", b"{", None])
@pytest.mark.parametrize("clean", [True, False])
def test_without_the_table_of_topics_no_folder_is_called_superfluous(
    left: bytes | None, clean: bool
) -> None:
    files = copy_of(WHOLE)
    if left is None:
        files.remove("log/topics.json")
    else:
        content(files, "log/topics.json")[:] = left
    if not clean:
        files.remove("log/.kafka_cleanshutdown")
    [found] = verify_log(files, FOLDER)
    assert (found.severity, found.path) == ("error", "log/topics.json")


def test_a_producer_that_was_forgotten_and_came_back() -> None:
    """What the snapshot then knows of it begins with its return."""
    files = MemoryFiles()

    async def main() -> None:
        clock = FakeClock()
        config = {"flush.threads": 0}
        async with open_log_on(files, "log", config=config, clock=clock) as log:
            await log.create_topic("t", config={"segment.bytes": 1024})
            async with log.producer(transactional_id="app") as producer:
                async with producer.transaction():
                    await producer.send("t", b"1")
                for partition in log._broker.partitions:
                    partition.expire_producers(clock.wall_ms() + 1)
                await producer.begin_transaction()
                await producer.send_batch("t", [b"2"])
                await producer.send_batch("t", [b"3" * 900])  # in another segment
                await producer.abort_transaction()

    asyncio.run(main())
    assert [str(each) for each in verify_log(files, "log")] == []

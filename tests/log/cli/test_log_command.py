"""`millstream log verify` and `dump`."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.commands import run

SEGMENT = f"{0:020d}.log"


@pytest.fixture
def log(tmp_path: Path) -> str:
    folder = str(tmp_path / "log")
    run(folder, "produce", "t", "--key-separator", "=", stdin=b"a=1\nb=2\n")
    run(folder, "produce", "t", "--transactional-id", "x", stdin=b"3\n")
    run(folder, "consume", "t", "--group", "g", "--until-end")
    return folder


def snapshot_of(folder: str) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def test_a_sound_log(log: str) -> None:
    before = snapshot_of(log)
    assert run(log, "log", "verify", log).text.startswith("sound, 0 notices: ")
    [summary] = run(log, "log", "verify", log, "--records", "--json").json
    assert (summary["errors"], summary["notices"]) == (0, 0)
    assert summary["size_bytes"] > 500
    run(log, "log", "dump", log, "--decode")
    assert snapshot_of(log) == before


def test_damage_is_told_with_file_place_and_advice(log: str) -> None:
    path = Path(log) / "t-0" / SEGMENT
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    ran = run(log, "log", "verify", log, code=1)
    assert ran.lines[0].startswith(f"error: {path} at position 0: CRC-32C is ")
    assert "Restore" in ran.lines[0]
    assert ran.lines[-1].startswith("1 error, 0 notices: ")
    [finding, summary] = run(log, "log", "verify", log, "--json", code=1).json
    assert finding["path"] == str(path)
    assert (finding["severity"], finding["position"]) == ("error", 0)
    assert summary["errors"] == 1
    dumped = run(log, "log", "dump", str(path), "--json", code=1).json
    assert [each["crc_ok"] for each in dumped if "crc_ok" in each] == [False, True, True]
    path.write_bytes(data[:-1])
    run(log, "log", "dump", str(path), code=1)


def test_where_there_is_no_log(log: str, tmp_path: Path) -> None:
    assert "There is no directory" in run(log, "log", "verify", f"{log}/x", code=2).err
    assert "holds no log" in run(log, "log", "verify", str(tmp_path), code=2).err
    assert "There is no" in run(log, "log", "dump", f"{log}/x", code=2).err
    for command in ("verify", "dump"):
        assert "There is no" in run(log, "log", command, "", code=2).err
        assert "Check the path" in run(log, "log", command, "x" * 300, code=1).err


def test_a_segment(log: str) -> None:
    found = run(log, "log", "dump", f"{log}/t-0/{SEGMENT}", "--records", "--json").json
    assert {each["file"] for each in found} == {f"{log}/t-0/{SEGMENT}"}
    batch, first, second, transactional, third, marker, end = found
    assert (batch["position"], batch["base_offset"], batch["last_offset"]) == (0, 0, 1)
    assert (batch["codec"], batch["count"], batch["crc_ok"]) == ("none", 2, True)
    assert (first["key"], first["value"], second["offset"]) == ("a", "1", 1)
    assert transactional["transactional"]
    assert (third["key"], third["value"]) == (None, "3")
    assert marker["control"]
    assert (end["marker"], end["offset"]) == ("commit", 3)


def test_what_lies_beside_it(log: str) -> None:
    run(log, "produce", "t", "--transactional-id", "x", "--format", "json",
        stdin=b'{"value": 4}\nx\n', code=1)  # fmt: skip
    found = run(log, "log", "dump", f"{log}/t-0", "--json").json
    by_kind: dict[str, list[dict[str, object]]] = {}
    for each in found:
        by_kind.setdefault(each["file"].rpartition(".")[2], []).append(each)
    [aborted] = by_kind["txnindex"]
    assert (aborted["first_offset"], aborted["last_offset"]) == (4, 5)
    assert by_kind["timeindex"][-1]["offset"] == 4
    assert {each["producer_id"] for each in by_kind["snapshot"]} >= {0}
    assert by_kind["metadata"][0]["line"] == "version: 0"


@pytest.mark.parametrize("inside", [False, True])
def test_what_the_logs_own_topics_say(
    log: str, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = f"{log}/__consumer_offsets-0"
    if inside:
        monkeypatch.chdir(folder)
    shown = "." if inside else folder
    found = run(log, "log", "dump", shown, "--decode", "--json").json
    said = [each["decoded"] for each in found if "decoded" in each]
    [offset] = [each for each in said if each["kind"] == "offset"]
    assert (offset["group"], offset["partition"], offset["offset"]) == ("g", "t-0", 4)
    found = run(log, "log", "dump", f"{log}/__transaction_state-0", "--decode", "--json").json
    said = [each["decoded"] for each in found if "decoded" in each]
    assert said[-1]["transactional_id"] == "x"
    assert said[-1]["state"] == "COMPLETE_COMMIT"


def test_transactions(log: str) -> None:
    assert run(log, "transactions", "list", "--json").json == [
        {"transactional_id": "x", "producer_id": 1000, "state": "CompleteCommit"}
    ]
    assert run(log, "transactions", "list", "--state", "Ongoing").lines == [
        "transactional id  producer id  state"
    ]
    described = run(log, "transactions", "describe", "x").lines
    assert described[0] == "x: CompleteCommit"
    assert described[2].split() == ["time-out", "15m"]
    terminated = run(log, "transactions", "terminate", "x").text
    assert terminated == "x: no transaction was open\n"
    assert len(run(log, "transactions", "find-hanging").lines) == 1
    unknown = run(log, "transactions", "describe", "y", code=1).err
    assert "is not known" in unknown
    assert "`millstream transactions list`" in unknown
    assert "write a number" in run(
        log, "transactions", "list", "--longer-than", "soon", code=2
    ).err  # fmt: skip

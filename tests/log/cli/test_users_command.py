"""`millstream users`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from millstream.log import open_log
from shared.commands import run


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def test_a_user_from_the_first_to_the_last(log: str, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse\nand a note\n")
    added = run(log, "users", "add", "anna", "--password-file", str(password))
    assert added.text == "anna: added\n"
    again = run(
        log, "users", "add", "anna", "--password-file", "-", "--mechanism", "SCRAM-SHA-512",
        "--iterations", "5000", "--json", stdin=b"other\n",
    )  # fmt: skip
    assert again.json == [{"name": "anna", "result": "altered"}]
    assert run(log, "users", "list").lines == ["anna: SCRAM-SHA-256, SCRAM-SHA-512"]
    assert run(log, "users", "list", "--json").json == [
        {"name": "anna", "iterations": {"SCRAM-SHA-256": 8192, "SCRAM-SHA-512": 5000}}
    ]
    run(log, "users", "delete", "anna", "--mechanism", "SCRAM-SHA-256")
    assert run(log, "users", "list").lines == ["anna: SCRAM-SHA-512"]
    assert run(log, "users", "delete", "anna").text == "anna: deleted\n"
    assert run(log, "users", "list").text == ""
    assert "no such user" in run(log, "users", "delete", "anna", code=1).err
    assert not any(b"horse" in path.read_bytes() for path in Path(log).rglob("*") if path.is_file())


def test_a_log_that_was_made_by_adding_a_user(log: str) -> None:
    run(log, "users", "add", "anna", "--password-file", "-", stdin=b"x")
    run(log, "topics", "create", "orders")
    assert run(log, "users", "list").lines == ["anna: SCRAM-SHA-256, SCRAM-SHA-512"]
    assert run(log, "log", "verify", log).code == 0
    (Path(log) / "security.json").write_text("{}")
    assert "security.json is damaged" in run(log, "log", "verify", log, code=1).text
    assert "security.json is damaged" in run(log, "users", "list", code=1).err


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (("add", "anna"), b"", 2, "give --password-file"),
        (("add", "anna", "--password-file", "-"), b"\n", 2, "password is empty"),
        (("add", "anna", "--password-file", "-", "--iterations", "4095"), b"x", 1, "4096 to 16384"),
        (("add", "a\nb", "--password-file", "-"), b"x", 1, "printable"),
        (("add", "anna", "--password-file", "-", "--mechanism", "PLAIN"), b"x", 2, "PLAIN"),
        (("list",), b"", 1, "There is no log"),
        (("delete", "anna"), b"", 1, "There is no log"),
        (("list", "--log", "memory:"), b"", 1, "log's folder"),
        (("list", "--log", "file://"), b"", 1, "log's folder"),
        (("add", "anna", "--password-file", "-"), b"\xff\n", 2, "no text"),
    ],
)
def test_what_is_refused(
    log: str, arguments: tuple[str, ...], stdin: bytes, code: int, said: str
) -> None:
    assert said in run(log, "users", *arguments, stdin=stdin, code=code).err


def test_a_log_that_is_in_use(log: str) -> None:
    async def main() -> None:
        async with open_log(f"file:{log}"):
            said = await asyncio.to_thread(
                run, log, "users", "add", "anna", "--password-file", "-", stdin=b"x", code=1
            )
            assert "open" in said.err

    asyncio.run(main())

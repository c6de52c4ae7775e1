"""What tests download is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.downloads import download, kept


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MILLSTREAM_TEST_CACHE", str(tmp_path))
    monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", "this run")


def test_it_is_made_once() -> None:
    made = kept("a", lambda folder: (folder / "file").touch())
    assert kept("a", lambda _folder: pytest.fail("made again")) == made
    assert (made / "file").exists()


def test_what_was_cut_short_begins_with_nothing() -> None:
    def cut_short(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept("a", cut_short)
    made = kept("a", lambda folder: (folder / "whole").touch())
    assert [each.name for each in made.iterdir()] == ["whole"]


def test_a_run_tries_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fill(folder: Path) -> None:
        tried.append(folder)
        download("it", ["sh", "-c", "echo no network >&2; exit 1"])

    for _ in range(2):
        with pytest.raises(pytest.skip.Exception, match="it cannot be downloaded by sh: no net"):
            kept("a", fill)
    assert len(tried) == 1
    monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", "the next run")
    with pytest.raises(pytest.skip.Exception):
        kept("a", fill)
    assert len(tried) == 2


def test_a_tool_that_is_missing() -> None:
    with pytest.raises(pytest.skip.Exception, match="by no-such-tool: it is not installed"):
        download("it", ["no-such-tool"])

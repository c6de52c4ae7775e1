"""What `millstream serve` says when it cannot serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.commands import run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--listen", "0.0.0.0:0"), "--insecure-no-auth"),
        (("--listen", "nonsense"), "HOST:PORT"),
        (("--listen", "SASL_SSL://127.0.0.1:0"), "ssl.certificate.location"),
        (("--config", "num.partition=1"), "num.partitions"),
        (("--listen", "127.0.0.1:0", "--metrics", "nonsense"), "HOST:PORT"),
    ],
)
def test_what_is_refused(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    log = str(tmp_path / "log")
    ran = run(log, "serve", "--data", log, *arguments, code=1)
    assert ran.err.startswith("error: ")
    assert said in ran.err


def test_a_log_whose_users_are_damaged(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    run(log, "topics", "create", "t")
    (tmp_path / "log" / "security.json").write_text("{")
    ran = run(log, "serve", "--data", log, "--listen", "127.0.0.1:0", code=1)
    assert "security.json is damaged" in ran.err

"""Settings: read from text and Python alike, all faults at once, a table for the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millstream.connect import ConnectConfigError, ConnectorConfig, setting, settings
from millstream.connect.api import SinkConfig, SourceConfig


@settings
class ClockConfig(SourceConfig):
    every_ms: int = setting("Time between two records, in ms.", default=1000, minimum=1)
    ratio: float = setting("A ratio.", default=0.5)
    zone: str = setting("The time zone.", choices=("utc", "local"))
    password: str | None = setting("A secret.", default=None, secret=True)
    labels: dict[str, str] = setting("Labels.", default={})

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.zone == "local" and self.every_ms < 100:
            yield "every_ms", "is too small for local time"


def faults_of(config: type[ConnectorConfig], **given: Any) -> dict[str, str]:
    with pytest.raises(ConnectConfigError) as raised:
        config.from_settings("clock", given)
    return {fault.field: str(fault) for fault in raised.value.faults}


def test_text_values_are_read_as_the_declared_type() -> None:
    config = ClockConfig.from_settings(
        "clock",
        {"topic": "t", "every_ms": "250", "ratio": "0.25", "zone": "utc", "partitions": "3"},
    )
    assert (config.every_ms, config.ratio, config.partitions) == (250, 0.25, 3)


def test_paths_are_text() -> None:
    config = ClockConfig.from_settings("clock", {"topic": Path("t"), "zone": "utc"})
    assert config.topic == "t"


def test_dots_hyphens_and_tables_name_the_same_setting() -> None:
    for given in (
        {"errors.tolerance": "none"},
        {"errors-tolerance": "none"},
        {"errors": {"tolerance": "none"}},
        {"errors_tolerance": "none"},
    ):
        config = ClockConfig.from_settings("clock", {"topic": "t", "zone": "utc", **given})
        assert config.errors_tolerance == "none"


def test_a_table_setting_is_not_taken_apart() -> None:
    given = {"topic": "t", "zone": "utc", "labels": {"a": "b"}}
    assert ClockConfig.from_settings("clock", given).labels == {"a": "b"}


def test_defaults_are_not_shared() -> None:
    first = ClockConfig.from_settings("a", {"topic": "t", "zone": "utc"})
    first.labels["x"] = "y"
    assert ClockConfig.from_settings("b", {"topic": "t", "zone": "utc"}).labels == {}


def test_every_fault_is_reported_at_once() -> None:
    faults = faults_of(
        ClockConfig,
        every_ms="often",
        zone="utcc",
        partitions=0,
        errors_tolerance="some",
        topicc="flights",
        password=5,
    )
    assert set(faults) == {
        "every_ms",
        "zone",
        "partitions",
        "errors_tolerance",
        "topic",
        "topicc",
        "password",
    }
    assert faults["every_ms"] == "every_ms: must be an integer, found 'often'"
    assert "must be one of utc, local, found 'utcc'; did you mean 'utc'?" in faults["zone"]
    assert faults["partitions"] == "partitions: must be at least 1, found 0"
    assert "required, and not given. The topic to write to." in faults["topic"]
    assert "did you mean 'topic'" in faults["topicc"]


def test_a_secret_is_never_shown() -> None:
    assert "***" in faults_of(ClockConfig, topic="t", zone="utc", password=5)["password"]
    with pytest.raises(ConnectConfigError) as raised:
        ClockConfig.from_settings("clock", {"password": 12345})
    assert "12345" not in str(raised.value)


def test_faults_of_several_settings_together_are_reported_beside_single_ones() -> None:
    faults = faults_of(ClockConfig, topic="t", zone="local", every_ms=5, ratio="x")
    assert set(faults) == {"every_ms", "ratio"}


def test_an_alias_is_the_setting() -> None:
    assert SinkConfig.from_settings("s", {"topic": "a, b"}).topics == ["a", "b"]
    assert SinkConfig.from_settings("s", {"topics": ["a"]}).topics == ["a"]
    assert set(faults_of(SinkConfig)) == {"topics"}


def test_the_message_names_connector_and_file() -> None:
    with pytest.raises(ConnectConfigError, match="connector 'clock': 2 faults in its settings"):
        ClockConfig.from_settings("clock", {})


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 201])
def test_a_name_must_be_fit_for_topics_and_groups(name: str) -> None:
    with pytest.raises(ConnectConfigError, match="name: must be 1 to 200 letters"):
        ClockConfig.from_settings(name, {"topic": "t", "zone": "utc"})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("ratio", True), ("every_ms", True), ("labels", 3), ("topic", 3), ("ratio", "much")],
)
def test_wrong_types_are_refused(name: str, wrong: Any) -> None:
    assert name in faults_of(ClockConfig, **{"topic": "t", "zone": "utc", name: wrong})


def test_the_documentation_names_every_setting() -> None:
    table = ClockConfig.markdown()
    assert "| `every_ms` | int | `1000` | Time between two records, in ms. |" in table
    assert "| `zone` | str | required | The time zone. |" in table
    assert "| `password` | str | none | A secret. |" in table
    assert len(table.splitlines()) == 2 + len(ClockConfig.describe())

"""The reference pages are complete and say what the code says.

A command, an option, a setting or a method that is added without its line on the page fails here.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click
import pytest

import millstream.streams
from millstream.cli.main import millstream as command
from millstream.connect import ConnectorConfig, SinkConfig, SourceConfig
from millstream.connect.functions import FunctionSourceConfig
from millstream.connectors.files.config import FileSourceConfig
from millstream.connectors.sql import SqlSinkConfig
from millstream.log import limits
from millstream.log.client.settings import ConsumerConfig, ProducerConfig
from millstream.log.config import BrokerConfig, TopicConfig
from millstream.log.kafka.settings import ConnectionConfig
from millstream.log.settings import describe
from millstream.streams import App, Stream, Table, TestDriver
from millstream.streams.grouped import Grouped, WindowedGrouped

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]*) \|", re.MULTILINE)


def section(page: str, heading: str) -> str:
    """The text of one section of a page, up to the next heading of its level or above."""
    text = (REFERENCE / page).read_text()
    level = heading.split(" ", 1)[0]
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"{page} has no section {heading!r}"
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> dict[str, str]:
    """First column to second column of the tables in a text."""
    return {name: cell.strip("` ") for name, cell in ROW.findall(text)}


@pytest.mark.parametrize(
    ("heading", "settings"),
    [
        ("## Topic settings", TopicConfig()),
        ("## Log settings", BrokerConfig()),
        ("## Producer settings", ProducerConfig()),
        ("## Consumer settings", ConsumerConfig()),
    ],
)
def test_settings_of_the_log_with_their_defaults(heading: str, settings: object) -> None:
    found = rows(section("configs.md", heading))
    expected = {name: value or "empty" for name, value in describe(settings).items()}
    arguments = {"auto_offset_reset", "isolation"} if "Consumer" in heading else set()
    assert {name: value for name, value in found.items() if name not in arguments} == expected


def test_settings_of_a_connection_to_a_cluster_with_their_defaults() -> None:
    table, *_ = section("configs.md", "## On a Kafka cluster").split("Empty ones are left")
    expected = {name: value or "empty" for name, value in describe(ConnectionConfig()).items()}
    assert rows(table) == expected


def test_bounds_of_the_log_with_their_values() -> None:
    found = rows(section("configs.md", "## Bounds"))
    assert found == {name: str(getattr(limits, name)) for name in limits.__all__}


def test_a_bound_has_its_reason_beside_it_and_no_other_home() -> None:
    """Sizes and counts that bound something are named in limits.py, or are settings."""
    source = Path(limits.__file__)
    for name in limits.__all__:
        assert re.search(rf'^{name} = [^\n]*\n"""', source.read_text(), re.MULTILINE), name
    bound = re.compile(r"^_?(\w+_BYTES_MAX|\w+_READ_BYTES|\w+_AT_ONCE) =", re.MULTILINE)
    folders = [source.parent / name for name in ("storage", "broker", "client")]
    files = [file for folder in folders for file in folder.glob("*.py")]
    assert [name for file in files for name in bound.findall(file.read_text())] == []


def test_arguments_of_an_app_with_their_defaults() -> None:
    found = rows(section("configs.md", "## App settings"))
    expected = {}
    for name, parameter in list(inspect.signature(App.__init__).parameters.items())[1:]:
        default = parameter.default
        if default is inspect.Parameter.empty:
            expected[name] = "required"
        else:
            expected[name] = "none" if default is None else str(default)
    assert {name: value.strip('"') for name, value in found.items()} == expected


@pytest.mark.parametrize(
    ("heading", "config", "base"),
    [
        ("## Settings of every connector", ConnectorConfig, None),
        ("### Settings of every source", SourceConfig, ConnectorConfig),
        ("### Settings of every sink", SinkConfig, ConnectorConfig),
        ("## File source (`files`)", FileSourceConfig, SourceConfig),
        ("## SQL sink (`sql`)", SqlSinkConfig, SinkConfig),
        ("## A connector of your own, as a function", FunctionSourceConfig, SourceConfig),
    ],
)
def test_settings_of_connectors(
    heading: str, config: type[ConnectorConfig], base: type[ConnectorConfig] | None
) -> None:
    known = set() if base is None else set(base.markdown().splitlines())
    shown = section("connectors.md", heading).splitlines()
    missing = [row for row in config.markdown().splitlines()[2:] if row not in {*known, *shown}]
    assert missing == []


def commands(group: click.Command = command, prefix: str = "") -> dict[str, click.Command]:
    """Every command by its full name, those within a group after the group."""
    assert isinstance(group, click.Group)
    context = click.Context(group)
    found: dict[str, click.Command] = {}
    for name in group.list_commands(context):
        each = group.get_command(context, name)
        assert each is not None
        found[prefix + name] = each
        if isinstance(each, click.Group):
            found |= commands(each, f"{prefix}{name} ")
    return found


def heading(name: str, found: click.Command) -> str:
    """Of a command's section: `## `millstream topics``, `### `millstream topics create TOPIC``."""
    arguments = [each for each in found.params if isinstance(each, click.Argument)]
    usage = "".join(f" {each.make_metavar(click.Context(found))}" for each in arguments)
    return f"##{'#' * name.count(' ')} `millstream {name}{usage}`"


@pytest.mark.parametrize("name", list(commands()))
def test_commands_with_all_their_options(name: str) -> None:
    found = commands()[name]
    expected = {
        option
        for parameter in found.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    text = section("cli.md", heading(name, found)).split("\n### ", 1)[0]
    assert set(rows(text)) == expected


def test_every_section_of_the_command_line_is_a_command() -> None:
    text = (REFERENCE / "cli.md").read_text()
    told = re.findall(r"^##+ `millstream .*`$", text, re.MULTILINE)
    assert told == [heading(name, found) for name, found in commands().items()]


def public_methods(cls: type[Any]) -> list[str]:
    return [
        name
        for name, member in inspect.getmembers(cls)
        if not name.startswith("_") and (callable(member) or isinstance(member, property))
    ]


@pytest.mark.parametrize(
    ("prefix", "cls"),
    [
        ("app", App),
        ("stream", Stream),
        ("table", Table),
        ("grouped", Grouped),
        ("grouped", WindowedGrouped),
        ("driver", TestDriver),
    ],
)
def test_every_method_of_the_dsl(prefix: str, cls: type[Any]) -> None:
    text = (REFERENCE / "streams.md").read_text()
    told = set(re.findall(rf"`{prefix}\.(\w+)", text))
    assert [name for name in public_methods(cls) if name not in told] == []


@pytest.mark.parametrize("cls", [App, Stream, Table, Grouped])
def test_every_method_of_the_dsl_is_shown_at_work(cls: type[Any]) -> None:
    text = (REFERENCE / "streams.md").read_text() + (REFERENCE / "connectors.md").read_text()
    code = "".join(re.findall(r"^```python.*?^```$", text, re.MULTILINE | re.DOTALL))
    told_only = {"attach", "topology", "store", "to_stream", "flow_for_join", "log_url", "name"}
    wanted = set(public_methods(cls)) - told_only
    assert [name for name in sorted(wanted) if f".{name}" not in code] == []


def test_every_public_name_of_streams() -> None:
    text = (REFERENCE / "streams.md").read_text()
    told = set(re.findall(r"`(\w+)", text))
    assert [name for name in millstream.streams.__all__ if name not in told] == []


@pytest.mark.parametrize("package", ["log", "streams", "connect", "connectors"])
def test_every_file_is_on_the_map_of_its_package(package: str) -> None:
    root = REFERENCE.parents[1] / package
    readme = (root / "README.md").read_text()
    told = set(re.findall(r"[\w]+\.py", readme))
    files = {path.name for path in root.rglob("*.py")} - {"__init__.py"}
    assert (sorted(files - told), sorted(told - files)) == ([], [])


def test_readmes_of_folders_are_short() -> None:
    lines = {
        path.parent.name: len(path.read_text().splitlines())
        for path in REFERENCE.parents[1].glob("*/README.md")
    }
    assert {name: count for name, count in lines.items() if count > 60} == {}

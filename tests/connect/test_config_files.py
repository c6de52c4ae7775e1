"""Configuration files: their shapes, and every fault of every file in one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.connect import ConnectConfigError, FunctionSource
from millstream.connect.config_files import connectors_in
from millstream.connect.registry import create_connector, find_connector
from millstream.connectors.files import FileSource
from millstream.connectors.sql import SqlSink

FUNCTION = """
from millstream.connect import source

@source(topic="numbers", partitions=2)
async def numbers(position):
    yield 1, 1

not_a_connector = 3
"""


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one.toml", 'name = "f"\nconnector = "files"\npath = "a.csv"\ntopic = "t"'),
        ("f.toml", 'connector = "files"\npath = "a.csv"\ntopic = "t"'),
        ("list.toml", '[[connector]]\nname = "f"\nconnector = "files"\npath="a.csv"\ntopic="t"'),
        ("table.toml", '[f]\nconnector = "files"\npath = "a.csv"\ntopic = "t"'),
        ("one.json", '{"name": "f", "connector": "files", "path": "a.csv", "topic": "t"}'),
        (
            "kafka.json",
            (
                '{"name": "f", "config": {"connector.class": "files", "path": "a.csv", '
                '"topic": "t", "tasks.max": "1", "errors.tolerance": "all"}}'
            ),
        ),
    ],
)
def test_every_shape_means_the_same(tmp_path: Path, name: str, text: str) -> None:
    [connector] = connectors_in([write(tmp_path, name, text)])
    assert isinstance(connector, FileSource)
    assert (connector.name, connector.config.path, connector.config.topic) == ("f", "a.csv", "t")


def test_several_files_with_several_connectors(tmp_path: Path) -> None:
    first = write(
        tmp_path,
        "a.toml",
        '[a]\nconnector="files"\npath="a.jsonl"\ntopic="t"\n'
        '[b]\nconnector="sql"\ntopic="t"\nurl="sqlite://"\ntable="x"\npk=["id"]\n'
        'columns = {id = "int", name = {type = "str", field = "key.name"}}\n',
    )
    function = write(tmp_path, "mine.py", FUNCTION)
    second = write(tmp_path, "c.toml", f'[c]\nconnector = "{function}:numbers"\npartitions = 5')
    a, b, c = connectors_in([first, second])
    assert isinstance(a, FileSource)
    assert isinstance(b, SqlSink)
    assert [(column.name, column.kind, column.field) for column in b.config.columns] == [
        ("id", "int", ""),
        ("name", "str", "key.name"),
    ]
    assert isinstance(c, FunctionSource)
    assert (c.name, c.config.topic, c.config.partitions) == ("c", "numbers", 5)


def test_all_faults_of_all_files_are_told_together(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, "a.toml", '[a]\nconnector="fils"\n[b]\npath="x"\n[c]\nconnector="files"'),
        write(tmp_path, "b.toml", "connector = "),
        write(tmp_path, "c.toml", '[a]\nconnector="files"\npath="a.csv"\ntopic="t"\n'),
        write(tmp_path, "d.toml", 'flat = 3\n[e]\nconnector="sql"\nmode="upsrt"\ntopc="t"'),
        str(tmp_path / "absent.toml"),
    ]
    with pytest.raises(ConnectConfigError) as raised:
        connectors_in(paths)
    message = str(raised.value)
    for expected in (
        "did you mean 'files'?",
        "connector: required, and not given: files, sql, or package.module:Class",
        "path: required",
        "is not valid",
        "used twice",
        "flat: must be a table that describes a connector, found 3",
        "mode: must be one of upsert, insert, found 'upsrt'; did you mean 'upsert'?",
        "topc: unknown setting; did you mean 'topic'",
        "url: required",
        "absent.toml: cannot be read: No such file",
    ):
        assert expected in message
    for path in paths:
        assert Path(path).name in message


def test_a_class_in_a_file_may_declare_settings(tmp_path: Path) -> None:
    """Also under a name that a module of the standard library has."""
    path = write(
        tmp_path,
        "numbers.py",
        "from __future__ import annotations\n"
        "from millstream.connect import SourceConfig, SourceConnector, setting, settings\n\n"
        "@settings\n"
        "class OwnConfig(SourceConfig):\n"
        '    every: Own = setting("How often.", default=1, parse=int)\n\n'
        "Own = int\n\n"
        "class Own_(SourceConnector[OwnConfig]):\n"
        "    config_class = OwnConfig\n"
        "    def create_task(self, task_config): ...\n",
    )
    connector = create_connector("own", f"{path}:Own_", {"topic": "t", "every": "3"})
    assert connector.config.every == 3
    assert find_connector(f"{path}:Own_") is type(connector)


def test_files_without_a_connector_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConnectConfigError, match="there is no connector"):
        connectors_in([write(tmp_path, "empty.toml", "")])


@pytest.mark.parametrize(
    ("connector", "reason"),
    [
        ("no.such.module:Thing", "there is no module 'no.such.module'"),
        ("millstream.connectors.files:Absent", "has no 'Absent'"),
        ("absent.py:x", "there is no file 'absent.py'"),
        ("millstream.log:open_log", "neither a connector class nor a function"),
        ("kafka", "there is no connector 'kafka'"),
    ],
)
def test_a_connector_that_cannot_be_found_says_why(connector: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        find_connector(connector)
    with pytest.raises(ConnectConfigError, match="connector: "):
        create_connector("x", connector, {})


def test_built_in_names_and_paths_are_found() -> None:
    assert find_connector("files") is FileSource
    assert find_connector("sql") is SqlSink
    assert find_connector("millstream.connectors.files:FileSource") is FileSource


def test_installed_packages_register_connectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "their_numbers.py", FUNCTION)
    info = tmp_path / "their_numbers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-numbers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[millstream.connectors]\ntheirs = their_numbers:numbers\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    connector = create_connector("mine", "theirs", {"topic": "elsewhere"})
    assert (connector.name, connector.config.topic) == ("mine", "elsewhere")

"""Settings of a connector, declared once.

A connector's settings are a class under `@settings` whose fields are made by `setting()`. From
that one declaration come the check of what a user wrote (in TOML, JSON or as keyword arguments),
the error that names every fault at once, and the table of settings in the documentation.

    @settings
    class ClockConfig(SourceConfig):
        every_ms: int = setting("Time between two records, in ms.", default=1000, minimum=1)

Names are written with underscores in Python; in a file, `errors.tolerance`, `errors-tolerance`
and a table `[errors]` with `tolerance` in it mean the same. Values that arrive as text (Kafka's
REST API knows only text) are read as the declared type.
"""

from __future__ import annotations

import dataclasses
import os
import string
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar, dataclass_transform

import orjson

from .errors import ConfigFault, ConnectConfigError

__all__ = ["ConnectorConfig", "SettingDescription", "setting", "settings"]

C = TypeVar("C")

_SETTING = "millstream.setting"
_REQUIRED = object()
_NEAR_COUNT_MAX = 2
_NAME_LENGTH_MAX = 200
_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "._-")


@dataclass(frozen=True, slots=True)
class _Setting:
    doc: str
    parse: Callable[[Any], Any] | None
    choices: tuple[Any, ...]
    minimum: float | None
    secret: bool
    type_name: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SettingDescription:
    """One setting as documentation and REST show it. `default` is None for a required one."""

    name: str
    type_name: str
    default: Any
    required: bool
    doc: str


def setting(
    doc: str,
    *,
    default: Any = _REQUIRED,
    parse: Callable[[Any], Any] | None = None,
    choices: Sequence[Any] = (),
    minimum: float | None = None,
    secret: bool = False,
    type_name: str = "",
    aliases: Sequence[str] = (),
) -> Any:
    """Declare a field of a `ConnectorConfig`.

    Args:
        doc: One sentence: what it is, its unit.
        default: What holds when nothing is given; without one the setting is required.
        parse: Turns what the user wrote into the value; raises ValueError with the reason. Without
            it the field's type decides.
        choices: The only values allowed.
        minimum: The smallest number allowed.
        secret: Its value is never shown in an error.
        type_name: How documentation calls the type, where the annotation does not say it well.
        aliases: Other names it may be given by.
    """
    declared = _Setting(doc, parse, tuple(choices), minimum, secret, type_name, tuple(aliases))
    metadata = {_SETTING: declared}
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, (dict, list)):
        kept = default
        return dataclasses.field(default_factory=lambda: type(kept)(kept), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(setting,))
def settings(cls: type[C]) -> type[C]:
    """Make a subclass of `ConnectorConfig` a frozen dataclass whose fields are given by name."""
    return dataclass(frozen=True, kw_only=True)(cls)


@settings
class ConnectorConfig:
    """The base of all settings: what every connector has. Subclasses add fields by `setting()`."""

    name: str = setting("The connector's name. Its offsets are kept under it.")
    tasks_max: int = setting("How many tasks may share the work.", default=1, minimum=1)
    errors_tolerance: str = setting(
        "`all`: a record that cannot be used goes to the dead-letter topic and the rest goes on. "
        "`none`: the connector stops in front of it.",
        default="all",
        choices=("all", "none"),
    )
    dead_letter_topic: str = setting(
        "Topic for records that cannot be used; empty means `NAME-dead-letter`.", default=""
    )
    errors_retry_timeout_ms: int = setting(
        "How long a retriable failure is retried before the connector fails, in ms; -1: for ever.",
        default=300_000,
        minimum=-1,
    )
    errors_retry_delay_max_ms: int = setting(
        "The longest wait between two tries, in ms. The first is 100 ms, each next one doubles.",
        default=60_000,
        minimum=1,
    )

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """The configuration these settings describe.

        Raises:
            ConnectConfigError: with every fault there is, not only the first.
        """
        given = _normalised(cls, {**settings, "name": name})
        hints = typing.get_type_hints(cls)
        faults: list[ConfigFault] = []
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            if field.name in given:
                _read(field, hints[field.name], given.pop(field.name), name, values, faults)
            elif (default := _default_of(field)) is _REQUIRED:
                doc = field.metadata[_SETTING].doc
                faults.append(ConfigFault(name, field.name, f"required, and not given. {doc}"))
            elif (parse := field.metadata[_SETTING].parse) is not None:
                values[field.name] = None if default is None else parse(default)
        faults += [_unknown(cls, name, key) for key in given]
        faults += _joint_faults(cls, name, values, {fault.field for fault in faults})
        if faults:
            raise ConnectConfigError(faults)
        return cls(**values)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Faults that concern several settings together, as (setting, reason). Subclasses extend
        it.

        It is also asked when single settings are wrong, to report all faults at once: a setting
        that could not be read then has its default, and the questions end at one that has none.
        """
        if not 0 < len(self.name) <= _NAME_LENGTH_MAX or set(self.name) - _NAME_CHARACTERS:
            rule = f"must be 1 to {_NAME_LENGTH_MAX} letters, digits, '.', '_' or '-'"
            yield "name", f"{rule}: topics and groups are named after it; found {self.name!r}"

    @property
    def dead_letters(self) -> str:
        """The dead-letter topic's name."""
        return self.dead_letter_topic or f"{self.name}-dead-letter"

    @classmethod
    def describe(cls) -> list[SettingDescription]:
        """Every setting with type, default and meaning, in order of declaration."""
        return [_description(field) for field in dataclasses.fields(cls)]

    @classmethod
    def markdown(cls) -> str:
        """The settings as the table the READMEs show."""
        rows = ["| Setting | Type | Default | Meaning |", "|---|---|---|---|"]
        for line in cls.describe():
            default = "required" if line.required else _shown_default(line.default)
            doc = line.doc.replace("|", "\\|")
            rows.append(f"| `{line.name}` | {line.type_name} | {default} | {doc} |")
        return "\n".join(rows) + "\n"


def _default_of(field: dataclasses.Field[Any]) -> Any:
    """The default as declared, not parsed; `_REQUIRED` when there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return _REQUIRED if field.default is dataclasses.MISSING else field.default


def _shown_default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, (list, tuple, dict)) and not value:
        return "empty"
    return f"`{orjson.dumps(value).decode()}`"


def _description(field: dataclasses.Field[Any]) -> SettingDescription:
    declared: _Setting = field.metadata[_SETTING]
    default = _default_of(field)
    required = default is _REQUIRED
    type_name = declared.type_name or str(field.type).removesuffix(" | None")
    return SettingDescription(
        field.name, type_name, None if required else default, required, declared.doc
    )


def _normalised(cls: type[ConnectorConfig], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under their Python names: dots and hyphens become underscores, tables are
    unfolded.
    """
    known = {field.name: field.name for field in dataclasses.fields(cls)}
    for field in dataclasses.fields(cls):
        known.update(dict.fromkeys(field.metadata[_SETTING].aliases, field.name))
    result: dict[str, Any] = {}
    for key, value in settings.items():
        name = key.replace(".", "_").replace("-", "_")
        prefix = name + "_"
        is_group = name not in known and any(other.startswith(prefix) for other in known)
        if is_group and isinstance(value, Mapping):
            inner = {f"{prefix}{part}": item for part, item in value.items()}
            result.update(_normalised(cls, inner))
        else:
            result[known.get(name, key)] = value
    return result


def _joint_faults(
    cls: type[ConnectorConfig], connector: str, values: Mapping[str, Any], faulty: set[str]
) -> list[ConfigFault]:
    """What `faults()` says of the settings that could be read."""
    partial = object.__new__(cls)
    for field in dataclasses.fields(cls):
        if field.default_factory is not dataclasses.MISSING:
            object.__setattr__(partial, field.name, field.default_factory())
    for name, value in values.items():
        object.__setattr__(partial, name, value)
    found = []
    try:
        for field_name, reason in partial.faults():
            if field_name not in faulty:
                found.append(ConfigFault(connector, field_name, reason))
    except AttributeError:
        if not faulty:
            raise
    return found


def _unknown(cls: type[ConnectorConfig], connector: str, key: str) -> ConfigFault:
    import difflib

    names = [
        name
        for field in dataclasses.fields(cls)
        for name in (field.name, *field.metadata[_SETTING].aliases)
    ]
    wanted = key.replace(".", "_").replace("-", "_")
    near = difflib.get_close_matches(wanted, names, n=_NEAR_COUNT_MAX)
    return ConfigFault(connector, key, "unknown setting", near=tuple(near))


def _read(
    field: dataclasses.Field[Any],
    hint: Any,
    raw: Any,
    connector: str,
    values: dict[str, Any],
    faults: list[ConfigFault],
) -> None:
    """Read one value into `values`, or say in `faults` why it cannot be."""
    declared: _Setting = field.metadata[_SETTING]
    shown = "***" if declared.secret else repr(raw)
    try:
        value = declared.parse(raw) if declared.parse is not None else parse_as(hint, raw)
    except ValueError as error:
        faults.append(ConfigFault(connector, field.name, str(error), shown))
        return
    if declared.choices and value not in declared.choices:
        allowed = ", ".join(str(choice) for choice in declared.choices)
        faults.append(
            ConfigFault(
                connector, field.name, f"must be one of {allowed}", shown, _near(raw, declared)
            )
        )
    elif declared.minimum is not None and value is not None and value < declared.minimum:
        reason = f"must be at least {declared.minimum}"
        faults.append(ConfigFault(connector, field.name, reason, shown))
    else:
        values[field.name] = value


def _near(raw: Any, declared: _Setting) -> tuple[str, ...]:
    import difflib

    choices = [str(choice) for choice in declared.choices]
    return tuple(difflib.get_close_matches(str(raw), choices, n=_NEAR_COUNT_MAX))


def parse_as(hint: Any, raw: Any) -> Any:
    """`raw` as the type of the annotation `hint`; text is read where the type is not text.

    Raises:
        ValueError: with the reason, as in "must be an integer".
    """
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        inner = [part for part in typing.get_args(hint) if part is not types.NoneType]
        return None if raw is None else parse_as(inner[0], raw)
    reader = _READERS.get(origin or hint)
    return raw if reader is None else reader(raw)


def _as_text(raw: Any) -> str:
    if isinstance(raw, os.PathLike):
        raw = os.fspath(raw)
    if not isinstance(raw, str):
        raise ValueError("must be text")  # noqa: TRY004 - a value, not a caller, is wrong
    return raw


def _as_int(raw: Any) -> int:
    try:
        if isinstance(raw, (int, str)) and not isinstance(raw, bool):
            return int(raw)
    except ValueError:
        pass
    raise ValueError("must be an integer")


def _as_float(raw: Any) -> float:
    try:
        if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
            return float(raw)
    except ValueError:
        pass
    raise ValueError("must be a number")


def _as_bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in ("true", "false"):
        return raw.lower() == "true"
    raise ValueError("must be true or false")


def _as_list(raw: Any) -> list[str]:
    if isinstance(raw, str):
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    if not isinstance(raw, Iterable) or isinstance(raw, Mapping):
        raise ValueError("must be a list of texts")  # noqa: TRY004 - see _as_text
    items = list(raw)
    if not all(isinstance(item, str) for item in items):
        raise ValueError("must be a list of texts")
    return items


def _as_dict(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise ValueError("must be a table of names and values")  # noqa: TRY004 - see _as_text
    return dict(raw)


_READERS: dict[Any, Callable[[Any], Any]] = {
    str: _as_text,
    int: _as_int,
    float: _as_float,
    bool: _as_bool,
    list: _as_list,
    dict: _as_dict,
}

"""Settings with Kafka's names: declared once as dataclass fields, parsed and described from there.

`segment.bytes` in a mapping is the field `segment_bytes`. Values may be strings, as Kafka's tools
give them, or plain Python values. An unknown name is an error that lists the near ones: a mistyped
`retention.msec` that is silently ignored costs its owner a week of data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "INT32_MAX",
    "LONG_MAX",
    "Declared",
    "SettingValue",
    "declared",
    "describe",
    "parse",
    "setting",
]

INT32_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1

SettingValue = str | int | float | bool
Settings = TypeVar("Settings", bound="DataclassInstance")


class Rule(NamedTuple):
    """What a setting may be: its unit or meaning, bounds or choices, and whether it is secret."""

    about: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...] | None
    sensitive: bool


def setting(
    default: Any,
    about: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    sensitive: bool = False,
) -> Any:
    """A dataclass field that `parse` fills. The default's type is the setting's type.

    One that is `sensitive` is never shown, neither by `repr` nor to clients.
    """
    rule = Rule(about, minimum, maximum, choices, sensitive)
    return field(default=default, repr=not sensitive, metadata={"rule": rule})


def parse(kind: type[Settings], values: Mapping[str, SettingValue] | None, what: str) -> Settings:
    """Build the settings dataclass `kind` from a mapping with Kafka's names.

    Args:
        kind: a dataclass whose fields were made by `setting`.
        values: names and values; those absent take their default.
        what: whose settings these are, for messages ("topic orders", "producer").

    Raises:
        ConfigError: an unknown name or a value the setting cannot have.
    """
    known = {item.name.replace("_", "."): item for item in fields(kind)}
    parsed: dict[str, Any] = {}
    for name, value in (values or {}).items():
        item = known.get(name)
        if item is None:
            raise ConfigError(f"{what}: unknown setting {name!r}. {_near(name, list(known))}")
        parsed[item.name] = _parsed(value, item.default, item.metadata["rule"], f"{what}: {name}")
    return kind(**parsed)


def describe(settings: DataclassInstance) -> dict[str, str]:
    """Every setting under Kafka's name, as Kafka's tools print it."""
    return {
        item.name.replace("_", "."): _printed(getattr(settings, item.name))
        for item in fields(settings)
    }


class Declared(NamedTuple):
    """A setting there is. `type` is boolean, double, int, list, long or string."""

    name: str
    type: str
    default: str
    about: str
    sensitive: bool


def declared(kind: type) -> list[Declared]:
    """The settings of a dataclass whose fields were made by `setting`."""
    return [
        Declared(
            item.name.replace("_", "."),
            _type_name(item.default, item.metadata["rule"]),
            _printed(item.default),
            item.metadata["rule"].about,
            item.metadata["rule"].sensitive,
        )
        for item in fields(kind)
    ]


def _type_name(default: object, rule: Rule) -> str:
    if isinstance(default, int) and not isinstance(default, bool):
        return "int" if rule.maximum is not None and rule.maximum <= INT32_MAX else "long"
    return {bool: "boolean", float: "double", tuple: "list", str: "string"}[type(default)]


def _printed(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def _near(name: str, known: list[str]) -> str:
    from difflib import get_close_matches  # only a mistake needs it

    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Known settings: {', '.join(sorted(known))}."


def _parsed(value: SettingValue, default: object, rule: Rule, where: str) -> object:
    if isinstance(default, bool):
        return _parsed_bool(value, where)
    if isinstance(default, int | float):
        return _parsed_number(value, default, rule, where)
    text = str(value).strip()
    if isinstance(default, tuple):
        parts = dict.fromkeys(part.strip() for part in text.split(",") if part.strip())
        for part in parts:
            _check_choice(part, rule, where)
        return tuple(parts)
    _check_choice(text, rule, where)
    return text


def _check_choice(text: str, rule: Rule, where: str) -> None:
    if rule.choices is not None and text not in rule.choices:
        raise ConfigError(f"{where} is {text!r}; it can be {', '.join(rule.choices)}.")


def _parsed_bool(value: SettingValue, where: str) -> bool:
    text = str(value).strip().lower()
    if text not in {"true", "false"}:
        raise ConfigError(f"{where} is {value!r}; it can be true or false.")
    return text == "true"


def _parsed_number(
    value: SettingValue, default: int | float, rule: Rule, where: str
) -> int | float:
    number: int | float
    try:
        number = float(value) if isinstance(default, float) else int(value)
        is_number = isinstance(value, str) or (number == value and not isinstance(value, bool))
    except (ValueError, TypeError, OverflowError):
        is_number = False
    if not is_number:
        wanted = "a number" if isinstance(default, float) else "a whole number"
        raise ConfigError(f"{where} is {value!r}; it must be {wanted}. {rule.about}")
    if rule.minimum is not None and not number >= rule.minimum:
        raise ConfigError(f"{where} is {number}; the least is {rule.minimum}. {rule.about}")
    maximum = LONG_MAX if rule.maximum is None else rule.maximum
    if not number <= maximum:
        raise ConfigError(f"{where} is {number}; the most is {maximum}. {rule.about}")
    return number

"""From parsed JSON to typed objects: one compiled decoder per dataclass.

`converter(hint)` answers a function from what orjson.loads gives to a value of the type, or None
where the two are the same. For a dataclass the function is generated: a class check per field, the
constructor called once. What does not fit goes through a slow path that finds the words:
`Mismatch("legs[2].carrier", "expected str, found 5")`.

JSON knows neither more nor less than orjson writes natively: str, int, float, bool, None, lists,
objects with str keys, dataclasses, datetime, date, UUID and Enum. A `time` is refused: orjson 3.13
writes 10,000 microseconds as `.10000`.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from typing import Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

from .errors import TopologyError
from .hints import resolve

__all__ = ["Mismatch", "converter", "field_types", "is_named_tuple"]

Converter = Callable[[Any], Any]

_MISSING: Final = object()
_PLAIN: Final = (int, str, bool, dict, list)
_FROM_TEXT: Final[dict[Any, Converter]] = {
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    UUID: UUID,
}
_LISTS = (list, set, frozenset, Sequence)


class Mismatch(ValueError):  # noqa: N818 - becomes a SerdeError before anybody sees it
    """A part of a JSON value does not fit the type; `path` says which part."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem

    def inside(self, outer: str) -> Mismatch:
        """The same, seen from the value that holds this one as `outer`."""
        joint = "" if not self.path or self.path.startswith("[") else "."
        return Mismatch(f"{outer}{joint}{self.path}", self.problem)


def _expected(name: str, found: object) -> Mismatch:
    text = repr(found)
    return Mismatch("", f"expected {name}, found {text if len(text) <= 60 else text[:57] + '...'}")


def is_named_tuple(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")


def field_types(cls: Any) -> dict[str, Any]:
    """Types of the fields of a dataclass or NamedTuple.

    Raises:
        TopologyError: an annotation cannot be resolved.
    """
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, annotation in inspect.get_annotations(base).items():
            try:
                found[name] = resolve(annotation, base)
            except NameError as error:
                raise TopologyError(
                    f"the type {annotation!r} of {cls.__name__}.{name} cannot be resolved: {error}"
                ) from error
    return found


_compiled: dict[Any, Converter] = {}


def converter(hint: Any) -> Converter | None:
    """A function from parsed JSON to `hint`; None where parsed JSON is it already.

    The function raises `Mismatch` for what does not fit.

    Raises:
        TopologyError: JSON cannot carry the type.
    """
    if hint is Any or hint is object:
        return None
    if hint is None or hint is type(None):
        return _none
    if hint is float:
        return _float
    if hint in _PLAIN:
        return _plain(hint)
    if hint in _FROM_TEXT:
        return _from_text(hint)
    if hasattr(hint, "__supertype__"):  # typing.NewType
        return converter(hint.__supertype__)
    if get_origin(hint) is not None:
        return _generic_converter(hint, get_origin(hint), get_args(hint))
    return _class_converter(hint)


def _generic_converter(hint: Any, origin: Any, arguments: tuple[Any, ...]) -> Converter | None:
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is typing.Annotated:
        return converter(arguments[0])
    if origin is Literal:
        return _literal(arguments)
    if origin in _LISTS:
        return _list(origin, arguments[0])
    if origin is tuple:
        return _tuple(arguments)
    if origin in (dict, Mapping):
        return _dict(*arguments)
    return _class_converter(hint)


def _class_converter(hint: Any) -> Converter | None:
    if isinstance(hint, type):
        if issubclass(hint, Enum):
            return _enum(hint)
        if dataclasses.is_dataclass(hint) or is_named_tuple(hint):
            return _object(hint)
        if typing.is_typeddict(hint):
            return _plain(dict)
    raise TopologyError(
        f"JSON cannot carry {getattr(hint, '__name__', hint)!s}: use str, int, float, bool, list, "
        "dict with str keys, datetime, date, UUID, Enum or a dataclass of these, "
        "or give a Serde of your own"
    )


def _none(value: Any) -> Any:
    if value is not None:
        raise _expected("null", value)
    return None


def _float(value: Any) -> Any:
    if value.__class__ is float:
        return value
    if value.__class__ is int:
        return float(value)
    raise _expected("float", value)


def _plain(cls: type) -> Converter:
    name = "an object" if cls is dict else "a list" if cls is list else cls.__name__

    def check(value: Any) -> Any:
        if value.__class__ is not cls:
            raise _expected(name, value)
        return value

    return check


def _from_text(cls: type) -> Converter:
    parse = _FROM_TEXT[cls]

    def read(value: Any) -> Any:
        if value.__class__ is not str:
            raise _expected(f"{cls.__name__} as text", value)
        try:
            return parse(value)
        except ValueError as error:
            raise _expected(f"{cls.__name__} as text", value) from error

    return read


def _enum(cls: type[Enum]) -> Converter:
    def read(value: Any) -> Any:
        try:
            return cls(value)
        except ValueError as error:
            allowed = ", ".join(repr(member.value) for member in cls)
            raise _expected(f"one of {allowed}", value) from error

    return read


def _literal(allowed: tuple[Any, ...]) -> Converter:
    def check(value: Any) -> Any:
        for each in allowed:
            if value == each and value.__class__ is each.__class__:
                return value
        raise _expected(f"one of {', '.join(map(repr, allowed))}", value)

    return check


def _union(members: tuple[Any, ...]) -> Converter:
    rest = tuple(member for member in members if member is not type(None))
    if len(rest) == 1:
        only = converter(rest[0]) or _same
        return lambda value: None if value is None else only(value)
    converters = [converter(member) or _same for member in members]
    names = " or ".join(getattr(each, "__name__", str(each)) for each in members)

    def read(value: Any) -> Any:
        problem: Mismatch | None = None
        for convert in converters:
            try:
                return convert(value)
            except Mismatch as error:
                problem = error if error.path else problem
        raise problem or _expected(names, value)

    return read


def _same(value: Any) -> Any:
    return value


def _list(make: Any, element: Any) -> Converter:
    convert = converter(element)

    def read(value: Any) -> Any:
        if value.__class__ is not list:
            raise _expected("a list", value)
        if convert is not None:
            value = [_at(f"[{i}]", convert, each) for i, each in enumerate(value)]
        return value if make in (list, Sequence) else make(value)

    return read


def _tuple(elements: tuple[Any, ...]) -> Converter:
    if len(elements) == 2 and elements[1] is Ellipsis:
        read_list = _list(list, elements[0])
        return lambda value: tuple(read_list(value))
    converters = [converter(element) or _same for element in elements]

    def read(value: Any) -> Any:
        if value.__class__ is not list or len(value) != len(converters):
            raise _expected(f"a list of {len(converters)}", value)
        pairs = enumerate(zip(converters, value, strict=True))
        return tuple(_at(f"[{i}]", convert, each) for i, (convert, each) in pairs)

    return read


def _dict(key: Any, element: Any) -> Converter:
    if key is not str and key is not Any:
        raise TopologyError(f"keys of a JSON object are str, not {key!r}: give a Serde of your own")
    convert = converter(element)

    def read(value: Any) -> Any:
        if value.__class__ is not dict:
            raise _expected("an object", value)
        if convert is None:
            return value
        return {name: _at(f"[{name!r}]", convert, each) for name, each in value.items()}

    return read


def _at(path: str, convert: Converter, value: Any) -> Any:
    try:
        return convert(value)
    except Mismatch as error:
        raise error.inside(path) from error


def _object(cls: Any) -> Converter:
    if cls not in _compiled:

        def itself(value: Any) -> Any:
            return _compiled[cls](value)

        # A type that contains itself finds this entry while it is being compiled.
        _compiled[cls] = itself
        try:
            _compiled[cls] = _compile(cls)
        except TopologyError:
            del _compiled[cls]
            raise
    return _compiled[cls]


@dataclasses.dataclass(frozen=True)
class _Field:
    name: str
    hint: Any
    default: Callable[[], Any] | None
    keyword: bool = False


def _fields(cls: Any) -> list[_Field]:
    hints = field_types(cls)
    if is_named_tuple(cls):
        defaults = cls._field_defaults
        return [
            _Field(name, hints[name], _constant(defaults[name]) if name in defaults else None)
            for name in cls._fields
        ]
    fields = []
    for each in dataclasses.fields(cls):
        if each.name.startswith("_"):
            raise TopologyError(
                f"{cls.__name__}.{each.name}: JSON leaves out fields that begin with an "
                "underscore; rename it, or give a Serde of your own"
            )
        if not each.init:
            continue
        default: Callable[[], Any] | None = None
        if each.default_factory is not dataclasses.MISSING:
            default = each.default_factory
        elif each.default is not dataclasses.MISSING:
            default = _constant(each.default)
        fields.append(_Field(each.name, hints[each.name], default, each.kw_only is True))
    return fields


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _check_field(field: _Field) -> Converter:
    """The slow path of one field: a default, a conversion, or the words for what is wrong."""
    convert = converter(field.hint) or _same

    def check(value: Any) -> Any:
        if value is _MISSING:
            if field.default is None:
                raise Mismatch(field.name, "missing")
            return field.default()
        return _at(field.name, convert, value)

    return check


def _compile(cls: Any) -> Converter:
    fields = _fields(cls)
    names: dict[str, Any] = {"cls": cls, "missing": _MISSING, "expected": _expected}
    lines = [
        "def decode(value):",
        "    if value.__class__ is not dict:",
        "        raise expected('an object', value)",
        "    get = value.get",
    ]
    passed = []
    for i, field in enumerate(fields):
        names[f"check{i}"] = _check_field(field)
        lines.append(f"    f{i} = get({field.name!r}, missing)")
        lines.append(f"    {_guard(field.hint, i)}f{i} = check{i}(f{i})")
        passed.append(f"{field.name}=f{i}" if field.keyword else f"f{i}")
    lines.append(f"    return cls({', '.join(passed)})")
    exec("\n".join(lines), names)
    decode: Converter = names["decode"]
    return decode


def _guard(hint: Any, i: int) -> str:
    """The condition under which a field needs a second look, as cheap as it can be made."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    optional = type(None) in members
    rest = [member for member in members if member is not type(None)]
    if rest == [Any] or rest == [object]:
        return f"if f{i} is missing: "
    if len(rest) != 1 or rest[0] not in (int, str, bool, float):
        return ""
    allow_none = f"f{i} is not None and " if optional else ""
    return f"if {allow_none}f{i}.__class__ is not {rest[0].__name__}: "

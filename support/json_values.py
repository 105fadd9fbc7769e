"""Events and snapshots as JSON: dataclasses written canonically, so that equal values have equal bytes."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from .errors import SerializationError

T = TypeVar("T")
JSON_NAME = "__stateside_json__"


def json_type(name: str) -> Callable[[type[T]], type[T]]:
    """Let instances of a class be stored as JSON under `json.cloudstate.io/<name>`.

    The name stands in the journal for ever, so it is given, not derived from the class. The class is a dataclass,
    whose fields may be JSON values, further dataclasses, and lists, dicts or optionals of these; or it has
    `to_json(self)` and a class method `from_json(cls, value)`.
    """
    if not isinstance(name, str) or not name:
        raise TypeError("json_type needs the type name to store: @json_type('item-added')")

    def mark(cls: type[T]) -> type[T]:
        custom = hasattr(cls, "to_json") and hasattr(cls, "from_json")
        if not custom and not dataclasses.is_dataclass(cls):
            raise TypeError(
                f"@json_type({name!r}): {cls.__qualname__} is neither a dataclass nor has to_json and from_json"
            )
        setattr(cls, JSON_NAME, name)
        return cls

    return mark


def json_name(cls: type) -> str | None:
    """Stored type name of a class declared by `json_type`; a subclass has to be declared itself."""
    name: str | None = vars(cls).get(JSON_NAME)
    return name


def dump_json(value: Any) -> bytes:
    """Canonical UTF-8 JSON: sorted keys, no blanks, no escapes that are not needed. Raises SerializationError."""
    if hasattr(value, "to_json"):
        value = value.to_json()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError) as error:
        raise SerializationError(f"Cannot write {type(value).__qualname__} as JSON: {error}") from error


def load_json(cls: type | None, data: bytes) -> Any:
    """The value of UTF-8 JSON, as an instance of `cls` if given. Raises SerializationError."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise SerializationError(f"Malformed JSON: {error}") from error
    if cls is None:
        return value
    if hasattr(cls, "from_json"):
        return cls.from_json(value)
    return _build(cls, value, cls.__qualname__)


def _build(hint: Any, value: Any, where: str) -> Any:
    """`value` in the shape of the annotation `hint`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build_dataclass(hint, value, where)
    if origin in (typing.Union, types.UnionType):
        return _build_union(arguments, value, where)
    if origin in (list, tuple, set, frozenset):
        return origin(_build(arguments[0], item, where) for item in _expect(list, value, where))
    if origin is dict:
        return {key: _build(arguments[1], item, where) for key, item in _expect(dict, value, where).items()}
    if hint is float and type(value) is int:
        return float(value)
    if hint in (str, int, bool, float, list, dict):
        return _expect(hint, value, where)
    return value


def _build_dataclass(cls: Any, value: Any, where: str) -> Any:
    members = _expect(dict, value, where)
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(members) - fields):
        raise SerializationError(f"{where}: JSON has members unknown to {cls.__qualname__}: {', '.join(unknown)}")
    try:
        return cls(**{name: _build(hints[name], item, f"{where}.{name}") for name, item in members.items()})
    except TypeError as error:
        raise SerializationError(f"{where}: {error}") from error


def _build_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and types.NoneType in arguments:
        return None
    problems = []
    for argument in arguments:
        try:
            return _build(argument, value, where)
        except SerializationError as error:
            problems.append(str(error))
    raise SerializationError("; ".join(problems))


def _expect(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise SerializationError(f"{where}: expected {kind.__name__}, JSON has {type(value).__name__}")
    return value

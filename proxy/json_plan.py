"""The canonical JSON of protobuf, by plans made once for each message type.

protobuf's json_format looks at descriptors anew for every field of every message, in Python. A plan is what it would
find: `printer` gives a function from a message to what json.dumps takes, `reader` one that fills a message from what
json.loads gives. They cover the ordinary kinds of fields. What a printer does not cover (Any, Struct and their like) it
leaves to json_format; a reader gives up with `Unfit`, and json_format reads the whole message or says what is wrong
with it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from math import isfinite, isnan
from typing import Any, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.internal.type_checkers import ToShortestFloat
from google.protobuf.message_factory import GetMessageClass

Printer: TypeAlias = Callable[[Any], Any]
Reader: TypeAlias = Callable[[Any, Any, int], None]
Convert: TypeAlias = Callable[[Any], Any]

MAX_DEPTH = 100
FLOAT_MAX = 3.4028234663852886e38

_F = FieldDescriptor
INT64 = (_F.CPPTYPE_INT64, _F.CPPTYPE_UINT64)
WRAPPERS_FILE = "google/protobuf/wrappers.proto"
STRINGS = frozenset(f"google.protobuf.{name}" for name in ("Timestamp", "Duration", "FieldMask"))
OTHERS = frozenset(f"google.protobuf.{name}" for name in ("Any", "Struct", "Value", "ListValue"))
NULL = "google.protobuf.NullValue"


class Unfit(Exception):
    """This JSON is not for a plan to read."""


def by_json_format(message: Any) -> Any:
    pool = message.DESCRIPTOR.file.pool
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True, descriptor_pool=pool)


# --- messages to JSON ------------------------------------------------------------------------------------------------


class Printers:
    """Of one descriptor pool."""

    def __init__(self) -> None:
        self._plans: dict[str, Printer] = {}

    def printer(self, message: Descriptor) -> Printer:
        """Gives what json_format.MessageToDict gives, fields without presence printed always. Raises what it raises."""
        plan = self._plans.get(message.full_name)
        if plan is None:
            self._plans[message.full_name] = lambda value: self._plans[message.full_name](value)  # of recursive types
            plan = self._plans[message.full_name] = self._make(message)
        return plan

    def _make(self, message: Descriptor) -> Printer:
        if message.file.name == WRAPPERS_FILE:
            convert = self._convert(message.fields_by_name["value"]) or _same
            return lambda value: convert(value.value)
        if message.full_name in STRINGS:
            return lambda value: value.ToJsonString()
        if message.full_name in OTHERS or message.is_extendable:
            return by_json_format
        return self._ordinary(message)

    def _ordinary(self, message: Descriptor) -> Printer:
        converts = {field.number: (field.json_name, self._whole(field)) for field in message.fields}
        defaults = [(field.json_name, self._default(field)) for field in message.fields if not field.has_presence]

        def plan(value: Any) -> dict[str, Any]:
            found = {}
            for field, content in value.ListFields():
                name, convert = converts[field.number]
                found[name] = convert(content) if convert is not None else content
            for name, default in defaults:
                if name not in found:
                    found[name] = default
            return found

        return plan

    def _default(self, field: FieldDescriptor) -> Any:
        if _is_map(field):
            return {}
        if field.is_repeated:
            return []
        convert = self._convert(field)
        return field.default_value if convert is None else convert(field.default_value)

    def _whole(self, field: FieldDescriptor) -> Convert | None:
        """Of all that a field holds; None leaves it as it is."""
        if _is_map(field):
            return self._map(field.message_type.fields_by_name["value"])  # type: ignore[union-attr]
        convert = self._convert(field)
        if not field.is_repeated:
            return convert
        return list if convert is None else lambda values: [convert(value) for value in values]

    def _map(self, value: FieldDescriptor) -> Convert:
        convert = self._convert(value) or _same
        return lambda entries: {_key(key): convert(entries[key]) for key in entries}

    def _convert(self, field: FieldDescriptor) -> Convert | None:
        if field.message_type is not None:
            return self.printer(field.message_type)
        if field.enum_type is not None:
            return _enum_printer(field.enum_type)
        if field.type == _F.TYPE_BYTES:
            return lambda value: b64encode(value).decode("ascii")
        if field.cpp_type in INT64:
            return str
        return {_F.CPPTYPE_DOUBLE: _print_double, _F.CPPTYPE_FLOAT: _print_float}.get(field.cpp_type)


def _same(value: Any) -> Any:
    return value


def _is_map(field: FieldDescriptor) -> bool:
    return (
        field.message_type is not None
        and field.message_type.has_options
        and bool(field.message_type.GetOptions().map_entry)
    )


def _key(key: Any) -> str:
    return str(key) if not isinstance(key, bool) else "true" if key else "false"


def _enum_printer(enum: EnumDescriptor) -> Convert:
    if enum.full_name == NULL:
        return lambda value: None
    names = {number: value.name for number, value in enum.values_by_number.items()}

    def convert(number: int) -> str | int:
        name = names.get(number)
        if name is None and enum.is_closed:
            raise json_format.SerializeToJsonError(f"{enum.full_name} has no value {number}")
        return number if name is None else name

    return convert


def _print_double(value: float) -> float | str:
    return value if isfinite(value) else "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _print_float(value: float) -> float | str:
    shortest: float = ToShortestFloat(value) if isfinite(value) else value
    return _print_double(shortest)


# --- JSON to messages ------------------------------------------------------------------------------------------------


class Readers:
    """Of one descriptor pool."""

    def __init__(self) -> None:
        self._plans: dict[str, Reader] = {}

    def reader(self, message: Descriptor) -> Reader:
        """A function of an empty message, a value of JSON and the depth of the message. Where it does not raise Unfit,
        the message is what json_format.ParseDict makes of it."""
        plan = self._plans.get(message.full_name)
        if plan is None:
            name = message.full_name
            self._plans[name] = lambda *given: self._plans[name](*given)  # of recursive types
            plan = self._plans[name] = self._make(message)
        return plan

    def _make(self, message: Descriptor) -> Reader:
        if message.file.name == WRAPPERS_FILE or message.full_name in STRINGS | OTHERS:
            return _unfit
        sets = {field.name: self._set(field) for field in message.fields}
        sets |= {field.json_name: sets[field.name] for field in message.fields}
        one_of = {
            name: field.containing_oneof.name
            for field in message.fields
            for name in (field.name, field.json_name)
            if field.containing_oneof is not None
        }

        def plan(target: Any, value: Any, depth: int) -> None:
            if type(value) is not dict or depth > MAX_DEPTH:
                raise Unfit
            if one_of and _names_twice(value, one_of):
                raise Unfit
            for name, content in value.items():
                put = sets.get(name)
                if put is None:
                    raise Unfit
                put(target, content, depth)

        return plan

    def _set(self, field: FieldDescriptor) -> Reader:
        if _is_map(field):
            return _unfit
        if field.message_type is not None:
            read = self.reader(field.message_type)
            return _add_messages(field.name, read) if field.is_repeated else _set_message(field.name, read)
        convert = _scalar_reader(field)
        return _add_scalars(field.name, convert) if field.is_repeated else _set_scalar(field.name, convert)


def read(reader: Reader, message: Any, value: Any) -> bool:
    """Fill an empty message. False: the plan cannot; the message is empty again."""
    try:
        reader(message, value, 1)
    except (Unfit, ValueError, TypeError):
        message.Clear()
        return False
    return True


def _unfit(target: Any, value: Any, depth: int) -> None:
    raise Unfit


def _names_twice(value: dict[str, Any], one_of: dict[str, str]) -> bool:
    """Whether two members of one oneof are given."""
    named = [one_of[name] for name in value if name in one_of]
    return len(named) > len(set(named))


def _set_message(name: str, read: Reader) -> Reader:
    def put(target: Any, value: Any, depth: int) -> None:
        inner = getattr(target, name)
        inner.SetInParent()
        read(inner, value, depth + 1)

    return put


def _add_messages(name: str, read: Reader) -> Reader:
    def put(target: Any, value: Any, depth: int) -> None:
        if type(value) is not list:
            raise Unfit
        target.ClearField(name)
        inner = getattr(target, name)
        for each in value:
            read(inner.add(), each, depth + 1)

    return put


def _set_scalar(name: str, convert: Convert) -> Reader:
    return lambda target, value, depth: setattr(target, name, convert(value))


def _add_scalars(name: str, convert: Convert) -> Reader:
    def put(target: Any, value: Any, depth: int) -> None:
        if type(value) is not list:
            raise Unfit
        target.ClearField(name)
        getattr(target, name).extend([convert(each) for each in value])

    return put


def _scalar_reader(field: FieldDescriptor) -> Convert:
    if field.enum_type is not None:
        return _enum_reader(field.enum_type)
    if field.type == _F.TYPE_STRING:
        return _read_string
    if field.type == _F.TYPE_BOOL:
        return _read_bool
    if field.cpp_type in INT64:
        return _read_int64
    return _NUMBERS.get(field.cpp_type, _never)


def _enum_reader(enum: EnumDescriptor) -> Convert:
    numbers = {value.name: value.number for value in enum.values}

    def convert(value: Any) -> int:
        number = numbers.get(value) if type(value) is str else None
        if number is None:
            raise Unfit
        return number

    return convert


def _read_string(value: Any) -> str:
    if type(value) is not str:
        raise Unfit
    return value


def _read_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise Unfit
    return value


def _read_int(value: Any) -> int:
    if type(value) is not int:
        raise Unfit
    return value


def _read_int64(value: Any) -> int:
    if type(value) is str and len(value) <= 20 and value.isascii() and value.removeprefix("-").isdigit():
        return int(value)
    return _read_int(value)


def _read_double(value: Any) -> float:
    if type(value) is not float or not isfinite(value):
        raise Unfit
    return value


def _read_float(value: Any) -> float:
    if abs(_read_double(value)) > FLOAT_MAX:
        raise Unfit
    return float(value)


def _never(value: Any) -> Any:
    raise Unfit


_NUMBERS: dict[int, Convert] = {
    _F.CPPTYPE_INT32: _read_int,
    _F.CPPTYPE_UINT32: _read_int,
    _F.CPPTYPE_DOUBLE: _read_double,
    _F.CPPTYPE_FLOAT: _read_float,
}


class Plans:
    """Of one descriptor pool."""

    def __init__(self) -> None:
        self._printers = Printers()
        self._readers = Readers()
        self._plans: dict[str, Plan] = {}

    def of(self, message: Descriptor) -> Plan:
        plan = self._plans.get(message.full_name)
        if plan is None:
            plan = self._plans[message.full_name] = Plan(message, self._printers, self._readers)
        return plan


class Plan:
    """What a binding needs of a type; made when it is first used."""

    def __init__(self, message: Descriptor, printers: Printers, readers: Readers) -> None:
        self.new: Any = GetMessageClass(message)
        self._message = message
        self._printers = printers
        self._readers = readers
        self._printer: Printer | None = None
        self._reader: Reader | None = None

    def print(self, message: Any) -> Any:
        if self._printer is None:
            self._printer = self._printers.printer(self._message)
        return self._printer(message)

    def read(self, message: Any, value: Any) -> bool:
        if self._reader is None:
            self._reader = self._readers.reader(self._message)
        return read(self._reader, message, value)

"""From an HTTP request to the request message of a method, and from its reply to JSON.

`request_message` puts a message together from body, query and path, later ones above earlier ones (spec http 6);
`json_reply` and `http_body` write the answer. Messages are of classes from the user function's own descriptors.
Whatever is wrong with a request is a `BadRequest` that names the field and why.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import EncodeError

from stateside.proxy import templates
from stateside.proxy.http_rules import HTTP_BODY, TEXTUAL, WHOLE, WRAPPERS
from stateside.proxy.json_plan import by_json_format

if TYPE_CHECKING:
    from stateside.proxy.http_rules import Binding, FieldPath
    from stateside.proxy.json_plan import Plan

JSON = "application/json"
MAX_PARAMETERS = 1000
MOST_OF_ONE_BYTE = 127  # the longest length that a varint of one byte can say
MAX_ERROR_LENGTH = 500
MAX_DEPTH = 100
MAX_DIGITS = 400  # of a number in path or query; more than any double needs

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|NaN|[+-]?Infinity")
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FLOAT_MAX = 3.4028235677973366e38  # what rounds to the largest float

_F = FieldDescriptor
_INT32, _INT64 = (-(1 << 31), 1 << 31), (-(1 << 63), 1 << 63)
_UINT32, _UINT64 = (0, 1 << 32), (0, 1 << 64)
# field type -> (lowest, one above the highest)
RANGES = {
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32), _INT32),
    **dict.fromkeys((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64), _INT64),
    **dict.fromkeys((_F.TYPE_UINT32, _F.TYPE_FIXED32), _UINT32),
    **dict.fromkeys((_F.TYPE_UINT64, _F.TYPE_FIXED64), _UINT64),
}


class BadRequest(Exception):
    """The request is no call of its method. The text is for the client."""


# --- requests --------------------------------------------------------------------------------------------------------


def request_message(binding: Binding, captures: Sequence[str], query: str, content_type: str, body: bytes) -> bytes:
    """The serialized request message. captures: of the path's variables, not decoded yet. Raises BadRequest."""
    if binding.texts is not None and not query:
        written = _write_texts(binding.texts, captures)
        if written is not None:
            return written
    message = binding.input.new()
    if binding.body == WHOLE:
        _read_whole(binding.input, message, content_type, body)
    elif query:
        _read_query(message, query)
    for path, captured in zip(binding.variables, captures, strict=True):
        _read_variable(message, path, captured)
    if binding.body is not None and binding.body != WHOLE:
        assert not isinstance(binding.body, str)
        _read_field(message, binding.body, content_type, body)
    try:
        serialized: bytes = message.SerializeToString()
    except EncodeError as error:  # a required field of proto2
        raise BadRequest(_short(error)) from error
    return serialized


def _write_texts(texts: Sequence[tuple[bytes, int]], captures: Sequence[str]) -> bytes | None:
    """A message of nothing but short texts, written by hand: the most frequent request there is. texts: tag of each
    field and the place of its capture, in the order of field numbers. None: something is not ordinary after all."""
    written = b""
    for tag, place in texts:
        try:
            text = templates.decode(captures[place]).encode()
        except UnicodeError:
            return None
        if len(text) > MOST_OF_ONE_BYTE:
            return None
        if text:
            written += b"%b%c%b" % (tag, len(text), text)
    return written


def _read_whole(plan: Plan, message: Any, content_type: str, body: bytes) -> None:
    if message.DESCRIPTOR.full_name == HTTP_BODY:
        _read_raw(message, content_type, body)
        return
    value = _json(content_type, body)
    if plan.read(message, value):
        return
    if not isinstance(value, dict) and not _is_well_known(message.DESCRIPTOR):
        raise BadRequest(f"the body has to be a JSON object, as {message.DESCRIPTOR.full_name} is written")
    _merge(message, value)


def _read_field(message: Any, field: FieldDescriptor, content_type: str, body: bytes) -> None:
    """The body replaces whatever path or query have set of the field."""
    message.ClearField(field.name)
    if field.message_type is not None and field.message_type.full_name == HTTP_BODY:
        _read_raw(getattr(message, field.name), content_type, body)
        return
    _merge(message, {field.json_name: _json(content_type, body)})


def _read_raw(http_body: Any, content_type: str, body: bytes) -> None:
    """google.api.HttpBody is the body as it came."""
    http_body.SetInParent()
    http_body.content_type = content_type
    http_body.data = body


def _json(content_type: str, body: bytes) -> Any:
    kind, _, parameters = content_type.partition(";")
    names = {each.partition("=")[0].strip().lower() for each in parameters.split(";") if each.strip()}
    if kind.strip().lower() != JSON or names - {"charset"}:
        raise BadRequest(f"the content type has to be {JSON}, not {content_type[:100]!r}")
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise BadRequest("the body is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not valid JSON: {_short(error)}") from error
    if value is None:
        raise BadRequest("the body is null")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice[:100]!r} appears twice in an object")
    return found


def _merge(message: Any, value: Any) -> None:
    pool = message.DESCRIPTOR.file.pool
    try:
        json_format.ParseDict(value, message, descriptor_pool=pool, max_recursion_depth=MAX_DEPTH)
    except (json_format.ParseError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        # ParseDict says ParseError for most that is wrong, and lets some misfits of well-known types through as others
        raise BadRequest(_short(error)) from error


def _is_well_known(message: Descriptor) -> bool:
    return message.full_name.startswith("google.protobuf.")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()).partition(" Available Fields")[0]
    return text if len(text) <= MAX_ERROR_LENGTH else text[: MAX_ERROR_LENGTH - 3] + "..."


# --- path and query --------------------------------------------------------------------------------------------------


def _read_variable(message: Any, path: FieldPath, captured: str) -> None:
    try:
        text = templates.decode(captured)
    except UnicodeDecodeError as error:
        raise BadRequest(f"{_dotted(path)}: the path is not UTF-8") from error
    _write(message, path, [text])


def _read_query(message: Any, query: str) -> None:
    given: dict[FieldPath, list[str]] = {}
    for name, text in _parameters(query):
        given.setdefault(_field_path(message.DESCRIPTOR, name), []).append(text)
    for path, texts in given.items():
        _write(message, path, texts)


def _parameters(query: str) -> list[tuple[str, str]]:
    if not query:
        return []
    if _BAD_ESCAPE.search(query):
        raise BadRequest("the query has a malformed percent-encoding")
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError as error:
        raise BadRequest("the query is not UTF-8") from error
    except ValueError as error:
        raise BadRequest(f"the query has more than {MAX_PARAMETERS} parameters") from error


def _field_path(message: Descriptor, name: str) -> FieldPath:
    """The fields that a parameter names, by proto names or by JSON names."""
    path: list[FieldDescriptor] = []
    inner: Descriptor | None = message
    if name.count(".") >= MAX_DEPTH:
        raise BadRequest(f"query parameter {name[:100]!r}: deeper than {MAX_DEPTH} messages")
    for part in name.split("."):
        if path and path[-1].is_repeated:
            raise BadRequest(f"query parameter {name[:100]!r}: {_dotted(tuple(path))} is repeated, or a map")
        field = _find_field(inner, part)
        if field is None:
            raise BadRequest(f"query parameter {name[:100]!r}: {message.full_name} has no such field")
        path.append(field)
        inner = field.message_type
    if inner is not None and inner.full_name not in WRAPPERS | TEXTUAL:
        raise BadRequest(f"query parameter {name[:100]!r}: it is a message, name a field of it")
    return tuple(path)


def _find_field(message: Descriptor | None, name: str) -> FieldDescriptor | None:
    if message is None:
        return None
    by_name: FieldDescriptor | None = message.fields_by_name.get(name)
    return by_name or next((field for field in message.fields if field.json_name == name), None)


def _dotted(path: FieldPath) -> str:
    return ".".join(field.name for field in path)


def _write(message: Any, path: FieldPath, texts: list[str]) -> None:
    """Set a field from its texts; several are for repeated fields only."""
    for field in path[:-1]:
        message = getattr(message, field.name)
    field = path[-1]
    if len(texts) > 1 and not field.is_repeated:
        raise BadRequest(f"{_dotted(path)}: given {len(texts)} times, but it is not repeated")
    try:
        for text in texts:
            _write_one(message, field, text)
    except ValueError as error:
        raise BadRequest(f"{_dotted(path)}: {_short(error)}") from error


def _write_one(message: Any, field: FieldDescriptor, text: str) -> None:
    if field.message_type is not None:
        target = getattr(message, field.name)
        if not field.is_repeated:
            message.ClearField(field.name)
        inner = target.add() if field.is_repeated else getattr(message, field.name)
        inner.SetInParent()
        _write_message(inner, text)
    elif field.is_repeated:
        getattr(message, field.name).append(scalar(field, text))
    else:
        setattr(message, field.name, scalar(field, text))


def _write_message(message: Any, text: str) -> None:
    """A wrapper, or a message that JSON writes as a string."""
    if message.DESCRIPTOR.full_name in WRAPPERS:
        message.value = scalar(message.DESCRIPTOR.fields_by_name["value"], text)
        return
    try:
        json_format.Parse(json.dumps(text), message)
    except json_format.ParseError as error:
        raise ValueError(str(error)) from error


def scalar(field: FieldDescriptor, text: str) -> Any:
    """The value of a field from text in a path or a query. ValueError says what was expected."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return text
    if field.type in RANGES:
        return _whole_number(text, *RANGES[field.type])
    return _OTHERS[field.type](field, text)


def _whole_number(text: str, low: int, above: int) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise ValueError(f"{text[:100]!r} is not a whole number")
    number = int(text) if len(text) <= MAX_DIGITS else above
    if not low <= number < above:
        raise ValueError(f"{text[:100]} is not between {low} and {above - 1}")
    return number


def _number(field: FieldDescriptor, text: str) -> float:
    text = text.strip()
    if not _NUMBER.fullmatch(text) or len(text) > MAX_DIGITS:
        raise ValueError(f"{text[:100]!r} is not a number")
    number = float(text)
    limit = _FLOAT_MAX if field.type == FieldDescriptor.TYPE_FLOAT else float("inf")
    if "Infinity" not in text and abs(number) >= limit:
        raise ValueError(f"{text[:100]} is too large")
    return number


def _truth(field: FieldDescriptor, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text[:100]!r} is neither true nor false")
    return text.lower() == "true"


def _bytes(field: FieldDescriptor, text: str) -> bytes:
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise ValueError(f"{text[:100]!r} is not base64") from None


def _enum(field: FieldDescriptor, text: str) -> int:
    enum = field.enum_type
    assert enum is not None
    value = enum.values_by_name.get(text)
    if value is not None:
        return int(value.number)
    if not _WHOLE_NUMBER.fullmatch(text):
        raise ValueError(f"{enum.full_name} has no value {text[:100]!r}")
    number = _whole_number(text, *_INT32)
    if enum.is_closed and number not in enum.values_by_number:
        raise ValueError(f"{enum.full_name} has no value {number}")
    return number


_OTHERS: dict[int, Callable[[FieldDescriptor, str], Any]] = {
    FieldDescriptor.TYPE_DOUBLE: _number,
    FieldDescriptor.TYPE_FLOAT: _number,
    FieldDescriptor.TYPE_BOOL: _truth,
    FieldDescriptor.TYPE_BYTES: _bytes,
    FieldDescriptor.TYPE_ENUM: _enum,
}


# --- replies ---------------------------------------------------------------------------------------------------------


def json_reply(binding: Binding, reply: bytes) -> bytes:
    """The JSON of a serialized reply, or of its `response_body`, default values included.

    Raises DecodeError, TypeError or ValueError when the reply is not of its type or has an `Any` of unknown type.
    """
    message = binding.output.new.FromString(reply)
    value = binding.output.print(message)
    if binding.response is not None:
        value = _selected(message, binding.response, value)
    return _encode(value)


def _encode(value: Any) -> bytes:
    if not isinstance(value, dict):
        return _ENCODER.encode(value).encode()
    return "".join(_iterate(value, 0)).encode()


def _make_encoder() -> Callable[[Any, int], Any]:
    """What JSONEncoder makes anew for each value. Values have no cycles, so none are looked for."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return lambda value, indent: _ENCODER.iterencode(value)
    text = json.encoder.encode_basestring
    encoder: Callable[[Any, int], Any] = make(None, _ENCODER.default, text, None, ":", ",", False, False, True)
    return encoder


_iterate = _make_encoder()


def _selected(message: Any, field: FieldDescriptor, whole: dict[str, Any]) -> Any:
    if field.json_name in whole:
        return whole[field.json_name]
    if field.message_type is not None:
        return by_json_format(getattr(message, field.name))
    setattr(message, field.name, getattr(message, field.name))  # its default, now present
    return by_json_format(message)[field.json_name]


def http_body(binding: Binding, reply: bytes) -> tuple[str, bytes] | None:
    """(content type, body) of a method that answers google.api.HttpBody. Raises DecodeError."""
    if not binding.answers_bytes:
        return None
    message = binding.output.new.FromString(reply)
    return message.content_type, message.data

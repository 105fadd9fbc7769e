"""The user function's protobuf descriptors, in a pool of their own.

Discovery hands over a serialized `FileDescriptorSet`; here it becomes a private `DescriptorPool`, so that user types
never meet the proxy's own or those of another user function. Files may come in any order. Read from it are services
and methods (`spec.py`), key fields of request messages (below), and raw files for reflection (`reflection.py`).

Options of the user's protos are extensions that nobody registered here. They are read from the serialized options by
field number, which works whether the protobuf runtime knows the extension or not.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

# Field options `cloudstate.entity_key` and `cloudstate.legacy_entity_key`: the same meaning (spec core 3).
KEY_OPTIONS = (1080, 50002)

_VARINT, _LENGTH_DELIMITED, _START_GROUP = 0, 2, 3
_FIXED_BYTES = {1: 8, 5: 4}


class SpecError(Exception):
    """What the user function offers cannot be served. The text is for its author and is reported to it."""


@dataclass(slots=True)
class Descriptors:
    """A linked set of files. `raw` holds each file as reflection gives it away, by file name, imports first."""

    pool: DescriptorPool = field(default_factory=DescriptorPool)
    raw: dict[str, bytes] = field(default_factory=dict)

    def file(self, name: str) -> FileDescriptor:
        """Raises KeyError."""
        return self.pool.FindFileByName(name)


def build(file_descriptor_set: bytes) -> Descriptors:
    """Link a serialized FileDescriptorSet. Raises SpecError naming the file that is wrong."""
    files = _by_name(_decode(file_descriptor_set))
    built = Descriptors()
    for name in _imports_first(files):
        raw = files[name].SerializeToString()
        try:
            built.pool.AddSerializedFile(raw)
        except (TypeError, ValueError) as error:
            raise SpecError(f'The descriptor of "{name}" cannot be linked: {" ".join(str(error).split())}') from error
        built.raw[name] = raw
    return built


def key_fields(message: Descriptor) -> list[FieldDescriptor]:
    """Top-level fields marked as (part of) the entity key, in order of declaration."""
    return [field for field in message.fields if is_key(field.GetOptions().SerializeToString())]


def is_key(field_options: bytes) -> bool:
    """Whether serialized FieldOptions carry one of the key options with a true value."""
    marks = dict.fromkeys(KEY_OPTIONS, 0)
    for number, value in _fields(field_options):
        if number in marks and isinstance(value, int):
            marks[number] = value
    return any(marks.values())


def message_option(options: bytes, number: int) -> bytes:
    """The bytes of an option that is a message; its parts, if it was written in several; empty without it."""
    return b"".join(value for found, value in _fields(options) if found == number and isinstance(value, bytes))


def _decode(data: bytes) -> FileDescriptorSet:
    try:
        return FileDescriptorSet.FromString(data)
    except DecodeError as error:
        raise SpecError("The proto field of the EntitySpec is not a serialized FileDescriptorSet.") from error


def _by_name(files: FileDescriptorSet) -> dict[str, FileDescriptorProto]:
    found: dict[str, FileDescriptorProto] = {}
    for file in files.file:
        if found.setdefault(file.name, file) != file:
            raise SpecError(f'The descriptor set contains two different files named "{file.name}".')
    return found


def _imports_first(files: dict[str, FileDescriptorProto]) -> list[str]:
    """File names ordered so that each stands behind everything it imports (depth first, without recursion)."""
    ordered: dict[str, None] = {}
    for root in files:
        path: dict[str, Iterator[str]] = {}
        if root not in ordered:
            _enter(root, path, files)
        while path:
            name, imports = next(reversed(path.items()))
            following = next((each for each in imports if each not in ordered), None)
            if following is not None:
                _enter(following, path, files)
            else:
                ordered[name] = None
                del path[name]
    return list(ordered)


def _enter(name: str, path: dict[str, Iterator[str]], files: dict[str, FileDescriptorProto]) -> None:
    """Step into an imported file, unless that closes a circle or leads outside the set."""
    if name in path:
        cycle = list(path)[list(path).index(name) :] + [name]
        raise SpecError(f"The descriptor set contains files that import each other in a cycle: {_arrows(cycle)}.")
    if name not in files:
        raise SpecError(
            f'The file "{name}" is imported but missing in the descriptor set (import path: {_arrows([*path, name])}). '
            "Include all imports, those of Google's well-known types too."
        )
    path[name] = iter(files[name].dependency)


def _arrows(names: list[str]) -> str:
    return " -> ".join(names)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Top-level fields of a well-formed message that are varints or have a length: (field number, value)."""
    at = depth = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, at = _varint(data, at)
            if depth == 0:
                yield number, value
        elif wire_type == _LENGTH_DELIMITED:
            length, at = _varint(data, at)
            if depth == 0:
                yield number, data[at : at + length]
            at += length
        elif wire_type in _FIXED_BYTES:
            at += _FIXED_BYTES[wire_type]
        else:
            depth += 1 if wire_type == _START_GROUP else -1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7

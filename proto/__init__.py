"""Message classes of the protocol, from a descriptor pool of their own.

User functions bring descriptors under the very names that are used here, and a process may hold several of them (a
proxy, its tests, a support library with an application's own modules). So nothing here enters protobuf's default pool,
and classes of this pool and of the default pool do not mix: pass serialized bytes between them. `Any`, `Empty` and
`FileDescriptorSet` are of this pool too.

Each name below (`cloudstate`, `eventsourced`, ...) holds the messages and enums of one protobuf package, made on first
use: `eventsourced.EventSourcedStreamIn(...)`, `crdt.CrdtWriteConsistency.MAJORITY`.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any as Untyped

__all__ = [
    "cloudstate",
    "eventsourced",
    "valueentity",
    "action",
    "crdt",
    "health",
    "reflection",
    "reflection_v1alpha",
    "api",
    "protobuf",
    "Any",
    "Empty",
    "FileDescriptorSet",
    "pack",
    "unpack",
    "pool",
    "extension",
    "include_dir",
]

TYPE_URL_PREFIX = "type.googleapis.com/"

Any: Untyped
Empty: Untyped
FileDescriptorSet: Untyped


class Package:
    """Messages and enums of one protobuf package, as attributes."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Untyped:
        if name.startswith("_"):
            raise AttributeError(name)
        found = find(f"{self._name}.{name}")
        if found is None:
            raise AttributeError(f"protobuf package {self._name} has no message or enum {name}")
        setattr(self, name, found)
        return found

    def __repr__(self) -> str:
        return f"<protobuf package {self._name}>"


cloudstate: Untyped = Package("cloudstate")
eventsourced: Untyped = Package("cloudstate.eventsourced")
valueentity: Untyped = Package("cloudstate.valueentity")
action: Untyped = Package("cloudstate.action")
crdt: Untyped = Package("cloudstate.crdt")
health: Untyped = Package("grpc.health.v1")
reflection: Untyped = Package("grpc.reflection.v1")
reflection_v1alpha: Untyped = Package("grpc.reflection.v1alpha")
api: Untyped = Package("google.api")
protobuf: Untyped = Package("google.protobuf")


def __getattr__(name: str) -> Untyped:
    if name in ("Any", "Empty", "FileDescriptorSet"):
        return getattr(protobuf, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def pack(message: Untyped, type_url_prefix: str = TYPE_URL_PREFIX) -> Untyped:
    """An `Any` of this pool around a message of any pool."""
    return protobuf.Any(type_url=type_url_prefix + message.DESCRIPTOR.full_name, value=message.SerializeToString())


def unpack(any_message: Untyped, message_class: Untyped) -> Untyped:
    """The message of class `message_class` inside an `Any`; ValueError when it holds another type."""
    held = any_message.type_url.rpartition("/")[2]
    if held != message_class.DESCRIPTOR.full_name:
        raise ValueError(f"Any holds {any_message.type_url!r}, not {message_class.DESCRIPTOR.full_name}")
    return message_class.FromString(any_message.value)


@cache
def pool() -> Untyped:
    """The private DescriptorPool with everything in descriptors.binpb."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.protobuf.descriptor_pool import DescriptorPool

    private = DescriptorPool()
    for file in FileDescriptorSet.FromString((Path(__file__).parent / "descriptors.binpb").read_bytes()).file:
        private.AddSerializedFile(file.SerializeToString())
    return private


def extension(full_name: str) -> Untyped:
    """Descriptor of an option such as "cloudstate.entity_key" or "google.api.http", to look up in `options.Extensions`.

    The options have to be of this pool: parse descriptors with this module's `FileDescriptorSet`.
    """
    return pool().FindExtensionByName(full_name)


def include_dir() -> str:
    """Folder to give to `protoc -I`, so that protos can import "cloudstate/entity_key.proto" and the others."""
    spec = find_spec("cloudstate")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package `cloudstate`, installed together with stateside, is missing")
    return str(Path(spec.origin).parent.parent)


def find(full_name: str) -> Untyped:
    """Class of a message, wrapper of an enum; None when the pool has neither."""
    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
    from google.protobuf.message_factory import GetMessageClass

    try:
        return GetMessageClass(pool().FindMessageTypeByName(full_name))
    except KeyError:
        pass
    try:
        return EnumTypeWrapper(pool().FindEnumTypeByName(full_name))
    except KeyError:
        return None

"""What the protobuf runtime says about the messages that the wire kernels scan: the oracle of their tests and fuzzing.

Values come from the real classes. Whether a message has to be refused comes from shallow copies of them, in which
everything that the scanners hand on unread is declared as bytes: what is malformed in there is not theirs to find.
"""

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from stateside._speedups import wire
from stateside._speedups.java_numbers import double_text, float_text
from stateside.proto import eventsourced, pool

UNREAD = {
    "Reply": {"metadata"},
    "ClientAction": {"forward"},
    "Command": {"metadata"},
    "EventSourcedReply": {"side_effects", "events", "snapshot"},
    "EventSourcedSnapshot": {"snapshot"},
    "EventSourcedEvent": {"payload"},
}

KEY_TYPES = [
    "string",
    "bool",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "sint32",
    "sint64",
    "fixed32",
    "sfixed32",
    "fixed64",
    "sfixed64",
    "float",
    "double",
    "enum",
]
COLOURS = {0: "RED", 1: "GREEN", -7: "BLUE"}


def parsed(message_class: Any, data: bytes) -> Any:
    """The message, or None where the runtime refuses it."""
    try:
        return message_class.FromString(data)
    except DecodeError:
        return None


# --- EventSourcedStreamOut and EventSourcedStreamIn ------------------------------------------------------------------


def seen_out(out: wire.StreamOut) -> dict[str, Any]:
    names = ["kind", "command_id", "action", "type_url", "payload", "metadata", "forward", "description", "restart"]
    seen = {name: getattr(out, name) for name in [*names, "snapshot"]}
    return seen | {"events": list(out.events), "side_effects": list(out.side_effects)}


def expected_out(message: Any) -> dict[str, Any]:
    kind = {None: wire.KIND_NONE, "reply": wire.KIND_REPLY, "failure": wire.KIND_FAILURE}[message.WhichOneof("message")]
    reply, action = message.reply, message.reply.client_action
    which = action.WhichOneof("action")
    failure = message.failure if kind == wire.KIND_FAILURE else action.failure
    return {
        "kind": kind,
        "command_id": failure.command_id if kind == wire.KIND_FAILURE else reply.command_id,
        "action": [None, "reply", "forward", "failure"].index(which),
        "type_url": action.reply.payload.type_url,
        "payload": action.reply.payload.value,
        "metadata": serialized(action.reply, "metadata"),
        "forward": serialized(action, "forward"),
        "description": failure.description,
        "restart": failure.restart,
        "snapshot": serialized(reply, "snapshot"),
        "events": [event.SerializeToString() for event in reply.events],
        "side_effects": [effect.SerializeToString() for effect in reply.side_effects],
    }


def seen_in(found: wire.StreamIn) -> dict[str, Any]:
    names = ["kind", "service_name", "entity_id", "snapshot_sequence", "snapshot", "sequence", "event"]
    names += ["command_id", "name", "type_url", "payload", "streamed", "metadata"]
    return {name: getattr(found, name) for name in names}


def expected_in(message: Any) -> dict[str, Any]:
    which = message.WhichOneof("message")
    init, event, command = message.init, message.event, message.command
    return {
        "kind": [None, "init", "event", "command"].index(which),
        "service_name": init.service_name,
        "entity_id": init.entity_id if which == "init" else command.entity_id,
        "snapshot_sequence": init.snapshot.snapshot_sequence,
        "snapshot": serialized(init.snapshot, "snapshot"),
        "sequence": event.sequence,
        "event": serialized(event, "payload"),
        "command_id": command.id,
        "name": command.name,
        "type_url": command.payload.type_url,
        "payload": command.payload.value if command.HasField("payload") else None,
        "streamed": command.streamed,
        "metadata": serialized(command, "metadata"),
    }


def serialized(message: Any, field: str) -> bytes | None:
    content: bytes = getattr(message, field).SerializeToString()
    return content if message.HasField(field) else None


def canonical(values: dict[str, Any], reference: Any) -> dict[str, Any]:
    """`values` with everything that stayed bytes parsed and serialized again, so that only its meaning is compared."""
    classes = sub_message_classes(reference)
    return {name: normal(classes[name], value) if name in classes else value for name, value in values.items()}


def normal(message_class: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [normal(message_class, item) for item in value]
    return None if value is None else message_class.FromString(value).SerializeToString()


def sub_message_classes(message: Any) -> dict[str, Any]:
    if isinstance(message, eventsourced.EventSourcedStreamOut):
        names = {"metadata": "Metadata", "forward": "Forward", "side_effects": "SideEffect"}
        anys = ["events", "snapshot"]
    else:
        names, anys = {"metadata": "Metadata"}, ["snapshot", "event"]
    full_names = {field: f"cloudstate.{name}" for field, name in names.items()}
    full_names |= {field: "google.protobuf.Any" for field in anys}
    return {field: GetMessageClass(pool().FindMessageTypeByName(name)) for field, name in full_names.items()}


def shallow_classes() -> tuple[Any, Any]:
    """EventSourcedStreamOut and EventSourcedStreamIn, with bytes for what scanners do not read."""
    shallow = DescriptorPool()
    for name in ["any", "empty"]:
        copy_file(f"google/protobuf/{name}.proto", shallow)
    for name in ["entity", "event_sourced"]:
        copy_file(f"cloudstate/{name}.proto", shallow)
    package = "cloudstate.eventsourced.EventSourcedStream"
    out, into = (GetMessageClass(shallow.FindMessageTypeByName(package + end)) for end in ("Out", "In"))
    return out, into


def copy_file(name: str, into: DescriptorPool) -> None:
    file = FileDescriptorProto.FromString(pool().FindFileByName(name).serialized_pb)
    for message in file.message_type:
        for field in message.field:
            if field.name in UNREAD.get(message.name, ()):
                field.type = FieldDescriptorProto.TYPE_BYTES
                field.ClearField("type_name")
    into.AddSerializedFile(file.SerializeToString())


# --- entity keys -----------------------------------------------------------------------------------------------------


def key_message() -> Any:
    """A message with a field of every type that can be a key; field numbers follow KEY_TYPES."""
    file = FileDescriptorProto(name="keys.proto", package="keys", syntax="proto3")
    colour = file.enum_type.add(name="Colour")
    for number, name in COLOURS.items():
        colour.value.add(name=name, number=number)
    message = file.message_type.add(name="Keys")
    for number, type_name in enumerate(KEY_TYPES, 1):
        field = message.field.add(name=f"a_{type_name}", number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{type_name.upper()}")
        if type_name == "enum":
            field.type_name = ".keys.Colour"
    private = DescriptorPool()
    private.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(private.FindMessageTypeByName("keys.Keys"))


def key_scanner(*type_names: str) -> wire.KeyScanner:
    fields = [(KEY_TYPES.index(name) + 1, name) for name in type_names]
    return wire.KeyScanner(fields, {KEY_TYPES.index("enum") + 1: {**COLOURS, wire.ENUM_NAME: "Colour"}})


def key_text(type_name: str, value: Any) -> str:
    """Text of one key as the reference prints it."""
    if type_name == "string":
        return str(value)
    if type_name == "bool":
        return "true" if value else "false"
    if type_name in ("float", "double"):
        return float_text(value) if type_name == "float" else double_text(value)
    if type_name == "enum":
        return COLOURS.get(value, f"UNKNOWN_ENUM_VALUE_Colour_{value}")
    bits = 64 if "64" in type_name else 32
    return str(value - (1 << bits) if value >= 1 << (bits - 1) else value)


def key_texts(message: Any) -> str:
    return "-".join(key_text(name, getattr(message, f"a_{name}")) for name in KEY_TYPES)

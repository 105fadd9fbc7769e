"""What the protobuf runtime says about the messages that the wire kernels scan: the oracle of their tests and fuzzing.

Values come from the real classes. Whether a message has to be refused comes from shallow copies of them, in which
everything that the scanners hand on unread is declared as bytes: what is malformed in there is not theirs to find.
"""

import base64
import binascii
import re
from functools import cache
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from stateside._speedups import wire
from stateside._speedups.java_numbers import double_text, float_text
from stateside.proto import Any as AnyMessage
from stateside.proto import cloudstate, crdt, pool

UNREAD = {
    "Reply": {"metadata"},
    "ClientAction": {"forward"},
    "Command": {"metadata"},
    "EventSourcedReply": {"side_effects"},
    "EventSourcedSnapshot": {"snapshot"},
    "EventSourcedEvent": {"payload"},
    "ValueEntityReply": {"side_effects"},
    "ValueEntityInitState": {"value"},
    "CrdtReply": {"side_effects"},
    "CrdtStreamedMessage": {"side_effects"},
    "CrdtStreamCancelledResponse": {"side_effects"},
    "CrdtStateAction": {"update"},
    "CrdtStreamIn": {"delta"},
    "CrdtInit": {"delta"},
    "ActionCommand": {"metadata"},
    "ActionResponse": {"forward", "side_effects"},
}

# attributes of scanned messages that are, or hold, serialized messages
SERIALIZED = {
    "metadata": cloudstate.Metadata,
    "forward": cloudstate.Forward,
    "side_effects": cloudstate.SideEffect,
    "events": AnyMessage,
    "snapshot": AnyMessage,
    "event": AnyMessage,
    "value": AnyMessage,
    "update": crdt.CrdtDelta,
    "delta": crdt.CrdtDelta,
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


# --- what a user function answers ------------------------------------------------------------------------------------

OUTCOME = ["action", "type_url", "payload", "metadata", "forward", "description", "side_effects"]
ACTIONS = [None, "reply", "forward", "failure"]


def seen_out(out: wire.StreamOut) -> dict[str, Any]:
    return seen(out, [*OUTCOME, "kind", "command_id", "restart", "events", "snapshot"])


def seen_value_out(out: wire.ValueOut) -> dict[str, Any]:
    return seen(out, [*OUTCOME, "kind", "command_id", "restart", "state_action", "value"])


def seen_crdt_out(out: wire.CrdtOut) -> dict[str, Any]:
    own = ["streamed", "end_stream", "state_action", "update", "write_consistency"]
    return seen(out, [*OUTCOME, "kind", "command_id", "restart", *own])


def seen_action_out(out: wire.ActionOut) -> dict[str, Any]:
    return seen(out, OUTCOME)


def seen(scanned: Any, names: list[str]) -> dict[str, Any]:
    values = {name: getattr(scanned, name) for name in names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def expected_out(message: Any) -> dict[str, Any]:
    reply = message.reply
    return expected_stream_out(message) | {
        "snapshot": serialized(reply, "snapshot"),
        "events": [event.SerializeToString() for event in reply.events],
    }


def expected_value_out(message: Any) -> dict[str, Any]:
    reply, change = message.reply, message.reply.state_action
    state_action = {None: wire.STATE_INVALID, "update": wire.STATE_UPDATE, "delete": wire.STATE_DELETE}[
        change.WhichOneof("action")
    ]
    if state_action == wire.STATE_UPDATE and not change.update.HasField("value"):
        state_action = wire.STATE_INVALID
    return expected_stream_out(message) | {
        "state_action": state_action if reply.HasField("state_action") else wire.STATE_NONE,
        "value": serialized(change.update, "value"),
    }


CRDT_KINDS = {
    None: wire.KIND_NONE,
    "reply": wire.KIND_REPLY,
    "streamed_message": wire.KIND_STREAMED_MESSAGE,
    "stream_cancelled_response": wire.KIND_CANCELLED_RESPONSE,
    "failure": wire.KIND_FAILURE,
}


def expected_crdt_out(message: Any) -> dict[str, Any]:
    which = message.WhichOneof("message")
    member = getattr(message, which) if which else message.reply
    action = getattr(member, "client_action", cloudstate.ClientAction())
    failure = member if which == "failure" else action.failure
    return expected_outcome(action, action.WhichOneof("action")) | {
        "kind": CRDT_KINDS[which],
        "command_id": member.command_id,
        "description": failure.description,
        "restart": failure.restart,
        "side_effects": [effect.SerializeToString() for effect in getattr(member, "side_effects", ())],
        "streamed": getattr(member, "streamed", False),
        "end_stream": getattr(member, "end_stream", False),
        **expected_state_action(member),
    }


def expected_state_action(member: Any) -> dict[str, Any]:
    change = getattr(member, "state_action", crdt.CrdtStateAction())
    present = hasattr(member, "state_action") and member.HasField("state_action")
    which = {None: wire.STATE_INVALID, "update": wire.STATE_UPDATE, "delete": wire.STATE_DELETE}
    return {
        "state_action": which[change.WhichOneof("action")] if present else wire.STATE_NONE,
        "update": serialized(change, "update"),
        "write_consistency": change.write_consistency if 0 <= change.write_consistency <= 2 else 0,
    }


def expected_action_out(message: Any) -> dict[str, Any]:
    return expected_outcome(message, message.WhichOneof("response")) | {
        "side_effects": [effect.SerializeToString() for effect in message.side_effects],
    }


def expected_stream_out(message: Any) -> dict[str, Any]:
    """Of the stream-out message of either entity protocol."""
    kind = {None: wire.KIND_NONE, "reply": wire.KIND_REPLY, "failure": wire.KIND_FAILURE}[message.WhichOneof("message")]
    reply, action = message.reply, message.reply.client_action
    failure = message.failure if kind == wire.KIND_FAILURE else action.failure
    return expected_outcome(action, action.WhichOneof("action")) | {
        "kind": kind,
        "command_id": failure.command_id if kind == wire.KIND_FAILURE else reply.command_id,
        "description": failure.description,
        "restart": failure.restart,
        "side_effects": [effect.SerializeToString() for effect in reply.side_effects],
    }


def expected_outcome(members: Any, which: str | None) -> dict[str, Any]:
    return {
        "action": ACTIONS.index(which),
        "type_url": members.reply.payload.type_url,
        "payload": members.reply.payload.value,
        "metadata": serialized(members.reply, "metadata"),
        "forward": serialized(members, "forward"),
        "description": members.failure.description,
    }


# --- what a proxy sends ----------------------------------------------------------------------------------------------


def seen_in(found: wire.StreamIn) -> dict[str, Any]:
    names = ["kind", "service_name", "entity_id", "snapshot_sequence", "snapshot", "sequence", "event"]
    return seen(found, [*names, "command_id", "name", "type_url", "payload", "streamed", "metadata"])


def seen_crdt_in(found: wire.CrdtIn) -> dict[str, Any]:
    names = ["kind", "service_name", "entity_id", "delta", "command_id"]
    return seen(found, [*names, "name", "type_url", "payload", "streamed", "metadata"])


def seen_action_in(found: wire.ActionIn) -> dict[str, Any]:
    return seen(found, ["service_name", "name", "type_url", "payload", "metadata"])


def expected_in(message: Any) -> dict[str, Any]:
    return expected_init_or_command(message) | {
        "snapshot_sequence": message.init.snapshot.snapshot_sequence,
        "snapshot": serialized(message.init.snapshot, "snapshot"),
        "sequence": message.event.sequence,
        "event": serialized(message.event, "payload"),
    }


def expected_value_in(message: Any) -> dict[str, Any]:
    return expected_init_or_command(message) | {
        "snapshot_sequence": 0,
        "snapshot": serialized(message.init.state, "value"),
        "sequence": 0,
        "event": None,
    }


def expected_crdt_in(message: Any) -> dict[str, Any]:
    which = message.WhichOneof("message")
    kinds = {
        None: wire.IN_NONE,
        "init": wire.IN_INIT,
        "delta": wire.IN_DELTA,
        "delete": wire.IN_DELETE,
        "command": wire.IN_COMMAND,
        "stream_cancelled": wire.IN_STREAM_CANCELLED,
    }
    member = getattr(message, which) if which else message.init
    return expected_payload(message.command) | {
        "kind": kinds[which],
        "service_name": message.init.service_name,
        "entity_id": getattr(member, "entity_id", ""),
        "delta": serialized(message, "delta") if which == "delta" else serialized(message.init, "delta"),
        "command_id": getattr(member, "id", 0),
        "streamed": message.command.streamed,
    }


def expected_init_or_command(message: Any) -> dict[str, Any]:
    which = message.WhichOneof("message")
    init, command = message.init, message.command
    return expected_payload(command) | {
        "kind": [None, "init", "event", "command"].index(which),
        "service_name": init.service_name,
        "entity_id": init.entity_id if which == "init" else command.entity_id,
        "command_id": command.id,
        "streamed": command.streamed,
    }


def expected_action_in(message: Any) -> dict[str, Any]:
    return expected_payload(message) | {"service_name": message.service_name}


def expected_payload(command: Any) -> dict[str, Any]:
    """Of a Command or an ActionCommand."""
    return {
        "name": command.name,
        "type_url": command.payload.type_url,
        "payload": command.payload.value if command.HasField("payload") else None,
        "metadata": serialized(command, "metadata"),
    }


# --- serialized messages ---------------------------------------------------------------------------------------------


def serialized(message: Any, field: str) -> bytes | None:
    content: bytes = getattr(message, field).SerializeToString()
    return content if message.HasField(field) else None


def canonical(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with everything that stayed bytes parsed and serialized again, so that only its meaning is compared."""
    return {name: normal(SERIALIZED[name], value) if name in SERIALIZED else value for name, value in values.items()}


def normal(message_class: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [normal(message_class, item) for item in value]
    return None if value is None else message_class.FromString(value).SerializeToString()


def shallow(full_name: str) -> Any:
    """Class of a message of the protocol, with bytes for what scanners do not read."""
    return GetMessageClass(shallow_pool().FindMessageTypeByName(full_name))


@cache
def shallow_pool() -> DescriptorPool:
    made = DescriptorPool()
    for name in ["any", "empty"]:
        copy_file(f"google/protobuf/{name}.proto", made)
    for name in ["entity", "event_sourced", "value_entity", "crdt", "action"]:
        copy_file(f"cloudstate/{name}.proto", made)
    return made


def copy_file(name: str, into: DescriptorPool) -> None:
    file = FileDescriptorProto.FromString(pool().FindFileByName(name).serialized_pb)
    for message in file.message_type:
        for field in message.field:
            if field.name in UNREAD.get(message.name, ()):
                field.type = FieldDescriptorProto.TYPE_BYTES
                field.ClearField("type_name")
    into.AddSerializedFile(file.SerializeToString())


# --- metadata --------------------------------------------------------------------------------------------------------

Headers = list[tuple[bytes, bytes]]

NOT_METADATA = {"content-type", "content-length", "te", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding"}
NOT_METADATA |= {"grpc-status", "grpc-message"}
NOT_IN_RESPONSES = NOT_METADATA | {"transfer-encoding", "date", "server", "connection"}
NOT_IN_RESPONSES |= {"keep-alive", "proxy-connection", "upgrade"}


def expected_metadata(headers: Headers) -> Any:
    """Metadata of request headers; without entries where the kernel gives None."""
    metadata = cloudstate.Metadata()
    for name, value in headers:
        if name.startswith(b":") or text(name.lower()) in NOT_METADATA:
            continue
        binaries = base64_values(value) if name.lower().endswith(b"-bin") else None
        if binaries is None:
            metadata.entries.add(key=text(name), string_value=text(value))
        for binary in binaries or []:
            metadata.entries.add(key=text(name), bytes_value=binary)
    return metadata


def text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def base64_values(value: bytes) -> list[bytes] | None:
    try:
        return [base64_value(part.strip(b" ")) for part in value.split(b",")]
    except binascii.Error:
        return None


def base64_value(part: bytes) -> bytes:
    padding = b"" if b"=" in part else b"=" * (-len(part) % 4)
    return base64.b64decode(part + padding, validate=True)


def expected_headers(metadata: Any) -> Headers:
    """Response headers of Metadata."""
    headers = []
    for entry in metadata.entries:
        name = entry.key.lower() if entry.key.isascii() else ""
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", name) or name in NOT_IN_RESPONSES:
            continue
        which, value = entry.WhichOneof("value"), entry.string_value
        if which == "bytes_value":
            name = name if name.endswith("-bin") else name + "-bin"
            headers.append((name.encode(), base64.b64encode(entry.bytes_value).rstrip(b"=")))
        elif which and value.strip(" \t") == value and not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
            headers.append((name.encode(), value.encode()))
    return headers


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

"""Messages of cloudstate.crdt by the protobuf runtime, with the interface of the compiled functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stateside._speedups.wire import (
    ACTION_FAILURE,
    ACTION_FORWARD,
    ACTION_NONE,
    ACTION_REPLY,
    STATE_DELETE,
    STATE_NONE,
    STATE_UPDATE,
)
from stateside.proto import crdt

__all__ = [
    "ACTION_FAILURE",
    "ACTION_FORWARD",
    "ACTION_NONE",
    "ACTION_REPLY",
    "STATE_DELETE",
    "STATE_NONE",
    "STATE_UPDATE",
]

KINDS = {None: 0, "init": 1, "command": 3, "delta": 4, "delete": 5, "stream_cancelled": 6}


@dataclass(slots=True)
class CrdtIn:
    kind: int = 0
    service_name: str = ""
    entity_id: str = ""
    delta: bytes | None = None
    command_id: int = 0
    name: str = ""
    type_url: str = ""
    payload: bytes | None = None
    streamed: bool = False
    metadata: bytes | None = None


def scan_crdt_in(message: bytes) -> CrdtIn:
    parsed = crdt.CrdtStreamIn.FromString(message)
    kind = parsed.WhichOneof("message")
    out = CrdtIn(KINDS[kind])
    match kind:
        case "init":
            out.service_name, out.entity_id = parsed.init.service_name, parsed.init.entity_id
            out.delta = parsed.init.delta.SerializeToString() if parsed.init.HasField("delta") else None
        case "command":
            c = parsed.command
            out.entity_id, out.command_id, out.name, out.streamed = c.entity_id, c.id, c.name, c.streamed
            out.payload = c.payload.value if c.HasField("payload") else None
        case "delta":
            out.delta = parsed.delta.SerializeToString()
        case "stream_cancelled":
            out.entity_id, out.command_id = parsed.stream_cancelled.entity_id, parsed.stream_cancelled.id
    return out


def _act(target: Any, command_id: int, action: int, **a: Any) -> None:
    if action == ACTION_REPLY:
        target.client_action.reply.payload.type_url = a["type_url"]
        target.client_action.reply.payload.value = a["payload"]
        if a["metadata"]:
            target.client_action.reply.metadata.MergeFromString(a["metadata"])
    elif action == ACTION_FORWARD:
        target.client_action.forward.MergeFromString(a["forward"])
    elif action == ACTION_FAILURE:
        target.client_action.failure.command_id = command_id
        target.client_action.failure.description = a["description"]


def _state(target: Any, state_action: int, update: bytes | None, write_consistency: int) -> None:
    if state_action == STATE_UPDATE:
        target.state_action.update.MergeFromString(update)
    elif state_action == STATE_DELETE:
        target.state_action.delete.SetInParent()
    if state_action != STATE_NONE:
        target.state_action.write_consistency = write_consistency


def write_crdt_reply(
    command_id: int,
    action: int = 0,
    *,
    type_url: str = "",
    payload: bytes = b"",
    metadata: bytes | None = None,
    forward: bytes | None = None,
    description: str = "",
    side_effects: Sequence[bytes] = (),
    state_action: int = 0,
    update: bytes | None = None,
    write_consistency: int = 0,
    streamed: bool = False,
) -> bytes:
    out = crdt.CrdtStreamOut()
    out.reply.command_id = command_id
    out.reply.streamed = streamed
    _act(
        out.reply,
        command_id,
        action,
        type_url=type_url,
        payload=payload,
        metadata=metadata,
        forward=forward,
        description=description,
    )
    for effect in side_effects:
        out.reply.side_effects.add().MergeFromString(effect)
    _state(out.reply, state_action, update, write_consistency)
    return bytes(out.SerializeToString())


def write_crdt_streamed_message(
    command_id: int,
    action: int = 0,
    *,
    type_url: str = "",
    payload: bytes = b"",
    metadata: bytes | None = None,
    forward: bytes | None = None,
    description: str = "",
    side_effects: Sequence[bytes] = (),
    end_stream: bool = False,
) -> bytes:
    out = crdt.CrdtStreamOut()
    out.streamed_message.command_id = command_id
    out.streamed_message.end_stream = end_stream
    _act(
        out.streamed_message,
        command_id,
        action,
        type_url=type_url,
        payload=payload,
        metadata=metadata,
        forward=forward,
        description=description,
    )
    for effect in side_effects:
        out.streamed_message.side_effects.add().MergeFromString(effect)
    return bytes(out.SerializeToString())


def write_crdt_cancelled_response(
    command_id: int,
    *,
    side_effects: Sequence[bytes] = (),
    state_action: int = 0,
    update: bytes | None = None,
    write_consistency: int = 0,
) -> bytes:
    out = crdt.CrdtStreamOut()
    out.stream_cancelled_response.command_id = command_id
    for effect in side_effects:
        out.stream_cancelled_response.side_effects.add().MergeFromString(effect)
    _state(out.stream_cancelled_response, state_action, update, write_consistency)
    return bytes(out.SerializeToString())


def write_crdt_failure(command_id: int, description: str) -> bytes:
    out = crdt.CrdtStreamOut()
    out.failure.command_id = command_id
    out.failure.description = description
    return bytes(out.SerializeToString())

"""Streams of event sourced entities: replay of snapshot and events, events and snapshots with replies.

The order of messages and commands is that of every entity, see `entity_stream`.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.any_pb2 import Any as PackedAny

from stateside._speedups.wire import StreamIn, scan_event_sourced_in, write_forward, write_reply

from .context import EntityContext
from .entity_model import CommandHandler
from .entity_stream import EntityHandler, EntityStream, State, StreamCall, Texts, type_name
from .errors import EntityFailure
from .event_sourced import EventSourcedContext
from .event_sourced_model import EventSourcedType

__all__ = ["EventSourcedHandler", "EventSourcedStream", "State"]


class EventSourcedStream(EntityStream):
    """State machine of one stream of cloudstate.eventsourced.EventSourced/handle."""

    __slots__ = ("sequence",)

    entity: EventSourcedType
    protocol = "cloudstate.eventsourced.EventSourced"
    scan = staticmethod(scan_event_sourced_in)
    texts = Texts(
        expected_init="Protocol error: Expected Init message",
        already_inited="Protocol error: Entity already inited",
        empty_message="Protocol error: Received empty/unknown message",
        other_recipient="Protocol error: Receiving entity is not the intended recipient of command",
        no_payload="Protocol error: No command payload",
        unexpected="Unexpected failure",
    )

    def __init__(self, call: StreamCall, owner: EntityHandler) -> None:
        EntityStream.__init__(self, call, owner)
        self.sequence = 0

    def record(self, event: Any) -> bytes:
        """Serialize and apply an emitted event; the serialized Any."""
        encoded = self.entity.codec.encode(event)
        self._apply(self.entity.codec.decode(encoded) if type(event) is PackedAny else event, self.sequence + 1)
        return encoded

    # --- the state of the instance ---------------------------------------------------------------------------------

    def _load(self, init: StreamIn) -> None:
        if init.snapshot is None:
            return
        snapshot = self.entity.codec.decode(init.snapshot)
        handler = self.entity.snapshot_handler(snapshot)
        if handler is None:
            raise EntityFailure(f"No snapshot handler found for snapshot {type_name(snapshot)} on {self.entity.label}")
        handler(self.instance, snapshot, EntityContext(self.entity_id, init.snapshot_sequence))
        self.sequence = init.snapshot_sequence

    def _ready__event(self, incoming: StreamIn) -> None:
        self._apply(self.entity.codec.decode(incoming.event or b""), incoming.sequence)

    def _apply(self, event: Any, sequence: int) -> None:
        handler = self.entity.event_handler(event)
        if handler is None:
            raise EntityFailure(f"No event handler found for event {type_name(event)} on {self.entity.label}")
        handler(self.instance, event, EntityContext(self.entity_id, sequence))
        self.sequence = sequence

    # --- the end of a command ----------------------------------------------------------------------------------------

    def _context(self, command: StreamIn) -> EventSourcedContext:
        return EventSourcedContext(
            self.entity_id, command.command_id, command.name, command.metadata, self._served, self
        )

    def _write_reply(
        self, context: EventSourcedContext, handler: CommandHandler, payload: bytes, metadata: bytes | None
    ) -> bytes:
        return write_reply(
            context.command_id,
            handler.reply_url,
            payload,
            metadata=metadata,
            events=context._events,
            snapshot=self._snapshot(context),
            side_effects=context._effects,
        )

    def _write_forward(self, context: EventSourcedContext, forward: bytes) -> bytes:
        return write_forward(
            context.command_id,
            forward,
            events=context._events,
            snapshot=self._snapshot(context),
            side_effects=context._effects,
        )

    def _snapshot(self, context: EventSourcedContext) -> bytes | None:
        """The snapshot that this command's events make due."""
        if not context._events or not self.entity.snapshot_due(context._before, self.sequence):
            return None
        assert self.entity.take_snapshot is not None
        return self.entity.codec.encode(
            self.entity.take_snapshot(self.instance, None, EntityContext(self.entity_id, self.sequence))
        )

    def _needs_restart(self, context: EventSourcedContext) -> bool:
        """Emitted events already changed the instance."""
        return bool(context._events) or context._broken is not None

    table = (
        (
            EntityStream._opening__other,
            EntityStream._opening__init,
            EntityStream._opening__other,
            EntityStream._opening__other,
        ),
        (EntityStream._ready__none, EntityStream._ready__init, _ready__event, EntityStream._ready__command),
        (),
        (EntityStream._spoiled__any,) * 4,
    )


class EventSourcedHandler(EntityHandler):
    """Serves /cloudstate.eventsourced.EventSourced/handle, for all event sourced services."""

    stream_class = EventSourcedStream

"""Streams of value entities: the value comes with init, and goes back with the reply of each command that changed it.

The order of messages and commands is that of every entity, see `entity_stream`. A stream remembers the value as bytes,
so that what a failed command did to its copy is gone with the command.
"""

from __future__ import annotations

from stateside._speedups.wire import (
    STATE_DELETE,
    STATE_NONE,
    STATE_UPDATE,
    StreamIn,
    scan_value_in,
    write_value_forward,
    write_value_reply,
)

from .context import Context
from .entity_model import CommandHandler
from .entity_stream import EntityHandler, EntityStream, StreamCall, Texts
from .value_entity import ValueEntityContext
from .value_entity_model import ValueEntityType


class ValueEntityStream(EntityStream):
    """State machine of one stream of cloudstate.valueentity.ValueEntity/handle."""

    __slots__ = ("value",)

    entity: ValueEntityType
    protocol = "cloudstate.valueentity.ValueEntity"
    scan = staticmethod(scan_value_in)
    texts = Texts(
        expected_init="Protocol error: Expected init message for Value entity",
        already_inited="Protocol error: Value entity already inited",
        empty_message="Protocol error: Value entity received empty/unknown message",
        other_recipient="Protocol error: Receiving Value entity is not the intended recipient of command",
        no_payload="Protocol error: No command payload for Value entity",
        unexpected="Value entity unexpected failure",
    )

    def __init__(self, call: StreamCall, owner: EntityHandler) -> None:
        EntityStream.__init__(self, call, owner)
        self.value: bytes | None = None
        """The stored value, a serialized Any."""

    def _load(self, init: StreamIn) -> None:
        self.value = init.snapshot

    def _context(self, command: StreamIn) -> Context:
        return ValueEntityContext(
            self.entity_id,
            command.command_id,
            command.name,
            command.metadata,
            self._served,
            self.entity.codec,
            self.value,
        )

    def _write_reply(
        self, context: ValueEntityContext[object], handler: CommandHandler, payload: bytes, metadata: bytes | None
    ) -> bytes:
        action, value = self._keep(context)
        return write_value_reply(
            context.command_id,
            handler.reply_url,
            payload,
            metadata=metadata,
            side_effects=context._effects,
            state_action=action,
            value=value,
        )

    def _write_forward(self, context: ValueEntityContext[object], forward: bytes) -> bytes:
        action, value = self._keep(context)
        return write_value_forward(
            context.command_id, forward, side_effects=context._effects, state_action=action, value=value
        )

    def _keep(self, context: ValueEntityContext[object]) -> tuple[int, bytes | None]:
        """Remember what the command changed; the state action that tells it."""
        if not context._changed:
            return STATE_NONE, None
        self.value = context._value
        return (STATE_DELETE if self.value is None else STATE_UPDATE), self.value

    table = (
        (
            EntityStream._opening__other,
            EntityStream._opening__init,
            EntityStream._opening__other,
            EntityStream._opening__other,
        ),
        (
            EntityStream._ready__none,
            EntityStream._ready__init,
            EntityStream._ready__none,
            EntityStream._ready__command,
        ),
        (),
        (EntityStream._spoiled__any,) * 4,
    )


class ValueEntityHandler(EntityHandler):
    """Serves /cloudstate.valueentity.ValueEntity/handle, for all value entity services."""

    stream_class = ValueEntityStream

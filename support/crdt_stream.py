"""Streams of CRDT entities: the CRDT comes with init or is made by the first command, deltas go both ways.

Commands are handled one by one, as of every entity (see `entity_stream`). Streamed ones leave a subscriber behind: it
is called after each change, by a command here after the reply to it, and may send its client a message.

    state    | init     | delta | delete | command    | cancelled | empty   | half-close
    ---------+----------+-------+--------+------------+-----------+---------+----------------
    OPENING  | -> READY | fail  | fail   | fail       | fail      | fail    | -> GONE
    READY    | fail     | READY | READY  | READY/BUSY | READY     | fail    | -> GONE
    BUSY     | waits    | waits | waits  | waits      | waits     | waits   | after the reply

A command that fails leaves nothing: its changes are taken back. So an exception in a handler fails that command only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from stateside._speedups.wire import (
    ACTION_FAILURE,
    ACTION_FORWARD,
    ACTION_NONE,
    ACTION_REPLY,
    STATE_DELETE,
    STATE_NONE,
    STATE_UPDATE,
    scan_crdt_in,
    write_crdt_cancelled_response,
    write_crdt_failure,
    write_crdt_reply,
    write_crdt_streamed_message,
)
from stateside.proto import crdt as protocol

from .answers import Answer, NoReply
from .context import Context
from .crdt_entity import CancelContext, ChangeContext, CrdtContext
from .crdt_map import ORMap, new_crdt
from .crdt_model import CrdtType
from .crdt_views import MapView
from .crdts import FREE, Changes, Crdt
from .entity_model import CommandHandler
from .entity_stream import EntityHandler, EntityStream, StreamCall, Texts, reply_bytes, unfold
from .errors import ContextError, EntityFailure, Fail, RegistrationError

_CLOSED = "changes are made in command handlers and in on_cancel callbacks"
_DELETED = "the entity is deleted"


class Subscriber:
    """A streamed command whose client is still there."""

    __slots__ = ("command_id", "context", "handler", "on_cancel", "on_change")

    def __init__(self, handler: CommandHandler, context: CrdtContext[Any]) -> None:
        self.handler = handler
        self.context = context
        self.command_id = context.command_id
        self.on_change = context._on_change
        self.on_cancel = context._on_cancel


class CrdtStream(EntityStream):
    """State machine of one stream of cloudstate.crdt.Crdt/handle."""

    __slots__ = ("_changes", "_shown", "_subscribers", "crdt", "deleted")

    entity: CrdtType
    protocol = "cloudstate.crdt.Crdt"
    scan = staticmethod(scan_crdt_in)  # type: ignore[assignment]
    write_failure = staticmethod(write_crdt_failure)
    texts = Texts(
        expected_init="Protocol error: Expected init message for CRDT entity",
        already_inited="Protocol error: CRDT entity already inited",
        empty_message="Protocol error: CRDT entity received empty/unknown message",
        other_recipient="Protocol error: Receiving CRDT entity is not the intended recipient of command",
        no_payload="Protocol error: No command payload for CRDT entity",
        unexpected="CRDT entity unexpected failure",
    )

    def __init__(self, call: StreamCall, owner: EntityHandler) -> None:
        EntityStream.__init__(self, call, owner)
        self.crdt: Crdt | None = None
        self.deleted = False
        self._shown: Any = None
        self._changes = Changes(FREE, _CLOSED)
        self._subscribers: dict[int, Subscriber] = {}

    # --- the CRDT ----------------------------------------------------------------------------------------------------

    def held(self) -> Any:
        """The CRDT as handlers take it; a new one if there was none."""
        if self._shown is None:
            initial = self.entity.initial
            if initial is None:
                raise ContextError(f"{self.entity.label}: no handler declares its CRDT; use ctx.get_or_create")
            self._create(initial)
        return self._shown

    def get_or_create(self, create: Callable[[], Any]) -> Any:
        """The CRDT as handlers take it; made by `create` if there was none."""
        if self._shown is None:
            self._create(create)
        elif isinstance(create, type) and issubclass(create, MapView) and isinstance(self._shown, ORMap):
            self._shown = create(self._shown)
        elif isinstance(create, type) and not isinstance(self._shown, create):
            raise ContextError(
                f"{self.entity.label} {self.entity_id!r} is a {type(self._shown).__name__}, not a {create.__name__}"
            )
        return self._shown

    def _create(self, create: Callable[[], Any]) -> None:
        if self._changes.refusal is not None:
            raise ContextError(f"{self.entity.label} {self.entity_id!r} has no CRDT yet: {self._changes.refusal}")
        made = create()
        crdt = made.ormap if isinstance(made, MapView) else made
        if not isinstance(crdt, Crdt):
            raise RegistrationError(f"{self.entity.label}: {type(made).__name__} is no CRDT")
        crdt._check_free()
        self._hold(crdt, made)
        self._changes.undo.append((self._hold, (None, None)))

    def _hold(self, crdt: Crdt | None, shown: Any) -> None:
        self.crdt, self._shown = crdt, shown
        if crdt is not None:
            crdt._join(self._changes)

    def _apply(self, data: bytes) -> None:
        delta = protocol.CrdtDelta.FromString(data)
        if self.crdt is None:
            crdt = new_crdt(delta)
            self._hold(crdt, self.entity.shown(crdt))
        assert self.crdt is not None
        self.crdt._apply(delta)

    # --- one method per message ----------------------------------------------------------------------------------

    def _load(self, init: Any) -> None:
        self._changes = Changes(self.entity.codec, _CLOSED)
        if init.delta is not None:
            self._apply(init.delta)

    def _ready__delta(self, incoming: Any) -> None:
        if not self.deleted:
            self._apply(incoming.delta or b"")
            self._tell()

    def _ready__delete(self, _: Any) -> None:
        self._delete()

    def _ready__command(self, command: Any) -> None:
        if self.deleted and command.entity_id == self.entity_id:
            self._send(write_crdt_reply(command.command_id, ACTION_FAILURE, description="Entity deleted"))
            return
        self._changes.refusal = None
        EntityStream._ready__command(self, command)

    def _ready__cancelled(self, cancelled: Any) -> None:
        if cancelled.entity_id != self.entity_id:
            raise EntityFailure(self.texts.other_recipient, cancelled.command_id)
        subscriber = self._subscribers.pop(cancelled.command_id, None)
        if subscriber is None or subscriber.on_cancel is None:
            self._send(write_crdt_cancelled_response(cancelled.command_id))
            return
        context: CancelContext[Any] = CancelContext(
            self, *_names(subscriber), self._served, self.entity.declaration.write_consistency
        )
        state: int = STATE_NONE
        update: bytes | None = None
        effects = context._effects
        try:
            self._changes.refusal = None
            subscriber.on_cancel(context)
            taken = self._take(False)
            if not self.deleted:  # otherwise there is nothing left to change
                state, update = taken
        except Exception as error:
            self._changes.take_back()
            effects = []
            self._report(error, subscriber.handler.name)
        context._closed = True
        self._close()
        self._send(
            write_crdt_cancelled_response(
                cancelled.command_id,
                side_effects=effects,
                state_action=state,
                update=update,
                write_consistency=context.write_consistency,
            )
        )
        if update is not None:
            self._tell()

    # --- commands ----------------------------------------------------------------------------------------------------

    def _context(self, command: Any) -> Context:
        return CrdtContext(
            self,
            command.command_id,
            command.name,
            command.metadata,
            self._served,
            command.streamed,
            self.entity.declaration.write_consistency,
        )

    def _conclude(self, handler: CommandHandler, context: Any, result: Any, error: Exception | None) -> None:
        context._closed = True
        update = None
        try:
            if error is not None or context._failure is not None or context._broken is not None:
                _raise(context, error)
            action, url, payload, metadata = self._action(handler, context, result)
            state, update = self._take(context._deleted)
            reply = write_crdt_reply(
                context.command_id,
                action,
                type_url=url,
                payload=payload,
                metadata=metadata,
                forward=context._forward,
                side_effects=context._effects,
                state_action=state,
                update=update,
                write_consistency=context.write_consistency,
                streamed=context._on_change is not None or context._on_cancel is not None,
            )
            self._send(reply)
        except Fail as refused:
            self._changes.take_back()
            self._refuse_reply(context, refused.description)
            return
        except Exception as raised:
            self._changes.take_back()
            self._send(write_crdt_failure(context.command_id, self._report(raised, context.command_name)))
            return
        finally:
            self._close()
        if update is not None and self._subscribers:
            self._tell()
        if context._on_change is not None or context._on_cancel is not None:
            self._subscribers[context.command_id] = Subscriber(handler, context)

    def _refuse_reply(self, context: Context, description: str) -> None:
        self._hooks.command_failed(self.entity.service_name, self.entity_id, context.command_name, description)
        self._send(write_crdt_reply(context.command_id, ACTION_FAILURE, description=description))

    def _take(self, deleted: bool) -> tuple[int, bytes | None]:
        """The state action of what was changed."""
        update = None if self.crdt is None else self.crdt._take()
        self._changes.undo.clear()
        if deleted:
            self._delete()
            return STATE_DELETE, None
        return (STATE_NONE, None) if update is None else (STATE_UPDATE, update)

    def _delete(self) -> None:
        self.deleted = True
        self._close()

    def _close(self) -> None:
        self._changes.refusal = _DELETED if self.deleted else _CLOSED

    def _action(self, handler: CommandHandler, context: Any, result: Any) -> tuple[int, str, bytes, bytes | None]:
        """The client action for what a handler or callback returned: kind; type URL, payload, metadata of a reply."""
        if type(result) is handler.reply_class and context._forward is None:
            return ACTION_REPLY, handler.reply_url, result.SerializeToString(), None
        metadata = None
        if isinstance(result, NoReply):
            effects, result = result.effects, None
            for effect in effects:
                context._add_effect(effect.call, effect.synchronous)
        elif isinstance(result, Answer):
            result, metadata = unfold(context, result)
        if context._forward is not None:
            if result is not None:
                raise ContextError("Both a reply and a forward were given by the command handler!")
            return ACTION_FORWARD, "", b"", None
        if result is None and (not isinstance(context, CrdtContext) or context.streamed):
            return ACTION_NONE, "", b"", None
        return ACTION_REPLY, handler.reply_url, reply_bytes(handler, result), metadata

    # --- subscribers ---------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """The value changed."""
        for subscriber in list(self._subscribers.values()):
            if subscriber.on_change is not None:
                self._tell_one(subscriber, subscriber.on_change)

    def _tell_one(self, subscriber: Subscriber, on_change: Callable[[Any], Any]) -> None:
        context: ChangeContext[Any] = ChangeContext(self, *_names(subscriber), self._served)
        try:
            action, url, payload, metadata = self._action(subscriber.handler, context, on_change(context))
            if context._failure is not None:
                raise Fail(context._failure)
        except Exception as error:
            subscriber.on_change = None  # the proxy tells that it is cancelled
            refused = error.description if isinstance(error, Fail) else self._report(error, subscriber.handler.name)
            self._send(write_crdt_streamed_message(subscriber.command_id, ACTION_FAILURE, description=refused))
            return
        finally:
            context._closed = True
        if context._ended:
            del self._subscribers[subscriber.command_id]
        if context._ended or context._effects or action != ACTION_NONE:
            message = write_crdt_streamed_message(
                subscriber.command_id,
                action,
                type_url=url,
                payload=payload,
                metadata=metadata,
                forward=context._forward,
                side_effects=context._effects,
                end_stream=context._ended,
            )
            self._send(message)

    def _leave(self) -> None:
        self._changes.refusal = None  # what generators change in the end goes nowhere
        for subscriber in self._subscribers.values():
            generator = subscriber.context._generator
            if generator is not None:
                try:
                    generator.close()
                except Exception as error:
                    self._report(error, subscriber.handler.name)
        self._subscribers.clear()
        EntityStream._leave(self)

    def _report(self, error: Exception, command: str) -> str:
        """Tell the hooks of an exception; the description for the proxy."""
        description = error.description if isinstance(error, EntityFailure) else self._unexpected(error).description
        self._hooks.stream_failed(self.entity.service_name, self.entity_id, command, description, error)
        return description

    table = (
        (EntityStream._opening__other, EntityStream._opening__init, *[EntityStream._opening__other] * 5),
        (
            EntityStream._ready__none,
            EntityStream._ready__init,
            EntityStream._ready__none,
            _ready__command,
            _ready__delta,
            _ready__delete,
            _ready__cancelled,
        ),
        (),
        (),
    )


def _raise(context: Any, error: Exception | None) -> NoReturn:
    """Raise what failed a command. Its own `fail` counts even if the handler caught it; an exception counts more."""
    if context._failure is not None and (error is None or isinstance(error, Fail)):
        raise Fail(context._failure)
    raise error if error is not None else context._broken


def _names(subscriber: Subscriber) -> tuple[int, str, bytes | None]:
    return subscriber.command_id, subscriber.handler.name, subscriber.context._metadata


class CrdtHandler(EntityHandler):
    """Serves /cloudstate.crdt.Crdt/handle, for all CRDT services."""

    stream_class = CrdtStream

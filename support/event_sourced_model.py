"""An event sourced entity class, read and checked once at registration, in the shape its streams need.

Everything that can be wrong with a class is found here, before the user function listens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, NoReturn

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from .calls import find_method
from .context import EntityContext
from .errors import RegistrationError
from .event_sourced import ENTITY_ATTRIBUTE, EventSourced, EventSourcedContext
from .handlers import (
    Invoke,
    Mark,
    Parameters,
    Rules,
    bind,
    bind_constructor,
    marked,
    resolve,
    same_type,
    union_members,
    where,
)
from .json_values import json_name
from .serialization import MESSAGE_PREFIX, PRIMITIVES, AnyCodec


@dataclass(frozen=True, slots=True)
class CommandHandler:
    """How one rpc is answered."""

    name: str
    parse: Callable[[bytes], Message]
    invoke: Invoke
    is_async: bool
    reply_class: type[Message]
    reply_url: str
    empty_reply: bool
    """The reply is google.protobuf.Empty: a handler that returns nothing has answered."""


class EventSourcedType:
    """One registered entity class. Shared by all streams of its service; not changed after it was made."""

    def __init__(self, cls: type, *, type_url_prefix: str = MESSAGE_PREFIX) -> None:
        self.declaration = declaration_of(cls)
        self.entity_class = cls
        self.label = cls.__qualname__
        self.service_name: str = self.declaration.service.full_name
        self.snapshot_every = self.declaration.snapshot_every
        _check_unary(cls, self.declaration)
        self.create = _constructor(cls)
        handlers = list(marked(cls))
        self.commands = dict(_commands(cls, self.declaration, handlers))
        self.event_handlers = _by_payload(cls, "event", handlers, self.declaration)
        self.snapshot_handlers = _by_payload(cls, "snapshot_handler", handlers, self.declaration)
        self.take_snapshot = _snapshot(cls, handlers)
        if self.take_snapshot is not None and not self.snapshot_handlers:
            raise RegistrationError(f"{self.label} has a @snapshot but no @snapshot_handler to read it back with")
        self.codec = AnyCodec(
            self.declaration.service.file.pool,
            [*self.event_handlers, *self.snapshot_handlers],
            prefix=type_url_prefix,
            primitives=self.declaration.allow_primitives,
            json=self.declaration.allow_json,
        )

    def event_handler(self, event: Any) -> Invoke | None:
        """The handler of an event's type or of the nearest base class."""
        return _nearest(self.event_handlers, type(event))

    def snapshot_handler(self, snapshot: Any) -> Invoke | None:
        """The handler of a snapshot's type or of the nearest base class."""
        return _nearest(self.snapshot_handlers, type(snapshot))

    def unhandled(self) -> list[str]:
        """Names of the service's methods that the class does not handle."""
        return [method.name for method in self.declaration.service.methods if method.name not in self.commands]

    def snapshot_due(self, before: int, after: int) -> bool:
        """Whether a multiple of `snapshot_every` is among the event numbers before + 1 to after."""
        every = self.snapshot_every
        return every > 0 and self.take_snapshot is not None and before // every != after // every


def declaration_of(cls: type) -> EventSourced:
    """What the class decorator noted. Raises RegistrationError if there is none."""
    if not isinstance(cls, type):
        raise RegistrationError(f"{cls!r} is not a class; register the entity class itself")
    declaration = vars(cls).get(ENTITY_ATTRIBUTE)
    if not isinstance(declaration, EventSourced):
        raise RegistrationError(
            f"{cls.__qualname__} is not declared as an entity. Did you mean to decorate it with @EventSourced?"
        )
    return declaration


def _nearest(handlers: dict[type, Invoke], cls: type) -> Invoke | None:
    found = handlers.get(cls)
    if found is not None:
        return found
    return next((handlers[base] for base in cls.__mro__ if base in handlers), None)


def _constructor(cls: type) -> Callable[[EntityContext], Any]:
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        return lambda context: cls()
    rules = Rules(EntityContext, takes_payload=False, skips_defaults=True)
    return bind_constructor(cls, resolve(where(cls, cls.__init__), cls.__init__, rules))  # type: ignore[misc]


def _check_unary(cls: type, declaration: EventSourced) -> None:
    streamed = [m.name for m in declaration.service.methods if m.client_streaming or m.server_streaming]
    if streamed:
        raise RegistrationError(
            f"{cls.__qualname__}: {declaration.service.full_name} has streamed methods ({', '.join(streamed)}); "
            "an event sourced entity takes unary commands only"
        )


Handlers = list[tuple[Callable[..., Any], Mark]]


def _commands(cls: type, declaration: EventSourced, handlers: Handlers) -> Iterator[tuple[str, CommandHandler]]:
    methods = {method.name: method for method in declaration.service.methods}
    taken: dict[str, str] = {}
    for function, mark in handlers:
        if mark.kind != "command":
            continue
        label = where(cls, function)
        method = find_method(methods, mark.argument or function.__name__)
        if method is None:
            raise RegistrationError(
                f"{label}: service {declaration.service.full_name} has no rpc {mark.argument or function.__name__!r}; "
                f"it has {', '.join(methods)}"
            )
        if method.name in taken:
            raise RegistrationError(f"{label}: rpc {method.name} is already handled by {taken[method.name]}")
        taken[method.name] = label
        yield method.name, _command(label, function, method)


def _command(label: str, function: Callable[..., Any], method: MethodDescriptor) -> CommandHandler:
    request: type[Message] = GetMessageClass(method.input_type)
    reply: type[Message] = GetMessageClass(method.output_type)
    parameters = resolve(label, function, Rules(EventSourcedContext, payload=request, metadata=True))
    _check_return(label, parameters, reply, function)
    return CommandHandler(
        name=method.name,
        parse=request.FromString,
        invoke=bind(function, parameters),
        is_async=inspect.iscoroutinefunction(function),
        reply_class=reply,
        reply_url=f"{MESSAGE_PREFIX}/{reply.DESCRIPTOR.full_name}",
        empty_reply=reply.DESCRIPTOR.full_name == "google.protobuf.Empty",
    )


def _check_return(label: str, parameters: Parameters, reply: type[Message], function: Callable[..., Any]) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise RegistrationError(f"{label} is a generator; a command has one reply")
    if parameters.returns is inspect.Signature.empty or parameters.returns is Any:
        return
    for member in union_members(parameters.returns):
        if member not in (None, NoneType, NoReturn) and not same_type(member, reply):
            name = getattr(member, "__qualname__", repr(member))
            raise RegistrationError(
                f"{label} returns {name}; the rpc replies {reply.__qualname__}, None is for forwards"
            )


def _by_payload(cls: type, kind: str, handlers: Handlers, declaration: EventSourced) -> dict[type, Invoke]:
    """Handlers of events or snapshots by the types they take."""
    found: dict[type, Invoke] = {}
    labels: dict[type, str] = {}
    for function, mark in handlers:
        if mark.kind != kind:
            continue
        label = where(cls, function)
        _check_sync(label, kind, function)
        parameters = resolve(label, function, Rules(EntityContext, payload=mark.argument))
        types = (mark.argument,) if mark.argument else parameters.payload
        if not types:
            raise RegistrationError(f"{label}: which type? Annotate its parameter, or name the type: @{kind}(Type)")
        for payload in types:
            _check_payload(label, payload, declaration)
            if payload in labels:
                raise RegistrationError(f"{label}: {payload.__qualname__} is already handled by {labels[payload]}")
            labels[payload] = label
            found[payload] = bind(function, parameters)
    return found


def _check_payload(label: str, payload: type, declaration: EventSourced) -> None:
    primitive, json = payload in PRIMITIVES, payload is dict or json_name(payload) is not None
    if (primitive and not declaration.allow_primitives) or (json and not declaration.allow_json):
        kind = "primitives" if primitive else "json"
        raise RegistrationError(f"{label} takes {payload.__qualname__}, but allow_{kind} is False")
    if not (primitive or json or issubclass(payload, Message)):
        raise RegistrationError(
            f"{label} takes {payload.__qualname__}; allowed are protobuf messages, str, bytes, bool, int, float, dict "
            "and classes declared by @json_type"
        )


def _snapshot(cls: type, handlers: Handlers) -> Invoke | None:
    functions = [function for function, mark in handlers if mark.kind == "snapshot"]
    if not functions:
        return None
    if len(functions) > 1:
        raise RegistrationError(
            f"{where(cls, functions[1])}: the snapshot is already taken by {where(cls, functions[0])}"
        )
    label = where(cls, functions[0])
    _check_sync(label, "snapshot", functions[0])
    return bind(functions[0], resolve(label, functions[0], Rules(EntityContext, takes_payload=False)))


def _check_sync(label: str, kind: str, function: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise RegistrationError(f"{label}: a @{kind} method is a plain function; only command handlers may be async")

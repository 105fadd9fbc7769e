"""An event sourced entity class, read and checked once at registration, in the shape its streams need.

Everything that can be wrong with a class is found here, before the user function listens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from .context import EntityContext
from .entity_model import EntityType, Handlers, declaration_of
from .errors import RegistrationError
from .event_sourced import EventSourced, EventSourcedContext
from .handlers import Invoke, Rules, bind, resolve, where
from .json_values import json_name
from .serialization import MESSAGE_PREFIX, PRIMITIVES, AnyCodec

KINDS = ("command", "event", "snapshot", "snapshot_handler")


class EventSourcedType(EntityType):
    """One registered event sourced entity class."""

    declaration: EventSourced

    def __init__(self, cls: type, *, type_url_prefix: str = MESSAGE_PREFIX) -> None:
        super().__init__(cls, declaration_of(cls), EventSourcedContext, KINDS)
        self.snapshot_every = self.declaration.snapshot_every
        self.event_handlers = _by_payload(cls, "event", self.handlers, self.declaration)
        self.snapshot_handlers = _by_payload(cls, "snapshot_handler", self.handlers, self.declaration)
        self.take_snapshot = _snapshot(cls, self.handlers)
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

    def snapshot_due(self, before: int, after: int) -> bool:
        """Whether a multiple of `snapshot_every` is among the event numbers before + 1 to after."""
        every = self.snapshot_every
        return every > 0 and self.take_snapshot is not None and before // every != after // every


def _nearest(handlers: dict[type, Invoke], cls: type) -> Invoke | None:
    found = handlers.get(cls)
    if found is not None:
        return found
    return next((handlers[base] for base in cls.__mro__ if base in handlers), None)


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

"""Event sourced entities as an application writes them: a class, its handlers, and the context of a command.

The decorators here only leave notes. `event_sourced_model` reads and checks them when the class is registered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any, Protocol, TypeVar, overload

from google.protobuf.descriptor import ServiceDescriptor

from .context import Context
from .entity import StatefulDeclaration
from .handlers import mark

F = TypeVar("F", bound=Callable[..., Any])


class EventSourced(StatefulDeclaration):
    """Class decorator: instances of the class are event sourced entities.

    service: descriptor of the gRPC service whose commands the class handles.
    persistence_id: name of this kind of entity in the journal; never change it. Default: the service's short name.
    snapshot_every: a snapshot at every so many events; 0 = the default of 100; negative = never.
    passivate_after: how long an instance without commands stays in memory; None = as the proxy is configured.
    allow_primitives, allow_json: whether events and snapshots may be str, bytes, bool, int, float, or JSON.
    """

    entity_type = "cloudstate.eventsourced.EventSourced"
    noun = "an event sourced entity"

    def __init__(
        self,
        *,
        service: ServiceDescriptor,
        persistence_id: str = "",
        snapshot_every: int = 0,
        passivate_after: timedelta | None = None,
        allow_primitives: bool = True,
        allow_json: bool = True,
    ) -> None:
        super().__init__(service, persistence_id, passivate_after, allow_primitives, allow_json)
        self.snapshot_every = snapshot_every or 100


@overload
def event(event_type: type, /) -> Callable[[F], F]: ...
@overload
def event(handler: F, /) -> F: ...
def event(handler: Any = None, /) -> Any:
    """Declare an event handler: it changes the state of the instance by one event, and does nothing else.

    It runs when the event is emitted and whenever the entity is brought back from the journal. It is chosen by the
    type of the event: that of its annotated parameter, or the one named, `@event(ItemAdded)`; a base class stands for
    all its subclasses.
    """
    return mark("event", handler, type)


def snapshot(handler: F, /) -> F:
    """Declare the method that returns the state as a value the journal can hold."""
    marked: F = mark("snapshot", handler, None)
    return marked


@overload
def snapshot_handler(snapshot_type: type, /) -> Callable[[F], F]: ...
@overload
def snapshot_handler(handler: F, /) -> F: ...
def snapshot_handler(handler: Any = None, /) -> Any:
    """Declare the method that sets the state of a fresh instance from a snapshot; chosen by type as event handlers
    are.
    """
    return mark("snapshot_handler", handler, type)


class Recorder(Protocol):
    """The entity instance's side of `emit`."""

    sequence: int

    def record(self, event: Any) -> bytes: ...


class EventSourcedContext(Context):
    """Context of a command to an event sourced entity."""

    __slots__ = ("_before", "_events", "_recorder")

    def __init__(
        self,
        entity_id: str,
        command_id: int,
        command_name: str,
        metadata: bytes | None,
        served: Collection[str],
        recorder: Recorder,
    ) -> None:
        Context.__init__(self, entity_id, command_id, command_name, metadata, served)
        self._recorder = recorder
        self._before = recorder.sequence
        self._events: list[bytes] = []

    @property
    def sequence(self) -> int:
        """Number of the entity's last event, those emitted by this command included; 0 before the first."""
        return self._recorder.sequence

    def emit(self, event: Any) -> None:
        """Record an event. Its handler runs at once, so that the command handler goes on with the new state.

        event: a protobuf message, a value declared by `json_type`, a dict with a 'type', or a str, bytes, bool, int
        or float.
        Raises SerializationError for anything else, EntityFailure when the entity has no handler for it.
        """
        self._check_open()
        try:
            self._events.append(self._recorder.record(event))
        except Exception as error:
            self._broken = error
            raise

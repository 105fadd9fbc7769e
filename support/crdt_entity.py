"""CRDT entities as an application writes them: a class, its command handlers, and the contexts of what happens.

The state of a CRDT entity is one CRDT, of which every proxy has a replica. A handler takes it as a parameter and
changes it; what was changed goes to the proxy with the reply. The class may have attributes, which are of this process
only: open connections, say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from datetime import timedelta
from enum import IntEnum
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from google.protobuf.descriptor import ServiceDescriptor

from .calls import ServiceCall
from .context import Context
from .crdt_views import MapView
from .crdts import Crdt
from .entity import StatefulDeclaration
from .errors import ContextError

S = TypeVar("S")
T = TypeVar("T")
Root = Crdt | MapView[Any, Any]


class WriteConsistency(IntEnum):
    """How many replicas have a change before the client is answered, as cloudstate.crdt.CrdtWriteConsistency."""

    LOCAL = 0
    """That of the proxy."""
    MAJORITY = 1
    """More than half."""
    ALL = 2
    """All; one that cannot be reached lets the command fail."""


class CrdtEntity(StatefulDeclaration):
    """Class decorator: instances of the class are CRDT entities.

    service: descriptor of the gRPC service whose commands the class handles; responses may be streamed.
    persistence_id: name of this kind of entity in the proxies; never change it. Default: the service's short name.
    initial: makes the CRDT of an entity that has none yet. Default: empty, of the type that the handlers take.
    write_consistency: of all commands that do not choose another.
    passivate_after: how long an instance without commands stays in memory; None = as the proxy is configured.
    allow_primitives, allow_json: whether elements, keys and values may be a str, bytes, bool, int, float, or JSON.
    """

    entity_type = "cloudstate.crdt.Crdt"
    noun = "a CRDT entity"

    def __init__(
        self,
        *,
        service: ServiceDescriptor,
        persistence_id: str = "",
        initial: Callable[[], Root] | None = None,
        write_consistency: WriteConsistency = WriteConsistency.LOCAL,
        passivate_after: timedelta | None = None,
        allow_primitives: bool = True,
        allow_json: bool = True,
    ) -> None:
        super().__init__(service, persistence_id, passivate_after, allow_primitives, allow_json)
        self.initial = initial
        self.write_consistency = WriteConsistency(write_consistency)


class Holder(Protocol):
    """Who keeps the CRDT of an entity instance: its stream."""

    entity_id: str

    def held(self) -> Any:
        """The CRDT; one of the declared type if there was none. Raises ContextError if none is declared."""

    def get_or_create(self, create: Callable[[], Any]) -> Any:
        """The CRDT; one made by `create` if there was none."""


OnChange = Callable[["ChangeContext[Any]"], Any]
OnCancel = Callable[["CancelContext[Any]"], None]


class _HolderContext(Context, Generic[S]):
    """What all contexts of a CRDT entity can do."""

    __slots__ = ("_holder",)

    def __init__(
        self, holder: Holder, command_id: int, command_name: str, metadata: bytes | None, served: Collection[str]
    ) -> None:
        Context.__init__(self, holder.entity_id, command_id, command_name, metadata, served)
        self._holder = holder

    @property
    def crdt(self) -> S:
        """The CRDT of the entity; made, as `initial` or the handlers' type says, if there is none yet.

        Raises ContextError if neither says it: then `get_or_create` is to be used.
        """
        held: S = self._holder.held()
        return held


class CrdtContext(_HolderContext[S]):
    """Context of a command to a CRDT entity. S: type of the CRDT, `CrdtContext[GCounter]`."""

    __slots__ = ("_deleted", "_generator", "_on_cancel", "_on_change", "streamed", "write_consistency")

    def __init__(
        self,
        holder: Holder,
        command_id: int,
        command_name: str,
        metadata: bytes | None,
        served: Collection[str],
        streamed: bool,
        write_consistency: WriteConsistency,
    ) -> None:
        Context.__init__(self, holder.entity_id, command_id, command_name, metadata, served)
        self._holder = holder
        self.streamed = streamed
        """Whether more messages may follow the reply. Forwards and effects may call a streamed rpc without."""
        self.write_consistency = write_consistency
        """How many replicas have the changes of this command before the client is answered. May be set."""
        self._deleted = False
        self._on_change: OnChange | None = None
        self._on_cancel: OnCancel | None = None
        self._generator: Generator[Any, None, None] | None = None

    def get_or_create(self, create: Callable[[], T]) -> T:
        """The CRDT of the entity; `create()` if there is none. For classes whose entities are not all of one type.

        create: a CRDT type, or what makes one. Raises ContextError if it is a type and the CRDT of another.
        """
        self._check_open()
        made: T = self._holder.get_or_create(create)
        return made

    def delete(self) -> None:
        """Delete the entity, on all nodes and for ever: its id cannot be used again."""
        self._check_open()
        self._deleted = True

    def on_change(self, callback: OnChange) -> None:
        """Stream: call back after every later change, by whomever, until the client goes. Once per command.

        callback: takes a ChangeContext; returns a message for the client, an answer, or None. It may not change the
        CRDT. Raises ContextError if the command is not streamed.
        """
        self._check_streamed("on_change", self._on_change)
        self._on_change = callback

    def on_cancel(self, callback: OnCancel) -> None:
        """Stream: call back when the client has gone; not when the stream was ended here. Once per command.

        callback: takes a CancelContext; may change the CRDT. Raises ContextError if the command is not streamed.
        """
        self._check_streamed("on_cancel", self._on_cancel)
        self._on_cancel = callback

    def _check_streamed(self, name: str, taken: Any) -> None:
        self._check_open()
        if not self.streamed:
            raise ContextError(f"{self.command_name}: {name} is for streamed commands; look at ctx.streamed first")
        if taken is not None:
            raise ContextError(f"{self.command_name}: {name} was already given a callback")


class ChangeContext(_HolderContext[S]):
    """Given to `on_change` callbacks. `fail` ends the stream with an error."""

    __slots__ = ("_ended",)

    def __init__(
        self, holder: Holder, command_id: int, command_name: str, metadata: bytes | None, served: Collection[str]
    ) -> None:
        _HolderContext.__init__(self, holder, command_id, command_name, metadata, served)
        self._ended = False

    def end(self) -> None:
        """End the client's stream, after the message that the callback returns."""
        self._check_open()
        self._ended = True


class CancelContext(_HolderContext[S]):
    """Given to `on_cancel` callbacks. There is no client any more: nothing to forward or to fail."""

    __slots__ = ("write_consistency",)

    def __init__(
        self,
        holder: Holder,
        command_id: int,
        command_name: str,
        metadata: bytes | None,
        served: Collection[str],
        write_consistency: WriteConsistency,
    ) -> None:
        _HolderContext.__init__(self, holder, command_id, command_name, metadata, served)
        self.write_consistency = write_consistency

    def forward(self, call: ServiceCall) -> None:
        """Not possible."""
        raise ContextError(f"{self.command_name} was cancelled: there is no client to forward for; use an effect")

    def fail(self, description: str) -> NoReturn:
        """Not possible."""
        raise ContextError(f"{self.command_name} was cancelled: there is no client to be told: {description}")

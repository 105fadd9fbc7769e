"""Value entities as an application writes them: a class, its command handlers, and the context of a command.

The whole state of a value entity is one value, which the proxy stores. The class has no state of its own: a handler
asks its context for the value and tells it the new one.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any, Generic, TypeVar

from google.protobuf.descriptor import ServiceDescriptor

from .context import Context
from .entity import StatefulDeclaration
from .errors import ContextError
from .serialization import AnyCodec

S = TypeVar("S")


class ValueEntity(StatefulDeclaration):
    """Class decorator: instances of the class are value entities.

    service: descriptor of the gRPC service whose commands the class handles.
    persistence_id: name of this kind of entity in the store; never change it. Default: the service's short name.
    passivate_after: how long an instance without commands stays in memory; None = as the proxy is configured.
    allow_primitives, allow_json: whether the value may be a str, bytes, bool, int, float, or JSON.
    """

    entity_type = "cloudstate.valueentity.ValueEntity"
    noun = "a value entity"

    def __init__(
        self,
        *,
        service: ServiceDescriptor,
        persistence_id: str = "",
        passivate_after: timedelta | None = None,
        allow_primitives: bool = True,
        allow_json: bool = True,
    ) -> None:
        super().__init__(service, persistence_id, passivate_after, allow_primitives, allow_json)


class ValueEntityContext(Context, Generic[S]):
    """Context of a command to a value entity. S: type of the value, `ValueEntityContext[Cart]`."""

    __slots__ = ("_changed", "_codec", "_loaded", "_state", "_value")

    def __init__(
        self,
        entity_id: str,
        command_id: int,
        command_name: str,
        metadata: bytes | None,
        served: Collection[str],
        codec: AnyCodec,
        value: bytes | None,
    ) -> None:
        Context.__init__(self, entity_id, command_id, command_name, metadata, served)
        self._codec = codec
        self._value = value
        self._changed = False
        self._loaded = False
        self._state: Any = None

    @property
    def state(self) -> S | None:
        """The value as this command left it so far; None where none is stored.

        It is the handler's own copy: what is changed in it is kept only by `update`. Raises SerializationError if
        what is stored cannot be read.
        """
        if not self._loaded:
            self._state = None if self._value is None else self._codec.decode(self._value)
            self._loaded = True
        state: S | None = self._state
        return state

    def update(self, value: S) -> None:
        """Store a new value. The last `update` or `delete` of a command counts.

        value: a protobuf message, a value declared by `json_type`, a dict with a 'type', or a str, bytes, bool, int
        or float. Raises SerializationError for anything else, ContextError for None.
        """
        self._check_open()
        if value is None:
            raise ContextError(f"{self.command_name}: update takes a value, not None; to remove it call delete()")
        try:
            encoded = self._codec.encode(value)
        except Exception as error:
            self._broken = error
            raise
        self._change(encoded)

    def delete(self) -> None:
        """Store no value any more. The entity goes on without one."""
        self._check_open()
        self._change(None)

    def _change(self, value: bytes | None) -> None:
        self._value, self._changed, self._loaded = value, True, False

"""What CRDTs of all types have in common: a value, what was changed in it since the last reply, and who may change it.

A CRDT that belongs to an entity shares one `Changes` with everything inside it. The stream of the entity opens it for
a command, takes the delta for the reply, or takes everything back when the command failed. A CRDT that the application
has just made belongs to nobody and may be changed freely; all of it goes into the first delta.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Generic, TypeVar

from google.protobuf.descriptor_pool import Default

from stateside._speedups.wire import write_any

from .errors import CrdtError, SerializationError
from .serialization import PRIMITIVES, AnyCodec

E = TypeVar("E")
FREE = AnyCodec(Default())
"""Encodes for CRDTs that belong to no entity yet."""


class Changes:
    """Changes to the CRDT of one entity instance: whether they are allowed now, and how to take them back."""

    __slots__ = ("codec", "refusal", "undo")

    def __init__(self, codec: AnyCodec, refusal: str | None = None) -> None:
        self.codec = codec
        self.refusal = refusal
        """Why nothing may be changed now; None: it may."""
        self.undo: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        """Calls that take back the changes of the command at hand, first change first."""

    def take_back(self) -> None:
        """Undo all of the command at hand."""
        undo, self.undo = self.undo, []
        for restore, state in reversed(undo):
            restore(*state)


REMOVED = Changes(FREE, "it was removed from its map, or replaced there")


class Crdt(ABC):
    """Base of the CRDT types."""

    __slots__ = ("_changes", "_map", "_map_key")
    __hash__ = None  # type: ignore[assignment]  # its value changes

    kind: ClassVar[str]
    """The member of CrdtDelta that changes it."""

    def __init__(self) -> None:
        self._changes: Changes | None = None
        self._map: Any = None
        self._map_key = b""

    # --- for the stream and for maps -----------------------------------------------------------------------------

    @abstractmethod
    def _take(self, always: bool = False) -> bytes | None:
        """The serialized delta since the last time, or None if there is none and it is not wanted always."""

    @abstractmethod
    def _whole(self) -> bytes:
        """The serialized delta that leads from the empty value here."""

    @abstractmethod
    def _merge(self, delta: Any) -> None:
        """Apply what the proxy tells: the member of a CrdtDelta."""

    @abstractmethod
    def _reset(self) -> None:
        """Become empty, without a delta: the proxy replaces the value."""

    def _join(self, changes: Changes) -> None:
        """Become part of an entity: what was encoded before is encoded as the entity does it."""
        self._changes = changes

    def _belong(self, changes: Changes) -> None:
        """Take part in other changes, together with everything inside."""
        self._changes = changes

    def _leave(self) -> None:
        """Be part of no entity any more."""
        self._belong(REMOVED)
        self._map = None

    def _apply(self, delta: Any) -> None:
        """Apply a CrdtDelta of the proxy. Raises CrdtError if it is of another type."""
        kind = delta.WhichOneof("delta")
        if kind != self.kind:
            raise CrdtError(f"Received a delta of a {kind}, but this is a {self.kind}")
        self._merge(getattr(delta, kind))

    # --- for the types ---------------------------------------------------------------------------------------------

    def _change(self, restore: Callable[..., None], *state: Any) -> None:
        """Before any change. restore: called with `state` if the change is taken back. Raises CrdtError if nothing may
        be changed now.
        """
        changes = self._changes
        if changes is None:
            return
        if changes.refusal is not None:
            if isinstance(sys.exc_info()[1], GeneratorExit):
                return  # the garbage collector ends a handler whose stream is gone, too: nothing comes of what it does
            raise CrdtError(f"A {type(self).__name__} cannot be changed: {changes.refusal}")
        changes.undo.append((restore, state))
        if self._map is not None:
            self._map._entry_changes(self._map_key)

    def _check_free(self) -> None:
        if self._changes is not None or self._map is not None:
            raise CrdtError(f"This {type(self).__name__} already belongs to an entity: make a new one")

    @property
    def _codec(self) -> AnyCodec:
        return FREE if self._changes is None else self._changes.codec


class Elements(Generic[E]):
    """Encoded elements or keys, in the order they came, with their values where these are immutable.

    Two elements are the same if their serialized Any is: 1, True and 1.0 are three.
    """

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[bytes, Any] = {}

    def put(self, encoded: bytes, value: Any = None) -> None:
        """Hold an element; value: what it was encoded from, if known."""
        self.values[encoded] = value if type(value) in PRIMITIVES else None

    def read(self, codec: AnyCodec) -> Iterator[E]:
        """All elements. Messages are copies of the caller's own. Raises SerializationError for what cannot be read."""
        for encoded in list(self.values):
            yield self.decode(encoded, codec)

    def decode(self, encoded: bytes, codec: AnyCodec) -> E:
        """One of the elements."""
        value: E | None = self.values.get(encoded)
        if value is None:
            value = codec.decode(encoded)
            if encoded in self.values:
                self.put(encoded, value)
        assert value is not None
        return value

    def find(self, value: object, codec: AnyCodec) -> bytes | None:
        """The encoded form of an element that is there; None if it is not, or could not be."""
        try:
            encoded = codec.encode(value)
        except SerializationError:
            return None
        return encoded if encoded in self.values else None

    def encode_again(self, before: AnyCodec, after: AnyCodec) -> dict[bytes, bytes]:
        """Encode everything with another codec; new forms by old ones."""
        renewed = {encoded: after.encode(self.decode(encoded, before)) for encoded in self.values}
        self.values = {renewed[encoded]: value for encoded, value in self.values.items()}
        return renewed


def encoded(packed: Iterable[Any]) -> list[bytes]:
    """Serialized Any of each Any in a delta, in the form in which they are compared."""
    return [write_any(each.type_url, each.value) for each in packed]

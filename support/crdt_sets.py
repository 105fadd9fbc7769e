"""Sets: elements are everything that can be serialized, and are the same where their bytes are.

Elements have to be immutable. Messages that a set gives out are copies; what is changed in them is not in the set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSet, Set
from typing import Any, TypeVar

from . import crdt_deltas
from .crdts import Changes, Crdt, Elements, encoded
from .errors import CrdtError

E = TypeVar("E")


class GSet(Crdt, Set[E]):
    """A set that only grows.

    What `|`, `&`, `-` and `^` make is a plain set.
    """

    __slots__ = ("_added", "_elements")
    kind = "gset"

    def __init__(self, elements: Iterable[E] = ()) -> None:
        Crdt.__init__(self)
        self._elements: Elements[E] = Elements()
        self._added: dict[bytes, None] = {}
        self.update(elements)

    def add(self, element: E) -> None:
        """Add an element; nothing happens if it is there. Raises SerializationError if it cannot be serialized."""
        key = self._codec.encode(element)
        if key not in self._elements.values:
            self._change(self._restore_added, key)
            self._elements.put(key, element)
            self._added[key] = None

    def update(self, elements: Iterable[E]) -> None:
        """Add each element."""
        for element in elements:
            self.add(element)

    def discard(self, element: E) -> None:
        """Not possible."""
        raise CrdtError(f"A GSet only grows: {element!r} cannot be removed; an ORSet can do that")

    remove = discard

    def __contains__(self, element: object) -> bool:
        return self._elements.find(element, self._codec) is not None

    def __iter__(self) -> Iterator[E]:
        return self._elements.read(self._codec)

    def __len__(self) -> int:
        return len(self._elements.values)

    def __repr__(self) -> str:
        return f"GSet({list(self)!r})"

    @classmethod
    def _from_iterable(cls, elements: Iterable[Any]) -> set[Any]:
        return set(elements)

    def _restore_added(self, key: bytes) -> None:
        del self._elements.values[key]
        del self._added[key]

    def _take(self, always: bool = False) -> bytes | None:
        added, self._added = self._added, {}
        return crdt_deltas.gset(added) if added or always else None

    def _whole(self) -> bytes:
        return crdt_deltas.gset(self._elements.values)

    def _merge(self, delta: Any) -> None:
        for key in encoded(delta.added):
            self._elements.values.setdefault(key)

    def _reset(self) -> None:
        self._elements.values.clear()
        self._added = {}

    def _join(self, changes: Changes) -> None:
        renewed = self._elements.encode_again(self._codec, changes.codec)
        self._added = {renewed[key]: None for key in self._added}
        Crdt._join(self, changes)


class ORSet(Crdt, MutableSet[E]):
    """A set whose elements can be removed and added again. Of an add and a remove at the same time the add wins.

    What `|`, `&`, `-` and `^` make is a plain set; `|=` and so on change this one.
    """

    __slots__ = ("_added", "_cleared", "_elements", "_removed")
    kind = "orset"

    def __init__(self, elements: Iterable[E] = ()) -> None:
        Crdt.__init__(self)
        self._elements: Elements[E] = Elements()
        self._cleared = False
        self._removed: dict[bytes, None] = {}
        self._added: dict[bytes, None] = {}
        self.update(elements)

    def add(self, element: E) -> None:
        """Add an element; nothing happens if it is there. Raises SerializationError if it cannot be serialized."""
        key = self._codec.encode(element)
        if key in self._elements.values:
            return
        self._change(self._restore_added, key, key in self._removed)
        self._elements.put(key, element)
        if key in self._removed:
            del self._removed[key]
        else:
            self._added[key] = None

    def update(self, elements: Iterable[E]) -> None:
        """Add each element."""
        for element in elements:
            self.add(element)

    def discard(self, element: E) -> None:
        """Remove an element; nothing happens if it is not there."""
        key = self._elements.find(element, self._codec)
        if key is None:
            return
        self._change(self._restore_removed, key, self._elements.values[key], key in self._added)
        del self._elements.values[key]
        if key in self._added:
            del self._added[key]
        else:
            self._removed[key] = None

    def clear(self) -> None:
        """Remove all elements that are known here."""
        if self._elements.values:
            self._change(self._restore_all, self._elements.values, self._cleared, self._removed, self._added)
            self._elements.values = {}
            self._cleared, self._removed, self._added = True, {}, {}

    def __contains__(self, element: object) -> bool:
        return self._elements.find(element, self._codec) is not None

    def __iter__(self) -> Iterator[E]:
        return self._elements.read(self._codec)

    def __len__(self) -> int:
        return len(self._elements.values)

    def __repr__(self) -> str:
        return f"ORSet({list(self)!r})"

    @classmethod
    def _from_iterable(cls, elements: Iterable[Any]) -> set[Any]:
        return set(elements)

    def _restore_added(self, key: bytes, was_removed: bool) -> None:
        del self._elements.values[key]
        if was_removed:
            self._removed[key] = None
        else:
            del self._added[key]

    def _restore_removed(self, key: bytes, value: Any, was_added: bool) -> None:
        self._elements.values[key] = value
        if was_added:
            self._added[key] = None
        else:
            del self._removed[key]

    def _restore_all(
        self, values: dict[bytes, Any], cleared: bool, removed: dict[bytes, None], added: dict[bytes, None]
    ) -> None:
        self._elements.values = values
        self._cleared, self._removed, self._added = cleared, removed, added

    def _take(self, always: bool = False) -> bytes | None:
        if not (self._cleared or self._removed or self._added or always):
            return None
        delta = crdt_deltas.orset(self._cleared, self._removed, self._added)
        self._cleared, self._removed, self._added = False, {}, {}
        return delta

    def _whole(self) -> bytes:
        return crdt_deltas.orset(False, (), self._elements.values)

    def _merge(self, delta: Any) -> None:
        values = self._elements.values
        if delta.cleared:
            values.clear()
        for key in encoded(delta.removed):
            values.pop(key, None)
        for key in encoded(delta.added):
            values.setdefault(key)

    def _reset(self) -> None:
        self._restore_all({}, False, {}, {})

    def _join(self, changes: Changes) -> None:
        renewed = self._elements.encode_again(self._codec, changes.codec)
        self._added = {renewed[key]: None for key in self._added}
        self._cleared, self._removed = False, {}  # nobody else knew what was removed
        Crdt._join(self, changes)

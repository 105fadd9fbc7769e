"""A map of CRDTs: each entry merges by the rules of its own type, and keys come and go as the elements of an ORSet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, TypeVar

from . import crdt_deltas
from .crdt_counters import GCounter, PNCounter
from .crdt_sets import GSet, ORSet
from .crdt_values import Flag, LWWRegister, Vote
from .crdts import Changes, Crdt, Elements, encoded
from .errors import CrdtError

K = TypeVar("K")
C = TypeVar("C", bound=Crdt)


class ORMap(Crdt, MutableMapping[K, Crdt]):
    """A map from keys, which are like elements of a set, to CRDTs of any type, other maps too.

    `m.counter(key)`, `m.orset(key)` and so on give the entry, made if it is not there. `m[key] = GCounter()` puts a
    new CRDT there; one that was there before is removed. Entries of one key have one type on all nodes.
    """

    __slots__ = ("_added", "_cleared", "_entries", "_keys", "_removed", "_updated")
    kind = "ormap"

    def __init__(self) -> None:
        Crdt.__init__(self)
        self._keys: Elements[K] = Elements()
        self._entries: dict[bytes, Crdt] = {}
        self._cleared = False
        self._removed: dict[bytes, None] = {}
        self._updated: dict[bytes, None] = {}
        self._added: dict[bytes, None] = {}

    # --- entries by type -------------------------------------------------------------------------------------------

    def get_or_create(self, key: K, create: Callable[[], C]) -> C:
        """The entry of `key`; `create()` if there is none. Raises CrdtError if that is another type."""
        found = self._keys.find(key, self._codec)
        if found is None:
            entry = create()
            self[key] = entry
            return entry
        existing: Any = self._entries[found]
        if isinstance(create, type) and not isinstance(existing, create):
            raise CrdtError(f"The entry of {key!r} is a {type(existing).__name__}, not a {create.__name__}")
        return existing  # type: ignore[no-any-return]

    def counter(self, key: K) -> PNCounter:
        """The counter of a key."""
        return self.get_or_create(key, PNCounter)

    def gcounter(self, key: K) -> GCounter:
        """The growing counter of a key."""
        return self.get_or_create(key, GCounter)

    def gset(self, key: K) -> GSet[Any]:
        """The growing set of a key."""
        return self.get_or_create(key, GSet)

    def orset(self, key: K) -> ORSet[Any]:
        """The set of a key."""
        return self.get_or_create(key, ORSet)

    def register(self, key: K) -> LWWRegister[Any]:
        """The register of a key; its value is None until it is set."""
        return self.get_or_create(key, LWWRegister)

    def flag(self, key: K) -> Flag:
        """The flag of a key."""
        return self.get_or_create(key, Flag)

    def vote(self, key: K) -> Vote:
        """The vote of a key."""
        return self.get_or_create(key, Vote)

    def map(self, key: K) -> ORMap[Any]:
        """The map of a key."""
        return self.get_or_create(key, ORMap)

    # --- as a mapping ----------------------------------------------------------------------------------------------

    def __getitem__(self, key: K) -> Crdt:
        found = self._keys.find(key, self._codec)
        if found is None:
            raise KeyError(key)
        return self._entries[found]

    def __setitem__(self, key: K, entry: Crdt) -> None:
        name = self._codec.encode(key)
        if self._entries.get(name) is entry:
            return  # m[key] += 1 ends so
        if not isinstance(entry, Crdt):
            raise CrdtError(f"A ORMap holds CRDTs, not {entry!r}; LWWMap and PNCounterMap hold plain values")
        if entry is self:
            raise CrdtError("A ORMap cannot hold itself")
        entry._check_free()
        self._remove(name)
        self._change(self._restore_added, name)
        self._put(name, entry, key)
        self._added[name] = None

    def __delitem__(self, key: K) -> None:
        found = self._keys.find(key, self._codec)
        if found is None:
            raise KeyError(key)
        self._remove(found)

    def clear(self) -> None:
        """Remove all entries that are known here."""
        if self._entries:
            pending = self._cleared, self._removed, self._updated, self._added
            self._change(self._restore_cleared, self._keys.values, self._entries, *pending)
            for entry in self._entries.values():
                entry._leave()
            self._keys.values, self._entries = {}, {}
            self._cleared, self._removed, self._updated, self._added = True, {}, {}, {}

    def __contains__(self, key: object) -> bool:
        return self._keys.find(key, self._codec) is not None

    def __iter__(self) -> Iterator[K]:
        return self._keys.read(self._codec)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"ORMap({dict(self)!r})"

    # --- changes, and how they are taken back -------------------------------------------------------------------

    def _put(self, name: bytes, entry: Crdt, key: Any = None) -> None:
        self._keys.put(name, key)
        self._entries[name] = entry
        entry._map, entry._map_key = self, name
        if self._changes is not None:
            entry._join(self._changes)

    def _remove(self, name: bytes) -> None:
        entry = self._entries.get(name)
        if entry is None:
            return
        self._change(self._restore_removed, name, entry, self._keys.values[name], name in self._added)
        self._drop(name)
        self._updated.pop(name, None)
        if name in self._added:
            del self._added[name]
        else:
            self._removed[name] = None

    def _drop(self, name: bytes) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            del self._keys.values[name]
            entry._leave()

    def _entry_changes(self, name: bytes) -> None:
        """An entry is about to change."""
        if name not in self._added and name not in self._updated:
            self._change(self._restore_updated, name)
            self._updated[name] = None

    def _restore_updated(self, name: bytes) -> None:
        self._updated.pop(name, None)

    def _restore_added(self, name: bytes) -> None:
        self._drop(name)
        del self._added[name]

    def _restore_removed(self, name: bytes, entry: Crdt, key: Any, was_added: bool) -> None:
        self._return(name, entry, key)
        if was_added:
            self._added[name] = None
        else:
            del self._removed[name]

    def _restore_cleared(self, keys: dict[bytes, Any], entries: dict[bytes, Crdt], *pending: Any) -> None:
        self._cleared, self._removed, self._updated, self._added = pending
        self._keys.values, self._entries = {}, {}
        for name, entry in entries.items():
            self._return(name, entry, keys[name])

    def _return(self, name: bytes, entry: Crdt, key: Any) -> None:
        """Take back an entry that was removed."""
        self._keys.put(name, key)
        self._entries[name] = entry
        entry._map = self
        if self._changes is not None:
            entry._belong(self._changes)

    # --- for the stream ------------------------------------------------------------------------------------------

    def _take(self, always: bool = False) -> bytes | None:
        cleared, removed = self._cleared, self._removed
        added = {name: self._entries[name]._take(True) or b"" for name in self._added}
        updated = {name: delta for name in self._updated if (delta := self._entries[name]._take()) is not None}
        self._cleared, self._removed, self._updated, self._added = False, {}, {}, {}
        if not (cleared or removed or updated or added or always):
            return None
        return crdt_deltas.ormap(cleared, removed, updated, added)

    def _whole(self) -> bytes:
        return crdt_deltas.ormap(False, (), {}, {name: entry._whole() for name, entry in self._entries.items()})

    def _merge(self, delta: Any) -> None:
        if delta.cleared:
            self._reset()
        for name in encoded(delta.removed):
            self._drop(name)
        for change in delta.updated:
            self._merge_entry(change, replace=False)
        for change in delta.added:
            self._merge_entry(change, replace=True)

    def _merge_entry(self, change: Any, replace: bool) -> None:
        """One ORMapEntryDelta. An entry that is replaced by its like stays the same object."""
        (name,) = encoded([change.key])
        entry = self._entries.get(name)
        if entry is not None and replace:
            if entry.kind == change.delta.WhichOneof("delta"):
                entry._reset()
            else:
                self._drop(name)
                entry = None
        if entry is None:
            entry = new_crdt(change.delta)
            self._put(name, entry)
        entry._apply(change.delta)

    def _reset(self) -> None:
        for name in list(self._entries):
            self._drop(name)
        self._cleared, self._removed, self._updated, self._added = False, {}, {}, {}

    def _join(self, changes: Changes) -> None:
        renewed = self._keys.encode_again(self._codec, changes.codec)
        self._entries = {renewed[name]: entry for name, entry in self._entries.items()}
        self._added = {renewed[name]: None for name in self._added}
        self._cleared, self._removed, self._updated = False, {}, {}  # nobody else knew what was removed
        self._changes = changes
        for name, entry in self._entries.items():
            entry._map_key = name
            entry._join(changes)

    def _belong(self, changes: Changes) -> None:
        self._changes = changes
        for entry in self._entries.values():
            entry._belong(changes)


TYPES: dict[str, type[Crdt]] = {
    cls.kind: cls for cls in (GCounter, PNCounter, GSet, ORSet, LWWRegister, Flag, ORMap, Vote)
}
"""CRDT types by the member of CrdtDelta that changes them."""


def new_crdt(delta: Any) -> Crdt:
    """An empty CRDT of the type that a CrdtDelta changes. Raises CrdtError if it is of none."""
    cls = TYPES.get(delta.WhichOneof("delta") or "")
    if cls is None:
        raise CrdtError("Received a delta of an unknown type of CRDT")
    return cls()

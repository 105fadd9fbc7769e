"""Maps of plain values: an ORMap of registers, or of counters, used like a dict."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, Generic, TypeVar

from .crdt_counters import PNCounter
from .crdt_map import ORMap
from .crdt_values import Clock, LWWRegister
from .crdts import Crdt
from .errors import CrdtError

K = TypeVar("K")
V = TypeVar("V")
E = TypeVar("E", bound=Crdt)


class MapView(Generic[K, E]):
    """What both views do with the map behind them."""

    __slots__ = ("ormap",)

    entry_type: type[Any]

    def __init__(self, ormap: ORMap[K] | None = None) -> None:
        self.ormap: ORMap[K] = ORMap() if ormap is None else ormap
        """The CRDT itself."""

    def __delitem__(self, key: K) -> None:
        del self.ormap[key]

    def __contains__(self, key: object) -> bool:
        return key in self.ormap

    def __iter__(self) -> Iterator[K]:
        return iter(self.ormap)

    def __len__(self) -> int:
        return len(self.ormap)

    def clear(self) -> None:
        """Remove all entries that are known here."""
        self.ormap.clear()

    def _entry(self, key: K) -> E:
        entry: Any = self.ormap[key]
        if not isinstance(entry, self.entry_type):
            raise CrdtError(f"The entry of {key!r} is a {type(entry).__name__}, not a {self.entry_type.__name__}")
        return entry  # type: ignore[no-any-return]


class LWWMap(MapView[K, "LWWRegister[Any]"], MutableMapping[K, V]):
    """A map of values: of two writes to one key at the same time one wins, by default the later."""

    __slots__ = ()
    entry_type = LWWRegister

    def __getitem__(self, key: K) -> V:
        value: V = self._entry(key).value  # type: ignore[assignment]
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    def set(self, key: K, value: V, clock: Clock = Clock.DEFAULT, custom_clock_value: int = 0) -> None:
        """Write the value of a key, as `LWWRegister.set` does."""
        self.ormap.register(key).set(value, clock, custom_clock_value)

    def __repr__(self) -> str:
        return f"LWWMap({dict(self)!r})"


class PNCounterMap(MapView[K, PNCounter], MutableMapping[K, int]):
    """A map of counters, like `collections.Counter`: a key that is not there counts 0.

    `m[key] += 5` counts up by five on all nodes. So does `m[key] = n`, by what is missing to n here.
    """

    __slots__ = ()
    entry_type = PNCounter

    def __getitem__(self, key: K) -> int:
        return self._entry(key).value if key in self.ormap else 0

    def __setitem__(self, key: K, value: int) -> None:
        self.increment(key, value - self[key])

    def increment(self, key: K, by: int = 1) -> int:
        """Count up, or down by a negative number; the new count."""
        return self.ormap.counter(key).increment(by)

    def decrement(self, key: K, by: int = 1) -> int:
        """Count down; the new count."""
        return self.increment(key, -by)

    def __repr__(self) -> str:
        return f"PNCounterMap({dict(self)!r})"

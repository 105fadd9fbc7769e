"""Sets that several replicas add to and remove from: the CRDT kernels and what else a Python programmer could take.

One interface over all of them, so that one trace drives all: `add`, `remove`, `take` (bytes for the others of what
changed here since the last time), `merge`, `whole` (bytes of everything) and `members`. What they mean differs:

- Stateside's ORSet and the plain sets are observed-remove sets: an addition wins over a removal that did not know it.
- Stateside's deltas may come in any order, twice, grouped, or late; those of the plain set only in each sender's order,
  each exactly once in effect (a lost one is a lost change).
- loro and pycrdt are maps from element to True in which the last writer wins, and they keep history: documents that can
  be read as of an earlier time, which is more than a set is asked for.
"""

import json
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Protocol

from stateside._speedups import crdt

MOST_REPLICAS = 1024


class ReplicatedSet(Protocol):
    def add(self, element: Any) -> None: ...
    def remove(self, element: Any) -> None: ...
    def take(self) -> bytes: ...
    def merge(self, data: bytes) -> None: ...
    def whole(self) -> bytes: ...
    def members(self) -> set[Any]: ...


def kernel_set(module: ModuleType = crdt) -> Callable[[int], Any]:
    """Sets of an implementation of the CRDTs. Elements are serialized Any."""

    class KernelSet:
        def __init__(self, replica: int) -> None:
            state = module.State(module.ORSET, replica)
            self.add, self.remove, self.merge = state.add, state.remove, state.merge
            self.take, self.whole, self.members = state.take_delta, state.encode, state.value

    return KernelSet


class DeltaLogSet:
    """An observed-remove set in plain Python with a log of operations: each names the dot it made and those it ended.

    What one would write who knows the papers, wants it quick, and has a transport that keeps each sender's order. A dot
    is one int, a log three flat lists, which json reads and writes fastest.
    """

    def __init__(self, replica: int) -> None:
        self.counter = replica  # the latest own dot: number * MOST_REPLICAS + replica
        self.dots: dict[str, set[int]] = {}
        self.seen: dict[int, int] = {}  # replica -> its latest dot
        self.log: tuple[list[str], list[int], list[list[int]]] = ([], [], [])  # element, new dot or 0, dots ended

    def add(self, element: str) -> None:
        self.counter += MOST_REPLICAS
        ended = self.dots.get(element)
        self.dots[element] = {self.counter}
        self._note(element, self.counter, ended)

    def remove(self, element: str) -> None:
        ended = self.dots.pop(element, None)
        if ended:
            self._note(element, 0, ended)

    def _note(self, element: str, dot: int, ended: set[int] | None) -> None:
        elements, made, all_ended = self.log
        elements.append(element)
        made.append(dot)
        all_ended.append(list(ended) if ended else [])

    def take(self) -> bytes:
        log, self.log = self.log, ([], [], [])
        return json.dumps([self.counter, log], separators=(",", ":")).encode()

    def merge(self, data: bytes) -> None:
        latest, (elements, made, all_ended) = json.loads(data)
        dots, before = self.dots, self.seen.get(latest % MOST_REPLICAS, 0)
        for element, dot, ended in zip(elements, made, all_ended, strict=True):
            mine = dots.get(element)
            new = dot > before
            if mine is None:
                if new:
                    dots[element] = {dot}
                continue
            mine.difference_update(ended)
            if new:
                mine.add(dot)
            elif not mine:
                del dots[element]
        self.seen[latest % MOST_REPLICAS] = latest

    def whole(self) -> bytes:
        everything = [self.seen, self.counter, {element: list(dots) for element, dots in self.dots.items()}]
        return json.dumps(everything, separators=(",", ":")).encode()

    def members(self) -> set[str]:
        return set(self.dots)


class LoroSet:
    """A Map of loro."""

    def __init__(self, replica: int) -> None:
        loro: Any = import_module("loro")
        self.document = loro.LoroDoc()
        self.document.peer_id = replica
        self.map = self.document.get_map("set")
        self.updates, self.snapshot = loro.ExportMode.Updates, loro.ExportMode.Snapshot
        self.sent = self.document.oplog_vv

    def add(self, element: str) -> None:
        self.map.insert(element, True)

    def remove(self, element: str) -> None:
        self.map.delete(element)

    def take(self) -> bytes:
        self.document.commit()
        update = self.document.export(self.updates(self.sent))
        self.sent = self.document.oplog_vv
        return bytes(update)

    def merge(self, data: bytes) -> None:
        self.document.commit()
        self.document.import_(data)
        self.sent = self.document.oplog_vv

    def whole(self) -> bytes:
        return bytes(self.document.export(self.snapshot()))

    def members(self) -> set[str]:
        return set(self.map.get_value())


class PycrdtSet:
    """A Map of pycrdt."""

    def __init__(self, replica: int) -> None:
        pycrdt: Any = import_module("pycrdt")
        self.document = pycrdt.Doc(client_id=replica)
        self.document["set"] = self.map = pycrdt.Map()
        self.sent = self.document.get_state()

    def add(self, element: str) -> None:
        self.map[element] = True

    def remove(self, element: str) -> None:
        self.map.pop(element, None)

    def take(self) -> bytes:
        update: bytes = self.document.get_update(self.sent)
        self.sent = self.document.get_state()
        return update

    def merge(self, data: bytes) -> None:
        self.document.apply_update(data)
        self.sent = self.document.get_state()

    def whole(self) -> bytes:
        update: bytes = self.document.get_update()
        return update

    def members(self) -> set[str]:
        return set(self.map.keys())


def rivals() -> dict[str, Callable[[int], Any]]:
    """Name -> maker, of those that are installed."""
    made: dict[str, Callable[[int], Any]] = {"plain delta log": DeltaLogSet}
    made |= {name: maker for name, maker in (("loro", LoroSet), ("pycrdt", PycrdtSet)) if find_spec(name)}
    return made


def drive(replicas: list[Any], rounds: Iterable[tuple[int, list[tuple[bool, Any]]]]) -> list[int]:
    """Run a trace: rounds of (replica, operations), after each of which the others get what changed. Bytes of each."""
    sizes = []
    for number, operations in rounds:
        replica = replicas[number]
        add, remove = replica.add, replica.remove
        for adding, element in operations:
            if adding:
                add(element)
            else:
                remove(element)
        update = replica.take()
        sizes.append(len(update))
        for other in replicas:
            if other is not replica:
                other.merge(update)
    return sizes

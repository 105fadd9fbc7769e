"""Elements, states and traces that the CRDT kernels and others are measured with; the same in every run."""

import random
from types import ModuleType
from typing import Any

VALUE_BYTES = 32  # of an element
STRING = "p.cloudstate.io/string"
Round = tuple[int, list[tuple[bool, Any]]]


def text_of(number: int) -> str:
    return f"element-{number:022d}"


def any_of(number: int) -> bytes:
    """Serialized Any of the string, whose value has VALUE_BYTES bytes."""
    text = text_of(number).encode()
    value = bytes((10, len(text))) + text
    return bytes((10, len(STRING))) + STRING.encode() + bytes((18, len(value))) + value


def trace(operations: int, elements: int, replicas: int, batch: int) -> list[tuple[int, list[tuple[bool, int]]]]:
    """Rounds of additions and removals, two to one, of each replica in turn."""
    source = random.Random(7)
    return [
        (number % replicas, [(source.random() < 2 / 3, source.randrange(elements)) for _ in range(batch)])
        for number in range(operations // batch)
    ]


def spelled(rounds: list[tuple[int, list[tuple[bool, int]]]], spell: Any) -> list[Round]:
    """The same with elements as somebody takes them."""
    return [(replica, [(adding, spell(number)) for adding, number in operations]) for replica, operations in rounds]


def set_pair(module: ModuleType, elements: int, different: float) -> tuple[bytes, bytes]:
    """Two encoded ORSets, each of so many elements; a part of them is in one only, added by its own replica."""
    common = module.State(module.ORSET, 1)
    own = int(elements * different)
    for number in range(elements - own):
        common.add(any_of(number))
    encoded = common.encode()
    return tuple(_grown(module, encoded, replica, own, elements * replica) for replica in (2, 3))  # type: ignore[return-value]


def _grown(module: ModuleType, encoded: bytes, replica: int, count: int, first: int) -> bytes:
    state = module.State.decode(encoded, replica)
    for number in range(first, first + count):
        state.add(any_of(number))
    return state.encode()  # type: ignore[no-any-return]


def map_pair(module: ModuleType, keys: int, different: float) -> tuple[bytes, bytes]:
    """Two encoded ORMaps of PNCounters; a part of the keys was changed by both since."""
    state = module.State(module.ORMAP, 1)
    for number in range(keys):
        state.apply(map_delta(4, number), 0)
    encoded = state.encode()
    grown = []
    for replica in (2, 3):
        state = module.State.decode(encoded, replica)
        for number in range(int(keys * different)):
            state.apply(map_delta(3, number), 0)
        grown.append(state.encode())
    return grown[0], grown[1]


def map_delta(which: int, number: int) -> bytes:
    """CrdtDelta of a map that updates (3) or adds (4) a PNCounter of 1 at a key."""
    key = any_of(number)
    nested = b"\x12\x02\x08\x02"
    entry = bytes((10, len(key))) + key + bytes((18, len(nested))) + nested
    body = bytes((which << 3 | 2, len(entry))) + entry
    return bytes((58, len(body))) + body


def delta_batch(module: ModuleType, elements: int, deltas: int, changes: int) -> tuple[bytes, list[bytes]]:
    """An encoded ORSet and what another replica of it did then, in so many deltas of so many changes."""
    state = module.State(module.ORSET, 1)
    for number in range(elements):
        state.add(any_of(number))
    encoded = state.encode()
    other = module.State.decode(encoded, 2)
    source, made = random.Random(11), []
    for _ in range(deltas):
        for _ in range(changes):
            element = any_of(source.randrange(elements * 2))
            if source.random() < 2 / 3:
                other.add(element)
            else:
                other.remove(element)
        made.append(other.take_delta())
    return encoded, made

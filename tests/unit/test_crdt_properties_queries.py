"""Values of CRDTs against the bare history: add wins, sums, latest writes (spec crdt 5.5, P9, P11 to P13, P20)."""

from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from stateside.proto import Any as AnyMessage
from stateside.proto import crdt as messages
from tests.models.happens_before import History
from tests.unit.crdt_strategies import KINDS, Step, delta_dicts, numbers, steps
from tests.unit.crdt_world import World, always, outcome

ELEMENT, OTHER, THIRD = (AnyMessage(type_url="t", value=value).SerializeToString() for value in (b"a", b"b", b"c"))


class Remembered(World):
    """A world with its history. A change that is rejected is none."""

    def __init__(self, crdt: ModuleType, kind: int, replicas: int = 3) -> None:
        super().__init__([crdt], kind, replicas, causal=True)
        self.history = History()
        self.carried: list[set[int]] = []  # operations that a logged delta stands for
        for state in self.states():
            self.history.known[state.replica] = set()
            state.set_members(range(100, 100 + replicas))

    def apply(self, replica: int, delta: dict[str, Any], now: int) -> None:
        state = self.states()[replica % len(self.replicas)]
        message = messages.CrdtDelta(**delta).SerializeToString()
        if outcome(self.modules[0], lambda: state.apply(message, now)) == "done":
            self.history.apply(state.replica, self.kind, delta, now)

    def take(self, replica: int) -> None:
        count = len(self.log)
        super().take(replica)
        if len(self.log) > count:
            self.carried.append(set(self.history.known[self.states()[replica % len(self.replicas)].replica]))

    def recode(self, replica: int) -> None:
        super().recode(replica)
        self.states()[replica % len(self.replicas)].set_members(range(100, 100 + len(self.replicas)))

    def group(self, numbers: list[int], replica: int) -> None:
        replica %= len(self.replicas)
        before = set(self.known[replica])
        super().group(numbers, replica)
        for number in self.known[replica] - before:
            self.history.known[self.states()[replica].replica] |= self.carried[number]

    def full(self, source: int, replica: int) -> None:
        super().full(source, replica)
        states = self.states()
        known = self.history.known
        known[states[replica % len(states)].replica] |= known[states[source % len(states)].replica]


def histories(kind: int) -> st.SearchStrategy[list[Step]]:
    """For maps a key has one type for ever, all eight of them, and maps go three deep."""
    if kind != KINDS["ormap"]:
        return steps(kind, view=False)  # type: ignore[no-any-return]
    change = st.tuples(st.just("apply"), numbers, one_type_a_key(3), st.integers(0, 6))
    return steps(kind, view=False, changes=(change,))  # type: ignore[no-any-return]


TYPE_OF_KEY = {("k", bytes([kind])): kind for kind in KINDS.values()}


def one_type_a_key(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    kinds = st.sampled_from([kind for kind in KINDS.values() if kind != KINDS["ormap"] or depth > 1])
    nested = kinds.flatmap(
        lambda kind: st.fixed_dictionaries(
            {
                "key": st.just({"type_url": "k", "value": bytes([kind])}),
                "delta": one_type_a_key(depth - 1) if kind == KINDS["ormap"] else delta_dicts(kind),
            }
        )
    )
    keys = st.sampled_from([{"type_url": url, "value": value} for url, value in TYPE_OF_KEY])
    entries = st.lists(nested, max_size=2)
    removed = st.one_of(st.just([]), st.lists(keys, max_size=2))
    rarely = st.sampled_from([False] * 6 + [True])
    member = {"cleared": rarely, "removed": removed, "updated": entries, "added": entries}
    return st.fixed_dictionaries({"ormap": st.fixed_dictionaries(member)})


@always(histories)
def test_a_value_follows_from_the_known_changes(crdt: ModuleType, kind: int, case: list[Step]) -> None:
    world = Remembered(crdt, kind)
    for step in case:
        world.run([step])
        for state in world.states():
            assert state.value() == world.history.value(state.replica, kind, TYPE_OF_KEY)

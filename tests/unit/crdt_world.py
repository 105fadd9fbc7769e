"""A few replicas of one CRDT, driven through drawn steps by one or several implementations at once.

Each replica is held by every implementation given; they receive the same changes and the same deltas (each in its own
encoding), and whatever they answer has to be the same. Two ways of delivery: `causal` lets a delta through only when
all that its maker knew has arrived, in whatever order otherwise; without it deltas come in any order, twice, or never.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from stateside._speedups import crdt as kernel
from stateside.proto import crdt
from tests.models import crdt as model
from tests.unit.crdt_strategies import KINDS, Step

REPLICAS = (7, 2**64 - 1, 3, 2**63 + 1, 1 << 40)
IMPLEMENTATIONS: dict[str, ModuleType] = {"model": model, "kernel": kernel}
QUICK_EXAMPLES = Counter({kind: 10 for kind in KINDS} | {"orset": 20, "ormap": 30})  # in each plain test run

Check = Callable[..., None]

Drawn = Callable[[int], st.SearchStrategy[Any]]


@dataclass(frozen=True)
class Property:
    check: Check
    drawn: Drawn
    kinds: tuple[str, ...]
    implementations: tuple[str, ...]


PROPERTIES: dict[str, Property] = {}
CASES: Counter[str] = Counter()  # type -> examples seen


def always(
    drawn: Drawn, kinds: Iterable[str] = tuple(KINDS), implementations: Iterable[str] = tuple(IMPLEMENTATIONS)
) -> Callable[[Check], Check]:
    """A property `check(implementation, kind, drawn)`: a test on each type and implementation, and part of the soak."""
    held = tuple(kinds), tuple(implementations)

    def decorate(check: Check) -> Check:
        PROPERTIES[check.__name__] = Property(check, drawn, *held)

        @pytest.mark.parametrize("kind", held[0])
        @pytest.mark.parametrize("implementation", held[1])
        def test(implementation: str, kind: str) -> None:
            run(check.__name__, implementation, kind, QUICK_EXAMPLES[kind])

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


def run(name: str, implementation: str, kind: str, examples: int, start: int = 0) -> None:
    """Examine a property in so many drawn cases; the same ones for the same `start`."""
    held = PROPERTIES[name]

    @seed(start)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(held.drawn(KINDS[kind]))
    def examine(case: Any) -> None:
        CASES[kind] += 1
        held.check(IMPLEMENTATIONS[implementation], KINDS[kind], case)

    examine()


class World:
    """Replicas, each a list of the same state in every implementation, and the deltas that they made."""

    def __init__(
        self, implementations: Iterable[ModuleType], kind: int, replicas: int = 3, causal: bool = False
    ) -> None:
        self.modules = list(implementations)
        self.kind, self.causal = kind, causal
        self.replicas = [[module.State(kind, REPLICAS[i], 100 + i) for module in self.modules] for i in range(replicas)]
        self.viewed = [False] * replicas
        self.known: list[set[int]] = [set() for _ in range(replicas)]
        self.log: list[tuple[list[bytes], set[int]]] = []

    def run(self, steps: Iterable[Step]) -> "World":
        for name, *arguments in steps:
            getattr(self, name)(*arguments)
        return self

    # --- steps; numbers are taken modulo what there is

    def apply(self, replica: int, delta: dict[str, Any], now: int) -> None:
        message = crdt.CrdtDelta(**delta).SerializeToString()
        self.same(replica, lambda state, i: outcome(self.modules[i], lambda: state.apply(message, now)))

    def take(self, replica: int) -> None:
        replica %= len(self.replicas)
        taken = [state.take_delta() for state in self.replicas[replica]]
        assert len(set(map(bool, taken))) == 1, "one has a delta, another has none"
        if taken[0]:
            read = [module.State.decode(delta, 999) for module, delta in zip(self.modules, taken, strict=True)]
            assert all(other.dump() == read[0].dump() for other in read), "deltas differ"
            self.log.append((taken, set(self.known[replica])))
            self.known[replica].add(len(self.log) - 1)

    def deliver(self, number: int, replica: int) -> None:
        self.group([number], replica)

    def group(self, numbers: list[int], replica: int) -> None:
        replica %= len(self.replicas)
        chosen = [number % len(self.log) for number in numbers if self.log]
        before = set().union(*(self.log[number][1] for number in chosen)) - set(chosen)
        if not chosen or (self.causal and not before <= self.known[replica]):
            return
        self.known[replica].update(chosen)
        joined = [
            module.join_deltas([self.log[number][0][i] for number in chosen])
            if len(chosen) > 1
            else self.log[chosen[0]][0][i]
            for i, module in enumerate(self.modules)
        ]
        self.same(replica, lambda state, i: state.merge(joined[i]))

    def full(self, source: int, replica: int) -> None:
        source, replica = source % len(self.replicas), replica % len(self.replicas)
        if self.causal:
            self.take(source)
        self.known[replica] |= self.known[source]
        encoded = [state.encode() for state in self.replicas[source]]
        self.same(replica, lambda state, i: state.merge(encoded[i]))

    def recode(self, replica: int) -> None:
        """A replica that takes its last delta, stops and comes again, with the same name."""
        replica %= len(self.replicas)
        self.take(replica)
        self.replicas[replica] = [
            module.State.decode(state.encode(), state.replica, 100 + replica)
            for module, state in zip(self.modules, self.replicas[replica], strict=True)
        ]
        self.viewed[replica] = False
        self.compare(replica)

    def open(self, replica: int) -> None:
        self.viewed[replica % len(self.replicas)] = True
        self.same(replica, lambda state, i: shape(state.open_view()))

    def change(self, replica: int) -> None:
        if self.viewed[replica % len(self.replicas)]:
            self.same(replica, lambda state, i: shape(state.take_change()))

    def close(self, replica: int) -> None:
        self.viewed[replica % len(self.replicas)] = False
        self.same(replica, lambda state, i: state.close_view())

    def members(self, replica: int, others: set[int], absent: int) -> None:
        members = {100 + replica % len(self.replicas)} | {100 + other % len(self.replicas) for other in others}
        self.same(replica, lambda state, i: state.set_members(members, absent))

    # --- what is asked at the end

    def heal(self) -> None:
        """Everyone gets the state of everyone, until nothing changes any more."""
        for replica in range(len(self.replicas)):
            self.take(replica)
        for _ in range(4):
            for source in range(len(self.replicas)):
                for replica in range(len(self.replicas)):
                    self.full(source, replica)
            if self.digests_equal():
                return
        raise AssertionError("replicas that told each other everything still differ")

    def digests_equal(self) -> bool:
        return all(len({replica[i].digest() for replica in self.replicas}) == 1 for i in range(len(self.modules)))

    def states(self, number: int = 0) -> list[Any]:
        """All replicas' states in one implementation."""
        return [replica[number] for replica in self.replicas]

    def same(self, replica: int, ask: Callable[[Any, int], Any]) -> Any:
        """The one answer of all implementations, after which they are in the same state."""
        replica %= len(self.replicas)
        answers = [ask(state, i) for i, state in enumerate(self.replicas[replica])]
        for other in answers[1:]:
            assert other == answers[0]
        self.compare(replica)
        return answers[0]

    def compare(self, replica: int) -> None:
        first, *others = self.replicas[replica]
        for other in others:
            assert other.dump() == first.dump()
            assert other.value() == first.value()


def outcome(module: ModuleType, call: Callable[[], Any]) -> str:
    """How a call ended."""
    try:
        call()
    except module.Rejected:
        return "rejected"
    except module.Malformed:
        return "malformed"
    return "done"


def shape(delta: bytes) -> Any:
    """A serialized CrdtDelta with repeated fields as sorted lists: their order means nothing (spec crdt 1.1)."""
    return _shape(crdt.CrdtDelta.FromString(delta)) if delta else None


def _shape(delta: Any) -> tuple[Any, ...]:
    name = delta.WhichOneof("delta")
    member = getattr(delta, name)
    if name == "lwwregister":
        return name, member.value.type_url, member.value.value, member.clock, member.custom_clock_value
    return name, *(_field(member, field) for field in member.DESCRIPTOR.fields)


def _field(member: Any, field: Any) -> Any:
    value = getattr(member, field.name)
    if field.name in ("added", "updated") and member.DESCRIPTOR.name == "ORMapDelta":
        return sorted(((entry.key.type_url, entry.key.value), _shape(entry.delta)) for entry in value)
    if field.name in ("added", "removed"):
        return sorted((element.type_url, element.value) for element in value)
    return value

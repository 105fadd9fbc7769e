"""What a user function is told: a mirror of its replica, of few and sensible deltas (spec crdt 5.5, P16 and P17)."""

from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from stateside.proto import Any as AnyMessage
from tests.models.user_function import UserFunction
from tests.unit.crdt_strategies import NAMES, Step, delta_dicts, numbers, steps
from tests.unit.crdt_world import World, always


class Mirrored(World):
    """Each replica with a user function that begins with the whole value and is told of changes in between."""

    def __init__(self, crdt: ModuleType, kind: int) -> None:
        super().__init__([crdt], kind)
        self.functions = [UserFunction(NAMES[kind]) for _ in self.replicas]
        for function, state in zip(self.functions, self.states(), strict=True):
            function.start(state.open_view())

    def command(self, replica: int, wish: dict[str, Any], now: int) -> None:
        """Handled by the user function, whose answer is applied."""
        replica %= len(self.replicas)
        self.states()[replica].apply(self.functions[replica].command(wish), now)

    def change(self, replica: int) -> None:
        """A quiet moment: the user function is told, and knows all."""
        replica %= len(self.replicas)
        state, function = self.states()[replica], self.functions[replica]
        for _ in range(100):
            delta = state.take_change()
            if not delta:
                break
            function.receive(delta)
        assert not delta, "no end of changes"
        assert function.value == plain(NAMES[self.kind], state)

    def recode(self, replica: int) -> None:
        super().recode(replica)
        replica %= len(self.replicas)
        self.functions[replica].start(self.states()[replica].open_view())

    def close(self, replica: int) -> None:
        self.open(replica)

    def open(self, replica: int) -> None:
        """Passivated, activated."""
        replica %= len(self.replicas)
        self.states()[replica].close_view()
        self.functions[replica].start(self.states()[replica].open_view())
        self.change(replica)


def plain(kind: str, state: Any) -> Any:
    """The replica's value as a user function holds it."""
    return with_types(kind, state.value(), state.dump()[2])


def with_types(kind: str, value: Any, store: Any) -> Any:
    if kind in ("gset", "orset"):
        return frozenset(map(name_of, value))
    if kind == "lwwregister":
        return None if value is None else name_of(value)
    if kind != "ormap":
        return value
    entries = {}
    for serialized, nested in value.items():
        name = name_of(serialized)
        shown = max(
            (n, replica, below) for (key, below), (dots, _) in store.items() if key == name for replica, n in dots
        )
        below = shown[2]
        entries[name] = (NAMES[below], with_types(NAMES[below], nested, store[name, below][1]))
    return dict(sorted(entries.items()))


def name_of(serialized: bytes) -> tuple[str, bytes]:
    message = AnyMessage.FromString(serialized)
    return message.type_url, message.value


def lives(kind: int) -> st.SearchStrategy[list[Step]]:
    """Steps in which user functions take part, and nothing is applied past them."""
    command = st.tuples(st.just("command"), numbers, delta_dicts(kind), st.integers(0, 6))
    return steps(kind, changes=(command,))  # type: ignore[no-any-return]


@always(lives)
def test_a_user_function_mirrors_its_replica(crdt: ModuleType, kind: int, case: list[Step]) -> None:
    world = Mirrored(crdt, kind)
    world.run(case)
    for replica in range(3):
        world.change(replica)
    world.heal()
    for replica in range(3):
        world.change(replica)


@always(lives, kinds=[name for name in NAMES.values() if name != "lwwregister"])  # a write can lose
def test_nothing_is_told_twice_nor_the_own_change(crdt: ModuleType, kind: int, case: list[Step]) -> None:
    world = Mirrored(crdt, kind)
    world.run(case)
    for replica, state in enumerate(world.states()):
        world.change(replica)
        world.command(replica, {NAMES[kind]: {}}, 10)
        assert state.take_change() == b""

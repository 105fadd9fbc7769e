"""The kernels against the model: the same traces through both, and after every step the same state and answers."""

from types import ModuleType

from hypothesis import strategies as st

from stateside._speedups import crdt as kernel
from tests.models import crdt as model
from tests.unit.crdt_strategies import Step, steps
from tests.unit.crdt_world import World, always


@always(lambda kind: st.tuples(steps(kind, max_size=40), st.integers(2, 5)), implementations=("kernel",))
def test_kernel_and_model_go_through_the_same_states(crdt: ModuleType, kind: int, case: tuple[list[Step], int]) -> None:
    history, replicas = case
    world = World([model, kernel], kind, replicas).run(history)
    for replica in range(replicas):
        world.change(replica)
    world.heal()

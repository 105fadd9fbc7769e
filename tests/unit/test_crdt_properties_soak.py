"""The long run of all CRDT properties: `make soak`. At least CASES_PER_TYPE cases of each type through the kernels.

The traces in which kernels and model go side by side take the most; each other property adds its share on both.
"""

import pytest

from tests.unit import (  # properties register themselves
    test_crdt_properties_joins,
    test_crdt_properties_kernel,
    test_crdt_properties_prune,
    test_crdt_properties_queries,
    test_crdt_properties_view,
)
from tests.unit.crdt_strategies import KINDS
from tests.unit.crdt_world import CASES, PROPERTIES, run

PARTS = (
    test_crdt_properties_joins,
    test_crdt_properties_kernel,
    test_crdt_properties_prune,
    test_crdt_properties_queries,
    test_crdt_properties_view,
)
CASES_PER_TYPE = 10_000
SIDE_BY_SIDE = "test_kernel_and_model_go_through_the_same_states"
SIDE_BY_SIDE_CASES = 10_000
OTHER_CASES = 500


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_properties_hold_in_the_long_run(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = CASES[kind]
    for number, (name, held) in enumerate(PROPERTIES.items(), start=1):
        if kind in held.kinds:
            for implementation in held.implementations:
                cases = SIDE_BY_SIDE_CASES if name == SIDE_BY_SIDE else OTHER_CASES
                run(name, implementation, kind, cases, start=1000 + number)
    with capsys.disabled():
        print(f"\n{kind}: {CASES[kind] - before} cases")
    assert CASES[kind] - before >= CASES_PER_TYPE

"""The long run of all CRDT properties: `make soak`. At least CASES_PER_TYPE examples of each property on each type."""

import pytest

from tests.unit import (
    test_crdt_properties_joins,
)
from tests.unit.crdt_world import CASES, IMPLEMENTATIONS, PROPERTIES, run

PARTS = (test_crdt_properties_joins,)
CASES_PER_TYPE = 10_000


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, (_, _, kinds) in PROPERTIES.items() for kind in kinds], ids="-".join
)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_property_holds_in_the_long_run(implementation: str, name: str, kind: str) -> None:
    before = CASES[name, kind]
    run(name, implementation, kind, CASES_PER_TYPE)
    print(f"{name} on {implementation}: {CASES[name, kind] - before} cases of {kind}")
    assert CASES[name, kind] - before >= CASES_PER_TYPE or kind in ("flag", "vote")

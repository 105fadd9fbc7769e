"""The TCK's value entity scenarios through proxy and support library: the same tests, with the library behind an
interceptor in place of the script."""

from __future__ import annotations

from tests.tck.model import TckModel, Two
from tests.tck.value_entity_model import ValueConfigured, ValueTckModel, ValueTwo

from . import test_tck_value_entities as scenarios
from .harness import World
from .interceptor import ValueInterceptor

SETTINGS = scenarios.SETTINGS


class USER_FUNCTION(ValueInterceptor):
    models = (TckModel, Two, ValueTckModel, ValueTwo, ValueConfigured)


globals().update({name: test for name, test in vars(scenarios).items() if name.startswith("test_")})


async def test_it_was_the_library_that_answered(world: World) -> None:
    assert isinstance(world.user_function, USER_FUNCTION)
    assert world.user_function.relayed > 0

"""The TCK's CRDT scenarios through proxy and support library: the same tests, with the library behind an interceptor in
place of the script."""

from __future__ import annotations

from tests.tck.crdt_model import CrdtConfigured, CrdtTckModel, CrdtTwo

from . import test_tck_crdts as scenarios
from .harness import World
from .interceptor import CrdtInterceptor

SETTINGS = scenarios.SETTINGS


class USER_FUNCTION(CrdtInterceptor):
    models = (CrdtTckModel, CrdtTwo, CrdtConfigured)


globals().update({name: test for name, test in vars(scenarios).items() if name.startswith("test_")})


async def test_it_was_the_library_that_answered(world: World) -> None:
    assert isinstance(world.user_function, USER_FUNCTION)
    assert world.user_function.relayed > 0

"""How coroutine tests run, without a plugin: fixtures and the hook that the conftest files of several folders share."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Iterator

import pytest

from .harness import World


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    """The loop of all coroutine tests: grpc.aio ties servers and channels to a loop, and tests share them."""
    with asyncio.Runner() as runner:
        yield runner
        # A grpc.aio server says goodbye to its loop when it is collected: that has to be before the loop's end.
        gc.collect()
        runner.run(asyncio.sleep(0.05))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    runner: asyncio.Runner = pyfuncitem._request.getfixturevalue("runner")
    runner.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(scope="module")
def world(
    request: pytest.FixtureRequest, runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A world for all tests of a file; a module's SETTINGS are settings of its proxy, and its USER_FUNCTION makes the
    user function."""
    settings = getattr(request.module, "SETTINGS", {})
    make = getattr(request.module, "USER_FUNCTION", None)
    user_function = make() if make is not None else None
    world = World(tmp_path_factory.mktemp("world"), user_function=user_function, **settings)
    runner.run(world.__aenter__())
    yield world
    runner.run(world.__aexit__())

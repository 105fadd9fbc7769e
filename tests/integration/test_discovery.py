"""Who finds whom and when: core 1.3 to 1.5 with design section 9, "start order is free", and D18, "re-discover"."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from stateside.proto import cloudstate
from stateside.proxy.spec import SUPPORTED_ENTITY_TYPES

from .harness import Client, ProxyProcess, World, eventually, free_port, ok
from .messages import CONFIGURED, MODEL, TWO, emit, entity, model_spec, reply
from .user_function import ScriptedUserFunction, a_key
from .workers import in_time

QUIET_S = 0.6  # several times the longest delay between attempts


@asynccontextmanager
async def proxy_alone(folder: Path, port: int, **settings: str) -> AsyncIterator[ProxyProcess]:
    proxy = ProxyProcess(port, folder, **({"journal": "memory:"} | settings))
    try:
        await proxy.start(ready=False)
        yield proxy
    finally:
        await proxy.stop()


async def admin_status(proxy: ProxyProcess, path: str, status: int, word: str = "") -> None:
    async def now() -> bool:
        try:
            found, text = await proxy.admin(path)
        except OSError:
            return False
        return found == status and word in text

    await eventually(now, f"{path} answers {status} {word}")


async def test_the_proxy_may_start_first(tmp_path: Path) -> None:
    port = free_port()
    async with proxy_alone(tmp_path, port) as proxy:
        await admin_status(proxy, "/alive", 200)
        await admin_status(proxy, "/ready", 503, "user function")
        assert not proxy.ready
        user_function = await ScriptedUserFunction(port=port).start()
        await proxy.wait_ready()
        await admin_status(proxy, "/ready", 200)
        client = Client(proxy.port)
        assert await client.ask(a_key(), emit("x")) == ok("x")
        assert len(user_function.discovered) == 1
        await client.close()
        await user_function.stop()


async def test_the_proxy_tells_about_itself(tmp_path: Path) -> None:
    async with World(tmp_path, journal="memory:") as world:
        (info,) = world.user_function.discovered
        assert (info.protocol_major_version, info.protocol_minor_version) == (0, 2)
        assert list(info.supported_entity_types) == list(SUPPORTED_ENTITY_TYPES)
        assert info.proxy_name and info.proxy_version


async def test_discover_is_asked_once_while_nothing_restarts(tmp_path: Path) -> None:
    """Every further one would show up in the TCK as an unexpected interaction."""
    async with World(tmp_path, journal="memory:") as world:
        key = a_key()
        for number in range(5):
            assert (await world.client.ask(key, emit(str(number)))).ok
            await asyncio.sleep(QUIET_S / 5)
        assert len(world.user_function.discovered) == 1
        assert len(world.user_function.streams) == 1


async def test_a_discovery_that_fails_is_asked_again_on_few_connections(tmp_path: Path) -> None:
    user_function = await ScriptedUserFunction().start()
    attempts: list[int] = []

    def not_yet() -> bytes:
        attempts.append(1)
        if len(attempts) < 4:
            raise RuntimeError("still starting")
        spec: bytes = model_spec().SerializeToString()
        return spec

    user_function.discover_answer = not_yet
    async with proxy_alone(tmp_path, user_function.port) as proxy:
        await proxy.wait_ready()
        assert len(attempts) == 4
        assert user_function.reports == []
        assert connections_to(proxy, user_function.port) == 1
    await user_function.stop()


def connections_to(proxy: ProxyProcess, port: int) -> int:
    """Established TCP connections of the proxy to a port, as the kernel counts them."""
    wanted, count = f"0100007F:{port:04X}", 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, state, *_ = line.split()
        count += remote == wanted and state == "01"
    return count


def without_entities() -> Any:
    spec = model_spec()
    del spec.entities[:]
    return spec


def with_unknown_service() -> Any:
    spec = model_spec()
    spec.entities[0].service_name = "nowhere.Nothing"
    return spec


def with_old_protocol() -> Any:
    spec = model_spec()
    spec.service_info.protocol_minor_version = 1
    return spec


def with_bad_descriptors() -> Any:
    spec = model_spec()
    spec.proto = b"\xff\xff garbage"
    return spec


def with_unserved_type() -> Any:
    spec = model_spec()
    spec.entities[0].entity_type = "cloudstate.unheard.Of"
    return spec


INVALID = [
    (without_entities, ["no entity"]),
    (with_unknown_service, ["nowhere.Nothing"]),
    (with_old_protocol, ["0.1", "0.2"]),
    (with_bad_descriptors, ["FileDescriptorSet"]),
    (with_unserved_type, [MODEL, "cloudstate.unheard.Of", "cloudstate.eventsourced.EventSourced"]),
]


@pytest.fixture(scope="module")
def one_proxy(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A proxy that never found a valid user function, and the port where it looks."""
    port = free_port()
    proxy = ProxyProcess(port, tmp_path_factory.mktemp("invalid"), journal="memory:")
    runner.run(proxy.start(ready=False))
    yield proxy, port
    runner.run(proxy.stop())


@pytest.mark.parametrize(("spec", "words"), INVALID, ids=[each.__name__ for each, _ in INVALID])
async def test_d18_d19_an_invalid_answer_is_reported_once_and_not_asked_for_again_until_a_restart(
    one_proxy: tuple[ProxyProcess, int], spec: Any, words: list[str]
) -> None:
    """The reference never asks again, or asks for ever, depending on what is wrong."""
    proxy, port = one_proxy
    user_function = await ScriptedUserFunction(spec=spec(), port=port).start()
    try:
        await user_function.report_about(*words)
        await admin_status(proxy, "/ready", 503, "invalid")
        await admin_status(proxy, "/alive", 200)
        await asyncio.sleep(QUIET_S)
        assert len(user_function.discovered) == 1
        assert user_function.reports == []
        assert not proxy.ready
    finally:
        await user_function.stop()


async def test_an_answer_that_is_no_entity_spec_counts_as_invalid(one_proxy: tuple[ProxyProcess, int]) -> None:
    proxy, port = one_proxy
    user_function = ScriptedUserFunction(port=port)
    user_function.discover_answer = lambda: b"\xff\xff\xff"
    await user_function.start()
    await user_function.report_about("EntitySpec")
    await user_function.stop()


async def test_d18_after_an_invalid_answer_a_restarted_user_function_is_served(
    one_proxy: tuple[ProxyProcess, int],
) -> None:
    proxy, port = one_proxy
    user_function = await ScriptedUserFunction(spec=without_entities(), port=port).start()
    await user_function.report_about("no entity")
    await user_function.stop()
    user_function = await ScriptedUserFunction(port=port).start()
    await proxy.wait_ready()
    client = Client(proxy.port)
    assert await client.ask(a_key(), emit("x")) == ok("x")
    await client.close()
    await user_function.stop()


async def test_a_user_function_that_comes_back_is_discovered_again_and_goes_on(tmp_path: Path) -> None:
    async with World(tmp_path, journal="memory:") as world:
        key = a_key()
        assert await world.client.ask(key, emit("x")) == ok("x")
        await world.user_function.stop()
        await world.user_function.start()
        await world.user_function.until(lambda: len(world.user_function.discovered) == 2, "a second discover")
        assert await world.client.ask(key, emit("y")) == ok("xy")


async def test_a_changed_user_function_is_served_while_clients_stay_connected(tmp_path: Path) -> None:
    spec = model_spec()
    del spec.entities[1:]
    async with World(tmp_path, user_function=ScriptedUserFunction(spec=spec), journal="memory:") as world:
        key = a_key()
        assert await world.client.ask(key, emit("x")) == ok("x")
        unknown_yet = await world.client.ask(key, service=TWO)
        assert unknown_yet.status == grpc.StatusCode.UNIMPLEMENTED
        connections = connections_to(world.proxy, world.proxy.port)

        await world.user_function.stop()
        world.user_function.spec = model_spec()
        del world.user_function.spec.entities[2:]
        await world.user_function.start()

        async def new_service() -> bool:
            return (await world.client.ask(key, service=TWO)).ok

        await eventually(new_service, "the new service answers")
        assert await world.client.ask(key) == ok("x")
        assert connections_to(world.proxy, world.proxy.port) == connections

        await world.user_function.stop()
        del world.user_function.spec.entities[:1]
        await world.user_function.start()

        async def old_service_gone() -> bool:
            return (await world.client.ask(key)).status == grpc.StatusCode.UNIMPLEMENTED

        await eventually(old_service_gone, "the old service is unknown")
        assert (await world.client.ask(key, service=TWO)).ok


async def test_a_changed_passivation_timeout_holds_from_then_on(tmp_path: Path) -> None:
    spec = cloudstate.EntitySpec()
    spec.CopyFrom(model_spec())
    del spec.entities[:]
    spec.entities.append(entity(CONFIGURED))
    async with World(tmp_path, user_function=ScriptedUserFunction(spec=spec), journal="memory:") as world:
        assert (await world.client.ask(a_key(), service=CONFIGURED)).ok
        await world.user_function.stop()
        world.user_function.spec.entities[0].CopyFrom(entity(CONFIGURED, timeout_ms=100))
        await world.user_function.start()
        await world.discovered(2)
        key = world.user_function.play()
        call, stream = await world.busy(key, service=CONFIGURED)
        await stream.send(reply(1))
        assert await call == ok()
        await stream.close_as_asked()


async def test_of_several_workers_one_reports_an_invalid_answer(tmp_path: Path) -> None:
    user_function = await ScriptedUserFunction(spec=without_entities()).start()
    async with proxy_alone(tmp_path, user_function.port, workers="3") as proxy:

        async def all_refused() -> bool:
            return proxy.log.count('"user function refused"') == 3

        await in_time(all_refused, "all workers have seen it")
        await user_function.report_about("no entity")
        await asyncio.sleep(QUIET_S)
        assert len(user_function.discovered) == 3
        assert user_function.reports == []
    await user_function.stop()

"""Several workers as one proxy: they share the port, die and come back, and answer as one. docs/operations.md."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from . import messages
from .harness import Client, ProxyProcess, World, eventually, free_port, ok
from .http_client import ask as http_ask
from .messages import emit, reply
from .user_function import PATIENCE_S, a_key
from .workers import (
    ask_until_ok,
    client_of,
    figure,
    gone,
    key_of,
    kill,
    load,
    processes,
    replaced,
    series,
    until_figure,
    until_ready,
)

SETTINGS = {"workers": "2", "journal": "memory:", "access_log": "json", "access_log_keys": "true"}
NAMES = ["worker-0", "worker-1"]


async def admin(proxy: ProxyProcess, verb: str, path: str, body: str = "") -> tuple[int, str]:
    answer = await http_ask(proxy.admin_port, verb, path, body, content_type="text/plain")
    return answer.status, answer.text.strip()


async def refused(tmp_path: Path, **settings: str) -> str:
    """What is said by a proxy of two workers that cannot be started; its log lines are not."""
    proxy = await ProxyProcess(free_port(), tmp_path, workers="2", **settings).start(ready=False)
    try:
        assert await proxy.wait_exit(20) == 2
    finally:
        await proxy.stop()
    (line,) = (line for line in proxy.log.splitlines() if not line.startswith("{"))
    return line


# --- as one ----------------------------------------------------------------------------------------------------------


async def test_two_workers_serve_on_one_port_and_say_so_once(world: World) -> None:
    assert [line for line in world.proxy.stdout if line.startswith("Stateside")] == [
        f"Stateside serves http://127.0.0.1:{world.proxy.port}"
    ]
    assert sorted(processes(world.proxy)) == NAMES
    async with AsyncExitStack() as stack:
        for worker in (0, 1):
            client = await client_of(world, worker, stack)
            assert await client.ask(key_of(worker), emit("x")) == ok("x")
    assert await world.proxy.admin("/ready?verbose") == (200, '{"ready": true, "reasons": {}}\n')
    assert (await world.proxy.admin("/alive"))[0] == 200


async def test_one_scrape_has_the_series_of_all_each_family_once(world: World) -> None:
    values = await series(world.proxy)
    by_worker = {
        worker: {name for name, labels in values if ("worker", worker) in labels} for worker in ("0", "1", "supervisor")
    }
    assert by_worker["0"] == by_worker["1"] > {"stateside_connections", "stateside_loop_lag_seconds_bucket"}
    assert by_worker["supervisor"] > {"process_resident_memory_bytes", "process_cpu_seconds_total"}
    assert await figure(world.proxy, "stateside_workers") == 2
    assert await figure(world.proxy, "stateside_worker_ready", worker="1") == 1
    assert await figure(world.proxy, "stateside_worker_answered", worker="1") == 1


async def test_a_scraper_may_ask_all_for_some_names_only(world: World) -> None:
    _, text = await world.proxy.admin("/metrics?name[]=stateside_connections&name[]=stateside_workers")
    lines = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert lines == ['stateside_connections{worker="0"}', 'stateside_connections{worker="1"}', "stateside_workers"]


async def test_a_drain_reaches_all_workers(world: World) -> None:
    assert await admin(world.proxy, "POST", "/drain") == (200, "draining")
    status, text = await admin(world.proxy, "GET", "/ready?verbose")
    assert (status, list(json.loads(text)["reasons"])) == (503, ["drain"])
    assert await admin(world.proxy, "GET", "/drain") == (200, "draining")
    assert (await world.client.ask(a_key(), emit("x"))).ok
    assert await admin(world.proxy, "DELETE", "/drain") == (200, "serving")
    assert (await world.proxy.admin("/ready"))[0] == 200


async def test_the_log_level_and_its_signal_reach_all_workers(world: World) -> None:
    assert await admin(world.proxy, "PUT", "/log-level", "loud") == (
        400,
        "log level 'loud': must be one of debug, info, warning, error, as the body",
    )
    assert await admin(world.proxy, "PUT", "/log-level", "error") == (200, "error")
    assert await admin(world.proxy, "GET", "/log-level") == (200, "error")
    assert await admin(world.proxy, "PUT", "/log-level", "info") == (200, "info")
    for times in (1, 2):
        world.proxy.signal(signal.SIGUSR1)

        async def heard(times: int = times) -> bool:
            lines = [json.loads(line) for line in world.proxy.log.splitlines() if '"log level changed"' in line]
            who = [line.get("worker", "") for line in lines if line["part"] == "stateside.proxy.logs"]
            return sorted(who) == sorted(["", "0", "1"] * times)

        await eventually(heard, "a change of the level in all three")


async def test_a_peer_leaves_where_something_is_replicated_only(world: World) -> None:
    answer = await admin(world.proxy, "POST", "/peers/leave?name=h:1")
    assert answer == (409, "nothing is replicated by this proxy")


async def test_lines_of_the_access_log_do_not_mix_on_standard_output(world: World) -> None:
    keys = {a_key("logged") for _ in range(400)}
    clients = [Client(world.proxy.port) for _ in range(8)]
    for client in clients:
        await client.channel.channel_ready()
    await asyncio.gather(*(clients[number % 8].ask(key) for number, key in enumerate(keys)))

    async def there() -> bool:
        lines = [json.loads(line) for line in world.proxy.stdout if not line.startswith("Stateside")]
        return {line["key"] for line in lines} >= keys

    await eventually(there, "a line for each call")
    await asyncio.gather(*(client.close() for client in clients))


# --- ends and beginnings ---------------------------------------------------------------------------------------------


async def test_a_killed_worker_comes_back_and_the_other_goes_on(tmp_path: Path) -> None:
    async with World(tmp_path, **SETTINGS) as world, AsyncExitStack() as stack:
        proxy = world.proxy
        lost, other = await client_of(world, 0, stack), await client_of(world, 1, stack)
        failures: list[str] = []
        under_load = asyncio.create_task(load(other, 1, failures))
        old = kill(proxy, "worker-0")
        assert await replaced(proxy, "worker-0", old) != old
        await until_figure(proxy, 1, "stateside_worker_restarts_total", worker="0", reason="killed")
        await ask_until_ok(lost, key_of(0))
        await until_ready(proxy)
        under_load.cancel()
        with suppress(asyncio.CancelledError):
            await under_load
        assert failures == []
        assert proxy.stdout.count(f"Stateside serves http://127.0.0.1:{proxy.port}") == 1


async def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    async with World(tmp_path, **SETTINGS | {"worker_timeout": "400ms"}) as world:
        old = processes(world.proxy)["worker-1"]
        os.kill(old, signal.SIGSTOP)
        await replaced(world.proxy, "worker-1", old)
        await gone([old])
        await until_figure(world.proxy, 1, "stateside_worker_restarts_total", worker="1", reason="hung")
        await until_ready(world.proxy)


async def test_a_worker_that_does_not_answer_is_left_out_and_named(tmp_path: Path) -> None:
    async with World(tmp_path, **SETTINGS) as world:
        pid = processes(world.proxy)["worker-1"]
        os.kill(pid, signal.SIGSTOP)
        (status, text), values = await asyncio.gather(world.proxy.admin("/ready"), series(world.proxy))
        assert (status, text) == (503, "worker-1: no answer within 2 s\n")
        assert values["stateside_worker_answered", frozenset({("worker", "1")})] == 0
        assert ("stateside_connections", frozenset({("worker", "1")})) not in values
        assert ("stateside_connections", frozenset({("worker", "0")})) in values
        os.kill(pid, signal.SIGCONT)
        await until_ready(world.proxy)
        assert processes(world.proxy)["worker-1"] == pid


async def test_a_worker_that_dies_again_and_again_waits_longer_each_time(tmp_path: Path) -> None:
    async with World(tmp_path, **SETTINGS) as world:
        pid = kill(world.proxy, "worker-1")

        async def waits() -> bool:
            nonlocal pid
            if processes(world.proxy).get("worker-1", pid) != pid:
                pid = kill(world.proxy, "worker-1")
            _, text = await world.proxy.admin("/ready")
            return re.fullmatch(r"worker-1: ended by SIGKILL; started again in \S+ s\n", text) is not None

        await eventually(waits, "a reason that names the wait")
        assert (await world.proxy.admin("/alive"))[0] == 200
        await until_ready(world.proxy)
        ends = [json.loads(line) for line in world.proxy.log.splitlines() if "is started again" in line]
        delays = [end["in_seconds"] for end in ends]
        assert delays == [0, 0.25, 0.5, 1, 2, 4][: len(delays)] and len(delays) > 1


async def test_a_new_worker_hears_of_the_drain_and_of_the_log_level(tmp_path: Path) -> None:
    async with World(tmp_path, **SETTINGS) as world:
        await admin(world.proxy, "POST", "/drain")
        await admin(world.proxy, "PUT", "/log-level", "warning")
        await replaced(world.proxy, "worker-0", kill(world.proxy, "worker-0"))

        async def told() -> bool:
            lines = [json.loads(line) for line in world.proxy.log.splitlines() if line.startswith("{")]
            of_it = [line["event"] for line in lines if line.get("worker") == "0" and "draining" in line["event"]]
            return len(of_it) == 2

        await eventually(told, "the drain told to the new one")


async def test_sigterm_lets_the_calls_of_all_workers_finish(tmp_path: Path) -> None:
    settings = SETTINGS | {"graceful_termination_timeout": "5s"}
    async with World(tmp_path, **settings) as world, AsyncExitStack() as stack:
        clients = [await client_of(world, worker, stack) for worker in (0, 1)]
        keys = [world.user_function.play(key_of(worker)) for worker in (0, 1)]
        under_way = [client.start(key) for client, key in zip(clients, keys, strict=True)]
        streams = [await world.user_function.ready_stream(key, messages.MODEL) for key in keys]
        for stream in streams:
            await stream.next()
        world.proxy.signal(signal.SIGTERM)
        await until_ready(world.proxy, False)
        for stream in streams:
            await stream.send(reply(1, "in time"))
        assert await asyncio.gather(*under_way) == [ok("in time"), ok("in time")]
        for stream in streams:
            await stream.close_as_asked()
        assert await world.proxy.wait_exit() == 0


async def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    async with World(tmp_path, **SETTINGS | {"graceful_termination_timeout": "1h"}) as world:
        key = world.user_function.play()
        await world.busy(key)
        pids = list(processes(world.proxy).values())
        world.proxy.signal(signal.SIGTERM)
        await until_ready(world.proxy, False)
        world.proxy.signal(signal.SIGINT)
        assert await world.proxy.wait_exit() == 128 + signal.SIGINT
        await gone(pids)


async def test_a_killed_supervisor_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    async with World(tmp_path, **SETTINGS) as world:
        pids = list(processes(world.proxy).values())
        (run,) = {run_folder(pid) for pid in pids}
        assert run.stat().st_mode & 0o777 == 0o700
        await world.proxy.kill()
        await gone(pids)
        assert run.exists()
        await world.proxy.start()
        assert not run.exists()
        (run,) = {run_folder(pid) for pid in processes(world.proxy).values()}
        assert await world.proxy.terminate() == 0
        assert not run.exists()


def run_folder(pid: int) -> Path:
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (place,) = (each.partition(b"=")[2] for each in environment if each.startswith(b"STATESIDE_PLACE="))
    return Path(json.loads(place)["run"])


# --- what cannot be started ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [False, True])
async def test_a_main_port_that_is_taken(tmp_path: Path, shares: bool) -> None:
    with socket.socket() as taken:
        if shares:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = await refused(tmp_path, http_port=str(port), journal="memory:")
    assert line == f"stateside: http_port = {port}: cannot listen on 127.0.0.1: Address already in use"


async def test_a_setting_that_only_workers_find_wrong_is_said_once(tmp_path: Path) -> None:
    line = await refused(tmp_path, access_log="json", access_log_file=str(tmp_path), journal="memory:")
    assert line == f"stateside: access_log_file = {tmp_path}: cannot be written: Is a directory"


async def test_a_journal_that_another_proxy_uses(tmp_path: Path) -> None:
    async with World(tmp_path, workers="2") as world:
        await world.client.ask(a_key(), emit("x"))
        (tmp_path / "second").mkdir()
        second = ProxyProcess(
            world.user_function.port, tmp_path / "second", workers="2", journal=world.proxy.settings["journal"]
        )
        await second.start(ready=False)
        try:
            assert await second.wait_exit(20) == 2
        finally:
            await second.stop()
        (line,) = (line for line in second.log.splitlines() if not line.startswith("{"))
        assert line.startswith(f"stateside: journal {tmp_path / 'journal'}") and "is in use by process" in line
        async with asyncio.timeout(PATIENCE_S):
            assert (await world.client.ask(a_key(), emit("x"))).ok

"""What an operator does with a proxy that runs: log level, drain, access log, figures, overload."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from stateside.proto import health as health_pb2
from stateside.proxy.figures import REASONS

from . import grpc_web_client, messages
from .harness import Client, World, eventually, http_get, ok
from .http_client import HttpConnection, ask
from .messages import emit, reply
from .user_function import a_key

DOCS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
SETTINGS = {"access_log": "json", "access_log_file": "access.log", "access_log_keys": "true", "stash_depth": "2"}
PATH = f"/{messages.MODEL}/{messages.METHODS[messages.MODEL]}"


async def admin(world: World, verb: str, path: str, body: str = "") -> tuple[int, str]:
    answer = await ask(world.proxy.admin_port, verb, path, body, content_type="text/plain")
    return answer.status, answer.text.strip()


async def samples(world: World) -> dict[str, float]:
    """All series, with their labels."""
    _, text = await world.proxy.admin("/metrics")
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def lines(world: World, wanted: int, **like: Any) -> list[dict[str, Any]]:
    """Wait for so many lines of the access log like this."""
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        text = (world.folder / "access.log").read_text()
        all_lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        found[:] = [line for line in all_lines if like.items() <= line.items()]
        return len(found) == wanted

    await eventually(there, f"{wanted} lines like {like}")
    return found


# --- log level -------------------------------------------------------------------------------------------------------


async def test_the_log_level_changes_while_the_proxy_runs(world: World) -> None:
    assert await admin(world, "GET", "/log-level") == (200, "info")
    assert await admin(world, "PUT", "/log-level", "error") == (200, "error")
    assert await admin(world, "GET", "/log-level") == (200, "error")
    assert await admin(world, "PUT", "/log-level", "info") == (200, "info")
    assert '"log level changed"' in world.proxy.log


async def test_a_signal_toggles_debug(world: World) -> None:
    for level in ("debug", "info"):
        world.proxy.signal(signal.SIGUSR1)

        async def changed(level: str = level) -> bool:
            return await admin(world, "GET", "/log-level") == (200, level)

        await eventually(changed, f"log level {level}")


# --- drain -----------------------------------------------------------------------------------------------------------


async def test_a_proxy_that_drains_is_not_ready_but_serves(world: World) -> None:
    async def health() -> int:
        check = world.client.channel.unary_unary("/grpc.health.v1.Health/Check")
        return int(health_pb2.HealthCheckResponse.FromString(await check(b"")).status)

    assert await health() == health_pb2.HealthCheckResponse.SERVING
    assert await admin(world, "POST", "/drain") == (200, "draining")
    status, text = await admin(world, "GET", "/ready?verbose")
    assert (status, list(json.loads(text)["reasons"])) == (503, ["drain"])
    assert await health() == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (await world.client.ask(a_key(), emit("x"))).ok
    assert await admin(world, "DELETE", "/drain") == (200, "serving")
    assert (await world.proxy.admin("/ready"))[0] == 200
    assert await health() == health_pb2.HealthCheckResponse.SERVING


# --- access log ------------------------------------------------------------------------------------------------------


async def test_calls_of_grpc_and_http_have_a_line_each(world: World) -> None:
    key = a_key("logged")
    assert (await world.client.ask(key, emit("x"))).ok
    (line,) = await lines(world, 1, key=key)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"])
    assert (line["protocol"], line["method"], line["status"]) == ("grpc", PATH, "OK")
    assert line["bytes_in"] > len(key) and line["bytes_out"] > 0
    key = a_key("http")
    answer = await ask(world.proxy.port, "POST", f"/tck/model/eventsourced/{key}", '{"actions": []}')
    assert answer.status == 200
    (line,) = await lines(world, 1, key=key)
    assert (line["protocol"], line["method"], line["status"]) == ("http/1.1", PATH, "200")
    assert (line["bytes_in"], line["bytes_out"]) == (15, len(answer.text))


async def test_a_call_of_grpc_web_is_logged_and_counted_by_its_status_of_grpc(world: World) -> None:
    before = await samples(world)
    outcome = await grpc_web_client.call(world.proxy.port, PATH, b"\xff")
    assert outcome.status == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    (line,) = await lines(world, 1, protocol="grpc-web")
    assert (line["method"], line["status"]) == (PATH, "INVALID_ARGUMENT")
    name = f'stateside_requests_total{{code="INVALID_ARGUMENT",method="{PATH}",protocol="grpc-web"}}'
    assert (await samples(world))[name] == before.get(name, 0) + 1


async def test_what_is_not_found_has_a_line_without_its_query(world: World) -> None:
    assert (await ask(world.proxy.port, "GET", "/nothing/here?secret=1")).status == 404
    await lines(world, 1, method="/nothing/here", status="404")
    assert "secret" not in (world.folder / "access.log").read_text()


async def test_a_client_that_goes_away_has_a_line(world: World) -> None:
    key = world.user_function.play()
    async with HttpConnection(world.proxy.port) as http:
        http.send("POST", f"/tck/model/eventsourced/{key}", '{"actions": []}')
        stream = await world.user_function.ready_stream(key)
        await stream.next()
    (line,) = await lines(world, 1, status="499")
    assert line["method"] == PATH
    await stream.send(reply(1))


async def test_keys_are_not_logged_unless_asked_for(tmp_path: Path) -> None:
    settings = SETTINGS | {"access_log": "text", "access_log_keys": "false", "journal": "memory:"}
    async with World(tmp_path, **settings) as world:
        key = a_key("private")
        assert (await world.client.ask(key, emit("x"))).ok
        assert await world.proxy.terminate() == 0  # which writes what is left
        text = (tmp_path / "access.log").read_text()
        assert f"grpc {PATH} OK" in text
        assert key not in text


async def test_the_access_log_may_go_to_stdout(tmp_path: Path) -> None:
    async with World(tmp_path, access_log="text", journal="memory:") as world:
        assert (await world.client.ask(a_key(), emit("x"))).ok
        assert await world.proxy.terminate() == 0
        assert any(f"grpc {PATH} OK" in line for line in world.proxy.stdout)


# --- figures ---------------------------------------------------------------------------------------------------------


async def test_figures_of_a_command_stored(world: World) -> None:
    before = await samples(world)
    assert (await world.client.ask(a_key(), emit("x"))).ok
    after = await samples(world)

    def change(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    entity = f'{{entity_name="{messages.PERSISTENCE_IDS[messages.MODEL]}",entity_type="eventsourced"}}'
    assert change(f'stateside_requests_total{{code="OK",method="{PATH}",protocol="grpc"}}') == 1
    assert change(f'stateside_request_seconds_count{{method="{PATH}",protocol="grpc"}}') == 1
    assert change(f"stateside_relay_seconds_count{entity}") == 1
    assert change(f"stateside_user_function_seconds_count{entity}") == 1
    assert change(f"stateside_replayed_events_count{entity}") == 1
    assert change(f"stateside_entities{entity}") == 1
    assert change("stateside_journal_appends_total") == 1
    assert change("stateside_journal_flush_seconds_count") == 1
    assert change('stateside_journal_batch_appends_bucket{le="1.0"}') == 1
    assert after["stateside_journal_used_bytes"] > 0
    assert after["stateside_journal_disk_free_bytes"] > 0
    relay, theirs = (change(f"stateside_{name}_seconds_sum{entity}") for name in ("relay", "user_function"))
    total = change(f"cloudstate_eventsourced_command_total_time_seconds_sum{{{entity[1:].split(',')[0]}}}")
    assert relay + theirs == pytest.approx(total, rel=1e-6)


async def test_refusals_are_counted_by_reason(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    waiting = [world.client.start(key) for _ in range(2)]
    await world.queued(2)
    refused = await world.client.ask(key)
    assert refused.status == grpc.StatusCode.RESOURCE_EXHAUSTED
    figures = await samples(world)
    assert figures['stateside_refusals_total{reason="stash_depth"}'] == 1
    entity = f'{{entity_name="{messages.PERSISTENCE_IDS[messages.MODEL]}",entity_type="eventsourced"}}'
    assert figures[f"stateside_stashed_commands{entity}"] == 2
    assert figures[f"stateside_highest_stash_depth{entity}"] == 2
    for number in range(1, 4):
        await stream.send(reply(number))
    assert [await each for each in (call, *waiting)] == [ok()] * 3


async def test_the_documentation_has_every_series_that_a_proxy_offers(world: World) -> None:
    async with HttpConnection(world.proxy.port) as http:  # one request that is none, and is counted as such
        http.writer.write(b"\x00\r\n\r\n")
        assert (await http.read()).status == 400
    _, text = await world.proxy.admin("/metrics")
    offered = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    documented = set(re.findall(r"`([a-z_]+)`", DOCS.read_text()))
    foreign = {name for name in offered if name.startswith(("cloudstate_eventsourced_", "stateside_value_"))}
    assert sorted(offered - foreign - documented) == []
    written = {name for name in documented if name.startswith(("stateside_", "process_"))}
    other = ["stateside_crdt_", "stateside_tls_", "stateside_worker", "stateside_journal_moved_"]  # not asked for here
    other += ["stateside_relayed_", "stateside_relay_links", "stateside_relay_waiting", "stateside_relay_failures_"]
    other += ["stateside_replica_"]
    absent = {name for name in written if name.startswith(tuple(other))}
    assert sorted(written - offered - absent - {"stateside_value_", "stateside_action_"}) == []


async def test_the_documentation_has_every_reason_of_refusals() -> None:
    assert [reason for reason in REASONS if f"`{reason}`" not in DOCS.read_text()] == []


# --- overload --------------------------------------------------------------------------------------------------------


async def test_more_calls_than_allowed_are_refused_over_grpc_and_http(tmp_path: Path) -> None:
    async with World(tmp_path, journal="memory:", max_calls_in_flight="1") as world:
        key = world.user_function.play()
        call, stream = await world.busy(key)
        other = Client(world.proxy.port)
        refused = await other.ask(a_key(), emit("x"))
        assert refused.status == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.details == "the proxy is overloaded (max_calls_in_flight); try again later"
        path = f"/tck/model/eventsourced/{a_key()}"
        answer = await ask(world.proxy.port, "POST", path, "{}")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "max_calls_in_flight" in answer.text
        check = other.channel.unary_unary("/grpc.health.v1.Health/Check")
        assert (await check(b"")) == health_pb2.HealthCheckResponse(status=1).SerializeToString()
        status, _ = await http_get(world.proxy.port, "/", {"K-Network-Probe": "queue"})
        assert status == 200
        figures = await samples(world)
        assert figures['stateside_refusals_total{reason="max_calls_in_flight"}'] == 2
        await stream.send(reply(1))
        assert await call == ok()
        assert (await ask(world.proxy.port, "POST", path, "{}")).status == 200
        await other.close()


async def test_a_proxy_above_its_memory_refuses_calls_and_stays_alive_and_ready(tmp_path: Path) -> None:
    async with World(tmp_path, journal="memory:", max_memory="1M") as world:

        async def refused() -> bool:
            return (await world.client.ask(a_key(), emit("x"))).status == grpc.StatusCode.RESOURCE_EXHAUSTED

        await eventually(refused, "a refusal because of memory")
        assert (await ask(world.proxy.port, "POST", f"/tck/model/eventsourced/{a_key()}", "{}")).status == 503
        assert (await world.proxy.admin("/alive"))[0] == (await world.proxy.admin("/ready"))[0] == 200
        assert (await samples(world))['stateside_shedding{reason="max_memory"}'] == 1
        assert '"overload: new calls are refused"' in world.proxy.log


async def test_a_loop_that_is_stopped_again_and_again_refuses_calls_until_it_runs(tmp_path: Path) -> None:
    """SIGSTOP is what a machine does to a process that it has no time for."""
    async with World(tmp_path, journal="memory:", max_loop_lag="100ms") as world:

        async def shed() -> bool:
            world.proxy.signal(signal.SIGSTOP)
            await asyncio.sleep(0.3)
            world.proxy.signal(signal.SIGCONT)
            await asyncio.sleep(0.03)  # less than the timer's interval
            return "overload: new calls are refused" in world.proxy.log

        await eventually(shed, "overload because of lag")

        async def taken() -> bool:
            return (await world.client.ask(a_key(), emit("x"))).ok

        await eventually(taken, "calls are taken again")
        assert "overload is over" in world.proxy.log
        assert (await samples(world))["stateside_highest_loop_lag_seconds"] >= 0.2

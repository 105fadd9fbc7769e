"""Commands on the wrong worker: whatever they are and whoever sends them, the owner of the entity does them, and the
client sees no difference. Client 0 is connected to worker 0, and so on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import grpc
import pytest
from tck import eventsourced_pb2 as model

from ..helpers.workers import Workers, keys_of
from . import grpc_web_client, http_client
from .harness import eventually, method_path, ok, unknown
from .messages import (
    MODEL,
    PERSISTENCE_IDS,
    TWO,
    command,
    effect_on,
    emit,
    fail,
    failed,
    forward,
    forward_to,
    reply,
    request,
    side_effect,
)
from .user_function import ScriptedUserFunction

DOCS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
HOPS = 4
_numbers = count()


class Stage:
    """A user function and its workers."""

    def __init__(self, user_function: ScriptedUserFunction, workers: Workers) -> None:
        self.user_function = user_function
        self.workers = workers
        self.clients = workers.clients

    def key(self, worker: int, service: str = MODEL, played: bool = False) -> str:
        """A new key that a worker owns."""
        prefix = f"relay-{next(_numbers)}-"
        count_of = len(self.workers.all)
        key = next(iter(keys_of(worker, PERSISTENCE_IDS[service], count_of, lambda number: f"{prefix}{number}")))
        return self.user_function.play(key) if played else key

    async def figure(self, worker: int, name: str) -> float:
        return (await self.workers.all[worker].series())[f"stateside_{name}"]

    async def until(self, worker: int, name: str, value: float) -> None:
        async def now() -> bool:
            return await self.figure(worker, name) == value

        await eventually(now, f"{name} = {value:g} at worker {worker}")


@pytest.fixture(scope="module")
def stage(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Three workers for all tests that hurt nobody."""
    user_function = runner.run(ScriptedUserFunction().start())
    settings = {"max_hops": str(HOPS), "relay_timeout": "2s"}
    workers = Workers(user_function.port, tmp_path_factory.mktemp("relay"), 3, **settings)
    runner.run(workers.__aenter__())
    yield Stage(user_function, workers)
    runner.run(workers.__aexit__())
    runner.run(user_function.stop())


# --- single commands -------------------------------------------------------------------------------------------------


async def test_every_worker_answers_for_every_entity_and_there_is_one_instance_of_each(stage: Stage) -> None:
    for owner in range(3):
        key = stage.key(owner)
        for number, client in enumerate(stage.clients):
            assert await client.ask(key, emit(f"{number};")) == ok("".join(f"{each};" for each in range(number + 1)))
        assert len(stage.user_function.streams_of(key)) == 1


async def test_a_failure_is_told_as_it_is(stage: Stage) -> None:
    assert await stage.clients[0].ask(stage.key(1), fail("käse % failed")) == unknown("käse % failed")
    outcome = await stage.clients[0].raw(method_path(MODEL), b"\xff")
    assert outcome.status == grpc.StatusCode.INVALID_ARGUMENT


async def test_large_messages_pass_both_ways(stage: Stage) -> None:
    text = "x" * 3_000_000
    assert await stage.clients[0].ask(stage.key(1), emit(text)) == ok(text)


async def test_many_commands_at_once_are_each_answered(stage: Stage) -> None:
    keys = [stage.key(number % 3) for number in range(30)]
    asked = [stage.clients[number % 3].start(key, emit("a;")) for number in range(10) for key in keys]
    assert {outcome.status for outcome in await asyncio.gather(*asked)} == {grpc.StatusCode.OK}
    for key in keys:
        assert await stage.clients[0].ask(key) == ok("a;" * 10)


async def test_reply_metadata_comes_back_as_headers(stage: Stage) -> None:
    key = stage.key(1, played=True)
    call = stage.clients[0].call(method_path(MODEL), request(key).SerializeToString())
    stream = await stage.user_function.ready_stream(key)
    await stream.next()
    answer = reply(1, "with metadata")
    entry = answer.reply.client_action.reply.metadata.entries.add(key="x-told")
    entry.string_value = "by the user function"
    await stream.send(answer)
    assert model.Response.FromString(await call).message == "with metadata"
    assert ("x-told", "by the user function") in list(await call.initial_metadata())


async def test_figures_tell_how_many_were_relayed_and_calls_are_counted_once(stage: Stage) -> None:
    before = [await worker.series() for worker in stage.workers.all]
    key = stage.key(1)
    for _ in range(5):
        assert (await stage.clients[0].ask(key)).ok
    after = [await worker.series() for worker in stage.workers.all]

    def change(worker: int, name: str) -> float:
        return after[worker][name] - before[worker].get(name, 0.0)

    assert change(0, 'stateside_relayed_commands_total{direction="out"}') == 5
    assert change(1, 'stateside_relayed_commands_total{direction="in"}') == 5
    calls = f'stateside_requests_total{{code="OK",method="{method_path(MODEL)}",protocol="grpc"}}'
    assert [change(worker, calls) if calls in after[worker] else 0 for worker in range(3)] == [5, 0, 0]
    assert after[0]["stateside_relay_links"] == 2 and after[0]["stateside_relay_waiting"] == 0


async def test_the_documentation_has_every_series(stage: Stage) -> None:
    series = {name.partition("{")[0] for name in await stage.workers.all[0].series()}
    own = {name for name in series if name.startswith("stateside_relay") and "_seconds" not in name}
    assert len(own) == 4
    assert [name for name in own if f"`{name}`" not in DOCS.read_text()] == []


# --- time and cancellation -------------------------------------------------------------------------------------------


async def test_the_deadline_is_the_owners_too(stage: Stage) -> None:
    key = stage.key(1, played=True)
    silent = stage.clients[0].start(key)
    stream = await stage.user_function.ready_stream(key)
    await stream.next()
    waiting = await stage.clients[0].ask(key, emit("late"), timeout=0.2)
    assert waiting.status == grpc.StatusCode.DEADLINE_EXCEEDED
    await stream.send(reply(1))
    assert await silent == ok()
    again = stage.clients[1].start(key)
    assert await stream.next() == command(2, key)  # the one whose time was up while it waited is not done
    await stream.send(reply(2))
    assert await again == ok()


async def test_a_command_that_waits_at_the_owner_is_dropped_when_its_client_cancels(stage: Stage) -> None:
    key = stage.key(1, played=True)
    first = stage.clients[0].start(key)
    stream = await stage.user_function.ready_stream(key)
    await stream.next()
    second = stage.clients[0].start(key, emit("never"))
    await stage.until(1, f'stashed_commands{{entity_name="{PERSISTENCE_IDS[MODEL]}",entity_type="eventsourced"}}', 1)
    before = await stage.figure(0, "cancelled_total")
    second.cancel()
    await stage.until(0, "cancelled_total", before + 1)
    third = stage.clients[0].start(key, emit("third"))
    await stage.until(1, f'stashed_commands{{entity_name="{PERSISTENCE_IDS[MODEL]}",entity_type="eventsourced"}}', 2)
    await stream.send(reply(1))
    assert await first == ok()
    assert await stream.next() == command(2, key, emit("third"))
    await stream.send(reply(2))
    assert await third == ok()


# --- forwards and effects --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("here", "there"), [(0, 1), (1, 0), (1, 1), (1, 2)])
async def test_a_forward_reaches_an_entity_of_any_worker(stage: Stage, here: int, there: int) -> None:
    key, target = stage.key(here, played=True), stage.key(there, TWO, played=True)
    call = stage.clients[0].start(key)
    stream = await stage.user_function.ready_stream(key)
    await stream.next()
    await stream.send(forward(1, target))
    stream = await stage.user_function.ready_stream(target, TWO)
    assert await stream.next() == command(1, target, service=TWO)
    await stream.send(reply(1, "from there"))
    assert await call == ok("from there")


async def test_a_forward_with_an_effect_goes_there_and_back(stage: Stage) -> None:
    key, middle, last = stage.key(0, played=True), stage.key(1, TWO, played=True), stage.key(0, TWO, played=True)
    call = stage.clients[0].start(key)
    stream = await stage.user_function.ready_stream(key)
    await stream.next()
    await stream.send(forward(1, middle, effects=[side_effect(stage.key(2, TWO), synchronous=True)]))
    stream = await stage.user_function.ready_stream(middle, TWO)
    await stream.next()
    await stream.send(forward(1, last))
    stream = await stage.user_function.ready_stream(last, TWO)
    await stream.next()
    await stream.send(failed(1, "there and back"))
    assert await call == unknown("there and back")


@pytest.mark.parametrize("with_effect", [False, True])
async def test_a_loop_of_forwards_over_workers_ends_as_on_one(stage: Stage, with_effect: bool) -> None:
    key, other = stage.key(0, played=True), stage.key(1, played=True)
    call = stage.clients[0].start(key)
    streams = {}
    effects = [side_effect(stage.key(2, TWO))] if with_effect else []
    for hop in range(HOPS + 1):
        here, there = (key, other) if hop % 2 == 0 else (other, key)
        stream = streams.get(here) or await stage.user_function.ready_stream(here)
        streams[here] = stream
        sent = await stream.next()
        await stream.send(forward(sent.command.id, there, service=MODEL, method="Process", effects=effects))
    outcome = await call
    assert outcome.status == grpc.StatusCode.INTERNAL
    name = f"{MODEL}.Process"
    loop = [f"{name}({key if hop % 2 == 0 else other})" for hop in range(HOPS + 1)]
    assert outcome.details == f"forward chain longer than max_hops ({HOPS}): {' -> '.join([*loop, name])}"
    await stage.user_function.report_about("orward chain longer than max_hops", key, other)


@pytest.mark.parametrize("owner", [0, 1])
async def test_a_synchronous_effect_elsewhere_is_waited_for(stage: Stage, owner: int) -> None:
    key, other = stage.key(owner, played=True), stage.key(2, TWO, played=True)
    call = stage.clients[0].start(key)
    stream = await stage.user_function.ready_stream(key)
    await stream.next()
    await stream.send(reply(1, "after it", effects=[side_effect(other, synchronous=True)]))
    target = await stage.user_function.ready_stream(other, TWO)
    await target.next()
    assert (await stage.clients[0].ask(stage.key(owner))).ok and not call.done()
    await target.send(reply(1))
    assert await call == ok("after it")


async def test_an_asynchronous_effect_elsewhere_is_done(stage: Stage) -> None:
    key, other = stage.key(1, played=True), stage.key(0, TWO, played=True)
    call = stage.clients[0].start(key)
    stream = await stage.user_function.ready_stream(key)
    await stream.next()
    await stream.send(reply(1, "at once", effects=[side_effect(other)]))
    assert await call == ok("at once")
    target = await stage.user_function.ready_stream(other, TWO)
    await target.next()
    await target.send(failed(1, "counted where it came from"))
    await stage.until(1, "failed_effects_total", 1)
    assert await stage.figure(1, "pending_effects") == 0


# --- other protocols -------------------------------------------------------------------------------------------------


async def test_json_over_http_is_relayed(stage: Stage) -> None:
    key, port = stage.key(1), stage.workers.all[0].port
    body = json.dumps({"actions": [{"emit": {"value": "x"}}]})
    answer = await http_client.ask(port, "POST", f"/tck/model/eventsourced/{key}", body)
    assert (answer.status, answer.text) == (200, '{"message":"x"}')
    body = json.dumps({"actions": [{"fail": {"message": "not so"}}]})
    answer = await http_client.ask(port, "POST", f"/tck/model/eventsourced/{key}", body)
    assert (answer.status, answer.text) == (500, "not so")


async def test_grpc_web_is_relayed(stage: Stage) -> None:
    key, port = stage.key(1), stage.workers.all[0].port
    found = await grpc_web_client.call(port, method_path(MODEL), request(key, emit("x")).SerializeToString())
    assert model.Response.FromString(found.messages[0]).message == "x"
    found = await grpc_web_client.call(port, method_path(MODEL), request(key, fail("no")).SerializeToString())
    assert (found.status, found.details) == (2, "no")
    data = request(key, forward_to(stage.key(0)), effect_on(stage.key(2), True)).SerializeToString()
    assert (await grpc_web_client.call(port, method_path(MODEL), data)).status == 0


async def test_a_deadline_of_grpc_web_reaches_the_owner(stage: Stage) -> None:
    key, port = stage.key(1, played=True), stage.workers.all[0].port
    data = request(key).SerializeToString()
    call = asyncio.create_task(grpc_web_client.call(port, method_path(MODEL), data, grpc_timeout="150m"))
    stream = await stage.user_function.ready_stream(key)
    await stream.next()
    assert (await call).status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    await stream.send(reply(1))
    assert (await stage.workers.all[1].ask("/alive")).status == 200


# --- who may send what -----------------------------------------------------------------------------------------------


async def test_a_way_that_a_client_sends_is_not_believed(stage: Stage) -> None:
    forged = (("stateside-way", json.dumps(["nobody.Knows", 1000, []])),)
    for worker in (0, 1):
        key, other = stage.key(worker, played=True), stage.key(2, TWO)
        call = stage.clients[0].start(key, metadata=forged)
        stream = await stage.user_function.ready_stream(key)
        await stream.next()
        await stream.send(forward(1, other))
        assert await call == ok()

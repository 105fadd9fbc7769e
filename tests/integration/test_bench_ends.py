"""The two ends of a measurement have to be right before anything between them can be measured."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import uvloop

from stateside._speedups.h2 import Channel, ClientCall, Handler, Limits, Server, ServerCall
from stateside.bench.messages import MESSAGE_SIZE, echo_message, echo_requests, echo_spec, message_class
from stateside.bench.native import FILL_EVENTS, DirectEcho, EntityEcho, Load
from stateside.proto import cloudstate, eventsourced

PATH = b"/cloudstate.eventsourced.EventSourced/handle"
DIRECT = b"/bench.Echo/Direct"
PAYLOAD = echo_message("entity")


def run(scenario: Coroutine[Any, Any, None]) -> None:
    uvloop.run(scenario)


class Stream(Handler):
    """The proxy's side of one entity stream: answers are kept until asked for."""

    def __init__(self, channel: Channel) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.call = channel.open(PATH, self)

    def on_message(self, call: Any, message: bytes) -> None:
        self.answers.put_nowait(message)

    def on_end(self, call: ClientCall, status: int, message: str) -> None:
        self.ended.set_result(status)

    def send(self, **member: Any) -> None:
        self.call.send(eventsourced.EventSourcedStreamIn(**member).SerializeToString())

    async def command(self, number: int, name: str) -> Any:
        payload = {"type_url": "type.googleapis.com/bench.Message", "value": PAYLOAD}
        self.send(command=cloudstate.Command(entity_id="entity", id=number, name=name, payload=payload))
        answer = await asyncio.wait_for(self.answers.get(), 5)
        return eventsourced.EventSourcedStreamOut.FromString(answer).reply


async def with_server(handlers: dict[bytes, Handler], scenario: Any) -> None:
    loop = asyncio.get_running_loop()
    server = Server(loop, handlers.get)
    channel = await Channel.connect(loop, "127.0.0.1", await server.listen_tcp("127.0.0.1", 0))
    await scenario(channel)
    channel.close()
    await server.close()


def test_a_message_of_the_echo_service_has_the_size_of_the_design_figures() -> None:
    message = message_class("bench.Message").FromString(PAYLOAD)
    assert (message.key, len(PAYLOAD)) == ("entity", MESSAGE_SIZE)


def test_the_echo_describes_an_event_sourced_entity() -> None:
    spec = cloudstate.EntitySpec.FromString(echo_spec(1000))
    assert [(each.service_name, each.entity_type) for each in spec.entities] == [
        ("bench.Echo", "cloudstate.eventsourced.EventSourced")
    ]
    assert spec.entities[0].passivation_strategy.timeout.timeout == 1000


def test_the_echo_answers_a_command_with_its_payload_and_emits_what_the_method_says() -> None:
    echo = EntityEcho()

    async def scenario(channel: Channel) -> None:
        stream = Stream(channel)
        stream.send(init=eventsourced.EventSourcedInit(service_name="bench.Echo", entity_id="entity"))
        numbers: list[int] = []
        for number, (name, count) in enumerate([("Read", 0), ("Write", 1), ("Fill", FILL_EVENTS), ("Write", 1)], 1):
            reply = await stream.command(number, name)
            assert reply.command_id == number
            assert reply.client_action.reply.payload.value == PAYLOAD
            assert len(reply.events) == count
            assert all(event.type_url == "type.googleapis.com/bench.Written" for event in reply.events)
            assert {len(event.value) for event in reply.events} <= {100}
            numbers += [message_class("bench.Written").FromString(event.value).number for event in reply.events]
        assert numbers == list(range(1, FILL_EVENTS + 3))
        stream.call.half_close()
        assert await asyncio.wait_for(stream.ended, 5) == 0

    run(with_server({PATH: echo}, scenario))
    assert (echo.inits, echo.commands, echo.emitted, echo.violations) == (1, 4, FILL_EVENTS + 2, 0)


def test_the_echo_checks_that_what_is_replayed_is_what_it_emitted() -> None:
    echo = EntityEcho()

    async def replay(channel: Channel, sequences: list[int], events: list[Any]) -> None:
        stream = Stream(channel)
        stream.send(init=eventsourced.EventSourcedInit(service_name="bench.Echo", entity_id="entity"))
        for sequence, event in zip(sequences, events, strict=True):
            stream.send(event=eventsourced.EventSourcedEvent(sequence=sequence, payload=event))
        await stream.command(1, "Read")

    async def scenario(channel: Channel) -> None:
        stream = Stream(channel)
        stream.send(init=eventsourced.EventSourcedInit(service_name="bench.Echo", entity_id="entity"))
        events = list((await stream.command(1, "Fill")).events)[:3]
        await replay(channel, [1, 2, 3], events)
        assert (echo.replayed, echo.violations) == (3, 0)
        await replay(channel, [1, 3], [events[0], events[2]])
        assert (echo.replayed, echo.violations) == (5, 1)
        await replay(channel, [1, 2], [events[0], events[2]])
        assert (echo.replayed, echo.violations) == (7, 2)

    run(with_server({PATH: echo}, scenario))
    assert "numbered without gaps" in echo.last_violation


def test_a_command_before_init_is_a_violation() -> None:
    echo = EntityEcho()

    async def scenario(channel: Channel) -> None:
        await Stream(channel).command(1, "Read")

    run(with_server({PATH: echo}, scenario))
    assert (echo.violations, echo.last_violation) == (1, "init comes first and once")


async def loaded(handler: Handler, count: int, in_flight: int = 4) -> Load:
    done = asyncio.Event()
    load = Load(echo_requests("Direct", 10), done.set)

    async def scenario(channel: Channel) -> None:
        load.start([channel], in_flight, count)
        await asyncio.wait_for(done.wait(), 10)

    await with_server({DIRECT: handler}, scenario)
    return load


def test_the_streams_that_a_server_announces_can_be_chosen() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server = Server(loop, lambda path: None, limits=Limits(announced_streams=100))
        channel = await Channel.connect(loop, "127.0.0.1", await server.listen_tcp("127.0.0.1", 0))
        assert (channel.peer_max_streams, channel.capacity) == (100, 100)
        channel.close()
        await server.close()

    run(scenario())


def test_a_load_makes_exactly_so_many_calls_and_records_each() -> None:
    async def scenario() -> None:
        echo = DirectEcho()
        load = await loaded(echo, 103)
        assert (load.completed, load.failed, load.in_flight) == (103, 0, 0)
        assert (echo.calls, load.histogram.count) == (103, 103)
        assert 0 < load.histogram.quantile_ns(0.5) <= load.histogram.max_ns

    run(scenario())


def test_a_load_that_is_stopped_ends_with_the_answers_of_what_is_in_flight() -> None:
    async def scenario() -> None:
        done = asyncio.Event()
        load = Load(echo_requests("Direct", 10), done.set)

        async def serve(channel: Channel) -> None:
            load.start([channel], 4)
            await asyncio.sleep(0.05)
            assert load.in_flight == 4
            load.stop()
            await asyncio.wait_for(done.wait(), 10)
            assert load.in_flight == 0
            assert load.completed == load.histogram.count > 4

        await with_server({DIRECT: DirectEcho()}, serve)

    run(scenario())


class Wrong(Handler):
    """Answers with something else."""

    def __init__(self) -> None:
        self.unary = True

    def on_request(self, call: ServerCall, message: bytes) -> None:
        call.reply(message[:-1] + b"?")


class Failing(Handler):
    def __init__(self) -> None:
        self.unary = True

    def on_request(self, call: ServerCall, message: bytes) -> None:
        call.fail(8, "no room")


def test_a_wrong_answer_is_not_counted_as_completed() -> None:
    async def scenario() -> None:
        load = await loaded(Wrong(), 7)
        assert (load.completed, load.failed) == (0, 7)
        assert load.problems[0] == "/bench.Echo/Direct: an answer is not the expected one"

    run(scenario())


def test_a_load_gives_up_when_everything_fails() -> None:
    async def scenario() -> None:
        load = await loaded(Failing(), -1)
        assert load.completed == 0
        assert 1000 <= load.failed < 1010
        assert load.problems == ["/bench.Echo/Direct: status 8: no room"] * 5

    run(scenario())

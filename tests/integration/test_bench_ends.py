"""The two ends of a measurement have to be right before anything between them can be measured."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import uvloop

from stateside._speedups.h2 import Channel, ClientCall, Handler, Limits, Server, ServerCall
from stateside.bench.generator import Generator, Keys, StreamReader
from stateside.bench.messages import (
    ENDLESS,
    KEY_DIGITS,
    KEY_PREFIX,
    MESSAGE_SIZE,
    echo_command,
    echo_message,
    echo_spec,
    message_class,
)
from stateside.bench.native import FILL_EVENTS, ActionEcho, DirectEcho, EndlessAction, EntityEcho, ValueEcho
from stateside.proto import action, cloudstate, eventsourced, valueentity

PATH = b"/cloudstate.eventsourced.EventSourced/handle"
VALUE_PATH = b"/cloudstate.valueentity.ValueEntity/handle"
UNARY_PATH = b"/cloudstate.action.ActionProtocol/handleUnary"
STREAMED_OUT_PATH = b"/cloudstate.action.ActionProtocol/handleStreamedOut"
DIRECT = b"/bench.Echo/Direct"
MESSAGE_TYPE = "type.googleapis.com/bench.Message"
PAYLOAD = echo_message("entity")


def written_number(value: bytes) -> int:
    return int(message_class("bench.Written").FromString(value).number)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    uvloop.run(scenario)


class Stream(Handler):
    """The proxy's side of one entity stream: answers are kept until asked for."""

    def __init__(self, channel: Channel, path: bytes = PATH) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.call = channel.open(path, self)

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


def test_the_echo_describes_entities_of_all_types_that_are_measured() -> None:
    spec = cloudstate.EntitySpec.FromString(echo_spec(1000))
    assert [(each.service_name, each.entity_type) for each in spec.entities] == [
        ("bench.Action", "cloudstate.action.ActionProtocol"),
        ("bench.Echo", "cloudstate.eventsourced.EventSourced"),
        ("bench.Other", "cloudstate.eventsourced.EventSourced"),
        ("bench.Value", "cloudstate.valueentity.ValueEntity"),
        ("bench.Counter", "cloudstate.crdt.Crdt"),
    ]
    assert {each.passivation_strategy.timeout.timeout for each in spec.entities[1:]} == {1000}


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


def test_a_command_to_be_forwarded_is_answered_by_a_forward_of_its_payload() -> None:
    echo = EntityEcho()

    async def scenario(channel: Channel) -> None:
        stream = Stream(channel)
        stream.send(init=eventsourced.EventSourcedInit(service_name="bench.Echo", entity_id="entity"))
        forward = (await stream.command(1, "Forward")).client_action.forward
        assert (forward.service_name, forward.command_name) == ("bench.Other", "Read")
        assert (forward.payload.type_url, forward.payload.value) == (MESSAGE_TYPE, PAYLOAD)

    run(with_server({PATH: echo}, scenario))
    assert (echo.commands, echo.emitted, echo.violations) == (1, 0, 0)


class ValueStream(Stream):
    """The proxy's side of the stream of one value entity."""

    def __init__(self, channel: Channel, state: Any = None) -> None:
        Stream.__init__(self, channel, VALUE_PATH)
        init = valueentity.ValueEntityInit(service_name="bench.Value", entity_id="entity")
        init.state.SetInParent()
        if state is not None:
            init.state.value.CopyFrom(state)
        self.call.send(valueentity.ValueEntityStreamIn(init=init).SerializeToString())

    async def write(self, number: int) -> Any:
        payload = {"type_url": MESSAGE_TYPE, "value": PAYLOAD}
        command = cloudstate.Command(entity_id="entity", id=number, name="Write", payload=payload)
        self.call.send(valueentity.ValueEntityStreamIn(command=command).SerializeToString())
        answer = await asyncio.wait_for(self.answers.get(), 5)
        return valueentity.ValueEntityStreamOut.FromString(answer).reply


def test_the_value_echo_replaces_a_value_of_100_bytes_and_goes_on_from_the_stored_one() -> None:
    echo = ValueEcho()

    async def scenario(channel: Channel) -> None:
        stream, numbers = ValueStream(channel), []
        for number in (1, 2):
            reply = await stream.write(number)
            assert reply.command_id == number
            assert reply.client_action.reply.payload.value == PAYLOAD
            stored = reply.state_action.update.value
            assert (stored.type_url, len(stored.value)) == ("type.googleapis.com/bench.Written", 100)
            numbers.append(written_number(stored.value))
        stored = (await ValueStream(channel, stored).write(1)).state_action.update.value
        assert [*numbers, written_number(stored.value)] == [1, 2, 3]

    run(with_server({VALUE_PATH: echo}, scenario))
    assert (echo.inits, echo.commands, echo.updates, echo.violations) == (2, 3, 3, 0)


def test_a_state_that_was_never_stored_is_a_violation() -> None:
    echo = ValueEcho()

    async def scenario(channel: Channel) -> None:
        state = cloudstate.Command(payload={"type_url": "type.googleapis.com/bench.Written", "value": b"?"}).payload
        stream = ValueStream(channel, state)
        stream.call.half_close()
        await asyncio.wait_for(stream.ended, 5)

    run(with_server({VALUE_PATH: echo}, scenario))
    assert (echo.inits, echo.violations) == (1, 1)
    assert "the value last stored" in echo.last_violation


def test_the_action_echo_answers_a_command_with_its_payload() -> None:
    echo = ActionEcho()

    async def scenario(channel: Channel) -> None:
        payload = {"type_url": MESSAGE_TYPE, "value": PAYLOAD}
        stream = Stream(channel, UNARY_PATH)
        command = action.ActionCommand(service_name="bench.Action", name="Unary", payload=payload)
        stream.call.send(command.SerializeToString())
        stream.call.half_close()
        answer = action.ActionResponse.FromString(await asyncio.wait_for(stream.answers.get(), 5))
        assert (answer.reply.payload.type_url, answer.reply.payload.value) == (MESSAGE_TYPE, PAYLOAD)
        assert await asyncio.wait_for(stream.ended, 5) == 0

    run(with_server({UNARY_PATH: echo}, scenario))
    assert echo.calls == 1


def test_the_endless_action_numbers_its_messages_and_stops_when_it_is_cancelled() -> None:
    endless = EndlessAction()

    async def scenario(channel: Channel) -> None:
        stream = Stream(channel, STREAMED_OUT_PATH)
        stream.call.send(b"")
        stream.call.half_close()
        for number in range(1, 3000):  # more than fit the queue at once
            answer = action.ActionResponse.FromString(await asyncio.wait_for(stream.answers.get(), 5))
            assert (len(answer.reply.payload.value), written_number(answer.reply.payload.value)) == (100, number)
        assert (endless.calls, endless.open) == (1, 1)
        stream.call.cancel()
        async with asyncio.timeout(5):
            while endless.open:
                await asyncio.sleep(0.001)
        assert endless.sent >= 3000

    run(with_server({STREAMED_OUT_PATH: endless}, scenario))


class Numbered(Handler):
    """Streams Written with these numbers, then rests, or ends the call."""

    def __init__(self, numbers: list[int], ends: bool) -> None:
        self.unary = True
        self.numbers = numbers
        self.ends = ends

    def on_request(self, call: ServerCall, message: bytes) -> None:
        for number in self.numbers:
            call.send(message_class("bench.Written")(number=number, body=bytes(89)).SerializeToString())
        if self.ends:
            call.finish()


async def streamed(handler: Handler, streams: int, expected: int) -> StreamReader:
    """Read until so many messages have come or all streams have ended."""
    done = asyncio.Event()
    load = StreamReader(ENDLESS, PAYLOAD, done.set)

    async def scenario(channel: Channel) -> None:
        load.start([channel], streams)
        async with asyncio.timeout(5):
            while load.completed < expected and not done.is_set():
                await asyncio.sleep(0.001)
            load.stop()
            await done.wait()

    await with_server({ENDLESS: handler}, scenario)
    return load


def test_a_stream_reader_counts_messages_until_it_is_stopped() -> None:
    async def scenario() -> None:
        load = await streamed(Numbered([1, 2, 3], ends=False), 2, 6)
        assert (load.completed, load.failed, load.in_flight, load.problems) == (6, 0, 0, [])

    run(scenario())


def test_a_stream_that_ends_or_loses_messages_is_a_failure() -> None:
    async def scenario() -> None:
        ended = await streamed(Numbered([1], ends=True), 1, 9)
        assert (ended.failed, ended.problems) == (1, ["/bench.Action/Endless: ended with status 0: "])
        lost = await streamed(Numbered([1, 3], ends=True), 1, 9)
        assert (lost.completed, lost.failed) == (1, 1)
        assert lost.problems == ["/bench.Action/Endless: messages are missing or not in order"]

    run(scenario())


def test_the_streams_that_a_server_announces_can_be_chosen() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server = Server(loop, lambda path: None, limits=Limits(announced_streams=100))
        channel = await Channel.connect(loop, "127.0.0.1", await server.listen_tcp("127.0.0.1", 0))
        assert (channel.peer_max_streams, channel.capacity) == (100, 100)
        channel.close()
        await server.close()

    run(scenario())


class Remembering(Handler):
    """Answers with the request, and keeps it."""

    def __init__(self) -> None:
        self.unary = True
        self.requests: list[bytes] = []

    def on_request(self, call: ServerCall, message: bytes) -> None:
        self.requests.append(message)
        call.reply(message)


def test_the_commands_of_the_echo_service_are_whole_messages_for_each_entity_in_turn() -> None:
    echo = Remembering()
    done = asyncio.Event()

    async def scenario(channel: Channel) -> None:
        keys = Keys(KEY_PREFIX, 2, "turn", digits=KEY_DIGITS)
        loop = asyncio.get_running_loop()
        load = Generator(loop, [channel], [echo_command("Direct")], keys, done.set, in_flight=1, count=3)
        load.start()
        await asyncio.wait_for(done.wait(), 10)
        assert (load.completed, load.failed) == (3, 0)

    run(with_server({DIRECT: echo}, scenario))
    assert echo.requests == [echo_message(f"entity-00000{number}") for number in (0, 1, 0)]


def test_a_load_that_is_stopped_ends_with_the_answers_of_what_is_in_flight() -> None:
    echo = DirectEcho()
    done = asyncio.Event()

    async def scenario(channel: Channel) -> None:
        keys = Keys(KEY_PREFIX, 10, "turn", digits=KEY_DIGITS)
        load = Generator(asyncio.get_running_loop(), [channel], [echo_command("Direct")], keys, done.set, in_flight=4)
        load.start()
        async with asyncio.timeout(10):
            while load.completed < 100:
                await asyncio.sleep(0.001)
            assert load.in_flight == 4
            load.stop()
            await done.wait()
        assert load.in_flight == 0
        assert echo.calls == load.completed == load.begun

    run(with_server({DIRECT: echo}, scenario))

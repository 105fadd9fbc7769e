"""CRDT entities in the test kit: registration, commands, streams, and what goes wrong in each."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from types import FunctionType
from typing import Any

import pytest

from stateside._speedups import wire
from stateside.proto import cloudstate, crdt, pack
from stateside.support import (
    CancelContext,
    ChangeContext,
    ContextError,
    Crdt,
    CrdtContext,
    CrdtEntity,
    CrdtError,
    EntityFailure,
    Fail,
    Flag,
    Forward,
    GCounter,
    GSet,
    LWWMap,
    LWWRegister,
    Metadata,
    NoReply,
    ORMap,
    ORSet,
    PNCounter,
    RegistrationError,
    Reply,
    Service,
    Stateside,
    Vote,
    WriteConsistency,
    command,
)
from stateside.support.answers import Effect
from stateside.support.testkit import Result, TestKit
from stateside.support.testkit_calls import KitCall
from stateside.support.testkit_crdt import TestCrdt, TestStream
from tests.protos.tck import action_pb2
from tests.protos.tck import crdt_pb2 as tck
from tests.tck.crdt_model import CrdtTckModel, CrdtTwo
from tests.tck.crdt_scenarios import d_gc, d_lw, d_map, d_os, d_pn, d_vote, inc, s_gc, s_pn

SERVICE = tck.DESCRIPTOR.services_by_name["CrdtTckModel"]
TWO = Service(CrdtTwo)
ASK = tck.Request(id="a")
WATCH = tck.StreamedRequest(id="a")
CALL = TWO.call("Call", tck.Request(id="b"))


def count(value: int) -> tck.Response:
    return tck.Response(state=s_pn(value))


def kit_of(process: Any = None, streamed: Any = None, **options: Any) -> TestCrdt:
    """An entity of a class with these handlers."""
    methods = {}
    if process is not None:
        methods["process"] = command("Process")(copied(process))
    if streamed is not None:
        methods["process_streamed"] = command("ProcessStreamed")(copied(streamed))
    cls = CrdtEntity(service=SERVICE, **options)(type("Entity", (), methods))
    return TestKit(cls, targets=[CrdtTwo]).crdt("a")


def copied(handler: Any) -> Any:
    """A function of its own: a handler is declared once."""
    copy = FunctionType(handler.__code__, handler.__globals__, handler.__name__, None, handler.__closure__)
    copy.__annotations__ = handler.__annotations__
    return copy


def up(self: Any, request: tck.Request, counter: PNCounter) -> tck.Response:
    """A handler that counts up by as many as the request has actions, and one."""
    counter += len(request.actions) + 1
    return count(int(counter))


def watch(self: Any, request: tck.StreamedRequest, counter: PNCounter) -> Iterator[tck.Response]:
    while True:
        yield count(int(counter))


def values(stream: TestStream) -> list[int]:
    return [reply.state.pncounter.value for reply in stream.replies]


# --- registration ----------------------------------------------------------------------------------------------------


def two_types(self: Any, request: tck.Request, counter: PNCounter, flag: Flag) -> tck.Response: ...
def other_type(self: Any, counter: GCounter) -> tck.Response: ...
def context_of_other_type(self: Any, counter: PNCounter, ctx: CrdtContext[Vote]) -> tck.Response: ...
def unary_generator(self: Any, counter: PNCounter) -> Iterator[tck.Response]:
    yield count(0)


async def async_generator(self: Any, counter: PNCounter) -> AsyncIterator[tck.Response]:
    yield count(0)


def wrong_yield(self: Any, counter: PNCounter) -> Iterator[tck.Request]:
    yield tck.Request()


@pytest.mark.parametrize(
    ("process", "streamed", "options", "text"),
    [
        (two_types, None, {}, "parameter 'flag' is a second state"),
        (other_type, watch, {}, "an entity has one CRDT, but there are GCounter"),
        (context_of_other_type, None, {}, "PNCounter .* and Vote"),
        (unary_generator, None, {}, "is a generator; Process has one reply"),
        (None, async_generator, {}, "a streamed command is a plain generator"),
        (None, wrong_yield, {}, "returns Request; the rpc replies Response"),
        (up, None, {"initial": lambda: 5}, "initial makes a int, which is no CRDT"),
        (up, None, {"initial": Flag}, "PNCounter .* and Flag \\(initial\\)"),
    ],
)
def test_classes_that_cannot_be_served(process: Any, streamed: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(RegistrationError, match=text):
        kit_of(process, streamed, **options)


def test_a_service_with_streamed_requests_is_no_crdt_entity() -> None:
    @CrdtEntity(service=action_pb2.DESCRIPTOR.services_by_name["ActionTckModel"])
    class Entity:
        pass

    with pytest.raises(RegistrationError, match="a CRDT entity can stream responses only"):
        Stateside(Entity)


def test_the_kit_of_another_kind_of_entity_is_no_crdt() -> None:
    from tests.tck.value_entity_model import ValueTckModel, ValueTwo

    with pytest.raises(TypeError, match="is no CRDT entity"):
        TestKit(ValueTckModel, targets=[ValueTwo]).crdt("a")


# --- the CRDT of an entity -------------------------------------------------------------------------------------------


def test_the_declared_type_is_made_on_first_use_and_comes_back_after_passivation() -> None:
    entity = kit_of(up)
    assert entity.state is None
    assert entity.process(ASK).delta == d_pn(1)
    entity.passivate()
    assert entity.state == 1 and entity.process(ASK).reply == count(2)


def test_what_was_never_written_is_not_there_after_passivation() -> None:
    def look(self: Any, counter: PNCounter) -> tck.Response:
        return count(int(counter))

    entity = kit_of(look)
    assert entity.process(ASK).delta is None and entity.state == 0
    entity.passivate()
    assert entity.state is None


def test_initial_makes_the_first_value() -> None:
    def look(self: Any, ctx: CrdtContext[LWWRegister[str]]) -> tck.Response:
        return tck.Response(state=tck.State(lwwregister=tck.LWWRegisterValue(value=ctx.crdt.value)))

    entity = kit_of(look, initial=lambda: LWWRegister("open"))
    first, second = entity.process(ASK), entity.process(ASK)
    assert first.delta == d_lw("open") and second.delta is None
    assert first.reply == second.reply and second.reply.state.lwwregister.value == "open"


def test_a_map_of_values_as_the_declared_type() -> None:
    def put(self: Any, names: LWWMap[str, str]) -> tck.Response:
        names["a"] = names.get("a", "") + "x"
        return tck.Response()

    entity = kit_of(put)
    assert entity.process(ASK).delta == d_map(added={"a": d_lw("x")})
    entity.elsewhere(lambda names: names.update(a="y"))
    entity.passivate()
    assert entity.process(ASK).delta == d_map(updated={"a": d_lw("yx")})
    assert isinstance(entity.state, LWWMap)


def test_without_a_declared_type_the_handler_makes_the_crdt() -> None:
    def any_type(self: Any, request: tck.Request, ctx: CrdtContext[Any]) -> tck.Response:
        if not request.actions:
            _ = ctx.crdt
        kinds: list[Callable[[], Any]] = [ORMap, LWWMap, Flag, lambda: 5]
        ctx.get_or_create(kinds[len(request.actions) - 1])
        return tck.Response()

    def ask(number: int) -> tck.Request:
        return tck.Request(id="a", actions=[tck.RequestAction()] * number)

    entity = kit_of(any_type)
    with pytest.raises(ContextError, match="no handler declares its CRDT; use ctx.get_or_create"):
        entity.process(ask(0))
    with pytest.raises(RegistrationError, match="int is no CRDT"):
        entity.process(ask(4))
    entity.process(ask(1))
    assert isinstance(entity.state, ORMap)
    entity.process(ask(2))
    assert isinstance(entity.state, LWWMap)
    with pytest.raises(ContextError, match="is a LWWMap, not a Flag"):
        entity.process(ask(3))
    with pytest.raises(TypeError, match="declares no type"):
        kit_of(any_type).elsewhere(lambda _: None)


def test_a_crdt_that_belongs_to_another_entity_cannot_be_given_away() -> None:
    shared = GCounter()

    def share(self: Any, ctx: CrdtContext[Any]) -> tck.Response:
        ctx.get_or_create(lambda: shared)
        return tck.Response()

    kit_of(share).process(ASK)
    with pytest.raises(CrdtError, match="already belongs to an entity"):
        kit_of(share).process(ASK)


# --- commands --------------------------------------------------------------------------------------------------------


def test_write_consistency_of_the_entity_and_of_a_command() -> None:
    def ask(self: Any, request: tck.Request, counter: PNCounter, ctx: CrdtContext[PNCounter]) -> tck.Response:
        if request.actions:
            ctx.write_consistency = WriteConsistency.ALL
        counter += 1
        return count(1)

    entity = kit_of(ask, write_consistency=WriteConsistency.MAJORITY)
    assert entity.process(ASK).write_consistency is WriteConsistency.MAJORITY
    assert entity.process(tck.Request(actions=[tck.RequestAction()])).write_consistency is WriteConsistency.ALL


@pytest.mark.parametrize("error", [Fail("no"), ValueError("broken"), EntityFailure("ended")])
def test_a_command_that_fails_changes_nothing_and_the_entity_goes_on(error: Exception) -> None:
    def break_(self: Any, request: tck.Request, counter: PNCounter, ctx: CrdtContext[PNCounter]) -> tck.Response:
        counter += 5
        if request.actions:
            ctx.effect(CALL)
            raise error
        return count(int(counter))

    entity = kit_of(break_)
    broken = tck.Request(actions=[tck.RequestAction()])
    for _ in range(2):
        if isinstance(error, Fail):
            assert entity.process(broken) == Result(failure="no")
        else:
            with pytest.raises(type(error), match=str(error)):
                entity.process(broken)
        assert entity.process(ASK).delta == d_pn(5)
    assert entity.state == 10


def test_a_failure_that_the_handler_caught_counts() -> None:
    def catch(self: Any, counter: PNCounter, ctx: CrdtContext[PNCounter]) -> tck.Response:
        counter += 1
        with pytest.raises(Fail):
            ctx.fail("no")
        return count(1)

    assert kit_of(catch).process(ASK) == Result(failure="no")


def test_replies_with_metadata_forwards_and_effects() -> None:
    def answer(self: Any, request: tck.Request, counter: PNCounter) -> Any:
        counter += 1
        answers = [
            Reply(count(1), Metadata([("a", "b")]), [Effect(CALL)]),
            Forward(CALL, [Effect(CALL, synchronous=True)]),
            NoReply(),
            None,
        ]
        return answers[len(request.actions)]

    def ask(number: int) -> tck.Request:
        return tck.Request(actions=[tck.RequestAction()] * number)

    entity = kit_of(answer)
    reply = entity.process(ask(0))
    assert (reply.reply, reply.metadata, reply.effects) == (count(1), Metadata([("a", "b")]), [Effect(CALL)])
    forward = entity.process(ask(1))
    assert (forward.forward, forward.effects, forward.delta) == (CALL, [Effect(CALL, True)], d_pn(1))
    for number in (2, 3):
        with pytest.raises(Exception, match="No reply or forward returned"):
            entity.process(ask(number))


def test_an_async_handler() -> None:
    async def slowly(self: Any, request: tck.Request, counter: PNCounter) -> tck.Response:
        await asyncio.sleep(0)
        counter += 2
        return count(int(counter))

    entity = kit_of(slowly)
    assert entity.process(ASK).delta == d_pn(2) and entity.process(ASK).reply == count(4)


def test_nothing_can_be_changed_after_the_command() -> None:
    kept: list[Any] = []

    def keep(self: Any, counter: PNCounter, ctx: CrdtContext[PNCounter]) -> tck.Response:
        kept[:] = [counter, ctx]
        return count(0)

    kit_of(keep).process(ASK)
    with pytest.raises(CrdtError, match="changes are made in command handlers and in on_cancel"):
        kept[0].increment()
    for misuse in (kept[1].delete, lambda: kept[1].get_or_create(PNCounter), lambda: kept[1].effect(CALL)):
        with pytest.raises(ContextError, match="after the command ended"):
            misuse()


# --- deletion --------------------------------------------------------------------------------------------------------


def delete(self: Any, counter: PNCounter, ctx: CrdtContext[PNCounter]) -> tck.Response:
    ctx.delete()
    counter += 1
    return count(int(counter))


def test_after_its_deletion_an_entity_refuses_commands() -> None:
    entity = kit_of(delete)
    deleted = entity.process(ASK)
    assert (deleted.reply, deleted.deleted, deleted.delta) == (count(1), True, None)
    assert entity.process(ASK).failure == "Entity deleted"


def test_an_entity_that_another_node_deletes() -> None:
    entity = kit_of(up, watch)
    stream = entity.process_streamed(WATCH)
    entity.delete_elsewhere()
    assert entity.process(ASK).failure == "Entity deleted" and values(stream) == [0]
    assert entity.process_streamed(WATCH).results[0].failure == "Entity deleted"


def test_a_client_that_goes_after_the_deletion_changes_nothing() -> None:
    entity = kit_of(delete, presence)
    stream = entity.process_streamed(WATCH)
    assert entity.process(ASK).deleted
    assert stream.cancel() == Result()


def test_a_failed_command_does_not_delete() -> None:
    def break_(self: Any, counter: PNCounter, ctx: CrdtContext[PNCounter]) -> tck.Response:
        ctx.delete()
        ctx.fail("no")

    entity = kit_of(break_)
    assert entity.process(ASK) == entity.process(ASK) == Result(failure="no")


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_generator_goes_on_with_each_change_of_anybody() -> None:
    entity = kit_of(up, watch)
    stream = entity.process_streamed(WATCH)
    entity.process(ASK)
    entity.elsewhere(lambda counter: counter.decrement(5))
    assert values(stream) == [0, 1, -4] and stream.streamed


def test_a_generator_that_returns_ends_the_stream() -> None:
    def until_two(self: Any, counter: PNCounter) -> Iterator[tck.Response | None]:
        yield None
        while counter < 2:
            yield count(int(counter))

    entity = kit_of(up, until_two)
    stream = entity.process_streamed(WATCH)
    for _ in range(3):
        entity.process(ASK)
    assert values(stream) == [1] and not stream.streamed and stream.results[-1].ended
    assert entity.process_streamed(WATCH).results[0].reply is None
    with pytest.raises(RuntimeError, match="there is no stream to cancel"):
        stream.cancel()


def test_what_a_generator_returns_is_the_last_message() -> None:
    def until_two(self: Any, counter: PNCounter) -> Generator[tck.Response, None, tck.Response]:
        while counter < 2:
            yield count(int(counter))
        return count(int(counter))

    entity = kit_of(up, until_two)
    stream = entity.process_streamed(WATCH)
    for _ in range(3):
        entity.process(ASK)
    assert values(stream) == [0, 1, 2] and stream.results[-1].ended
    late = entity.process_streamed(WATCH)
    assert values(late) == [3] and not late.streamed


def test_a_generator_that_yields_nothing_answers_nothing() -> None:
    def empty(self: Any, counter: PNCounter) -> Iterator[tck.Response]:
        yield from ()

    stream = kit_of(up, empty).process_streamed(WATCH)
    assert stream.results == [Result()] and not stream.streamed


def presence(self: Any, counter: PNCounter) -> Iterator[tck.Response]:
    counter += 1
    try:
        while True:
            yield count(int(counter))
    finally:
        counter -= 1


def test_a_generator_may_change_the_crdt_when_its_client_has_gone() -> None:
    entity = kit_of(up, presence)
    one, other = entity.process_streamed(WATCH), entity.process_streamed(WATCH)
    assert values(one) == [1, 2] and values(other) == [2]
    assert other.cancel().delta == d_pn(-1)
    assert values(one) == [1, 2, 1]


def test_a_streamed_method_that_is_called_for_one_answer() -> None:
    entity = kit_of(up, presence)
    result = TestCrdt.__bases__[0].call(entity, "ProcessStreamed", WATCH)
    assert result.reply == count(1) and entity.state == 0 and result.delta is None


def test_a_generator_is_closed_with_the_stream_of_its_entity() -> None:
    closed = []

    def careful(self: Any, counter: PNCounter) -> Iterator[tck.Response]:
        try:
            yield count(0)
        finally:
            counter.increment()
            closed.append(True)

    entity = kit_of(up, careful)
    entity.process_streamed(WATCH)
    entity.passivate()
    assert closed and entity.state is None


def test_a_generator_that_is_forgotten_with_its_stream_ends_without_a_word() -> None:
    entity = kit_of(up, presence)
    entity.process_streamed(WATCH)
    del entity
    gc.collect()  # what goes wrong in there would be a warning, and so an error


def test_a_generator_that_breaks_when_it_is_closed_is_reported() -> None:
    def careless(self: Any, counter: PNCounter) -> Iterator[tck.Response]:
        try:
            yield count(0)
        finally:
            raise ValueError("careless")

    entity = kit_of(up, careless)
    entity.process_streamed(WATCH)
    entity.passivate()
    with pytest.raises(ValueError, match="careless"):
        entity.process(ASK)


def subscribing(on_change: Any = None, on_cancel: Any = None) -> Any:
    def subscribe(self: Any, counter: PNCounter, ctx: CrdtContext[PNCounter]) -> None:
        if on_change is not None:
            ctx.on_change(on_change)
        if on_cancel is not None:
            ctx.on_cancel(on_cancel)

    return subscribe


def test_a_callback_may_answer_in_all_ways() -> None:
    def changed(change: ChangeContext[PNCounter]) -> Any:
        value = int(change.crdt)
        match value:
            case 1:
                change.effect(CALL)
                return None
            case 2:
                return None
            case 3:
                return Forward(CALL)
            case 4:
                return Reply(count(4), Metadata([("a", "b")]))
            case _:
                change.end()
                return count(value)

    entity = kit_of(up, subscribing(changed))
    stream = entity.process_streamed(WATCH)
    for _ in range(6):
        entity.process(ASK)
    first, *results = stream.results
    assert first == Result() and stream.streamed is False
    assert results == [
        Result(effects=[Effect(CALL)]),
        Result(forward=CALL),
        Result(reply=count(4), metadata=Metadata([("a", "b")])),
        Result(reply=count(5), ended=True),
    ]


@pytest.mark.parametrize("error", [Fail("no"), None])
def test_a_callback_that_fails_ends_its_stream_only(error: Exception | None) -> None:
    gone = []

    def changed(change: ChangeContext[PNCounter]) -> Any:
        if error is not None:
            raise error
        change.fail("no")

    entity = kit_of(up, subscribing(changed, lambda cancel: gone.append(cancel.command_id)))
    stream, other = entity.process_streamed(WATCH), entity.process_streamed(WATCH)
    for _ in range(2):
        entity.process(ASK)
    assert stream.results == other.results == [Result(), Result(failure="no")]
    stream.cancel()  # as the proxy does then
    assert gone == [stream.command_id] and entity.process(ASK).reply == count(3)


def test_a_callback_that_changes_the_crdt_fails() -> None:
    entity = kit_of(up, subscribing(lambda change: change.crdt.increment()))
    stream = entity.process_streamed(WATCH)
    with pytest.raises(CrdtError, match="changes are made in command handlers"):
        entity.process(ASK)
    assert "changes are made in command handlers" in (stream.results[-1].failure or "")
    assert entity.state == 1


def test_a_callback_for_the_end_may_change_the_crdt_and_have_effects() -> None:
    def gone(cancel: CancelContext[PNCounter]) -> None:
        cancel.crdt.decrement(5)
        cancel.effect(CALL)
        cancel.write_consistency = WriteConsistency.ALL

    entity = kit_of(up, subscribing(None, gone))
    stream, watching = entity.process_streamed(WATCH), kit_of(up, watch)
    result = stream.cancel()
    assert (result.delta, result.effects, result.write_consistency) == (d_pn(-5), [Effect(CALL)], WriteConsistency.ALL)
    assert watching.process(ASK).reply == count(1)


@pytest.mark.parametrize(
    ("misuse", "text"),
    [
        (lambda cancel: cancel.fail("no"), "there is no client to be told: no"),
        (lambda cancel: cancel.forward(CALL), "there is no client to forward for"),
        (lambda cancel: cancel.crdt.increment(0.5), "is changed by an integer"),
    ],
)
def test_a_callback_for_the_end_that_fails_changes_nothing(misuse: Any, text: str) -> None:
    def gone(cancel: CancelContext[PNCounter]) -> None:
        cancel.crdt.increment()
        cancel.effect(CALL)
        misuse(cancel)

    entity = kit_of(up, subscribing(None, gone))
    stream = entity.process_streamed(WATCH)
    with pytest.raises((ContextError, CrdtError), match=text):
        stream.cancel()
    assert entity.process(ASK).reply == count(1)


def test_what_subscribing_refuses() -> None:
    def twice(self: Any, ctx: CrdtContext[PNCounter]) -> None:
        ctx.on_change(lambda change: None)
        ctx.on_change(lambda change: None)

    with pytest.raises(ContextError, match="on_change was already given a callback"):
        kit_of(up, twice).process_streamed(WATCH)

    def unary(self: Any, ctx: CrdtContext[PNCounter]) -> tck.Response:
        ctx.on_cancel(lambda cancel: None)
        return count(0)

    with pytest.raises(ContextError, match="on_cancel is for streamed commands; look at ctx.streamed first"):
        kit_of(unary).process(ASK)


def test_a_streamed_command_that_fails_is_no_stream() -> None:
    def refuse(self: Any, counter: PNCounter, ctx: CrdtContext[PNCounter]) -> None:
        ctx.on_change(lambda change: count(0))
        counter += 1
        ctx.fail("no")

    entity = kit_of(up, refuse)
    stream = entity.process_streamed(WATCH)
    assert stream.results == [Result(failure="no")] and not stream.streamed
    entity.process(ASK)
    assert len(stream.results) == 1 and entity.state == 1


# --- the kit's other nodes -------------------------------------------------------------------------------------------


def test_votes_of_other_nodes() -> None:
    def vote(self: Any, request: tck.Request, vote: Vote) -> tck.Response:
        vote.vote = not request.actions
        return tck.Response(state=tck.State(vote=tck.VoteValue(votes_for=vote.votes_for, total_voters=vote.total)))

    entity = kit_of(vote)
    assert entity.process(ASK).delta == d_vote(True)
    entity.members(votes_for=1, others=3)
    entity.passivate()
    assert (entity.state.vote, entity.state.votes_for, entity.state.total) == (True, 2, 4)
    entity.elsewhere(lambda other: setattr(other, "vote", True))
    assert entity.state.unanimous is False and entity.state.votes_for == 3
    assert entity.process(tck.Request(actions=[tck.RequestAction()])).reply.state.vote.votes_for == 2


def test_a_change_elsewhere_that_changes_nothing_is_not_told() -> None:
    entity = kit_of(up, watch)
    stream = entity.process_streamed(WATCH)
    entity.elsewhere(lambda counter: None)
    assert values(stream) == [0]


# --- the protocol ----------------------------------------------------------------------------------------------------


def command_in(name: str = "Process", entity_id: str = "a", payload: Any = ASK, **more: Any) -> bytes:
    command = cloudstate.Command(entity_id=entity_id, id=1, name=name, **more)
    if payload is not None:
        command.payload.CopyFrom(pack(payload))
    return bytes(crdt.CrdtStreamIn(command=command).SerializeToString())


INIT = wire.write_crdt_init(SERVICE.full_name, "GCounter-1", None)
WRONG_TYPE = wire.write_crdt_delta(d_os("+a").SerializeToString())
RIGHT_TYPE = wire.write_crdt_delta(d_gc(1).SerializeToString())


@pytest.mark.parametrize(
    ("messages", "description"),
    [
        ([command_in()], "Protocol error: Expected init message for CRDT entity"),
        ([RIGHT_TYPE], "Protocol error: Expected init message for CRDT entity"),
        ([INIT, INIT], "Protocol error: CRDT entity already inited"),
        ([INIT, b""], "Protocol error: CRDT entity received empty/unknown message"),
        ([INIT, command_in()], "Protocol error: Receiving CRDT entity is not the intended recipient of command"),
        (
            [INIT, wire.write_stream_cancelled(b"other", 1)],
            "Protocol error: Receiving CRDT entity is not the intended recipient of command",
        ),
        (
            [INIT, command_in(entity_id="GCounter-1", payload=None)],
            "Protocol error: No command payload for CRDT entity",
        ),
        (
            [INIT, command_in("Other", "GCounter-1")],
            "No command handler found for command [Other] on CrdtTckModel",
        ),
        ([wire.write_crdt_init("other", "a", None)], "Protocol error: Service not found: other"),
        (
            [INIT, RIGHT_TYPE, WRONG_TYPE],
            "CRDT entity unexpected failure: Received a delta of a orset, but this is a gcounter",
        ),
        ([INIT, b"\x12\x01"], "Protocol error: "),
    ],
)
def test_violations_of_the_protocol_end_the_stream(messages: list[bytes], description: str) -> None:
    call = KitCall()
    stream = TestKit(CrdtTckModel, targets=[CrdtTwo]).open(call)
    for message in messages:
        stream.receive(message)
    failure = wire.scan_crdt_out(call.sent.pop())
    assert failure.kind == wire.KIND_FAILURE and failure.description.startswith(description)
    assert call.context is None and not call.sent


def test_a_cancellation_of_what_was_no_stream_is_answered() -> None:
    call = KitCall()
    stream = TestKit(CrdtTckModel, targets=[CrdtTwo]).open(call)
    stream.receive(INIT)
    stream.receive(wire.write_stream_cancelled(b"GCounter-1", 7))
    assert crdt.CrdtStreamOut.FromString(call.sent.pop()) == crdt.CrdtStreamOut(
        stream_cancelled_response=crdt.CrdtStreamCancelledResponse(command_id=7)
    )


def test_messages_wait_for_an_async_handler() -> None:
    async def scenario() -> list[Any]:
        go = asyncio.Event()

        async def slowly(self: Any, counter: GCounter) -> tck.Response:
            seen = int(counter)
            await go.wait()
            counter += 1
            return tck.Response(state=s_gc(seen))

        cls = CrdtEntity(service=SERVICE)(type("Entity", (), {"process": command("Process")(slowly)}))
        call = KitCall()
        stream = TestKit(cls).open(call)
        for message in (INIT, command_in(entity_id="GCounter-1"), RIGHT_TYPE, command_in(entity_id="GCounter-1")):
            stream.receive(message)
        go.set()
        replies = []
        for _ in range(2):
            await call.answered()
            out = wire.scan_crdt_out(call.sent.popleft())
            replies.append(tck.Response.FromString(out.payload).state.gcounter.value)
        stream.half_closed()
        return replies

    assert asyncio.run(scenario()) == [0, 2]


def test_every_type_of_the_model_can_be_used_by_the_kit() -> None:
    kit = TestKit(CrdtTckModel, targets=[CrdtTwo])
    for kind in ("GCounter", "PNCounter", "GSet", "ORSet", "LWWRegister", "Flag", "ORMap", "Vote"):
        entity = kit.crdt(f"{kind}-1")
        entity.process(tck.Request(id=entity.entity_id))
        assert isinstance(entity.state, Crdt)
    counter = kit.crdt("GCounter-1")
    counter.process(tck.Request(id="GCounter-1", actions=[tck.RequestAction(update=inc(3))]))
    counter.elsewhere(lambda other: other.increment(4))
    kit.restart()
    assert counter.state == 7 and isinstance(kit.crdt("GSet-1").process(tck.Request()).reply, tck.Response)
    assert isinstance(kit.crdt("ORSet-1").state, ORSet | None) and GSet is not ORSet

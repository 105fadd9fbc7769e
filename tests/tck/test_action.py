"""Model scenarios of the TCK for actions, every message compared for full equality.

Numbers in names are those of the scenarios.
"""

from __future__ import annotations

from typing import Any

import pytest

from stateside.proto import action, cloudstate, pack
from tests.protos.tck.action_pb2 import (
    Fail,
    Forward,
    OtherRequest,
    ProcessGroup,
    ProcessStep,
    Reply,
    Request,
    Response,
    SideEffect,
)
from tests.tck.driver import ActionStream, Driver

MODEL = "cloudstate.tck.model.action.ActionTckModel"
TWO = "cloudstate.tck.model.action.ActionTwo"

Steps = list[ProcessStep]


def say(text: str) -> ProcessStep:
    return ProcessStep(reply=Reply(message=text))


def forward(target: str) -> ProcessStep:
    return ProcessStep(forward=Forward(id=target))


def fail(text: str) -> ProcessStep:
    return ProcessStep(fail=Fail(message=text))


def effect(target: str, synchronous: bool = False) -> ProcessStep:
    return ProcessStep(effect=SideEffect(id=target, synchronous=synchronous))


def request(*groups: Steps) -> Request:
    return Request(groups=[ProcessGroup(steps=steps) for steps in groups])


def expected(steps: Steps) -> Any:
    """The ActionResponse to the steps of one group."""
    out = action.ActionResponse()
    for step in steps:
        match step.WhichOneof("step"):
            case "reply":
                out.reply.payload.CopyFrom(pack(Response(message=step.reply.message)))
            case "forward":
                out.forward.service_name, out.forward.command_name = TWO, "Call"
                out.forward.payload.CopyFrom(pack(OtherRequest(id=step.forward.id)))
            case "fail":
                out.failure.description = step.fail.message
            case "effect":
                made = cloudstate.SideEffect(service_name=TWO, command_name="Call", synchronous=step.effect.synchronous)
                made.payload.CopyFrom(pack(OtherRequest(id=step.effect.id)))
                out.side_effects.append(made)
    return out


def variants(kind: Any) -> list[Steps]:
    """The four groups that the TCK plays with replies, without, with forwards and with failures."""
    first = [[kind(text)] if kind else [] for text in ("one", "two", "three", "four")]
    return [
        first[0],
        [*first[1], effect("other")],
        [*first[2], effect("another", True)],
        [*first[3], effect("a"), effect("b"), effect("c")],
    ]


KINDS = pytest.mark.parametrize("kind", [say, None, forward, fail], ids=["reply", "no_reply", "forward", "failure"])


def test_discovery(driver: Driver) -> None:
    entities = {entity.service_name: entity for entity in driver.discover().entities}
    for name in (MODEL, TWO):
        assert entities[name].entity_type == "cloudstate.action.ActionProtocol"
        assert not entities[name].HasField("passivation_strategy")


@KINDS
def test_01_to_16_unary(driver: Driver, kind: Any) -> None:
    for steps in variants(kind):
        call = driver.open_action("handleUnary", MODEL).command("ProcessUnary", request(steps))
        call.half_close()
        assert call.next() == expected(steps)
        call.expect_end()


def streamed_in(driver: Driver, *requests: Request) -> Any:
    call = driver.open_action("handleStreamedIn", MODEL).command("ProcessStreamedIn")
    for one in requests:
        call.request(one)
    call.half_close()
    answer = call.next()
    call.expect_end()
    return answer


@KINDS
def test_17_to_25_streamed_in(driver: Driver, kind: Any) -> None:
    one, two = ([kind("one")], [kind("two")]) if kind else ([], [])
    assert streamed_in(driver, request(one)) == expected(one)
    groups = [[*two, effect("a")], [effect("b", True)], [effect("c"), effect("d")]]
    together = [step for steps in groups for step in steps]
    assert streamed_in(driver, *(request(steps) for steps in groups)) == expected(together)


def test_19_streamed_in_without_a_request(driver: Driver) -> None:
    assert streamed_in(driver) == action.ActionResponse()


@KINDS
def test_26_to_29_streamed_out(driver: Driver, kind: Any) -> None:
    groups = variants(kind)
    call = driver.open_action("handleStreamedOut", MODEL).command("ProcessStreamedOut", request(*groups))
    call.half_close()
    for steps in groups:
        assert call.next() == expected(steps)
    call.expect_end()


@KINDS
def test_30_to_33_duplex(driver: Driver, kind: Any) -> None:
    call = driver.open_action("handleStreamed", MODEL).command("ProcessStreamed")
    for steps in variants(kind):
        assert call.request(request(steps)).next() == expected(steps)
    five = [kind("five")] if kind else []
    six = [*([kind("six")] if kind else []), effect("other")]
    call.request(request(five, six))
    assert (call.next(), call.next()) == (expected(five), expected(six))
    call.half_close()
    call.expect_end()


def test_the_other_service_answers_in_the_same_process(driver: Driver) -> None:
    call: ActionStream = driver.open_action("handleUnary", TWO).command("Call", OtherRequest(id="x"))
    call.half_close()
    assert call.next() == expected([say("")])
    call.expect_end()

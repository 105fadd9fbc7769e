"""The action model service of the TCK (package cloudstate.tck.model.action), written with the support library."""

from collections.abc import AsyncIterator, Iterable

from stateside.support import Action, Answer, Effect, Failure, Forward, NoReply, Reply, Service, command
from tests.protos.tck.action_pb2 import DESCRIPTOR, OtherRequest, ProcessGroup, Request, Response

SERVICES = DESCRIPTOR.services_by_name
TWO = Service(SERVICES["ActionTwo"])


@Action(service=SERVICES["ActionTckModel"])
class ActionTckModel:
    """Answers each group of steps, or all groups as one."""

    @command
    def process_unary(self, request: Request) -> Answer:
        return answer_of(request.groups)

    @command
    async def process_streamed_in(self, requests: AsyncIterator[Request]) -> Answer:
        groups = []
        async for request in requests:
            groups.extend(request.groups)
        return answer_of(groups)

    @command
    async def process_streamed_out(self, request: Request) -> AsyncIterator[Answer]:
        for group in request.groups:
            yield answer_of([group])

    @command
    async def process_streamed(self, requests: AsyncIterator[Request]) -> AsyncIterator[Answer]:
        async for request in requests:
            for group in request.groups:
                yield answer_of([group])


def answer_of(groups: Iterable[ProcessGroup]) -> Answer:
    """One answer: a later reply, forward or failure replaces earlier ones, effects accumulate."""
    effects: list[Effect] = []
    answer: Answer = NoReply(effects)
    for step in (step for group in groups for step in group.steps):
        match step.WhichOneof("step"):
            case "reply":
                answer = Reply(Response(message=step.reply.message), effects=effects)
            case "forward":
                answer = Forward(TWO.call("Call", OtherRequest(id=step.forward.id)), effects)
            case "fail":
                answer = Failure(step.fail.message, effects)
            case "effect":
                call = TWO.call("Call", OtherRequest(id=step.effect.id))
                effects.append(Effect(call, step.effect.synchronous))
    return answer


@Action(service=SERVICES["ActionTwo"])
class ActionTwo:
    """Target of forwards and side effects."""

    @command
    def call(self) -> Response:
        return Response()

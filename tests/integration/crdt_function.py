"""A user function with CRDT entities, whose every word the tests decide.

Played entities work as those of user_function.py; all others behave as the TCK's model, as far as the scenarios that
go through a proxy need it: counters, grow-only sets and votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from tck import crdt_pb2 as model

from stateside.proto import crdt

from . import crdt_messages as said
from .messages import CRDT, CRDT_MODEL
from .user_function import EntityStream, ScriptedUserFunction


class CrdtStream(EntityStream):
    """The user function's end of the stream of one CRDT."""

    parse = staticmethod(crdt.CrdtStreamIn.FromString)


class CrdtFunction(ScriptedUserFunction):
    """A gRPC server with EntityDiscovery, EventSourced and Crdt."""

    def __init__(self, spec: Any = None, options: Sequence[tuple[str, Any]] = (), port: int = 0) -> None:
        super().__init__(spec if spec is not None else said.crdt_spec(), options, port)

    def _services(self) -> tuple[Any, ...]:
        handlers = {"handle": grpc.stream_stream_rpc_method_handler(self._handle_crdt, None, None)}
        return *super()._services(), grpc.method_handlers_generic_handler(CRDT, handlers)

    async def _handle_crdt(self, requests: Any, context: Any) -> None:
        await self._serve(CrdtStream(context, len(self.streams) + 1), context)

    async def _play_model(self, stream: EntityStream, init: Any) -> None:
        await Model(stream, init).play()


# --- the TCK's model -------------------------------------------------------------------------------------------------


class Model:
    """One instance of the model, as the Java library plays it: streams hear of a change after the reply."""

    def __init__(self, stream: EntityStream, init: Any) -> None:
        self.stream = stream
        self.service = init.service_name
        self.kind = init.entity_id.partition("-")[0]
        self.number = 0
        self.elements: set[str] = set()
        self.votes = [False, 0, 1]
        self.streams: dict[int, model.StreamedRequest] = {}
        if init.HasField("delta"):
            self.learn(init.delta)

    async def play(self) -> None:
        while (message := await self.stream.take()) is not None:
            which = message.WhichOneof("message")
            if which == "command" and message.command.streamed:
                await self.listen(message.command)
            elif which == "command":
                await self.process(message.command)
            elif which == "stream_cancelled":
                await self.cancel(message.stream_cancelled.id)
            elif which == "delta":
                self.learn(message.delta)
                await self.tell()

    async def process(self, command: Any) -> None:
        changes: list[model.Update] = []
        effects: list[Any] = []
        action, deletes, consistency = None, False, said.LOCAL
        for each in model.Request.FromString(command.payload.value).actions:
            which = each.WhichOneof("action")
            if which == "fail":
                action = said.failure_action(command.id, each.fail.message)
                await self.stream.send(said.reply(command.id, action))
                return
            if which == "update":
                changes.append(each.update)
                consistency = each.update.write_consistency
            elif which == "effect":
                effects.append(said.side_effect(each.effect.id, synchronous=each.effect.synchronous))
            elif which == "forward":
                action = said.forwarded(each.forward.id)
            else:
                deletes = True
        delta = self.change(changes)
        change = said.deletion() if deletes else said.changed(delta, consistency) if delta is not None else None
        await self.stream.send(said.reply(command.id, action or self.answer(), change, effects=effects))
        if delta is not None:
            await self.tell()

    async def listen(self, command: Any) -> None:
        request = model.StreamedRequest.FromString(command.payload.value)
        delta = self.change([request.initial_update] if request.HasField("initial_update") else [])
        change = said.changed(delta) if delta is not None else None
        action = None if request.empty else self.answer()
        await self.stream.send(said.reply(command.id, action, change, streamed=True))
        if delta is not None:
            await self.tell()
        self.streams[command.id] = request

    async def cancel(self, number: int) -> None:
        request = self.streams.pop(number)
        delta = self.change([request.cancel_update] if request.HasField("cancel_update") else [])
        await self.stream.send(said.cancel_response(number, said.changed(delta) if delta is not None else None))
        if delta is not None:
            await self.tell()

    async def tell(self) -> None:
        """The streams that want to hear of changes."""
        for number, request in self.streams.items():
            if not request.empty:
                await self.stream.send(said.message(number, self.answer()))

    # --- the value ---------------------------------------------------------------------------------------------------

    def learn(self, delta: Any) -> None:
        self.number += delta.gcounter.increment + delta.pncounter.change
        self.elements |= {model.LWWRegisterValue.FromString(each.value).value for each in delta.gset.added}
        if delta.HasField("vote"):
            self.votes = [delta.vote.self_vote, delta.vote.votes_for, delta.vote.total_voters]

    def change(self, updates: Sequence[model.Update]) -> Any:
        """Do them; what they add up to, None if to nothing."""
        number = sum(each.gcounter.increment + each.pncounter.change for each in updates)
        elements = {each.gset.add for each in updates if each.HasField("gset")} - self.elements
        votes = [each.vote.self_vote for each in updates if each.HasField("vote")]
        if self.kind == "Vote" and votes and votes[-1] != self.votes[0]:
            self.votes[1] += 1 if votes[-1] else -1
            self.votes[0] = votes[-1]
            return said.vote(votes[-1])
        self.number += number
        self.elements |= elements
        if elements:
            return said.gset(*sorted(elements))
        if number:
            return said.gcounter(number) if self.kind == "GCounter" else said.pncounter(number)
        return None

    def answer(self) -> Any:
        return said.answer(self.state() if self.service == CRDT_MODEL else None)

    def state(self) -> model.State:
        if self.kind == "GCounter":
            return model.State(gcounter=model.GCounterValue(value=self.number))
        if self.kind == "PNCounter":
            return model.State(pncounter=model.PNCounterValue(value=self.number))
        if self.kind == "GSet":
            return model.State(gset=model.GSetValue(elements=sorted(self.elements)))
        self_vote, votes_for, total = self.votes
        return model.State(vote=model.VoteValue(self_vote=self_vote, votes_for=votes_for, total_voters=total))

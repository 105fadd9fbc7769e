"""Two services that call each other: an event sourced pinger and a ponger whose state is one value.

What one of them sends it tells the other by a side effect; `Rally` lets the other answer the client by a forward.
"""

from stateside.support import (
    EventSourced,
    EventSourcedContext,
    Service,
    ValueEntity,
    ValueEntityContext,
    command,
    event,
)

from .protos.pingpong import pingpong_pb2 as game

SERVICES = game.DESCRIPTOR.services_by_name
PINGER = Service(SERVICES["Pinger"])
PONGER = Service(SERVICES["Ponger"])


@EventSourced(service=SERVICES["Pinger"], persistence_id="pinger")
class Pinger:
    def __init__(self) -> None:
        self.stats = game.Stats()

    @command
    def ping(self, pong: game.PongSent, ctx: EventSourcedContext) -> game.PingSent:
        ping = game.PingSent(id=pong.id, sequence_number=pong.sequence_number + 1)
        ctx.emit(ping)
        ctx.effect(PONGER.call("SeenPing", ping), synchronous=True)
        return ping

    @command
    def rally(self, pong: game.PongSent, ctx: EventSourcedContext) -> None:
        ctx.forward(PONGER.call("Pong", self.ping(pong, ctx)))

    @command
    def seen_pong(self, pong: game.PongSent, ctx: EventSourcedContext) -> None:
        ctx.emit(game.PongSeen(id=pong.id, sequence_number=pong.sequence_number))

    @command
    def report(self) -> game.Stats:
        return self.stats

    @event
    def sent(self, event: game.PingSent) -> None:
        self.stats.sent += 1

    @event
    def seen(self, event: game.PongSeen) -> None:
        self.stats.seen += 1


@ValueEntity(service=SERVICES["Ponger"], persistence_id="ponger")
class Ponger:
    @command
    def pong(self, ping: game.PingSent, ctx: ValueEntityContext[game.Stats]) -> game.PongSent:
        stats = ctx.state or game.Stats()
        stats.sent += 1
        ctx.update(stats)
        pong = game.PongSent(id=ping.id, sequence_number=ping.sequence_number + 1)
        ctx.effect(PINGER.call("SeenPong", pong), synchronous=True)
        return pong

    @command
    def seen_ping(self, ctx: ValueEntityContext[game.Stats]) -> None:
        stats = ctx.state or game.Stats()
        stats.seen += 1
        ctx.update(stats)

    @command
    def report(self, ctx: ValueEntityContext[game.Stats]) -> game.Stats:
        return ctx.state or game.Stats()

"""`python -m stateside.bench.echo`: the compiled echo user function as a process.

Says `{"port": n}` on stdout when it listens; on SIGUSR1 it says what it has counted, on SIGTERM too, and ends.
"""

import argparse
import asyncio
import json
import signal
import sys
from time import monotonic_ns
from typing import Any

import uvloop

from stateside._speedups.h2 import Handler, Limits, Server, ServerCall
from stateside.bench.messages import ECHO_SERVICE, echo_spec
from stateside.bench.native import ActionEcho, CounterEcho, DirectEcho, EndlessAction, EntityEcho, ValueEcho

MAX_CONCURRENT_STREAMS = 10_000
DAY_MS = 24 * 3600 * 1000


class Discover(Handler):
    """EntityDiscovery.discover: always the same answer."""

    def __init__(self, spec: bytes) -> None:
        self.unary = True
        self.spec = spec
        self.answered_ns = 0

    def on_request(self, call: ServerCall, message: bytes) -> None:
        call.reply(self.spec)
        self.answered_ns = monotonic_ns()
        print(json.dumps({"discovered_ns": self.answered_ns}), flush=True)


class ReportError(Handler):
    """EntityDiscovery.reportError: a proxy that complains spoils the measurement, so it is said aloud."""

    def __init__(self) -> None:
        self.unary = True
        self.reports = 0

    def on_request(self, call: ServerCall, message: bytes) -> None:
        self.reports += 1
        print(f"echo: the proxy reports: {message[2:].decode(errors='replace')}", file=sys.stderr, flush=True)
        call.reply(b"")


async def serve(port: int, max_streams: int, passivation_timeout_ms: int) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    entities, values, direct, reports = EntityEcho(), ValueEcho(), DirectEcho(), ReportError()
    unary, endless, counters = ActionEcho(), EndlessAction(), CounterEcho()
    handlers: dict[bytes, Handler] = {
        b"/cloudstate.EntityDiscovery/discover": Discover(echo_spec(passivation_timeout_ms)),
        b"/cloudstate.EntityDiscovery/reportError": reports,
        b"/cloudstate.eventsourced.EventSourced/handle": entities,
        b"/cloudstate.valueentity.ValueEntity/handle": values,
        b"/cloudstate.crdt.Crdt/handle": counters,
        b"/cloudstate.action.ActionProtocol/handleUnary": unary,
        b"/cloudstate.action.ActionProtocol/handleStreamedOut": endless,
        f"/{ECHO_SERVICE}/Direct".encode(): direct,
    }
    server = Server(loop, handlers.get, limits=Limits(announced_streams=max_streams))

    def say_counts() -> None:
        counts = counted(entities, values, counters) | {
            "direct": direct.calls,
            "actions": unary.calls,
            "streamed": endless.sent,
            "reports": reports.reports,
            "connections": server.connections,
            "streams": server.streams,
        }
        print(json.dumps(counts), flush=True)

    loop.add_signal_handler(signal.SIGUSR1, say_counts)
    print(json.dumps({"port": await server.listen_tcp("127.0.0.1", port)}), flush=True)
    await stopped.wait()
    say_counts()
    await server.close()


def counted(entities: EntityEcho, values: ValueEcho, counters: CounterEcho) -> dict[str, Any]:
    """What the entities saw; the violations of all kinds are counted together."""
    names = ("inits", "replayed", "commands", "emitted", "first_replayed_ns", "last_replayed_ns")
    return {name: getattr(entities, name) for name in names} | {
        "updates": values.updates,
        "increments": counters.commands,
        "violations": entities.violations + values.violations + counters.violations,
        "last_violation": entities.last_violation or values.last_violation or counters.last_violation,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="stateside.bench.echo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 (default): a free one")
    parser.add_argument(
        "--max-streams", type=int, default=MAX_CONCURRENT_STREAMS, help="streams at once allowed on a connection"
    )
    parser.add_argument("--passivation-timeout", type=int, default=DAY_MS, metavar="MS", help="told to the proxy")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.max_streams, options.passivation_timeout))


if __name__ == "__main__":
    main()

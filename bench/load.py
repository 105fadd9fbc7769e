"""`python -m stateside.bench.load`: the load generator as a process; one JSON object on stdout.

A closed loop of calls, or with `--rate` an open one, for some seconds after a warm-up or for a number of calls; with
`--levels` several closed loops one after the other; with `--work endless` streams that are read, where messages are
counted. The CPU seconds of other processes (`--watch`) are taken at the very beginning and end of what is counted,
with those of the processes that they have started, and their memory at its end.
"""

import argparse
import asyncio
import json
import os
import ssl
import sys
from dataclasses import dataclass
from time import monotonic
from typing import Any

import uvloop

from stateside._speedups.h2 import Channel, Limits
from stateside.bench.generator import Generator, Keys, Latencies, StreamReader
from stateside.bench.messages import ENDLESS, KEY_DIGITS, KEY_PREFIX, WORKS, echo_message
from stateside.bench.usage import cpu_of_tree, memory_of_tree

LAST_ANSWERS_TIMEOUT = 30.0
MOST_CONNECTIONS_AT_LEVEL = 8
# Names as figures are called: p999 is the 99.9th percentile.
QUANTILES = {
    f"p{name}_us": float(f"0.{name}")
    for name in ("10", "25", "50", "75", "90", "95", "98", "99", "995", "998", "999", "9995", "9999")
}


@dataclass(slots=True)
class Watch:
    """CPU seconds of processes since `begin`."""

    pids: dict[str, int]
    begun: float = 0.0
    cpu: dict[str, float] | None = None

    def begin(self) -> None:
        self.begun, self.cpu = monotonic(), self._cpu()

    def end(self) -> dict[str, Any]:
        """seconds; cpu: seconds by name; memory: bytes by name."""
        assert self.cpu is not None
        seconds, cpu = monotonic() - self.begun, self._cpu()
        return {
            "seconds": seconds,
            "cpu": {name: now - self.cpu[name] for name, now in cpu.items()},
            "memory": {name: memory_of_tree(pid) for name, pid in self.pids.items()},
        }

    def _cpu(self) -> dict[str, float]:
        return {name: cpu_of_tree(pid) for name, pid in self.pids.items()}


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Result: calls, calls_per_s, seconds, latencies in microseconds, failed, problems, and what `Watch` tells."""
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(cafile=options.ca) if options.ca else None
    channels = [
        await Channel.connect(loop, "127.0.0.1", options.port, limits=Limits(), ssl=context)
        for _ in range(options.connections)
    ]
    watch = Watch({"load": os.getpid()} | options.watch)
    if options.levels:
        result = await run_levels(options, channels, watch)
    else:
        result = await run_one(options, channels, watch, options.in_flight * options.connections)
    for channel in channels:
        channel.close()
    return result


async def run_levels(options: argparse.Namespace, channels: list[Channel], watch: Watch) -> dict[str, Any]:
    """`calls_per_s_at_<in flight>` and `p50_us_at_<in flight>`; the rest is of the last level."""
    found: dict[str, float] = {}
    result: dict[str, Any] = {}
    for level in options.levels:
        result = await run_one(options, channels[: max(1, min(level, MOST_CONNECTIONS_AT_LEVEL))], watch, level)
        found |= {f"calls_per_s_at_{level}": result["calls_per_s"], f"p50_us_at_{level}": result["p50_us"]}
        if result["failed"]:
            break
    return result | found


async def run_one(options: argparse.Namespace, channels: list[Channel], watch: Watch, in_flight: int) -> dict[str, Any]:
    done = asyncio.Event()
    watch.begin()
    load = begin(options, channels, done, in_flight)
    if options.count < 0:
        await first_of(done, options.warmup)
        load.clear()
        watch.begin()
    await first_of(done, options.seconds)
    result = watch.end()
    result |= describe(load, result["seconds"])
    load.stop()
    await asyncio.wait_for(done.wait(), LAST_ANSWERS_TIMEOUT)
    return result | {"failed": load.failed, "problems": load.problems}


def begin(
    options: argparse.Namespace, channels: list[Channel], done: asyncio.Event, in_flight: int
) -> Generator | StreamReader:
    """Calls or streams, under way."""
    if options.work == "endless":
        streams = StreamReader(ENDLESS, echo_message("endless"), done.set)
        streams.start(channels, options.in_flight)
        return streams
    keys = Keys(KEY_PREFIX, options.entities, options.distribution, options.skew, digits=KEY_DIGITS)
    loop, mix = asyncio.get_running_loop(), WORKS[options.work]()
    load = Generator(loop, channels, mix, keys, done.set, in_flight=in_flight, rate=options.rate, count=options.count)
    load.start()
    return load


async def first_of(done: asyncio.Event, seconds: float) -> None:
    """Until the load has ended by itself, or so long."""
    try:
        await asyncio.wait_for(done.wait(), seconds)
    except TimeoutError:
        return


def describe(load: Generator | StreamReader, seconds: float) -> dict[str, Any]:
    latencies = Latencies()
    if isinstance(load, Generator):
        for command in load.commands:
            latencies.merge(command.latencies)
    return {
        "calls": load.completed,
        "calls_per_s": load.completed / seconds,
        **{name: latencies.quantile_ns(share) / 1000 for name, share in QUANTILES.items()},
        "mean_us": latencies.total_ns / latencies.count / 1000 if latencies.count else 0.0,
        "max_us": latencies.max_ns / 1000,
        "late": load.late if isinstance(load, Generator) else 0,
    }


def watched_process(text: str) -> tuple[str, int]:
    name, _, pid = text.partition("=")
    return name, int(pid)


def levels(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(prog="stateside.bench.load", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--work", choices=[*sorted(WORKS), "endless"], required=True)
    parser.add_argument("--entities", type=int, default=64)
    parser.add_argument("--distribution", choices=["uniform", "zipf", "hot", "turn"], default="turn")
    parser.add_argument("--skew", type=float, default=0.0, help="exponent of zipf, share of hot")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--in-flight", type=int, default=16, help="calls at once on each connection")
    parser.add_argument("--rate", type=float, default=0.0, help="calls a second: an open loop")
    parser.add_argument("--levels", type=levels, help="calls at once over all connections, e.g. 1,16,128: one by one")
    parser.add_argument("--ca", help="speak TLS to a server whose certificate this PEM file has issued")
    parser.add_argument("--warmup", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to count; with --count, how long at most")
    parser.add_argument("--count", type=int, default=-1, help="calls in all, without a warm-up")
    parser.add_argument("--watch", type=watched_process, action="append", default=[], metavar="NAME=PID")
    options = parser.parse_args()
    options.watch = dict(options.watch)
    result = uvloop.run(run(options))
    print(json.dumps(result))
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

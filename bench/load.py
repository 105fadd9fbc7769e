"""`python -m stateside.bench.load`: the load generator as a process; one JSON object on stdout.

A closed loop of calls, for some seconds after a warm-up or for a number of calls; or, with `--work endless`, streams
that are read for some seconds, where what is counted is messages. The CPU seconds of other processes
(`--watch`) are taken at the very beginning and end of what is counted.
"""

import argparse
import asyncio
import json
import os
import ssl
import sys
from time import monotonic
from typing import Any

import uvloop

from stateside._speedups.h2 import Channel, Limits
from stateside.bench.messages import ENDLESS, WORKS, echo_message
from stateside.bench.native import Load, StreamLoad
from stateside.bench.usage import cpu_seconds

LAST_ANSWERS_TIMEOUT = 30.0
QUANTILES = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Result: calls, seconds, calls_per_s, latencies in microseconds, failed, problems, cpu (seconds by name)."""
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(cafile=options.ca) if options.ca else None
    channels = [
        await Channel.connect(loop, "127.0.0.1", options.port, limits=Limits(), ssl=context)
        for _ in range(options.connections)
    ]
    done = asyncio.Event()
    watched = {"load": os.getpid()} | options.watch
    begun, cpu = monotonic(), cpu_of(watched)
    load = begin(options, channels, done)
    if options.count < 0:
        await asyncio.sleep(options.warmup)
        load.clear()
        begun, cpu = monotonic(), cpu_of(watched)
    await first_of(done, options.seconds)
    seconds = monotonic() - begun
    result = describe(load, seconds) | {"cpu": {name: now - cpu[name] for name, now in cpu_of(watched).items()}}
    load.stop()
    await asyncio.wait_for(done.wait(), LAST_ANSWERS_TIMEOUT)
    for channel in channels:
        channel.close()
    return result | {"failed": load.failed, "problems": load.problems}


def begin(options: argparse.Namespace, channels: list[Channel], done: asyncio.Event) -> Load | StreamLoad:
    """Calls or streams, under way."""
    if options.work == "endless":
        streams = StreamLoad(ENDLESS, echo_message("endless"), done.set)
        streams.start(channels, options.in_flight)
        return streams
    load = Load(WORKS[options.work](options.entities), done.set)
    load.start(channels, options.in_flight, options.count)
    return load


async def first_of(done: asyncio.Event, seconds: float) -> None:
    """Until the load has ended by itself, or so long."""
    try:
        await asyncio.wait_for(done.wait(), seconds)
    except TimeoutError:
        return


def describe(load: Load | StreamLoad, seconds: float) -> dict[str, Any]:
    histogram = load.histogram
    return {
        "calls": load.completed,
        "seconds": seconds,
        "calls_per_s": load.completed / seconds,
        **{name: histogram.quantile_ns(share) / 1000 for name, share in QUANTILES.items()},
        "mean_us": histogram.total_ns / histogram.count / 1000 if histogram.count else 0.0,
        "max_us": histogram.max_ns / 1000,
    }


def cpu_of(watched: dict[str, int]) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in watched.items()}


def watched_process(text: str) -> tuple[str, int]:
    name, _, pid = text.partition("=")
    return name, int(pid)


def main() -> int:
    parser = argparse.ArgumentParser(prog="stateside.bench.load", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--work", choices=[*sorted(WORKS), "endless"], required=True)
    parser.add_argument("--entities", type=int, default=64)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--in-flight", type=int, default=16, help="calls at once on each connection")
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

"""`stateside load`: put a service under load, at a constant rate or as fast as it answers, and see how it does.

The target needs to offer server reflection. Every answer is checked; what is not OK, or is no message of the method's
type at all, is a failure, and a run with failures ends with exit code 1.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import click
import uvloop
from rich.console import Console

from stateside._speedups.h2 import Channel
from stateside.bench.generator import Generator, Keys
from stateside.bench.load_report import Progress, as_json, hgrm, print_result
from stateside.bench.load_target import PROFILES, Target, TargetError, commands

LAST_ANSWERS_TIMEOUT = 30.0
EXIT_FAILURES = 1
EXIT_USAGE = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. Times in seconds."""

    target: Target
    calls: tuple[str, ...]
    keys: Keys
    rate: float
    in_flight: int
    connections: int
    duration: float
    warmup: float


@click.command()
@click.argument("target")
@click.option(
    "--call",
    "calls",
    multiple=True,
    metavar="TEXT",
    help='A command: "pkg.Service/Method[@WEIGHT] [REQUEST [=> ANSWER]]". '
    'REQUEST and ANSWER are JSON; "{key}" as a string of the request is replaced by the key. '
    "Several make a mix by their weights.",
)
@click.option(
    "--profile", type=click.Choice(sorted(PROFILES)), help="A ready mix of commands: cart, the shopping cart."
)
@click.option("--keys", default=1000, show_default=True, type=click.IntRange(1, 100_000_000), help="Entities.")
@click.option("--key-prefix", default="load-", show_default=True, help="Keys are this and a number.")
@click.option(
    "--distribution",
    default="uniform",
    show_default=True,
    type=click.Choice(["uniform", "zipf", "hot", "turn"]),
    help="Which entity is called: any alike, few often (zipf), one of them often (hot), one after the other (turn).",
)
@click.option(
    "--skew", type=float, help="zipf: exponent below 1  [0.99]; hot: share of calls that go to one entity  [1.0]."
)
@click.option("--rate", default=0.0, type=click.FloatRange(0), help="Calls a second: an open loop.")
@click.option(
    "--in-flight", default=128, show_default=True, type=click.IntRange(1, 1_000_000), help="Calls at once, at most."
)
@click.option("--connections", default=8, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--duration", default=10.0, show_default=True, type=click.FloatRange(0.1), metavar="SECONDS")
@click.option(
    "--warmup", default=1.0, show_default=True, type=click.FloatRange(0), metavar="SECONDS", help="Not counted."
)
@click.option("--ca", metavar="FILE", help="Authority that signed the target's certificate, for https.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the result there too."
)
@click.option(
    "--hgrm",
    "hgrm_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the latencies as HdrHistogram does.",
)
@click.option("--quiet", is_flag=True, help="No progress.")
def load(
    target: str,
    calls: tuple[str, ...],
    profile: str | None,
    keys: int,
    key_prefix: str,
    distribution: str,
    skew: float | None,
    rate: float,
    in_flight: int,
    connections: int,
    duration: float,
    warmup: float,
    ca: str | None,
    json_file: Path | None,
    hgrm_file: Path | None,
    quiet: bool,
) -> None:
    """Put TARGET (host:port or https://host:port) under load.

    Without --rate a closed loop: --in-flight calls at all times. With --rate an open loop: calls are due at a
    constant rate
    whatever the target does, and are timed from when they were due.

    \b
    stateside load localhost:9000 --profile cart
    stateside load localhost:9000 --rate 5000 --call 'shop.Cart/Get {"id": "{key}"}'
    """
    texts = calls + (PROFILES[profile] if profile else ())
    if not texts:
        raise click.UsageError("what is to be called? Give --call or --profile.")
    console = Console(highlight=False, stderr=True)
    try:
        chosen = Keys(key_prefix, keys, distribution, _argument(distribution, skew))
        plan = Plan(Target(target, ca), texts, chosen, rate, in_flight, connections, duration, warmup)
        result = uvloop.run(run(plan, Progress(console, silent=quiet)))
    except (TargetError, ValueError, OSError) as error:
        click.echo(f"stateside load: {error}", err=True)
        sys.exit(EXIT_USAGE)
    generator, seconds = result
    print_result(Console(highlight=False, width=None if sys.stdout.isatty() else 160), generator, seconds)
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(generator, seconds), indent=1) + "\n")
    if hgrm_file is not None:
        hgrm_file.write_text(hgrm(generator))
    sys.exit(EXIT_FAILURES if generator.failed else 0)


def _argument(distribution: str, skew: float | None) -> float:
    if skew is not None:
        return skew
    return {"zipf": 0.99, "hot": 1.0}.get(distribution, 0.0)


async def run(plan: Plan, progress: Progress) -> tuple[Generator, float]:
    """The generator after its last answer, and for how many seconds it counted. Ctrl-C ends a run early."""
    loop = asyncio.get_running_loop()
    channels = await plan.target.connect(plan.connections)
    try:
        mix = await commands(channels[0], plan.calls)
        ended, interrupted = asyncio.Event(), asyncio.Event()
        loop.add_signal_handler(signal.SIGINT, interrupted.set)
        generator = Generator(loop, channels, mix, plan.keys, ended.set, in_flight=plan.in_flight, rate=plan.rate)
        generator.start()
        await _wait(plan.warmup, ended, interrupted)
        generator.clear()
        begun = monotonic()
        await progress.follow(generator, plan.duration, lambda seconds: _wait(seconds, ended, interrupted))
        seconds = monotonic() - begun
        completed = generator.completed
        await _finish(generator, ended)
        # What was still under way is checked like all others, and counted as time.
        return generator, seconds if generator.completed == completed else monotonic() - begun
    finally:
        _close(channels)


async def _wait(seconds: float, *events: asyncio.Event) -> bool:
    """Whether one of the events came first."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    done, pending = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for each in pending:
        each.cancel()
    return bool(done)


async def _finish(generator: Generator, ended: asyncio.Event) -> None:
    generator.stop()
    try:
        await asyncio.wait_for(ended.wait(), LAST_ANSWERS_TIMEOUT)
    except TimeoutError:
        text = f"{generator.in_flight} calls were not answered within {LAST_ANSWERS_TIMEOUT:g} s of the end"
        raise TargetError(text) from None


def _close(channels: list[Channel]) -> None:
    for channel in channels:
        channel.close()

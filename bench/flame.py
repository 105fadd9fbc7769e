"""`make flame`: where the proxy's time goes on the way of a read-only command, as bench/out/flame.svg.

The proxy is sampled under the load of the relay bench by `perf`, or by py-spy where there is no perf. `--publish
FOLDER` puts the drawing there, and the split of the time into the page of the docs that has a place for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

from rich.console import Console

from stateside.bench import works
from stateside.bench.flame_draw import flame_graph
from stateside.bench.flame_stacks import Stacks, fold_perf, fold_raw, split
from stateside.bench.processes import ROOT, ProcessFailed, Stage
from stateside.bench.scale_page import filled
from stateside.bench.works import MeasurementFailed, Setting

OUT = ROOT / "bench" / "out"
TEXT = ROOT / "docs" / "performance.md"
SAMPLES_PER_S = 499  # no divisor of what else happens regularly
STACK_BYTES = 16_384  # copied at each sample; deeper stacks are cut at their root
WARMUP_SECONDS = 1.0
UNWIND_TIMEOUT = 240.0
LEAST_SAMPLES = 100
WORKS = ("read", "write", "forward", "action", "value", "increment")


def main() -> int:
    options = arguments()
    console = Console(highlight=False)
    OUT.mkdir(exist_ok=True)
    try:
        stacks, by = asyncio.run(sampled(options))
    except (MeasurementFailed, ProcessFailed, OSError, TimeoutError) as error:
        console.print(f"[red]{error or 'took too long'}[/]", soft_wrap=True)
        return 1
    shares = split(stacks)
    title = f"Proxy under `{options.work}` commands, {sum(stacks.values()):,} samples by {by}"
    drawn = flame_graph(title, stacks)
    (OUT / "flame.svg").write_text(drawn)
    if options.publish is not None:
        publish(options.publish, drawn, shares, title)
    for name, share in shares.items():
        console.print(f"{share:6.1%}  {name}")
    console.print("bench/out/flame.svg")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make flame ARGS=", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", choices=WORKS, default="read", help="what is called (default read)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to sample (default 5)")
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="write what docs/performance.md shows")
    options = parser.parse_args()
    if not 1 <= options.seconds <= 60:
        parser.error("--seconds is between 1 and 60")
    return options


async def sampled(options: argparse.Namespace) -> tuple[Stacks, str]:
    """The proxy's stacks while it serves, and which program took them."""
    seconds = options.seconds + 2 * WARMUP_SECONDS
    async with Stage(OUT / f"flame-{os.getpid()}") as stage:
        echo, port = await works.start_echo(stage)
        proxy, proxy_port = await works.start_proxy(stage, port, f"lmdb:{stage.folder / 'journal'}")
        setting = Setting(stage.folder, seconds, 0.0, 0)
        serving = asyncio.ensure_future(works.load(stage, proxy_port, options.work, setting))
        try:
            await asyncio.sleep(WARMUP_SECONDS)
            stacks, by = await stacks_of(stage, proxy.pid, options.seconds)
            await serving
        finally:
            serving.cancel()
        await works.check_echo(echo)
    if sum(stacks.values()) < LEAST_SAMPLES:
        raise MeasurementFailed(f"{by} took {sum(stacks.values())} samples, too few to draw")
    return stacks, by


async def stacks_of(stage: Stage, pid: int, seconds: float) -> tuple[Stacks, str]:
    if perf := shutil.which("perf"):
        for event in ("cpu-clock", "cpu-clock:u"):  # without rights to look into the kernel: our side of it alone
            recorded = await by_perf(stage, perf, event, pid, seconds)
            if recorded is not None:
                return recorded, "perf"
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        raise MeasurementFailed(
            "neither perf nor py-spy is there, or may look at processes; scripts/setup-bench installs py-spy"
        )
    raw = stage.folder / "stacks.txt"
    command = [spy, "record", "--native", "--format", "raw", "--rate", str(SAMPLES_PER_S), "--output", str(raw)]
    spying = await stage.start("py-spy", [*command, "--duration", str(round(seconds)), "--pid", str(pid)])
    await spying.stopped(seconds + UNWIND_TIMEOUT)
    return fold_raw(raw.read_text().splitlines()), "py-spy"


async def by_perf(stage: Stage, perf: str, event: str, pid: int, seconds: float) -> Stacks | None:
    """None: perf may not do this here."""
    data = stage.folder / f"{event.replace(':', '-')}.perf"
    ways = ["-e", event, "-F", str(SAMPLES_PER_S), "--call-graph", f"dwarf,{STACK_BYTES}"]
    target = ["-p", str(pid), "-o", str(data), "--", "sleep", f"{seconds:g}"]
    recording = await stage.start("perf", [perf, "record", *ways, *target])
    if await recording.ended(seconds + UNWIND_TIMEOUT) != 0:
        return None
    script = stage.folder / "script.txt"
    shown = ["script", "-i", str(data), "--no-inline", "-F", "comm,ip,sym,dso"]
    with script.open("wb") as file:
        unwinding = await asyncio.create_subprocess_exec(perf, *shown, stdout=file, stderr=asyncio.subprocess.DEVNULL)
        try:
            await asyncio.wait_for(unwinding.wait(), UNWIND_TIMEOUT)
        finally:
            if unwinding.returncode is None:
                unwinding.kill()
    with script.open(errors="replace") as lines:
        return fold_perf(lines)


def publish(folder: Path, drawn: str, shares: dict[str, float], title: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flame.svg").write_text(drawn)
    (folder / "flame.json").write_text(json.dumps({"title": title, "shares": shares}, indent=1) + "\n")
    rows = "".join(f"| {name} | {share:.0%} |\n" for name, share in shares.items())
    table = f"| where | share of the proxy's time |\n|---|---:|\n{rows}"
    TEXT.write_text(filled(TEXT.read_text(), {"split": table}))


if __name__ == "__main__":
    sys.exit(main())

"""`make load`: locust's shoppers against the shopping cart behind a proxy, all on this machine.

Two runs: people, who think between what they do, and then shoppers without a thought, as many calls as locust can make.
Each ends with a page in bench/out/. The table says who was busy: a run in which locust has used the cores up tells what
locust can do. A run fails with any failed request, a 99th percentile above the limit, or hardly any request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console
from rich.table import Table

from stateside.bench.processes import Process, ProcessFailed, Stage
from stateside.bench.usage import cpu_seconds, with_children
from stateside.bench.works import MeasurementFailed, start_proxy

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "bench" / "out"
SHOPPERS = ROOT / "bench" / "locust" / "shopping_cart.py"
SPARE_SECONDS = 60.0  # for the end and the report
SPAWN_SECONDS = 2.0
SETTLE_SECONDS = 5.0  # from the start of locust until the cores are watched


@dataclass(frozen=True, slots=True)
class Run:
    """One run of locust. Times in seconds."""

    name: str
    users: int
    think_time: float
    seconds: float
    max_p99_ms: float = 20.0


RUNS = [Run("people", 200, 0.5, 40), Run("ceiling", 12, 0, 30)]
# For continuous integration: does it work? Other people may use the machine, so no limit worth the name.
CI_RUNS = [Run("people", 40, 0.2, 8, 1000)]


def main() -> int:
    options = arguments()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    OUT.mkdir(exist_ok=True)
    try:
        if options.web:
            return asyncio.run(show(options, console))
        return asyncio.run(run_all(options, console))
    except (MeasurementFailed, ProcessFailed, OSError, TimeoutError) as error:
        console.print(f"[red]{error or 'took too long'}[/]", soft_wrap=True)
        return 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make load ARGS=", description="Locust's shoppers against the shopping cart.")
    parser.add_argument("--ci", action="store_true", help="one short run")
    parser.add_argument("--web", action="store_true", help="locust's own pages at http://localhost:8089, until Ctrl-C")
    parser.add_argument("--processes", type=int, default=2, help="of locust (default 2)")
    options = parser.parse_args()
    if options.processes < 1:
        parser.error("--processes is at least 1")
    return options


async def run_all(options: argparse.Namespace, console: Console) -> int:
    table = Table(box=None, pad_edge=False)
    for title in (
        "run",
        "users",
        "requests/s",
        "failed",
        "p50 ms",
        "p99 ms",
        "locust cores",
        "proxy cores",
        "µs/request",
    ):
        table.add_column(title, justify="left" if title == "run" else "right", no_wrap=True)
    code = 0
    for run in CI_RUNS if options.ci else RUNS:
        console.print(f"{run.name}: {run.users} shoppers, {run.think_time:g} s of thought, {run.seconds:g} s ...")
        figures = await measure(run, options.processes)
        table.add_row(run.name, str(run.users), *figures["row"])
        console.print(f"  {figures['page']}; {figures['sales']}")
        for verdict in figures["verdicts"]:
            console.print(f"  [red]{verdict}[/]")
        code = code or (1 if figures["verdicts"] else 0)
    console.print(table)
    return code


async def measure(run: Run, processes: int) -> dict[str, Any]:
    """Figures of a run: a row of the table, its page, and what it failed with."""
    async with Stage(OUT / f"load-{os.getpid()}") as stage:
        proxy, port = await start(stage)
        page, result = OUT / f"load-{run.name}.html", stage.folder / "result.json"
        arguments = ["--headless", "--reset-stats", "--skip-log", "--html", str(page), "--processes", str(processes)]
        arguments += ["--users", str(run.users), "--spawn-rate", str(run.users / SPAWN_SECONDS)]
        arguments += ["--run-time", f"{run.seconds + SPAWN_SECONDS:g}s"]
        locust = await start_locust(stage, port, arguments, run, result)
        await asyncio.sleep(SETTLE_SECONDS)
        begun, locust_cpu, proxy_cpu = monotonic(), cpu_of(locust), cpu_seconds(proxy.pid)
        await asyncio.sleep(run.seconds - SETTLE_SECONDS)
        seconds = monotonic() - begun
        locust_cpu, proxy_cpu = cpu_of(locust) - locust_cpu, cpu_seconds(proxy.pid) - proxy_cpu
        await locust.ended(SPARE_SECONDS)
        if not result.exists():
            raise locust.failed(f"left no result of the run {run.name!r}")
        said = json.loads(result.read_text())
        per_request = proxy_cpu / seconds / said["requests_per_s"] * 1e6 if said["requests_per_s"] else 0.0
        figures = [
            f"{said['requests_per_s']:,.0f}",
            str(said["failures"]),
            f"{said['p50_ms']:g}",
            f"{said['p99_ms']:g}",
        ]
        figures += [f"{locust_cpu / seconds:.2f}", f"{proxy_cpu / seconds:.2f}", f"{per_request:.0f}"]
        sales = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in said["shop"].items())
        return {"row": figures, "verdicts": said["verdicts"], "page": page.relative_to(ROOT), "sales": sales}


async def show(options: argparse.Namespace, console: Console) -> int:
    """Locust's pages for people; they start and stop the runs."""
    async with Stage(OUT / f"load-{os.getpid()}") as stage:
        _, port = await start(stage)
        arguments = ["--processes", str(options.processes), "--users", "50", "--spawn-rate", "25"]
        locust = await start_locust(stage, port, arguments, Run("web", 50, 0.5, 0), stage.folder / "result.json")
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        console.print("http://localhost:8089 (Ctrl-C ends it)")
        await stopped.wait()
        await locust.stop()
        return 0


async def start(stage: Stage) -> tuple[Process, int]:
    """The cart and a proxy before it, which keeps its journal on the disk; the proxy's port."""
    cart = await stage.python("stateside.bench.cart")
    port = (await cart.json())["port"]
    return await start_proxy(stage, port, f"lmdb:{stage.folder / 'journal'}")


async def start_locust(stage: Stage, port: int, arguments: list[str], run: Run, result: Path) -> Process:
    variables = {
        "PYTHONPATH": str(ROOT),
        "CART_THINK_TIME": str(run.think_time),
        "CART_MAX_P99_MS": str(run.max_p99_ms),
        "CART_RESULT": str(result),
    }
    command = [str(Path(sys.executable).parent / "locust"), "-f", str(SHOPPERS), "--host", f"http://127.0.0.1:{port}"]
    return await stage.start("locust", [*command, *arguments], variables)


def cpu_of(process: Process) -> float:
    """With its children: locust's workers."""
    return sum(cpu_seconds(pid) for pid in with_children(process.pid))


if __name__ == "__main__":
    sys.exit(main())

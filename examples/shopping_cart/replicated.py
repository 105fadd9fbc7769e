"""`make replicated`: the machine with the journal is lost, and Postgres has it all.

Two workers and Postgres, the cart under load. A worker is killed with kill -9, then Postgres, which comes back; then
everything is killed, the folder of the journal is deleted, and a proxy starts from Postgres. Once with asynchronous
replication, where the lag has to be 0 before the folder goes, and once with synchronous, where nothing is waited
for. Exit code 1 if one acknowledged command is missing or was done twice.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import uvloop

from examples.shopping_cart.ledger import Shoppers
from examples.shopping_cart.stack import STOP_TIMEOUT, Child, port_of, proxy, user_function
from tests.helpers.postgres import PostgresServer

FOLDER = Path("data/replicated")
LOG = FOLDER / "proxy.log"
WORKERS = 2
LAG_TIMEOUT = 60.0
SETTINGS = {
    "STATESIDE_METRICS_ENABLED": "false",
    "STATESIDE_LOG_LEVEL": "error",
    "STATESIDE_LOG_FORMAT": "console",
    "STATESIDE_WORKERS": str(WORKERS),
}


@click.command()
@click.option("--mode", type=click.Choice(["async", "sync"]), help="Only this one.")
@click.option("--seconds", type=float, default=2.0, show_default=True, help="Of load between two blows.")
def main(mode: str | None, seconds: float) -> None:
    """Lose a machine and start from Postgres."""
    modes = [mode] if mode else ["async", "sync"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    LOG.unlink(missing_ok=True)
    say(f"a Postgres server of our own; the log of the proxies is ./{LOG}")
    postgres = PostgresServer().start()
    try:
        sound = [uvloop.run(Scene(postgres, each, seconds).play()) for each in modes]
    finally:
        postgres.remove()
    say("every acknowledged command was there once" if all(sound) else "COMMANDS WERE LOST OR DOUBLED")
    sys.exit(0 if all(sound) else 1)


class Scene:
    """The whole story in one mode."""

    def __init__(self, postgres: PostgresServer, mode: str, seconds: float) -> None:
        self.postgres = postgres
        self.mode = mode
        self.seconds = seconds
        self.folder = FOLDER / mode
        self.admin_port = free_port()
        self.shoppers = Shoppers(mode)

    async def play(self) -> bool:
        """Whether all went well."""
        say(f"--- {self.mode} replication ---")
        shutil.rmtree(self.folder, ignore_errors=True)
        with running(user_function(0)) as function:
            function_port = port_of(function.ready_line)
            with running(self._proxy(function_port)) as sidecar:
                say(f"{WORKERS} workers, journal in ./{self.folder}, a copy in Postgres")
                await self._shop_and_break(sidecar)
                if self.mode == "async":
                    await self._wait_for_postgres()
                kill(sidecar)
            await self.shoppers.stop()
            shutil.rmtree(self.folder)
            say(f"kill -9 of everything, rm -r ./{self.folder}")
            with running(self._proxy_on_postgres(function_port)) as sidecar:
                say("a proxy starts from Postgres")
                return await self._check(sidecar)

    def _proxy(self, function_port: int) -> Child:
        replica = {
            "STATESIDE_JOURNAL": f"lmdb:./{self.folder}",
            "STATESIDE_JOURNAL_REPLICA": self.postgres.dsn,
            "STATESIDE_JOURNAL_REPLICA_MODE": self.mode,
        }
        return proxy(0, function_port, self._settings() | replica, str(LOG))

    def _proxy_on_postgres(self, function_port: int) -> Child:
        settings = self._settings() | {"STATESIDE_JOURNAL": self.postgres.dsn}
        return proxy(0, function_port, settings, str(LOG))

    def _settings(self) -> dict[str, str]:
        return SETTINGS | {"STATESIDE_ADMIN_PORT": str(self.admin_port), "STATESIDE_POSTGRES_SCHEMA": self._schema}

    @property
    def _schema(self) -> str:
        return f"shop_{self.mode}"

    async def _shop_and_break(self, sidecar: Child) -> None:
        self.shoppers.start(port_of(sidecar.ready_line))
        await self._progress("under load")
        kill_worker(sidecar, 1)
        say("kill -9 of worker-1; the supervisor starts another one")
        await self._progress("the load goes on")
        await asyncio.to_thread(self.postgres.kill)
        say("kill -9 of Postgres")
        await asyncio.sleep(self.seconds)
        self._tell("without Postgres")
        await asyncio.to_thread(self.postgres.start)
        say("Postgres is back")
        await self._progress("the load goes on")

    async def _progress(self, what: str) -> None:
        await self.shoppers.progress(self.seconds, at_least=50)
        self._tell(what)

    def _tell(self, what: str) -> None:
        ledger = self.shoppers.ledger
        say(f"{what}: {len(ledger.acknowledged)} commands acknowledged, {len(ledger.sent)} sent")

    async def _wait_for_postgres(self) -> None:
        """Nothing of asynchronous replication is promised before the lag is 0."""
        await self.shoppers.stop()
        behind = f"{await asyncio.to_thread(self._behind):.0f}"
        async with asyncio.timeout(LAG_TIMEOUT):
            while await asyncio.to_thread(self._behind):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.05)
        say(f"asynchronous: the load stops, and the lag ({behind} appends) has to be 0 before the folder may go: it is")

    def _behind(self) -> float:
        """How many appends Postgres does not have, as the metrics say; 1 while nobody knows."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 1.0
        series = [line for line in lines if line.startswith("stateside_replica_")]
        connected = [line for line in series if line.startswith("stateside_replica_connected")]
        if not connected or value_of(connected[0]) != 1:
            return 1.0
        return sum(value_of(line) for line in series if line.startswith("stateside_replica_records_behind"))

    async def _check(self, sidecar: Child) -> bool:
        ledger = self.shoppers.ledger
        problems = ledger.problems(await self.shoppers.look(port_of(sidecar.ready_line)))
        for problem in problems[:20]:
            say(problem)
        outcome = f"{len(problems)} PROBLEMS" if problems else "each is there once"
        say(f"{len(ledger.acknowledged)} commands were acknowledged: {outcome}")
        return not problems


@contextmanager
def running(child: Child) -> Iterator[Child]:
    child.start()
    try:
        yield child
    finally:
        child.stop()


def kill_worker(sidecar: Child, index: int) -> None:
    name = f"worker-{index}".encode()
    for pid in children_of(sidecar):
        if name in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
            return
    raise RuntimeError(f"there is no worker-{index}")


def kill(sidecar: Child) -> None:
    """kill -9 of the supervisor and all that it started, as when the machine goes."""
    children = children_of(sidecar)
    sidecar.kill()
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it went with its supervisor
    end = time.monotonic() + STOP_TIMEOUT
    while any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in children):
        if time.monotonic() > end:
            raise TimeoutError(f"processes that were killed are still there after {STOP_TIMEOUT:g} s: {children}")
        time.sleep(0.01)


def children_of(child: Child) -> list[int]:
    assert child.process is not None
    pid = child.process.pid
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def value_of(line: str) -> float:
    return float(line.rsplit(" ", 1)[1])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


_BEGAN = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - _BEGAN:6.1f} s  {text}", flush=True)


if __name__ == "__main__":
    main()

"""What tests of several workers need besides the harness: their processes, their series, and clients of each."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from stateside.journal.sharding import EntityShards, owners_among

from . import messages
from .harness import Client, ProxyProcess, World, eventually
from .user_function import a_key

SHARDS = 1024
_MANY = 200  # connections, of which the kernel gives each worker at least one


def processes(proxy: ProxyProcess) -> dict[str, int]:
    """Process ids by name, of those that have got as far as their program."""
    assert proxy.process is not None
    pid = proxy.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    named = {_name(int(child)): int(child) for child in children}
    named.pop("", None)
    return named


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return words[-2].decode() if b"-m" in words and b"proxy" not in words else ""


def runs(pid: int) -> bool:
    """Not gone, and not a zombie either."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def gone(pids: Sequence[int]) -> None:
    async def all_gone() -> bool:
        return not any(runs(pid) for pid in pids)

    await eventually(all_gone, f"the end of {pids}")


async def series(proxy: ProxyProcess, only: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All samples, or those of one name, by name and labels. Fails for what is no exposition."""
    status, text = await proxy.admin(f"/metrics?name[]={only}" if only else "/metrics")
    assert status == 200
    families = list(text_string_to_metric_families(text))
    found = [sample for family in families for sample in family.samples]
    values = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(values) == len(found)
    assert len({(family.name, family.type) for family in families}) == len(families)
    return values


async def figure(proxy: ProxyProcess, name: str, **labels: str) -> float:
    """One of those; 0 if it is not there."""
    return (await series(proxy, name)).get((name, frozenset(labels.items())), 0.0)


async def until_figure(proxy: ProxyProcess, wanted: float, name: str, **labels: str) -> None:
    async def now() -> bool:
        return await figure(proxy, name, **labels) == wanted

    await eventually(now, f"{name} {labels} = {wanted:g}")


async def until_ready(proxy: ProxyProcess, wanted: bool = True) -> None:
    async def now() -> bool:
        return (await proxy.admin("/ready"))[0] == (200 if wanted else 503)

    await eventually(now, f"ready: {wanted}")


def key_of(worker: int, workers: int = 2, service: str = messages.MODEL) -> str:
    """A new entity key that this worker owns."""
    owners, shards = owners_among(workers, SHARDS), EntityShards(SHARDS)
    for _ in count():
        key = a_key()
        shard = shards.shard(f"{messages.PERSISTENCE_IDS[service]}|{key}")
        if shard is not None and owners[shard] == worker:
            return key
    raise AssertionError


async def client_of(world: World, worker: int, stack: AsyncExitStack) -> Client:
    """A client whose connection the kernel gave to this worker."""
    for _ in range(_MANY):
        client = Client(world.proxy.port)
        stack.push_async_callback(client.close)
        before = await calls(world.proxy, worker)
        assert (await client.ask(key_of(worker))).ok
        if await calls(world.proxy, worker) > before:
            return client
    raise AssertionError(f"none of {_MANY} connections came to worker {worker}")


async def calls(proxy: ProxyProcess, worker: int) -> float:
    """Calls of clients that this worker has taken."""
    return await figure(proxy, "stateside_calls_total", worker=str(worker))


def kill(proxy: ProxyProcess, name: str) -> int:
    """kill -9; the id that the process had."""
    pid = processes(proxy)[name]
    os.kill(pid, signal.SIGKILL)
    return pid


async def replaced(proxy: ProxyProcess, name: str, old: int) -> int:
    """Wait for another process in its place; its id."""

    async def there() -> bool:
        return processes(proxy).get(name, old) != old

    await eventually(there, f"a new {name}")
    return processes(proxy)[name]


async def ask_until_ok(client: Client, key: str) -> None:
    async def answered() -> bool:
        return (await client.ask(key, timeout=1)).ok

    await eventually(answered, f"an answer of {key}")


async def load(client: Client, worker: int, failures: list[str]) -> None:
    """One command after the other, to new entities of one worker."""
    while True:
        outcome = await client.ask(key_of(worker))
        if not outcome.ok:
            failures.append(f"{outcome.status}: {outcome.details}")
        await asyncio.sleep(0)

"""What every attack on a running proxy is measured by: an honest client beside it, and the memory of the process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from ..integration.harness import Client, World
from ..integration.http_client import HttpConnection
from ..integration.messages import emit
from ..integration.user_function import a_key

MIB = 1 << 20
HONEST_PAUSE_S = 0.02
# Generous, because tests share their machine; a proxy that is held by an attack shows seconds.
HONEST_PATIENCE_S = 3.0


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Witness:
    """An honest client of gRPC and one of HTTP/1.1, served again and again. `slowest`: the longest that one waited."""

    def __init__(self, world: World) -> None:
        self.served = 0
        self.slowest = 0.0
        self._port = world.proxy.port

    async def run(self) -> None:
        client = Client(self._port)
        try:
            while True:
                await self._ask(client)
                await asyncio.sleep(HONEST_PAUSE_S)
        finally:
            await client.close()

    async def _ask(self, client: Client) -> None:
        begun = monotonic()
        key = a_key("honest")
        async with asyncio.timeout(HONEST_PATIENCE_S):
            assert (await client.ask(key, emit("x"))).ok
            async with HttpConnection(self._port) as http:
                answer = await http.ask("POST", f"/tck/model/eventsourced/{key}", '{"actions": []}')
        assert (answer.status, answer.json) == (200, {"message": "x"})
        self.slowest = max(self.slowest, monotonic() - begun)
        self.served += 1


@asynccontextmanager
async def attacked(world: World, *, mib: int = 16) -> AsyncIterator[Witness]:
    """While the body attacks, the honest are served; afterwards too, and the proxy has grown by `mib` MiB at most."""
    assert world.proxy.process is not None
    pid = world.proxy.process.pid
    before = resident_bytes(pid)
    witness = Witness(world)
    running = asyncio.create_task(witness.run())
    try:
        await served_more(witness, running)
        yield witness
        await served_more(witness, running)
        grown = resident_bytes(pid) - before
        assert grown < mib * MIB, f"the proxy grew by {grown / MIB:.1f} MiB"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def served_more(witness: Witness, running: asyncio.Task[None]) -> None:
    wanted = witness.served + 2
    while witness.served < wanted:
        if running.done():
            await running  # which raises
        await asyncio.sleep(0.01)


async def in_flight(world: World) -> dict[str, float]:
    """Gauges of what is held for clients now."""
    _, text = await world.proxy.admin("/metrics")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(values[f"stateside_{name}"]) for name in ("connections", "calls", "http_calls")}

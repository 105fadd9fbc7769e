"""Processes of the measurements in postgres.py: `python -m stateside.bench.postgres_child MODE JSON`, one line of JSON
at the end.

    fill    append events to an LMDB journal, as fast as it takes them or at a pace
    ship    replicate that journal until Postgres has so many events
    rows    insert single rows, for comparison
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import uvloop

EVENT = b"x" * 100
ENTITIES = 1_000
TURN = 0.01  # seconds; what is due is appended so often
CHUNK = 2_000  # appends in flight when there is no pace
SAMPLE = 0.02


class Appended:
    """Counts answers."""

    def __init__(self) -> None:
        self.left = 0
        self.done = asyncio.Event()

    def on_appended(self, error: Exception | None) -> None:
        if error is not None:
            raise error
        self.left -= 1
        if self.left == 0:
            self.done.set()

    def on_loaded(self, head: object, error: object) -> None:
        raise AssertionError("nothing is loaded here")

    on_page = on_loaded


async def fill(folder: str, events: int, per_s: float) -> dict[str, float]:
    from stateside.journal.lmdb import LmdbJournal

    journal = LmdbJournal(folder)
    await journal.open()
    begun, stored = monotonic(), 0
    while stored < events:
        due = min(events, round((monotonic() - begun) * per_s) if per_s else stored + CHUNK)
        if due > stored:
            waiter = Appended()
            waiter.left = due - stored
            for number in range(stored, due):
                journal.append(f"echo|{number % ENTITIES}", number // ENTITIES + 1, (EVENT,), None, waiter)
            stored = due
            await waiter.done.wait()
        if per_s:
            await asyncio.sleep(TURN)
    seconds = monotonic() - begun
    await journal.close()
    return {"events_per_s": events / seconds}


async def ship(folder: str, dsn: str, events: int) -> dict[str, float]:
    from stateside.journal.replicate import Replicator, ReplicatorSettings
    from stateside.journal.source import Source

    replicator = Replicator([Source("worker-0", Path(folder))], dsn, ReplicatorSettings())
    running = asyncio.create_task(replicator.run())
    lag, begun = 0.0, 0.0
    while replicator.counts.events < events:
        await asyncio.wait((running,), timeout=SAMPLE)
        if replicator.connected:
            begun = begun or monotonic()
            lag = max(lag, replicator.seconds_behind)
    seconds = monotonic() - begun
    replicator.stop()
    await running
    return {"events_per_s": events / seconds, "lag_s": lag, "batches": replicator.counts.batches}


async def rows(dsn: str, connections: int, warmup: float, seconds: float) -> dict[str, float]:
    import asyncpg

    count, counting, end = 0, monotonic() + warmup, monotonic() + seconds

    async def insert(number: int) -> None:
        nonlocal count
        connection = await asyncpg.connect(dsn)
        statement = await connection.prepare("INSERT INTO rows VALUES ($1, $2, $3)")
        sequence = 0
        while (now := monotonic()) < end:
            sequence += 1
            await statement.fetch(b"echo|%d" % number, sequence, EVENT)
            count += now >= counting
        await connection.close()

    first = await asyncpg.connect(dsn)
    await first.execute(
        "CREATE TABLE rows (entity bytea, sequence bigint, event bytea, PRIMARY KEY (entity, sequence))"
    )
    await first.close()
    await asyncio.gather(*map(insert, range(connections)))
    return {"rows_per_s": count / (seconds - warmup)}


MODES: dict[str, Any] = {"fill": fill, "ship": ship, "rows": rows}


def main() -> None:
    mode, given = sys.argv[1:]
    print(json.dumps(uvloop.run(MODES[mode](**json.loads(given)))), flush=True)


if __name__ == "__main__":
    main()

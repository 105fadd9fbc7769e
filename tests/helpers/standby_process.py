"""A replicator in a process of its own, as it always is: LMDB must not be opened twice by one process.

It says what it does as JSON lines, and stops at SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from stateside.journal import postgres_standby
from stateside.journal.confirm import Confirmations
from stateside.journal.replicate import Observer, Replicator, ReplicatorSettings
from stateside.journal.source import Source

INTERVAL = 0.005


def main() -> None:
    uvloop.run(replicate(json.loads(sys.argv[1])))


async def replicate(given: dict[str, Any]) -> None:
    postgres_standby.LEASE = given["lease"]
    sources = [Source(f"worker-{index}", Path(folder)) for index, folder in enumerate(given["folders"])]
    reasons: list[str] = []
    confirmations = Confirmations(lambda: replicator.wake())

    def say(level: str, text: str, **fields: Any) -> None:
        if "reason" in fields:
            reasons.append(fields["reason"])

    observer = Observer(confirmations.on_applied, confirmations.on_connected, say)
    replicator = Replicator(sources, given["dsn"], ReplicatorSettings(**given["settings"]), observer)
    if given["socket"]:
        await confirmations.serve(given["socket"])
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, replicator.stop)
    telling = asyncio.create_task(tell(replicator, reasons))
    await replicator.run()
    telling.cancel()
    await confirmations.close()
    print(json.dumps(state(replicator, reasons)), flush=True)


async def tell(replicator: Replicator, reasons: list[str]) -> None:
    last: dict[str, Any] = {}
    while True:
        if (now := state(replicator, reasons)) != last:
            print(json.dumps(now), flush=True)
            last = now
        await asyncio.sleep(INTERVAL)


def state(replicator: Replicator, reasons: list[str]) -> dict[str, Any]:
    counts = replicator.counts
    return {
        "connected": replicator.connected,
        "trouble": replicator.trouble,
        "applied": [source.applied for source in replicator.sources],
        "swept": [source.is_swept for source in replicator.sources],
        "behind": replicator.records_behind,
        "seconds": round(replicator.seconds_behind, 2),
        "events": counts.events,
        "batches": counts.batches,
        "errors": counts.errors,
        "reasons": reasons,
    }


if __name__ == "__main__":
    main()

"""kill -9 at random moments: what was acknowledged is there, and what is there is a prefix of what was sent.

Of a value: what is there is the latest that was acknowledged, or one that was sent later."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stateside.journal.contract import Durability
from stateside.journal.lmdb import LmdbJournal, LmdbSettings
from tests.helpers.journal import load, read_all, run

ENTITIES = 50
VALUES = 20
ROOT = Path(__file__).parents[2]
BOUNDS = LmdbSettings(tail_appends=200, map_size=1 << 20)

APPENDER = """
import asyncio, os, sys, uvloop
sys.path.insert(0, ".")
from tests.chaos.test_journal_kill import BOUNDS, ENTITIES, VALUES, event, value
from tests.helpers.journal import load
from stateside.journal.contract import Durability
from stateside.journal.lmdb import LmdbJournal

class Appender:
    def __init__(self, journal, entity, last):
        self.journal, self.entity, self.last = journal, entity, last
        self.more()
    def more(self):
        events = [event(self.entity, self.last + 1 + i) for i in range(self.last % 3 + 1)]
        snapshot = event(self.entity, self.last + len(events)) if self.last % 5 == 0 else None
        self.journal.append(self.entity, self.last + 1, events, snapshot, self)
        self.last += len(events)
    def on_appended(self, error):
        if error is not None:
            raise error
        acknowledged.append(f"{self.entity} {self.last}")
        self.more()

class Putter:
    def __init__(self, journal, entity, last):
        self.journal, self.entity, self.last = journal, entity, last
        self.more()
    def more(self):
        self.last += 1
        self.journal.put(self.entity, self.last, value(self.entity, self.last), self)
    def on_appended(self, error):
        if error is not None:
            raise error
        acknowledged.append(f"{self.entity} {self.last}")
        self.more()

def tell():
    if acknowledged:
        os.write(1, ("\\n".join(acknowledged) + "\\n").encode())
        acknowledged.clear()
    asyncio.get_running_loop().call_soon(tell)

async def main():
    journal = LmdbJournal(sys.argv[1], Durability(sys.argv[2]), BOUNDS)
    await journal.open()
    for index in range(ENTITIES):
        entity = f"entity-{index}"
        Appender(journal, entity, (await load(journal, entity)).last_sequence)
    for index in range(VALUES):
        entity = f"value-{index}"
        Putter(journal, entity, (await load(journal, entity)).last_sequence)
    tell()
    await asyncio.Event().wait()

acknowledged = []
uvloop.run(main())
"""


def event(entity: str, sequence: int) -> bytes:
    """The event with this sequence: any other bytes in its place are wrong."""
    return f"{entity}:{sequence}:".encode() * (sequence % 7 + 1)


def value(entity: str, version: int) -> bytes | None:
    """The value with this version, now and then none."""
    return None if version % 11 == 0 else event(entity, version)


def append_until_killed(path: Path, durability: Durability, lines_before_kill: int) -> dict[str, int]:
    """The last acknowledged sequence of each entity."""
    command = [sys.executable, "-c", APPENDER, str(path), durability.value]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    acknowledged: dict[str, int] = {}
    for count, line in enumerate(process.stdout):
        if count == lines_before_kill:
            process.send_signal(signal.SIGKILL)
        if line.endswith("\n"):
            entity, _, sequence = line.rpartition(" ")
            acknowledged[entity] = int(sequence)
    watchdog.cancel()
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    return acknowledged


async def check(path: Path, acknowledged: dict[str, int]) -> int:
    """Everything acknowledged is stored, what is stored is a prefix of what was sent. Gives the number of events and
    versions."""
    journal = LmdbJournal(path, Durability.NONE, BOUNDS)
    await journal.open()
    total = 0
    for index in range(ENTITIES):
        entity = f"entity-{index}"
        head = await load(journal, entity)
        assert head.last_sequence >= acknowledged.get(entity, 0)
        stored = await read_all(journal, entity, max_bytes=10_000)
        assert stored == [event(entity, sequence) for sequence in range(1, head.last_sequence + 1)]
        if head.snapshot is not None:
            assert head.snapshot == event(entity, head.snapshot_sequence)
        total += len(stored)
    for index in range(VALUES):
        entity = f"value-{index}"
        head = await load(journal, entity)
        assert head.last_sequence >= acknowledged.get(entity, 0)
        if head.last_sequence > 0:
            assert head.snapshot_sequence == head.last_sequence
            assert head.snapshot == value(entity, head.last_sequence)
        total += head.last_sequence
    await journal.close()
    return total


def kill_rounds(path: Path, rounds: int, durability: Durability) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    acknowledged: dict[str, int] = {}
    before = 0
    for turn in range(rounds):
        acknowledged |= append_until_killed(path, durability, int(10 ** chance.uniform(0, 3.3)))
        if turn % 2 == 0 and turn + 1 < rounds:
            continue  # the next appender has to recover by itself
        total = run(check(path, acknowledged))
        assert total > before, f"seed {seed}"
        before = total


@pytest.mark.parametrize("durability", [Durability.DURABLE, Durability.RELAXED])
def test_acknowledged_events_and_values_survive_kill(tmp_path, durability):
    kill_rounds(tmp_path / "journal", 5, durability)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("durability", [Durability.DURABLE, Durability.RELAXED])
def test_acknowledged_events_and_values_survive_a_hundred_kills(tmp_path, durability):
    kill_rounds(tmp_path / "journal", 50, durability)

"""kill -9 while shards are moved to another number of workers: the next start goes on; nothing is lost or doubled."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

from stateside.journal.contract import Durability
from stateside.journal.environment import environment_of
from stateside.journal.layout import JournalFolder
from stateside.journal.lmdb import LmdbJournal
from stateside.journal.sharding import EntityShards, owners_among
from tests.helpers.journal import Answer, list_all, read_all, read_whole_log, run

ROOT = Path(__file__).parents[2]
SHARDS = 64
ENTITIES = 400
EVENTS = 15

MOVER = """
import sys
sys.path.insert(0, ".")
from stateside.journal import reshard
from stateside.journal.layout import JournalFolder

reshard.BATCH_RECORDS = 200
reshard.PROGRESS_INTERVAL = 0.0
told = lambda progress: print(progress.events, flush=True)
JournalFolder.open(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), told).close()
print("done", flush=True)
"""


def event(entity: str, sequence: int) -> bytes:
    return f"{entity} {sequence}".encode()


async def fill(path: Path) -> None:
    journal = LmdbJournal(path, Durability.NONE)
    await journal.open()
    answers = []
    for sequence in range(1, EVENTS + 1):
        for index in range(ENTITIES):
            entity = f"cart|{index}"
            answers.append(Answer())
            journal.append(entity, sequence, [event(entity, sequence)], None, answers[-1])
    for answer in answers:
        await answer.result()
    await journal.close()


def move_and_kill(path: Path, workers: int, lines: int) -> bool:
    """Whether the move was done before it could be killed."""
    command = [sys.executable, "-c", MOVER, str(path), str(workers), str(SHARDS)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as mover:
        assert mover.stdout is not None
        for count, line in enumerate(mover.stdout):
            if line == "done\n":
                return True
            if count == lines:
                mover.send_signal(signal.SIGKILL)
        assert mover.wait() == -signal.SIGKILL
    return False


async def check(path: Path, workers: int) -> None:
    """Every event is where it belongs, and nowhere else."""
    owners, shards = owners_among(workers, SHARDS), EntityShards(SHARDS)
    count = 0
    for index in range(workers):
        journal = LmdbJournal(environment_of(path, index), Durability.NONE)
        await journal.open()
        for entity in await list_all(journal, "cart|"):
            assert owners[shards.shard(entity)] == index  # type: ignore[index]
            assert await read_all(journal, entity) == [event(entity, at) for at in range(1, EVENTS + 1)]
        count += len(await read_whole_log(journal, "cart|"))
        await journal.close()
    assert count == ENTITIES * EVENTS


def test_a_move_that_is_killed_again_and_again_ends_with_everything_where_it_belongs(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    path = tmp_path / "journal"
    JournalFolder.open(path, 1, SHARDS).close()
    run(fill(path))
    assert not move_and_kill(path, 3, 5)
    for _ in range(5):
        move_and_kill(path, chance.choice([1, 2, 3, 4]), chance.randrange(30))
    workers = chance.choice([2, 3])
    JournalFolder.open(path, workers, SHARDS).close()
    run(check(path, workers))

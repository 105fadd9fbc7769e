"""`stateside journal backup` while a proxy takes commands, and kill -9 of `stateside journal copy`: what was
acknowledged before the backup is in it once, and it serves; a copy goes on where it ended."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import asyncpg
import pytest

from stateside.journal.folders import Owners
from stateside.journal.layout import JournalFolder
from stateside.journal.lmdb import LmdbJournal, LmdbSettings
from tests.helpers.journal import Answer
from tests.helpers.postgres import PostgresServer

from ..integration.harness import ROOT, ProxyProcess, free_port
from ..integration.user_function import ScriptedUserFunction
from .load import Command, Load, check_entity, read

WORKERS = 2
EVENTS = 120_000


async def journal_command(*arguments: object) -> asyncio.subprocess.Process:
    program = [sys.executable, "-m", "stateside.journal", *map(str, arguments)]
    return await asyncio.create_subprocess_exec(
        *program, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )


async def done(*arguments: object) -> str:
    process = await journal_command(*arguments)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def proxy_in(folder: Path, user_function_port: int, **settings: str) -> ProxyProcess:
    folder.mkdir(exist_ok=True)
    return ProxyProcess(user_function_port, folder, http_port=str(free_port()), workers=str(WORKERS), **settings)


async def test_a_backup_under_load_has_all_that_was_acknowledged_before_and_serves(tmp_path: Path) -> None:
    user_function = await ScriptedUserFunction().start()
    proxy = proxy_in(tmp_path / "first", user_function.port)
    await proxy.start()
    load = Load(proxy.port, seed=5, entities=12)
    await load.progress(200)
    before = [command.value for command in load.commands if command.reply is not None]
    backup = tmp_path / "backup"
    said = await done("backup", "--path", proxy.folder / "journal", backup)
    assert f"in {backup}" in said
    await load.progress(50)
    await load.stop()
    await proxy.stop()
    assert "all sound" in await done("verify", "--path", backup)

    restored = proxy_in(tmp_path / "second", user_function.port, journal=f"lmdb:{backup}")
    await restored.start()
    for entity in load.entities:
        log = await read(restored.port, entity)
        own = [command for command in load.commands if command.entity == entity]
        check_entity(entity, [as_of(command, before, log) for command in own], log)
    await restored.stop()
    await user_function.stop()


def as_of(command: Command, before: list[str], log: list[str]) -> Command:
    """What was acknowledged after the backup began may be in it or not."""
    kept = command.reply if command.value in before or command.value in log else None
    return Command(command.entity, command.value, command.began, command.ended, kept)


# --- kill -9 of a copy ------------------------------------------------------------------------------------------------


async def fill(path: Path) -> None:
    owners = Owners(WORKERS, 64)
    with JournalFolder.open(path, WORKERS, 64) as folder:
        journals = [
            LmdbJournal(folder.environment(worker), settings=LmdbSettings(queue_appends=1 << 20))
            for worker in range(WORKERS)
        ]
        for journal in journals:
            await journal.open()
        answers = []
        for number in range(EVENTS // 3):
            entity = f"u.cart|{number % 3000}"
            answer = Answer()
            events = [b"%d.%d" % (number, event) for event in range(3)]
            journals[owners.of(entity)].append(entity, 1 + number // 3000 * 3, events, None, answer)
            answers.append(answer)
        for answer in answers:
            await answer.result()
        for journal in journals:
            await journal.close()


@pytest.mark.parametrize("store", ["postgres", "lmdb"])
async def test_a_copy_that_is_killed_goes_on_where_it_ended(
    tmp_path: Path, store: str, postgres_server: PostgresServer, postgres_schema: str
) -> None:
    await fill(tmp_path / "from")
    to = ["--to-schema", postgres_schema, postgres_server.dsn] if store == "postgres" else [str(tmp_path / "to")]
    reached = 0
    for _ in range(2):
        process = await journal_command("copy", tmp_path / "from", *to)
        async with asyncio.timeout(60):
            while (now := await copied(tmp_path, postgres_server, postgres_schema, store)) <= reached:
                await asyncio.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        assert process.returncode == -signal.SIGKILL
        reached = now
    said = await done("copy", tmp_path / "from", *to)
    assert f"3000 entities with {EVENTS} events compared: all equal" in said
    assert "all equal" in await done("copy", "--verify-only", tmp_path / "from", *to)
    if store == "lmdb":
        found = json.loads(await done("stat", "--json", "--path", tmp_path / "to"))
        assert (found["events"], found["appends"]) == (EVENTS, EVENTS // 3)


async def copied(folder: Path, server: PostgresServer, schema: str, store: str) -> int:
    """How many events the copy says it has stored."""
    if store == "lmdb":
        state = folder / "to.copying" / "copy.json"
        text = state.read_bytes() if state.exists() else None
    else:
        connection = await asyncpg.connect(server.dsn)
        try:
            query = f"SELECT snapshot FROM \"{schema}\".entities WHERE entity = '|copy|'"
            text = await connection.fetchval(query)
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            text = None  # not made yet
        finally:
            await connection.close()
    return int(json.loads(text)["events"]) if text else 0

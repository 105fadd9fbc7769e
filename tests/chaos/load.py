"""Clients that append unique values to a few entities, and the check of what they were told against what is stored.

Each command emits one event whose value no other command has, and the model answers with all values so far. So a
reply tells a client the whole history of the entity at the moment of its command, and the final log can be compared
with every reply:

- an acknowledged value is in the log exactly once, an unacknowledged one at most once;
- each reply is the beginning of the log that ends with the client's own value: one command at a time, no holes;
- a command that began after another one was acknowledged stands behind it (linearizable per entity).
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from tck import eventsourced_pb2 as model

from ..integration.harness import Client
from ..integration.messages import MODEL, PERSISTENCE_IDS, emit

END = ";"
PAUSE_WHEN_REFUSED_S = 0.01


@dataclass
class Command:
    """One attempt of a client. `reply` is None when it was not acknowledged."""

    entity: str
    value: str
    began: float
    ended: float = 0.0
    reply: list[str] | None = None


class Load:
    """Clients with a connection each, that go on until they are told to stop."""

    def __init__(self, port: int, seed: int, clients: int = 6, entities: int = 4, name: str = "") -> None:
        """name: of these clients among others that ask for the same entities."""
        self.name = name
        self.entities = [f"chaos-{seed}-{number}" for number in range(entities)]
        self.commands: list[Command] = []
        self._random = random.Random(seed)
        self._clients = [Client(port) for _ in range(clients)]
        self._stop = False
        self._tasks = [asyncio.create_task(self._run(number, client)) for number, client in enumerate(self._clients)]

    @property
    def acknowledged(self) -> int:
        return sum(command.reply is not None for command in self.commands)

    async def progress(self, count: int, patience_s: float = 15.0) -> None:
        """Wait for so many further acknowledgements."""
        wanted = self.acknowledged + count
        async with asyncio.timeout(patience_s):
            while self.acknowledged < wanted:
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)
        for client in self._clients:
            await client.close()

    async def _run(self, number: int, client: Client) -> None:
        sequence = 0
        while not self._stop:
            sequence += 1
            command = Command(self._random.choice(self.entities), f"{self.name}{number}.{sequence}", monotonic())
            self.commands.append(command)
            outcome = await client.ask(command.entity, emit(command.value + END))
            command.ended = monotonic()
            if outcome.ok:
                command.reply = values_of(outcome.message or "")
            else:
                await asyncio.sleep(PAUSE_WHEN_REFUSED_S)


def values_of(state: str) -> list[str]:
    return state.split(END)[:-1]


def check(commands: list[Command], logs: dict[str, list[str]]) -> None:
    """`logs`: the final values of each entity."""
    for entity, log in logs.items():
        own = [command for command in commands if command.entity == entity]
        check_entity(entity, own, log)


def check_entity(entity: str, commands: list[Command], log: list[str]) -> None:
    twice = [value for value, count in Counter(log).items() if count > 1]
    assert not twice, f"{entity}: stored more than once: {twice}"
    foreign = set(log) - {command.value for command in commands}
    assert not foreign, f"{entity}: nobody sent {foreign}"
    place = {value: index for index, value in enumerate(log)}
    acknowledged = [command for command in commands if command.reply is not None]
    lost = [command.value for command in acknowledged if command.value not in place]
    assert not lost, f"{entity}: acknowledged and lost: {lost}"
    for command in acknowledged:
        assert command.reply == log[: place[command.value] + 1], f"{entity}: the reply to {command.value} is no history"
    check_order(entity, acknowledged, place)


def check_order(entity: str, acknowledged: list[Command], place: dict[str, int]) -> None:
    """Whoever began after another one's answer stands behind it."""
    endings = sorted(acknowledged, key=lambda command: command.ended)
    highest, next_ending = -1, 0
    for command in sorted(acknowledged, key=lambda command: command.began):
        while next_ending < len(endings) and endings[next_ending].ended < command.began:
            highest = max(highest, place[endings[next_ending].value])
            next_ending += 1
        assert place[command.value] > highest, f"{entity}: {command.value} stands before an earlier answer"


async def stored(journal: Path, entity: str) -> list[str]:
    """The values of an entity as `stateside journal show` has them, its sequences checked to be dense."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stateside.proxy.cli", "journal", "show", f"{PERSISTENCE_IDS[MODEL]}|{entity}"),
        *("--path", str(journal), "--json"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    events = [json.loads(line) for line in output.splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    return [value_of(event) for event in events]


def value_of(event: dict[str, str]) -> str:
    return model.Persisted.FromString(base64.b64decode(event["value"])).value.removesuffix(END)


async def read(port: int, entity: str) -> list[str]:
    """The values of an entity as a command finds them."""
    client = Client(port)
    outcome = await client.ask(entity, timeout=15.0, wait_for_ready=True)
    await client.close()
    assert outcome.ok, outcome
    return values_of(outcome.message or "")

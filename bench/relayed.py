"""What it costs that a command lands on the wrong worker: the CPU of all workers for a relayed command and a local one.

Two workers without their supervisor, each with a main port of its own. All commands are sent to the first; those for
entities of the second are relayed. The same commands are sent to a proxy that is alone before, in the same weather.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from stateside._speedups.ring import ShardHash
from stateside.bench.messages import ECHO_SERVICE, STATEFUL
from stateside.bench.processes import Process, Stage, free_port
from stateside.bench.works import (
    RELAY_ENTITIES,
    Figures,
    MeasurementFailed,
    Setting,
    check_echo,
    load,
    start_echo,
    start_proxy,
)
from stateside.journal.sharding import owners_among, worker_name
from stateside.proxy.config import Settings
from stateside.proxy.place import Place

WORKERS = 2
READY_S = 15.0
ROUNDS = 5


async def relayed(setting: Setting, stage: Stage) -> Figures:
    """Read-only commands, of which about one half is relayed. `proxy_cpu_us` is that of both workers for one of these
    commands; `local_cpu_us` and `relayed_cpu_us` that of one of either kind, and `times` their ratio. A proxy that is
    alone and the workers are measured in turn, and the least of each counts: whatever else runs only adds."""
    echo, port = await start_echo(stage)
    alone, alone_port = await start_proxy(stage, port, "memory:")
    workers, ports = await start_workers(stage, port)
    turn = replace(setting, seconds=setting.seconds / ROUNDS, warmup=setting.warmup / ROUNDS)
    alone_rounds: list[Figures] = []
    rounds: list[Figures] = []
    for _ in range(ROUNDS):
        alone_rounds.append(await load(stage, alone_port, "read", turn, proxy=alone, user_function=echo))
        found = await load(stage, ports[0], "read", turn, first=workers[0], second=workers[1], user_function=echo)
        rounds.append(found | {"proxy_cpu_us": found.pop("first_cpu_us") + found.pop("second_cpu_us")})
    for process in (alone, *workers):
        await process.stop()
    await check_echo(echo)
    return compared(min(alone_rounds, key=cpu), min(rounds, key=cpu))


def cpu(figures: Figures) -> float:
    return figures["proxy_cpu_us"]


def compared(local: Figures, found: Figures) -> Figures:
    share, local_us = remote_share(), cpu(local)
    cost = (cpu(found) - (1 - share) * local_us) / share
    return found | {"local_cpu_us": local_us, "relayed_cpu_us": cost, "times": cost / local_us}


def remote_share(worker: int = 0) -> float:
    """Of the entities that the load generator asks for: how many belong to other workers."""
    persistence_id = next(each[2] for each in STATEFUL if each[1] == ECHO_SERVICE)
    owners = owners_among(WORKERS, Settings().number_of_shards)
    shards = ShardHash(persistence_id, len(owners))
    mine = [owners[shards.shard(f"entity-{number:06}")] == worker for number in range(RELAY_ENTITIES)]
    return 1 - sum(mine) / len(mine)


async def start_workers(stage: Stage, user_function_port: int) -> tuple[list[Process], list[int]]:
    """Two workers that serve, and their main ports."""
    run = stage.folder.resolve() / "run"
    run.mkdir()
    ports = [free_port() for _ in range(WORKERS)]
    workers = [
        await start_worker(stage, Place(worker_name(index), index, WORKERS, str(run), port, 1), user_function_port)
        for index, port in enumerate(ports)
    ]
    for port in ports:
        await serving(port)
    return workers, ports


async def start_worker(stage: Stage, place: Place, user_function_port: int) -> Process:
    variables = {
        "STATESIDE_HTTP_INTERFACE": "127.0.0.1",
        "USER_FUNCTION_PORT": str(user_function_port),
        "STATESIDE_METRICS_ENABLED": "false",
        "STATESIDE_JOURNAL": "memory:",
        "STATESIDE_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "stateside.proxy.worker"]
    return await stage.start(place.name, command, variables | place.to_environment())


async def serving(port: int) -> None:
    end = asyncio.get_running_loop().time() + READY_S
    while asyncio.get_running_loop().time() < end:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise MeasurementFailed(f"no worker serves on port {port}")

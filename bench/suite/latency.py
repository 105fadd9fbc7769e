"""What the proxy adds to a call when it is not at its limit, and how much it takes as more calls are in flight."""

from __future__ import annotations

from dataclasses import replace

from stateside.bench.h2load import h2load
from stateside.bench.processes import Stage
from stateside.bench.suite.rivals import start_grpc_aio, start_nghttpx
from stateside.bench.works import (
    CONNECTIONS,
    Figures,
    Measurement,
    Setting,
    check_echo,
    load,
    start_echo,
    start_proxy,
)

LEVELS = (1, 4, 16, 64, 128, 512)
LEVEL_SHARE = 4  # each level takes this part of the time of a measurement
LEAST_REQUESTS = 2500  # of a level of h2load
OPEN_LOOP_PLACES = 512  # on each connection, so that no call waits for another


async def half_load(setting: Setting, stage: Stage) -> Figures:
    """Calls at a constant rate, half of what the proxy has just managed: through it, and past it."""
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    short = replace(setting, seconds=setting.seconds / 2)
    most = await load(stage, proxy_port, "read", short, proxy=proxy)
    rate = ("--rate", most["calls_per_s"] / 2)
    through = await load(
        stage, proxy_port, "read", setting, in_flight=OPEN_LOOP_PLACES, more=rate, proxy=proxy, user_function=echo
    )
    past = await load(stage, port, "direct", setting, in_flight=OPEN_LOOP_PLACES, more=rate, user_function=echo)
    await check_echo(echo)
    added = {f"{name}_added_us": through[f"{name}_us"] - past[f"{name}_us"] for name in ("p50", "p90", "p99", "p999")}
    return through | added | {f"direct_{name}": figure for name, figure in past.items() if name.startswith("p")}


async def sweep(setting: Setting, stage: Stage) -> Figures:
    """Read-only commands, 1 to 512 in flight."""
    echo, port = await start_echo(stage)
    _, proxy_port = await start_proxy(stage, port, "memory:")
    result = await sweep_at(stage, proxy_port, "read", setting)
    await check_echo(echo)
    return result


async def sweep_direct(setting: Setting, stage: Stage) -> Figures:
    echo, port = await start_echo(stage)
    result = await sweep_at(stage, port, "direct", setting)
    await check_echo(echo)
    return result


async def sweep_grpc_aio(setting: Setting, stage: Stage) -> Figures:
    echo, port = await start_echo(stage)
    _, anchor_port = await start_grpc_aio(stage, port)
    result = await sweep_at(stage, anchor_port, "read", setting)
    await check_echo(echo)
    return result


async def sweep_nghttpx(setting: Setting, stage: Stage) -> Figures:
    """The fewer in flight, the longer a request takes, and the fewer are made."""
    _, _, front = await start_nghttpx(stage)
    found: Figures = {}
    for level in LEVELS:
        connections = min(level, CONNECTIONS)
        count = setting.file_requests // LEVEL_SHARE * min(level, 64) // 64
        shape = ["-c", connections, "-m", level // connections, f"http://127.0.0.1:{front}/file"]
        found[f"calls_per_s_at_{level}"] = (await h2load(stage, shape, max(count, LEAST_REQUESTS)))["calls_per_s"]
    return found


async def sweep_at(stage: Stage, port: int, work: str, setting: Setting) -> Figures:
    short = replace(setting, seconds=setting.seconds / LEVEL_SHARE, warmup=setting.warmup / LEVEL_SHARE)
    result = await load(stage, port, work, short, more=("--levels", ",".join(map(str, LEVELS))))
    return {name: figure for name, figure in result.items() if "_at_" in name}


MEASUREMENTS: dict[str, Measurement] = {
    "half_load": half_load,
    "sweep": sweep,
    "sweep_nghttpx": sweep_nghttpx,
    "sweep_grpc_aio": sweep_grpc_aio,
    "sweep_direct": sweep_direct,
}

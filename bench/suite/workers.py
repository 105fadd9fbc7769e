"""Two workers against one. The two cores are needed by load generator and user function too, so what a command costs
tells what the workers would do with a core each: `capacity_per_s`, workers by CPU per command. HTTP/JSON shows it,
whose cost lies in the proxy; with as many connections that either is busy, because a worker that is woken for each
request spends its time on that."""

from __future__ import annotations

from stateside.bench.processes import Stage
from stateside.bench.suite.transcoding import through_proxy
from stateside.bench.works import Figures, Measurement, Setting, check_echo, load, start_echo, start_proxy

WORKERS = 2
JSON_CONNECTIONS = 512
TWO = {"STATESIDE_WORKERS": str(WORKERS)}


async def two_workers(setting: Setting, stage: Stage) -> Figures:
    """Read-only commands; every second one comes to the worker that has not the entity, and is relayed."""
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, "memory:", TWO)
    result = await load(stage, proxy_port, "read", setting, proxy=proxy, user_function=echo)
    await check_echo(echo)
    return with_capacity(result, WORKERS)


async def two_workers_json(setting: Setting, stage: Stage) -> Figures:
    """Carts read as JSON."""
    return with_capacity(await through_proxy(setting, stage, TWO, JSON_CONNECTIONS), WORKERS)


async def one_worker_json(setting: Setting, stage: Stage) -> Figures:
    return with_capacity(await through_proxy(setting, stage, {}, JSON_CONNECTIONS), 1)


def with_capacity(result: Figures, workers: int) -> Figures:
    """`capacity_per_s`: commands a second when each worker has a core for itself."""
    return result | {"capacity_per_s": workers * 1e6 / result["proxy_cpu_us"]}


MEASUREMENTS: dict[str, Measurement] = {
    "two_workers": two_workers,
    "two_workers_json": two_workers_json,
    "one_worker_json": one_worker_json,
}

"""Commands that store nothing: what the way through the proxy costs, in plain and with what may be added."""

from __future__ import annotations

from stateside.bench.certificate import make_certificate
from stateside.bench.processes import Stage
from stateside.bench.works import (
    Figures,
    Measurement,
    MeasurementFailed,
    Setting,
    check_echo,
    load,
    start_echo,
    start_proxy,
)


async def relay(setting: Setting, stage: Stage) -> Figures:
    """Read-only commands through the proxy to the compiled echo."""
    return await through_proxy(setting, stage, "read")


async def hot(setting: Setting, stage: Stage) -> Figures:
    """The same where all commands are for one entity, which takes them one after the other."""
    return await through_proxy(setting, stage, "read", entities=1)


async def action(setting: Setting, stage: Stage) -> Figures:
    """Unary commands of an action: no entity, one call each to the user function."""
    return await through_proxy(setting, stage, "action")


async def through_proxy(setting: Setting, stage: Stage, work: str, entities: int = 64) -> Figures:
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    result = await load(stage, proxy_port, work, setting, entities=entities, proxy=proxy, user_function=echo)
    await check_echo(echo)
    return result


async def access_log(setting: Setting, stage: Stage) -> Figures:
    """Read-only commands with a line of the access log for each."""
    path = stage.folder.resolve() / "access.log"
    echo, port = await start_echo(stage)
    variables = {"STATESIDE_ACCESS_LOG": "json", "STATESIDE_ACCESS_LOG_FILE": str(path)}
    proxy, proxy_port = await start_proxy(stage, port, "memory:", variables)
    result = await load(stage, proxy_port, "read", setting, proxy=proxy, user_function=echo)
    await proxy.stop()
    await check_echo(echo)
    with path.open("rb") as file:
        lines = sum(1 for _ in file)
    if lines < result["calls"]:
        raise MeasurementFailed(f"{lines} lines were written for {result['calls']} calls")
    return result


async def forward(setting: Setting, stage: Stage) -> Figures:
    """Read-only commands, each answered by a forward to an entity of another service, which answers it."""
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    result = await load(stage, proxy_port, "forward", setting, proxy=proxy, user_function=echo)
    counted = await check_echo(echo)
    if counted["commands"] < 2 * result["calls"]:
        raise MeasurementFailed(f"{counted['commands']} commands were handled for {result['calls']} forwarded calls")
    return result


async def relay_tls(setting: Setting, stage: Stage) -> Figures:
    """Read-only commands of clients that speak TLS. Load generator and proxy both pay for it."""
    certificate, key = make_certificate(stage.folder.resolve())
    echo, port = await start_echo(stage)
    files = {"STATESIDE_TLS_CERTIFICATE": str(certificate), "STATESIDE_TLS_KEY": str(key)}
    proxy, proxy_port = await start_proxy(stage, port, "memory:", files)
    result = await load(stage, proxy_port, "read", setting, ca=certificate, proxy=proxy, user_function=echo)
    await check_echo(echo)
    return result


MEASUREMENTS: dict[str, Measurement] = {
    "relay": relay,
    "hot": hot,
    "action": action,
    "access_log": access_log,
    "forward": forward,
    "relay_tls": relay_tls,
}

"""The same read-only command through what others use, and through nothing: the anchors of the rotation."""

from __future__ import annotations

from stateside.bench.envoy import start_envoy
from stateside.bench.h2load import h2load, installed
from stateside.bench.messages import MESSAGE_SIZE
from stateside.bench.processes import Process, Stage, free_port
from stateside.bench.works import (
    CONNECTIONS,
    RELAY_IN_FLIGHT,
    Figures,
    Measurement,
    Setting,
    answering,
    check_echo,
    load,
    start_echo,
)

# One process, everything in one folder. By default it closes connections after 1000 requests, and opens one to the
# server for each request that it finds no idle one for.
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream back {{
        server 127.0.0.1:{back};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{front} http2;
        keepalive_requests 1000000000;
        location / {{ grpc_pass grpc://back; }}
    }}
}}
"""


async def direct(setting: Setting, stage: Stage) -> Figures:
    """The user function's own gRPC method, with nobody between."""
    echo, port = await start_echo(stage)
    result = await load(stage, port, "direct", setting, user_function=echo)
    await check_echo(echo)
    return result


async def relay_grpc_aio(setting: Setting, stage: Stage) -> Figures:
    """The same relay over entity streams as it is usually written in Python."""
    echo, port = await start_echo(stage)
    anchor, anchor_port = await start_grpc_aio(stage, port)
    result = await load(stage, anchor_port, "read", setting, proxy=anchor, user_function=echo)
    await check_echo(echo)
    return result


async def start_grpc_aio(stage: Stage, echo_port: int) -> tuple[Process, int]:
    module = "stateside.bench.anchors.grpc_aio_relay"
    anchor = await stage.python(module, "--user-function-port", echo_port)
    return anchor, (await anchor.json())["port"]


async def relay_nghttpx(setting: Setting, stage: Stage) -> Figures:
    """A reverse proxy in C++ before a static file of the same size, one worker each, h2load before them."""
    nghttpx, nghttpd, front = await start_nghttpx(stage)
    shape = ["-c", CONNECTIONS, "-m", RELAY_IN_FLIGHT, f"http://127.0.0.1:{front}/file"]
    return await h2load(stage, shape, setting.file_requests, proxy=nghttpx, user_function=nghttpd)


async def start_nghttpx(stage: Stage) -> tuple[Process, Process, int]:
    """nghttpx, nghttpd behind it, and the port of the first."""
    programs = {name: installed(name) for name in ("nghttpx", "nghttpd")}
    site = stage.folder / "site"
    site.mkdir()
    (site / "file").write_bytes(bytes(MESSAGE_SIZE))
    back, front = free_port(), free_port()
    command = [programs["nghttpd"], "--no-tls", "-a", "127.0.0.1", "-d", str(site), "-n", "1", str(back)]
    nghttpd = await stage.start("nghttpd", command)
    nghttpx = await stage.start("nghttpx", nghttpx_command(programs["nghttpx"], back, front))
    await answering(back)
    await answering(front)
    return nghttpx, nghttpd, front


def nghttpx_command(program: str, back: int, front: int) -> list[str]:
    return [
        program,
        f"--frontend=127.0.0.1,{front};no-tls",
        f"--backend=127.0.0.1,{back};;proto=h2;no-tls",
        "--single-process",
        "--workers=1",
        "--log-level=ERROR",
        "--accesslog-file=/dev/null",
        "--conf=/dev/null",
    ]


async def relay_nginx(setting: Setting, stage: Stage) -> Figures:
    """nginx with one worker before the user function's own gRPC method."""
    program = installed("nginx")
    echo, port = await start_echo(stage)
    folder, front = stage.folder.resolve(), free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, front=front, back=port))
    nginx = await stage.start("nginx", [program, "-p", str(folder), "-e", "stderr", "-c", str(config)])
    await answering(front)
    result = await load(stage, front, "direct", setting, proxy=nginx, user_function=echo)
    await check_echo(echo)
    return result


async def relay_envoy(setting: Setting, stage: Stage) -> Figures:
    """Envoy with one thread before the user function's own gRPC method."""
    echo, port = await start_echo(stage)
    envoy, front = await start_envoy(stage, port)
    result = await load(stage, front, "direct", setting, proxy=envoy, user_function=echo)
    await check_echo(echo)
    return result


MEASUREMENTS: dict[str, Measurement] = {
    "direct": direct,
    "relay_grpc_aio": relay_grpc_aio,
    "relay_nghttpx": relay_nghttpx,
    "relay_nginx": relay_nginx,
    "relay_envoy": relay_envoy,
}

"""HTTP/JSON: a cart is read over kept-alive connections of HTTP/1.1, through the proxy and through Envoy's transcoder.

The proxy has a user function behind it, Envoy a plain gRPC server; both give always the same cart, and cost alike. The
requests are the same, from h2load, and each has to be answered with the same JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from stateside.bench import works
from stateside.bench.processes import Process, Stage, free_port
from stateside.bench.usage import cpu_seconds, with_children

CONNECTIONS = 64
CART = b'{"items":[{"productId":"tea","name":"Tea","quantity":2}]}'
SERVICE = "com.example.shoppingcart.ShoppingCart"
MOST_REQUESTS = 50_000


async def cart_json(setting: works.Setting, stage: Stage) -> works.Figures:
    user_function = await stage.python("stateside.bench.fixed_cart")
    port = (await user_function.json())["port"]
    proxy, proxy_port = await works.start_proxy(stage, port, "memory:")
    return await read_carts(setting, stage, proxy, proxy_port)


async def cart_envoy(setting: works.Setting, stage: Stage) -> works.Figures:
    """One thread of Envoy."""
    program = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if program is None:
        raise works.MeasurementFailed("envoy is missing; scripts/setup-bench installs it")
    descriptors = stage.folder / "cart.binpb"
    server = await stage.python("stateside.bench.anchors.cart_server", descriptors)
    port, back = free_port(), (await server.json())["port"]
    config = stage.folder / "envoy.json"
    config.write_text(json.dumps(envoy_config(port, back, descriptors)))
    options = ["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]
    envoy = await stage.start("envoy", [program, "-c", str(config), *options])
    await works.answering(port)
    return await read_carts(setting, stage, envoy, port)


async def read_carts(setting: works.Setting, stage: Stage, proxy: Process, port: int) -> works.Figures:
    if shutil.which("h2load") is None:
        raise works.MeasurementFailed("h2load is missing; scripts/setup-bench installs it")
    said = await ask(port, b"GET /carts/" + users()[0].encode())
    if CART not in said:
        raise works.MeasurementFailed(f"the answer was {said[-200:]!r}")
    urls = stage.folder / "urls"
    urls.write_text("".join(f"http://127.0.0.1:{port}/carts/{user}\n" for user in users()))
    count = min(MOST_REQUESTS, setting.file_requests // 4)
    pids = with_children(proxy.pid)
    before = sum(map(cpu_seconds, pids))
    command = ["h2load", "--h1", "-n", str(count), "-c", str(CONNECTIONS), "-t", "1"]
    h2load = await stage.start("h2load", [*command, "-i", str(urls)])
    text = "\n".join(await works.output(h2load))
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", text)
    if rate is None or f"{count} succeeded" not in text or f"{count} 2xx" not in text:
        raise works.MeasurementFailed(f"h2load did not get {count} answers: {text[-500:]}")
    return {"calls_per_s": float(rate[1]), "proxy_cpu_us": (sum(map(cpu_seconds, pids)) - before) / count * 1e6}


def users() -> list[str]:
    return [f"user-{number}" for number in range(works.CART_ENTITIES)]


async def ask(port: int, first: bytes) -> bytes:
    """One request on a connection of its own; all that is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"%b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % first)
    answer = await asyncio.wait_for(reader.read(), works.SAMPLE_SECONDS * 50)
    writer.close()
    return answer


def envoy_config(port: int, back: int, descriptors: Path) -> dict[str, Any]:
    """As its documentation shows a transcoder, with all fields printed as the proxy does."""
    extensions = "type.googleapis.com/envoy.extensions"
    transcoder = {
        "@type": f"{extensions}.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(descriptors),
        "services": [SERVICE],
        "print_options": {"always_print_primitive_fields": True},
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "carts"}}
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP1",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": transcoder},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{extensions}.filters.http.router.v3.Router"},
            },
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    options = {
        "@type": f"{extensions}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    cluster = {
        "name": "carts",
        "type": "STATIC",
        "typed_extension_protocol_options": {f"{extensions[20:]}.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {
            "cluster_name": "carts",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(back)}}]}],
        },
    }
    listener = {"address": address(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


WORKS: dict[str, dict[str, works.Measurement]] = {"http": {"cart_json": cart_json, "cart_envoy": cart_envoy}}

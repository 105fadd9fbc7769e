"""HTTP/JSON: a cart is read over kept-alive connections of HTTP/1.1, through the proxy and through Envoy's transcoder.

The proxy has a user function behind it, Envoy a plain gRPC server; both give always the same cart, and cost alike. The
requests are the same, from h2load, and each has to be answered with the same JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from stateside.bench.envoy import start_envoy, transcoder_filter
from stateside.bench.h2load import h2load
from stateside.bench.processes import Process, Stage
from stateside.bench.works import (
    CART_ENTITIES,
    SAMPLE_SECONDS,
    Figures,
    Measurement,
    MeasurementFailed,
    Setting,
    start_proxy,
)

CONNECTIONS = 64
CART = b'{"items":[{"productId":"tea","name":"Tea","quantity":2}]}'
SERVICE = "com.example.shoppingcart.ShoppingCart"
MOST_REQUESTS = 50_000
ANSWER_TIMEOUT = 50 * SAMPLE_SECONDS


async def cart_json(setting: Setting, stage: Stage) -> Figures:
    return await through_proxy(setting, stage, {})


async def through_proxy(
    setting: Setting, stage: Stage, variables: Mapping[str, str], connections: int = CONNECTIONS
) -> Figures:
    user_function = await stage.python("stateside.bench.fixed_cart")
    port = (await user_function.json())["port"]
    proxy, proxy_port = await start_proxy(stage, port, "memory:", variables)
    return await read_carts(setting, stage, proxy, user_function, proxy_port, connections)


async def cart_envoy(setting: Setting, stage: Stage) -> Figures:
    """One thread of Envoy."""
    descriptors = stage.folder / "cart.binpb"
    server = await stage.python("stateside.bench.anchors.cart_server", descriptors)
    back = (await server.json())["port"]
    envoy, port = await start_envoy(stage, back, transcoder_filter(SERVICE, descriptors))
    return await read_carts(setting, stage, envoy, server, port)


async def read_carts(
    setting: Setting, stage: Stage, proxy: Process, back: Process, port: int, connections: int = CONNECTIONS
) -> Figures:
    said = await ask(port, b"GET /carts/" + users()[0].encode())
    if CART not in said:
        raise MeasurementFailed(f"the answer was {said[-200:]!r}")
    urls = stage.folder / "urls"
    urls.write_text("".join(f"http://127.0.0.1:{port}/carts/{user}\n" for user in users()))
    count = min(MOST_REQUESTS, setting.file_requests // 6)
    return await h2load(stage, ["--h1", "-c", connections, "-i", urls], count, proxy=proxy, user_function=back)


def users() -> list[str]:
    return [f"user-{number}" for number in range(CART_ENTITIES)]


async def ask(port: int, first: bytes) -> bytes:
    """One request on a connection of its own; all that is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"%b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % first)
    answer = await asyncio.wait_for(reader.read(), ANSWER_TIMEOUT)
    writer.close()
    return answer


MEASUREMENTS: dict[str, Measurement] = {"cart_json": cart_json, "cart_envoy": cart_envoy}

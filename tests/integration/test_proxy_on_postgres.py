"""A proxy whose only store is Postgres: the cart and the value cart through kills of either."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from examples.shopping_cart.entity import ShoppingCart
from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from examples.value_cart.entity import ValueCart
from examples.value_cart.protos.valuecart import shoppingcart_pb2 as value_shop
from stateside.support import Stateside
from tests.helpers.postgres import PostgresServer

from .harness import Client, ProxyProcess

CART = "/com.example.shoppingcart.ShoppingCart"
VALUE_CART = "/com.example.valueentity.shoppingcart.ShoppingCart"


class Shop:
    """Two carts behind a proxy on a Postgres of its own."""

    def __init__(self, folder: Path) -> None:
        self.app = Stateside(ShoppingCart, ValueCart, name="carts")
        self.server = PostgresServer()
        self.folder = folder

    async def start(self) -> Shop:
        self.server.start()
        port = await self.app.start("127.0.0.1", 0)
        settings = {"journal": self.server.dsn, "postgres_write_timeout": "500ms", "passivation_timeout": "100ms"}
        self.proxy = ProxyProcess(port, self.folder, **settings)
        await self.open()
        return self

    async def open(self) -> None:
        await self.proxy.start()
        self.client = Client(self.proxy.port)

    async def stop(self) -> None:
        await self.client.close()
        await self.proxy.stop()
        await self.app.stop(0)
        self.server.remove()

    async def call(self, path: str, request: Any, reply_class: Any) -> Any:
        return reply_class.FromString(await self.client.call(path, request.SerializeToString()))

    async def add(self, user: str, product: str) -> None:
        item = shop.AddLineItem(user_id=user, product_id=product, name=product, quantity=1)
        await self.call(f"{CART}/AddItem", item, Empty)

    async def products(self, user: str) -> list[str]:
        cart = await self.call(f"{CART}/GetCart", shop.GetShoppingCart(user_id=user), shop.Cart)
        return [item.product_id for item in cart.items]


@pytest.fixture
def served(runner: asyncio.Runner, tmp_path: Path) -> Iterator[Shop]:
    served = Shop(tmp_path)
    runner.run(served.start())
    yield served
    runner.run(served.stop())


async def test_carts_survive_kill_9_of_the_proxy_and_of_the_database(served: Shop) -> None:
    await served.add("alice", "tea")
    line = value_shop.AddLineItem(user_id="bob", product_id="milk", name="Milk", quantity=2)
    await served.call(f"{VALUE_CART}/AddItem", line, value_shop.Cart)
    for number in range(120):  # past a snapshot
        await served.add("alice", f"product-{number}")
    await served.client.close()
    await served.proxy.kill()
    served.server.kill()
    served.server.start()
    await served.open()
    assert await served.products("alice") == ["tea", *(f"product-{number}" for number in range(120))]
    cart = await served.call(f"{VALUE_CART}/GetCart", value_shop.GetShoppingCart(user_id="bob"), value_shop.Cart)
    assert [(item.product_id, item.quantity) for item in cart.items] == [("milk", 2)]


async def test_while_the_database_is_gone_commands_are_unavailable_and_then_go_on(served: Shop) -> None:
    await served.add("alice", "tea")
    served.server.kill()
    with pytest.raises(grpc.RpcError) as caught:
        await served.add("alice", "milk")
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    served.server.start()
    while True:
        try:
            await served.add("alice", "bread")
            break
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            await asyncio.sleep(0.05)
    assert await served.products("alice") in (["tea", "bread"], ["tea", "milk", "bread"])


async def test_a_proxy_whose_shards_another_one_has_claimed_refuses_to_write_and_stops(
    served: Shop, tmp_path: Path
) -> None:
    await served.add("alice", "tea")
    (tmp_path / "other").mkdir()
    other = ProxyProcess(served.app.port, tmp_path / "other", **{"journal": served.server.dsn})
    await other.start()
    client = Client(other.port)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            await served.add("alice", "late")
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert await served.proxy.wait_exit(10) == 75
        assert "another process has claimed the shards of this one" in served.proxy.log
        await served.client.close()
        served.client = client
        await served.add("alice", "milk")
        assert await served.products("alice") == ["tea", "milk"]
    finally:
        await client.close()
        await other.stop()

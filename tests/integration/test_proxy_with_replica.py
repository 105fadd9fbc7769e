"""A proxy with a second copy of its journal in Postgres: carts through the loss of the folder, and of the database."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from examples.value_cart.protos.valuecart import shoppingcart_pb2 as value_shop

from .harness import eventually
from .test_proxy_on_postgres import VALUE_CART, Shop


DOCS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


class ReplicatedShop(Shop):
    """Two carts behind a proxy that copies its journal to a Postgres of its own."""

    async def begin(self, mode: str) -> None:
        self.proxy.settings |= {
            "journal": f"lmdb:{self.folder / 'journal'}",
            "journal_replica": self.server.dsn,
            "journal_replica_mode": mode,
            "postgres_write_timeout": "2s",
        }
        await self.open()

    async def figure(self, name: str) -> float:
        _, text = await self.proxy.admin(f"/metrics?name[]={name}")
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    async def caught_up(self) -> None:
        async def there() -> bool:
            connected = await self.figure("stateside_replica_connected") == 1
            return connected and await self.figure("stateside_replica_records_behind") == 0

        await eventually(there, "nothing is behind")

    async def start(self) -> Shop:
        self.open = self._not_yet  # type: ignore[method-assign]
        await super().start()
        del self.open  # type: ignore[method-assign]
        return self

    async def _not_yet(self) -> None:
        """The mode has to be known first."""


@pytest.fixture
def replicated(runner: asyncio.Runner, tmp_path: Path) -> Iterator[ReplicatedShop]:
    served = ReplicatedShop(tmp_path)
    runner.run(served.start())
    yield served
    runner.run(served.stop())


async def test_a_proxy_starts_from_postgres_after_the_folder_is_gone(replicated: ReplicatedShop) -> None:
    await replicated.begin("async")
    line = value_shop.AddLineItem(user_id="bob", product_id="milk", name="Milk", quantity=2)
    await replicated.call(f"{VALUE_CART}/AddItem", line, value_shop.Cart)
    for number in range(120):  # past a snapshot
        await replicated.add("alice", f"product-{number}")
    await replicated.caught_up()
    await replicated.client.close()
    await replicated.proxy.stop()
    shutil.rmtree(replicated.folder / "journal")
    replicated.proxy.settings |= {"journal": replicated.server.dsn, "journal_replica": ""}
    await replicated.open()
    assert await replicated.products("alice") == [f"product-{number}" for number in range(120)]
    cart = await replicated.call(f"{VALUE_CART}/GetCart", value_shop.GetShoppingCart(user_id="bob"), value_shop.Cart)
    assert [(item.product_id, item.quantity) for item in cart.items] == [("milk", 2)]
    await replicated.add("alice", "goes-on")


async def test_without_postgres_an_asynchronous_copy_is_behind_and_catches_up(replicated: ReplicatedShop) -> None:
    await replicated.begin("async")
    await replicated.add("alice", "tea")
    await replicated.caught_up()
    replicated.server.kill()
    await replicated.add("alice", "milk")

    async def behind() -> bool:
        return await replicated.figure("stateside_replica_records_behind") > 0

    await eventually(behind, "the copy is behind")
    assert await replicated.products("alice") == ["tea", "milk"]
    replicated.server.start()
    await replicated.caught_up()
    _, text = await replicated.proxy.admin("/metrics")
    offered = set(re.findall(r"^# TYPE (stateside_replica_\S+) ", text, re.MULTILINE))
    assert offered == set(re.findall(r"`(stateside_replica_[a-z_]+)`", DOCS.read_text()))


async def test_without_postgres_a_synchronous_copy_makes_writes_unavailable(replicated: ReplicatedShop) -> None:
    await replicated.begin("sync")
    await replicated.add("alice", "tea")
    replicated.server.kill()
    with pytest.raises(grpc.RpcError) as caught:
        await replicated.add("alice", "milk")
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert (await replicated.products("alice"))[0] == "tea", "reads go on"

    async def not_ready() -> bool:
        return (await replicated.proxy.admin("/ready"))[0] == 503

    await eventually(not_ready, "not ready without Postgres")
    replicated.server.start()
    while True:
        try:
            await replicated.add("bob", "bread")
            break
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            await asyncio.sleep(0.05)
    assert await replicated.products("alice") in (["tea"], ["tea", "milk"])
    assert await replicated.products("bob") == ["bread"]

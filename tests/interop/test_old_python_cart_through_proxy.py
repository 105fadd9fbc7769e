"""The whole chain once more, with a user function on the old Python support library (docs/compatibility.md, "User
functions in the wild"): it has ten threads, one for each open stream, takes no snapshots, and makes a list of what it
fails with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import grpc.aio
import pytest
import uvloop

from .entity_stream import EntityStream
from .node_cart import SERVICE, CartClient, CartMessages
from .old_python_cart import PERSISTENCE_ID, PROXY_SETTINGS, STREAMS, OldPythonCart
from .shop import Proxy, Shop, lines

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def open_shop(old_python_cart: OldPythonCart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    messages = CartMessages(uvloop.run(old_python_cart.discover()).proto)
    proxy = Proxy(old_python_cart, tmp_path_factory.mktemp("proxy"), **PROXY_SETTINGS)
    yield Shop(old_python_cart, proxy, messages)
    proxy.close()


@pytest.fixture
def shop(open_shop: Shop) -> Shop:
    """User function and proxy, which the test may kill; the next test finds both running."""
    open_shop.open()
    return open_shop


@pytest.fixture
def user(request: pytest.FixtureRequest) -> str:
    """A user whom no other test knows."""
    return str(request.node.name)


# The library alone


def test_it_names_no_version_of_the_protocol(old_python_cart: OldPythonCart) -> None:
    spec = uvloop.run(old_python_cart.discover())
    (entity,) = spec.entities
    assert (entity.service_name, entity.persistence_id) == (SERVICE, PERSISTENCE_ID)
    assert spec.service_info.support_library_name == "cloudstate-python-support"
    assert (spec.service_info.protocol_major_version, spec.service_info.protocol_minor_version) == (0, 0)


def test_an_init_with_a_snapshot_breaks_its_stream(old_python_cart: OldPythonCart) -> None:
    async def scenario() -> None:
        async with grpc.aio.insecure_channel(old_python_cart.target) as channel:
            stream = EntityStream(channel)
            cart = {"type_url": "type.googleapis.com/com.example.shoppingcart.persistence.Cart"}
            snapshot = {"snapshot_sequence": 5, "snapshot": cart}
            await stream.send(init={"service_name": SERVICE, "entity_id": "user", "snapshot": snapshot})
            with pytest.raises(grpc.aio.AioRpcError) as broken:
                await stream.rest()
            assert broken.value.code() is grpc.StatusCode.UNKNOWN

    uvloop.run(scenario())


# Purchases


def test_a_client_reads_back_what_it_bought(shop: Shop, user: str) -> None:
    async def scenario(client: CartClient) -> None:
        assert await client.get_cart(user) == []
        await client.add_item(user, "apple", "Apple", 2)
        await client.add_item(user, "pear", "Pear", 1)
        await client.add_item(user, "apple", "Apple of another name", 3)
        assert await client.get_cart(user) == [("apple", "Apple", 5), ("pear", "Pear", 1)]
        await client.remove_item(user, "apple")
        assert await client.get_cart(user) == [("pear", "Pear", 1)]

    shop.visit(scenario)


def test_more_carts_than_threads_take_turns(shop: Shop, user: str) -> None:
    async def scenario(client: CartClient) -> None:
        users = [f"{user} {number}" for number in range(4 * STREAMS)]
        await asyncio.gather(*(client.add_item(name, "apple", name, 1) for name in users))
        carts = await asyncio.gather(*(client.get_cart(name) for name in users))
        assert carts == [[("apple", name, 1)] for name in users]

    shop.visit(scenario)


# Failures


def test_the_text_of_a_failure_is_the_list_that_the_library_makes_of_it(shop: Shop, user: str) -> None:
    async def scenario(client: CartClient) -> None:
        await client.remove_item(user, "pear")

    assert shop.failure_of(scenario) == (grpc.StatusCode.UNKNOWN, "['Item pear not in cart']")


def test_a_failed_command_leaves_the_cart_as_it_was(shop: Shop, user: str) -> None:
    async def scenario(client: CartClient) -> None:
        await client.add_item(user, "apple", "Apple", -1)

    shop.add_items(user, range(1, 4))
    expected = (grpc.StatusCode.UNKNOWN, "['Cannot add negative quantity to item apple']")
    assert shop.failure_of(scenario) == expected
    assert shop.cart_of(user) == lines(range(1, 4))


# Processes that die


def test_carts_survive_kill_9_of_the_proxy(shop: Shop, user: str) -> None:
    shop.add_items(user, range(1, 4))
    shop.proxy.restart()
    assert shop.cart_of(user) == lines(range(1, 4))
    shop.add_items(user, range(4, 5))
    assert shop.cart_of(user) == lines(range(1, 5))


def test_carts_survive_kill_9_of_the_user_function(shop: Shop, user: str) -> None:
    shop.add_items(user, range(1, 4))
    shop.cart.restart()
    assert shop.cart_of(user, patience_s=20) == lines(range(1, 4))
    shop.add_items(user, range(4, 5))
    assert shop.cart_of(user) == lines(range(1, 5))


def test_carts_survive_kill_9_of_both(shop: Shop, user: str) -> None:
    shop.add_items(user, range(1, 4))
    shop.proxy.kill()
    shop.cart.restart()
    shop.proxy.start()
    shop.proxy.wait_until_serving()
    assert shop.cart_of(user) == lines(range(1, 4))


# The protocol version


def test_with_the_compatibility_check_the_library_is_refused_and_told_so(
    old_python_cart: OldPythonCart, tmp_path_factory: pytest.TempPathFactory
) -> None:
    strict = {"STATESIDE_PROTOCOL_COMPATIBILITY_CHECK": "true"}
    proxy = Proxy(old_python_cart, tmp_path_factory.mktemp("strict"), **PROXY_SETTINGS, **strict)
    proxy.start()
    try:
        told = old_python_cart.wait_for_output(r"message: (.*)")[1]
        assert "0.0" in told
        assert "0.2" in told
        assert proxy.alive
        assert "Stateside serves" not in proxy.output
    finally:
        proxy.close()

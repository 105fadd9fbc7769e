"""The whole chain: a gRPC client, our proxy as a process with a durable journal, a user function on a foreign library.

How that user function behaves by itself is in test_node_library.py. Here it is only a shopping cart: what is bought
stays bought, whichever process is killed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from .node_cart import DESCRIPTOR_SET, SNAPSHOT_EVERY, CartClient, CartMessages, NodeCart
from .shop import Proxy, Shop, lines

pytestmark = pytest.mark.interop


def replayed(cart: NodeCart, user_id: str) -> tuple[list[int], list[int]]:
    """Sequences of the snapshots and of the events that the user function got before its first reply."""
    log = rf"\[{re.escape(user_id)}\]"
    cart.wait_for_output(rf"{log} \(\d+\) - Command reply")
    snapshot = rf"{log} - Handling snapshot with type '\S+\.persistence\.Cart' at sequence (\d+)"
    event = rf"{log} - Received event (\d+) with type '\S+\.persistence\.ItemAdded'"
    snapshots, events = (re.findall(pattern, cart.output) for pattern in (snapshot, event))
    return [int(sequence) for sequence in snapshots], [int(sequence) for sequence in events]


def node_shop(cart: NodeCart, proxy: Proxy) -> Shop:
    return Shop(cart, proxy, CartMessages(DESCRIPTOR_SET.read_bytes()))


@pytest.fixture(scope="module")
def open_shop(node_cart: NodeCart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    proxy = Proxy(node_cart, tmp_path_factory.mktemp("proxy"))
    yield node_shop(node_cart, proxy)
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


def test_carts_of_different_users_are_different_entities(shop: Shop, user: str) -> None:
    async def scenario(client: CartClient) -> None:
        users = [f"{user} {number}" for number in range(100)]
        await asyncio.gather(*(client.add_item(name, "apple", name, 1) for name in users))
        carts = await asyncio.gather(*(client.get_cart(name) for name in users))
        assert carts == [[("apple", name, 1)] for name in users]

    shop.visit(scenario)


def test_commands_in_flight_for_one_cart_are_all_carried_out(shop: Shop, user: str) -> None:
    async def scenario(client: CartClient) -> None:
        await asyncio.gather(*(client.add_item(user, "apple", "Apple", 1) for _ in range(100)))
        assert await client.get_cart(user) == [("apple", "Apple", 100)]

    shop.visit(scenario)
    shop.proxy.restart()
    assert shop.cart_of(user) == [("apple", "Apple", 100)]


# Failures


def test_the_text_of_a_failed_command_reaches_the_client_verbatim(shop: Shop, user: str) -> None:
    async def scenario(client: CartClient) -> None:
        await client.remove_item(user, "käse 100% & mehr")

    assert shop.failure_of(scenario) == (grpc.StatusCode.UNKNOWN, "Item käse 100% & mehr not in cart")


def test_a_failed_command_leaves_the_cart_as_it_was(shop: Shop, user: str) -> None:
    async def scenario(client: CartClient) -> None:
        await client.add_item(user, "apple", "Apple", -1)

    shop.add_items(user, range(1, 4))
    expected = (grpc.StatusCode.UNKNOWN, "Cannot add negative quantity to item apple")
    assert shop.failure_of(scenario) == expected
    assert shop.cart_of(user) == lines(range(1, 4))
    shop.proxy.restart()
    assert shop.cart_of(user) == lines(range(1, 4))


# Processes that die


def test_carts_survive_kill_9_of_the_proxy(shop: Shop, user: str) -> None:
    shop.add_items(user, range(1, 4))
    shop.add_items(f"{user} too", range(7, 10))
    shop.proxy.restart()
    assert shop.cart_of(user) == lines(range(1, 4))
    assert shop.cart_of(f"{user} too") == lines(range(7, 10))
    shop.add_items(user, range(4, 5))
    assert shop.cart_of(user) == lines(range(1, 5))


def test_carts_survive_kill_9_of_the_user_function(shop: Shop, user: str) -> None:
    shop.add_items(user, range(1, 4))
    shop.cart.restart()
    assert shop.cart_of(user) == lines(range(1, 4))
    shop.add_items(user, range(4, 5))
    assert shop.cart_of(user) == lines(range(1, 5))


def test_carts_survive_kill_9_of_both(shop: Shop, user: str) -> None:
    shop.add_items(user, range(1, 4))
    shop.proxy.kill()
    shop.cart.restart()
    shop.proxy.start()
    shop.proxy.wait_until_serving()
    assert shop.cart_of(user) == lines(range(1, 4))


def test_without_its_user_function_the_proxy_answers_unavailable_and_recovers(shop: Shop, user: str) -> None:
    async def scenario(client: CartClient) -> None:
        await client.get_cart(user)

    shop.add_items(user, range(1, 4))
    shop.cart.kill()
    status, _ = shop.failure_of(scenario)
    assert status is grpc.StatusCode.UNAVAILABLE
    shop.cart.start()
    assert shop.cart_of(user, patience_s=20) == lines(range(1, 4))


def test_the_proxy_may_be_started_before_its_user_function(new_node_cart: NodeCart, tmp_path: Path, user: str) -> None:
    new_node_cart.kill()
    proxy = Proxy(new_node_cart, tmp_path)
    proxy.start()
    try:
        new_node_cart.start()
        proxy.wait_until_serving()
        shop = node_shop(new_node_cart, proxy)
        shop.add_items(user, range(1, 3))
        assert shop.cart_of(user) == lines(range(1, 3))
    finally:
        proxy.close()


# Snapshots, as the user function tells of them on its output


def test_fifteen_items_come_back_from_the_third_snapshot_alone(shop: Shop, node_cart: NodeCart, user: str) -> None:
    count = 3 * SNAPSHOT_EVERY
    shop.add_items(user, range(1, count + 1))
    shop.cart.restart()
    assert shop.cart_of(user) == lines(range(1, count + 1))
    assert replayed(node_cart, user) == ([count], [])


def test_events_behind_the_last_snapshot_are_replayed_on_top_of_it(shop: Shop, node_cart: NodeCart, user: str) -> None:
    shop.add_items(user, range(1, 8))
    shop.cart.restart()
    shop.proxy.restart()
    assert shop.cart_of(user) == lines(range(1, 8))
    assert replayed(node_cart, user) == ([5], [6, 7])


def test_before_the_first_snapshot_all_events_are_replayed(shop: Shop, node_cart: NodeCart, user: str) -> None:
    shop.add_items(user, range(1, SNAPSHOT_EVERY))
    shop.cart.restart()
    assert shop.cart_of(user) == lines(range(1, SNAPSHOT_EVERY))
    assert replayed(node_cart, user) == ([], list(range(1, SNAPSHOT_EVERY)))


def test_the_sequence_goes_on_behind_a_snapshot_and_a_restart(shop: Shop, node_cart: NodeCart, user: str) -> None:
    """The user function counts from what it was given: its second snapshot proves that sequences were right."""
    shop.add_items(user, range(1, 8))
    shop.cart.restart()
    shop.add_items(user, range(8, 11))
    shop.cart.restart()
    assert shop.cart_of(user) == lines(range(1, 11))
    assert replayed(node_cart, user) == ([10], [])


# The protocol version


def test_with_the_compatibility_check_the_library_is_refused_and_told_so(
    new_node_cart: NodeCart, tmp_path: Path
) -> None:
    proxy = Proxy(new_node_cart, tmp_path, STATESIDE_PROTOCOL_COMPATIBILITY_CHECK="true")
    proxy.start()
    try:
        told = new_node_cart.wait_for_output(r"Error reported from sidecar: (.*)")[1]
        assert "0.0" in told
        assert "0.2" in told
        assert proxy.alive
        assert "Stateside serves" not in proxy.output
    finally:
        proxy.close()

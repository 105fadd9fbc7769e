"""The shopping cart over HTTP/JSON: the annotated methods of a real user function on our support library."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from examples.shopping_cart.entity import ShoppingCart
from stateside.support import Stateside

from .harness import ProxyProcess
from .http_client import JSON, Answer, HttpConnection
from .loop import asyncio
from .user_function import a_key

LINE = '{"productId": "p", "name": "Näh", "quantity": 2}'


@pytest.fixture(scope="module")
def port(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    app = Stateside(ShoppingCart)
    proxy = ProxyProcess(runner.run(app.start("127.0.0.1", 0)), tmp_path_factory.mktemp("cart"), journal="memory:")
    runner.run(proxy.start())
    yield proxy.port
    runner.run(proxy.stop())
    runner.run(app.stop(0))


async def add(http: HttpConnection, user: str, body: str = LINE, content_type: str = JSON, query: str = "") -> Answer:
    return await http.ask("POST", f"/cart/{user}/items/add{query}", body, content_type=content_type)


async def test_5_to_8_items_are_added_to_the_cart_of_the_path(port: int) -> None:
    async with HttpConnection(port) as http:
        for body in (
            LINE,
            LINE.replace("productId", "product_id"),
            LINE.replace("{", '{"userId": "evil", '),
            LINE.replace("2", '"2"'),
        ):
            user = a_key()
            answer = await add(http, user, body, query="?quantity=9")
            assert (answer.status, answer.headers["content-type"], answer.text) == (200, JSON, "{}")
            cart = await http.ask("GET", f"/carts/{user}")
            assert cart.text == '{"items":[{"productId":"p","name":"Näh","quantity":2}]}'


async def test_18_items_are_removed_without_a_body(port: int) -> None:
    user = a_key()
    async with HttpConnection(port) as http:
        assert (await add(http, user)).status == 200
        assert (await http.ask("POST", f"/cart/{user}/items/p/remove")).text == "{}"
        assert (await http.ask("GET", f"/carts/{user}")).text == '{"items":[]}'


async def test_20_to_22_the_items_alone(port: int) -> None:
    user = a_key()
    async with HttpConnection(port) as http:
        assert (await http.ask("GET", f"/carts/{user}")).text == '{"items":[]}'
        assert (await http.ask("GET", f"/carts/{user}/items")).text == "[]"
        await add(http, user)
        items = await http.ask("GET", f"/carts/{user}/items")
        assert items.text == '[{"productId":"p","name":"Näh","quantity":2}]'


async def test_head_is_a_get_without_its_body(port: int) -> None:
    user = a_key()
    async with HttpConnection(port) as http:
        answer = await http.ask("HEAD", f"/carts/{user}")
        assert (answer.status, answer.headers["content-length"], answer.text) == (200, "12", "")
        assert (await http.ask("GET", f"/carts/{user}")).status == 200


@pytest.mark.parametrize("user", ["a%20b", "a%2Fb", "%C3%A9", "a+b", "a%3Ab"])
async def test_keys_in_paths_are_decoded(port: int, user: str) -> None:
    async with HttpConnection(port) as http:
        assert (await add(http, user)).status == 200
        assert len((await http.ask("GET", f"/carts/{user}")).json["items"]) == 1


async def test_a_rejected_command_is_its_text(port: int) -> None:
    async with HttpConnection(port) as http:
        answer = await http.ask("POST", f"/cart/{a_key()}/items/none/remove")
        assert answer.status == 500 and "none" in answer.text
        assert not answer.text.startswith("{")


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/carts/", 400),  # the entity key is empty
        ("GET", "/carts/u1/", 404),
        ("GET", "/Carts/u1", 404),
        ("GET", "/carts/a:b", 404),
        ("GET", "/carts/%zz", 400),
        ("GET", "/carts/u1?nope=1", 400),
        ("DELETE", "/carts/u1", 405),
        ("POST", "/com.example.shoppingcart.ShoppingCart/GetCart", 404),
    ],
)
async def test_what_does_not_fit(port: int, verb: str, path: str, status: int) -> None:
    async with HttpConnection(port) as http:
        assert (await http.ask(verb, path)).status == status

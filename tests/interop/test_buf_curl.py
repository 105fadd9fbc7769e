"""`buf curl`, a client of gRPC and gRPC-web for the shell, against a real proxy.

buf asks reflection in the protocol of the call, waiting for each answer before it asks on; over gRPC-web a request is
read as a whole before it is answered, so there it takes its schema from a file.
"""

from __future__ import annotations

import json

import pytest

from .web_shop import CART, DELIVERIES, FOLDER, WebShop, run

pytestmark = pytest.mark.interop

BUF = [str(FOLDER / "node_modules" / ".bin" / "buf"), "curl"]
GRPC = ["--protocol", "grpc", "--http2-prior-knowledge"]


def curl(url: str, method: str, message: dict[str, object], *options: str, ok: bool = True) -> str:
    return run([*BUF, *options, "-d", json.dumps(message), f"{url}/{method}"], ok)


def documents(text: str) -> list[object]:
    """The JSON documents that stand one after the other in a text."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


@pytest.mark.parametrize("reflection", ["grpc-v1", "grpc-v1alpha"])
def test_a_schema_from_reflection_is_enough_for_grpc(web_shop: WebShop, user: str, reflection: str) -> None:
    options = [*GRPC, "--reflect-protocol", reflection]
    item = {"userId": user, "productId": "tea", "name": "Tea", "quantity": 2}
    assert documents(curl(web_shop.url, f"{CART}/AddItem", item, *options)) == [{}]
    (cart,) = documents(curl(web_shop.url, f"{CART}/GetCart", {"userId": user}, *options))
    assert cart == {"items": [{"productId": "tea", "name": "Tea", "quantity": 2}]}
    places = documents(curl(web_shop.url, f"{DELIVERIES}/Track", {"orderId": "7", "places": 2}, *options))
    assert places == [{"place": "7 at 1", "number": 1}, {"place": "7 at 2", "number": 2}]


def test_services_and_methods_are_listed(web_shop: WebShop) -> None:
    methods = run([*BUF, *GRPC, "--list-methods", web_shop.url]).split()
    assert {f"{CART}/AddItem", f"{CART}/GetCart", f"{DELIVERIES}/Track"} <= set(methods)


def test_grpc_over_tls_with_reflection(web_shop: WebShop, user: str) -> None:
    options = ["--protocol", "grpc", "--cacert", str(web_shop.authority.certificate)]
    assert documents(curl(web_shop.secure_url, f"{CART}/GetCart", {"userId": user}, *options)) == [{}]


@pytest.mark.parametrize("http", ["1.1", "2", "tls"])
def test_grpc_web(web_shop: WebShop, user: str, http: str) -> None:
    options = ["--protocol", "grpcweb", "--schema", str(web_shop.descriptors)]
    options += {"1.1": [], "2": ["--http2-prior-knowledge"], "tls": ["--cacert", str(web_shop.authority.certificate)]}[
        http
    ]
    url = web_shop.secure_url if http == "tls" else web_shop.url
    item = {"userId": user, "productId": "tea", "name": "Tea", "quantity": 2}
    assert documents(curl(url, f"{CART}/AddItem", item, *options)) == [{}]
    said = curl(url, f"{CART}/AddItem", item | {"quantity": -1}, *options, ok=False)
    assert documents(said) == [{"code": "unknown", "message": "Cannot add negative quantity to item tea"}]
    (cart,) = documents(curl(url, f"{CART}/GetCart", {"userId": user}, *options))
    assert cart == {"items": [{"productId": "tea", "name": "Tea", "quantity": 2}]}

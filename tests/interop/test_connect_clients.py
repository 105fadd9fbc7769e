"""@connectrpc/connect-node, a gRPC and gRPC-web client that shares no code with ours, against a real proxy."""

from __future__ import annotations

from typing import Any

import pytest

from .web_shop import CART, DELIVERIES, WebShop

pytestmark = pytest.mark.interop

# protocol, version of HTTP, whether over TLS, whether messages are compressed
WAYS = [
    ("grpc", "2", False, False),
    ("grpc", "2", True, True),
    ("grpc-web", "1.1", False, False),
    ("grpc-web", "1.1", True, True),
    ("grpc-web", "2", False, True),
    ("grpc-web", "2", True, False),
]


@pytest.fixture(params=WAYS, ids=lambda way: "-".join((way[0], way[1], "tls" * way[2], "gzip" * way[3])).strip("-"))
def way(request: pytest.FixtureRequest, web_shop: WebShop) -> dict[str, Any]:
    protocol, http, is_secure, gzip = request.param
    place = {"url": web_shop.secure_url, "ca": str(web_shop.authority.certificate)} if is_secure else {}
    return {"protocol": protocol, "http": http, "gzip": gzip, **place}


def of_cart(method: str, **message: Any) -> dict[str, Any]:
    return {"service": CART, "method": method, "messages": [message]}


def of_deliveries(method: str, *messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"service": DELIVERIES, "method": method, "messages": messages, **more}


def test_a_cart_is_filled_and_read_and_a_bad_command_refused(web_shop: WebShop, way: dict[str, Any], user: str) -> None:
    calls = [
        of_cart("AddItem", userId=user, productId="tea", name="Grüner Tee", quantity=2),
        of_cart("AddItem", userId=user, productId="tea", name="Grüner Tee", quantity=-1),
        of_cart("RemoveItem", userId=user, productId="käse 100%"),
        of_cart("GetCart", userId=user),
    ]
    added, refused, missing, read = web_shop.node("connect.mjs", calls=calls, **way)
    assert (added["code"], added["messages"]) == ("ok", [{}])
    assert (refused["code"], refused["error"]) == ("Unknown", "Cannot add negative quantity to item tea")
    assert (missing["code"], missing["error"]) == ("Unknown", "Item käse 100% not in cart")
    assert read["messages"] == [{"items": [{"productId": "tea", "name": "Grüner Tee", "quantity": 2}]}]


def test_a_stream_of_replies_ends_well_or_with_its_failure(web_shop: WebShop, way: dict[str, Any]) -> None:
    calls = [of_deliveries("Track", {"orderId": "7", "places": 300}), of_deliveries("Track", {"orderId": "8"})]
    well, badly = web_shop.node("connect.mjs", calls=calls, **way)
    assert (well["code"], [message["number"] for message in well["messages"]]) == ("ok", list(range(1, 301)))
    assert (badly["code"], badly["error"], len(badly["messages"])) == ("Unknown", "lost on the way", 1)


def test_a_stream_of_requests_with_a_deadline_far_off(web_shop: WebShop, way: dict[str, Any]) -> None:
    call = of_deliveries("Load", {"grams": 1}, {"grams": 20}, {"grams": 300}, timeout=20_000)
    (loaded,) = web_shop.node("connect.mjs", calls=[call], **way)
    assert (loaded["code"], loaded["messages"]) == ("ok", [{"parcels": 3, "grams": "321"}])

"""grpc-web, the client that browsers use, on an XMLHttpRequest for Node, against a real proxy."""

from __future__ import annotations

from typing import Any

import pytest

from .web_shop import CART, DELIVERIES, WebShop

pytestmark = pytest.mark.interop

UNKNOWN, UNIMPLEMENTED = 2, 12


def of_cart(method: str, **message: Any) -> dict[str, Any]:
    return {"service": CART, "method": method, "messages": [message]}


@pytest.mark.parametrize("format", ["text", "binary"])
def test_a_cart_is_filled_and_read_and_a_bad_command_refused(web_shop: WebShop, user: str, format: str) -> None:
    calls = [
        of_cart("AddItem", userId=user, productId="tea", name="Grüner Tee", quantity=2),
        of_cart("RemoveItem", userId=user, productId="käse 100%"),
        of_cart("GetCart", userId=user),
    ]
    added, missing, read = web_shop.node("grpc-web.mjs", calls=calls, format=format)
    assert (added["code"], added["messages"]) == (0, [{}])
    assert (missing["code"], missing["error"]) == (UNKNOWN, "Item käse 100% not in cart")
    assert read["messages"] == [{"items": [{"productId": "tea", "name": "Grüner Tee", "quantity": 2}]}]


def test_a_stream_of_replies_ends_well_or_with_its_failure(web_shop: WebShop) -> None:
    track = {"service": DELIVERIES, "method": "Track"}
    calls = [
        {**track, "messages": [{"orderId": "7", "places": 300}]},
        {**track, "messages": [{"orderId": "8"}]},
    ]
    well, badly = web_shop.node("grpc-web.mjs", calls=calls, format="text")
    assert (well["code"], [message["number"] for message in well["messages"]]) == (0, list(range(1, 301)))
    assert (badly["code"], badly["error"], len(badly["messages"])) == (UNKNOWN, "lost on the way", 1)

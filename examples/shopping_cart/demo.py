"""`make demo`: a purchase, a kill -9 of the proxy, a restart, and the same cart again.

Starts a user function and a proxy of its own, on free ports, with the journal in ./data/demo. Exit code 1 if the cart
changed.
"""

from __future__ import annotations

import sys
import time

import uvloop

from examples.shopping_cart.client import CartClient
from examples.shopping_cart.stack import Child, port_of, proxy, user_function

BASKET = [("tea", "Green tea", 2), ("cup", "Porcelain cup", 4), ("tea", "Green tea", 1)]
SETTINGS = {
    "STATESIDE_JOURNAL": "lmdb:./data/demo",
    "STATESIDE_ADMIN_PORT": "0",
    "STATESIDE_METRICS_ENABLED": "false",
    "STATESIDE_LOG_LEVEL": "warning",
    "STATESIDE_LOG_FORMAT": "console",
}

Cart = list[tuple[str, str, int]]


def main() -> int:
    user = f"customer-{time.time_ns()}"  # a new cart each time: the journal of earlier runs is still there
    function = user_function(0)
    function_port = port_of(function.start())
    sidecar = proxy(0, function_port, SETTINGS)
    try:
        before = uvloop.run(purchase(port_of(sidecar.start()), user))
        show("The cart before", before)
        sidecar.kill()
        print("kill -9 of the proxy ... and a new one")
        after = uvloop.run(look(port_of(sidecar.start()), user))
        show("The cart after", after)
    finally:
        stop(sidecar, function)
    print("the same cart" if before == after else "THE CART CHANGED")
    return 0 if before == after else 1


async def purchase(port: int, user: str) -> Cart:
    """Fill a cart and read it back."""
    async with await CartClient.connect("127.0.0.1", port) as client:
        for product, name, quantity in BASKET:
            await client.add_item(user, product, name, quantity)
        return await client.get_cart(user)


async def look(port: int, user: str) -> Cart:
    async with await CartClient.connect("127.0.0.1", port) as client:
        return await client.get_cart(user)


def show(title: str, cart: Cart) -> None:
    print(title)
    for product, name, quantity in cart:
        print(f"  {quantity:3d} x {name} ({product})")


def stop(*children: Child) -> None:
    for child in children:
        child.stop()


if __name__ == "__main__":
    sys.exit(main())

"""The user function behind the tests with other people's clients: `python -m tests.interop.web_function`.

The shopping cart of the examples, and an action with methods that stream.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from examples.shopping_cart.entity import ShoppingCart
from stateside.support import Action, ActionContext, Hooks, Stateside, command
from tests.protos.web import deliveries_pb2 as deliveries


@Action(service=deliveries.DESCRIPTOR.services_by_name["Deliveries"])
class Deliveries:
    @command
    async def track(self, order: deliveries.Order, ctx: ActionContext) -> AsyncIterator[deliveries.Position]:
        for number in range(1, max(order.places, 1) + 1):
            yield deliveries.Position(place=f"{order.order_id} at {number}", number=number)
        if not order.places:
            ctx.fail("lost on the way")

    @command
    async def load(self, parcels: AsyncIterator[deliveries.Parcel]) -> deliveries.Manifest:
        manifest = deliveries.Manifest()
        async for parcel in parcels:
            manifest.parcels += 1
            manifest.grams += parcel.grams
        return manifest


class Ready(Hooks):
    def started(self, address: str) -> None:
        print(f"listening on port {address.rpartition(':')[2]}", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    Stateside(ShoppingCart, Deliveries(), name="web", hooks=Ready()).run()

"""A whole stateful service: a shopping cart per user. Run it beside a proxy with `python -m examples.readme_sample`."""

from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from stateside.support import EventSourced, EventSourcedContext, Stateside, command, event


@EventSourced(service=shop.DESCRIPTOR.services_by_name["ShoppingCart"], persistence_id="shopping-cart")
class ShoppingCart:
    def __init__(self) -> None:
        self.items: dict[str, int] = {}

    @command
    def add_item(self, request: shop.AddLineItem, ctx: EventSourcedContext) -> None:
        if request.quantity <= 0:
            ctx.fail("Quantity must be positive")
        ctx.emit(shop.LineItem(product_id=request.product_id, quantity=request.quantity))

    @command
    def get_cart(self) -> shop.Cart:
        return shop.Cart(items=[shop.LineItem(product_id=p, quantity=q) for p, q in self.items.items()])

    @event
    def item_added(self, item: shop.LineItem) -> None:
        self.items[item.product_id] = self.items.get(item.product_id, 0) + item.quantity


if __name__ == "__main__":
    Stateside(ShoppingCart).run()

"""A shopping cart per user, kept as the events that filled it."""

from google.protobuf.empty_pb2 import Empty

from stateside.support import EventSourced, EventSourcedContext, command, event, snapshot, snapshot_handler

from .protos.shoppingcart import shoppingcart_pb2 as shop
from .protos.shoppingcart.persistence import domain_pb2 as domain

SERVICE = shop.DESCRIPTOR.services_by_name["ShoppingCart"]


@EventSourced(service=SERVICE, persistence_id="shopping-cart", snapshot_every=100)
class ShoppingCart:
    def __init__(self) -> None:
        self.items: dict[str, domain.LineItem] = {}

    @command
    def add_item(self, request: shop.AddLineItem, ctx: EventSourcedContext) -> Empty:
        if request.quantity <= 0:
            ctx.fail(f"Cannot add negative quantity to item {request.product_id}")
        item = domain.LineItem(productId=request.product_id, name=request.name, quantity=request.quantity)
        ctx.emit(domain.ItemAdded(item=item))
        return Empty()

    @command
    def remove_item(self, request: shop.RemoveLineItem, ctx: EventSourcedContext) -> Empty:
        if request.product_id not in self.items:
            ctx.fail(f"Item {request.product_id} not in cart")
        ctx.emit(domain.ItemRemoved(productId=request.product_id))
        return Empty()

    @command
    def get_cart(self, request: shop.GetShoppingCart) -> shop.Cart:
        items = self.items.values()
        return shop.Cart(items=[shop.LineItem(product_id=i.productId, name=i.name, quantity=i.quantity) for i in items])

    @event
    def item_added(self, event: domain.ItemAdded) -> None:
        held = self.items.get(event.item.productId)
        if held is None:
            self.items[event.item.productId] = event.item
        else:
            held.quantity += event.item.quantity

    @event
    def item_removed(self, event: domain.ItemRemoved) -> None:
        del self.items[event.productId]

    @snapshot
    def cart(self) -> domain.Cart:
        return domain.Cart(items=self.items.values())

    @snapshot_handler
    def load(self, cart: domain.Cart) -> None:
        self.items = {item.productId: item for item in cart.items}

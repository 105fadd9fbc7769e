"""A shopping cart, event sourced, on the old Python support library as its authors published it (cloudstate 0.1.1).

A user function that owes nothing to this project. It listens on HOST and PORT, as the library reads them. Parameters
are found by their annotations, so each handler takes only what it needs. There is no snapshot: an entity of this
library that is begun with one breaks its stream.
"""

from cloudstate.cloudstate import CloudState
from cloudstate.event_sourced_context import EventSourcedCommandContext
from cloudstate.event_sourced_entity import EventSourcedEntity
from google.protobuf.empty_pb2 import Empty
from shoppingcart import shoppingcart_pb2 as shop
from shoppingcart.persistence import domain_pb2 as domain

cart = EventSourcedEntity(
    shop.DESCRIPTOR.services_by_name["ShoppingCart"],
    [shop.DESCRIPTOR, domain.DESCRIPTOR],
    lambda user_id: domain.Cart(),
    persistence_id="old-python-cart",
)


@cart.command_handler("AddItem")
def add_item(command: shop.AddLineItem, context: EventSourcedCommandContext):
    if command.quantity > 0:
        item = domain.LineItem(productId=command.product_id, name=command.name, quantity=command.quantity)
        context.emit(domain.ItemAdded(item=item))
    else:
        context.fail(f"Cannot add negative quantity to item {command.product_id}")
    return Empty()


@cart.command_handler("RemoveItem")
def remove_item(state: domain.Cart, command: shop.RemoveLineItem, context: EventSourcedCommandContext):
    if any(item.productId == command.product_id for item in state.items):
        context.emit(domain.ItemRemoved(productId=command.product_id))
    else:
        context.fail(f"Item {command.product_id} not in cart")
    return Empty()


@cart.command_handler("GetCart")
def get_cart(state: domain.Cart):
    lines = [shop.LineItem(product_id=item.productId, name=item.name, quantity=item.quantity) for item in state.items]
    return shop.Cart(items=lines)


@cart.event_handler(domain.ItemAdded)
def item_added(state: domain.Cart, event: domain.ItemAdded):
    for item in state.items:
        if item.productId == event.item.productId:
            item.quantity += event.item.quantity
            return state
    state.items.append(event.item)
    return state


@cart.event_handler(domain.ItemRemoved)
def item_removed(state: domain.Cart, event: domain.ItemRemoved):
    return domain.Cart(items=[item for item in state.items if item.productId != event.productId])


if __name__ == "__main__":
    CloudState().register_event_sourced_entity(cart).start()

"""A shopping cart per user, kept as one value: the cart as it is now."""

from google.protobuf.empty_pb2 import Empty

from stateside.support import ValueEntity, ValueEntityContext, command

from .protos.valuecart import domain_pb2 as domain
from .protos.valuecart import shoppingcart_pb2 as shop

SERVICE = shop.DESCRIPTOR.services_by_name["ShoppingCart"]
Context = ValueEntityContext[domain.Cart]


@ValueEntity(service=SERVICE, persistence_id="value-cart")
class ValueCart:
    @command
    def add_item(self, request: shop.AddLineItem, ctx: Context) -> Empty:
        if request.quantity <= 0:
            ctx.fail(f"Cannot add negative quantity of to item {request.product_id}")
        lines = lines_of(ctx)
        held = lines.get(request.product_id)
        if held is None:
            held = lines[request.product_id] = domain.LineItem(productId=request.product_id, name=request.name)
        held.quantity += request.quantity
        store(ctx, lines)
        return Empty()

    @command
    def remove_item(self, request: shop.RemoveLineItem, ctx: Context) -> Empty:
        lines = lines_of(ctx)
        if lines.pop(request.product_id, None) is None:
            ctx.fail(f"Cannot remove item {request.product_id} because it is not in the cart.")
        store(ctx, lines)
        return Empty()

    @command
    def get_cart(self, ctx: Context) -> shop.Cart:
        lines = lines_of(ctx).values()
        return shop.Cart(items=[shop.LineItem(product_id=i.productId, name=i.name, quantity=i.quantity) for i in lines])

    @command
    def remove_cart(self, ctx: Context) -> Empty:
        ctx.delete()
        return Empty()


def lines_of(ctx: Context) -> dict[str, domain.LineItem]:
    """The cart's lines by product; none where no cart is stored."""
    return {line.productId: line for line in ctx.state.items} if ctx.state else {}


def store(ctx: Context, lines: dict[str, domain.LineItem]) -> None:
    """Keep the lines, sorted by product."""
    ctx.update(domain.Cart(items=[lines[product] for product in sorted(lines)]))

"""What the load generator sends, and what the echo user function says about itself.

A work's requests are made before it begins: `(path, message, expected answer)` each, as `native.Load` takes them. The
message of the Echo service has 97 bytes, like the messages of the figures that the design rests on.
"""

from functools import cache
from pathlib import Path
from typing import Any

ECHO_DESCRIPTORS = Path(__file__).parent / "echo.binpb"
ECHO_SERVICE = "bench.Echo"
CART_SERVICE = "com.example.shoppingcart.ShoppingCart"
ACTION_SERVICE = "bench.Action"
VALUE_SERVICE = "bench.Value"
COUNTER_SERVICE = "bench.Counter"
STATEFUL = [
    ("eventsourced.EventSourced", ECHO_SERVICE, "bench-echo"),
    ("eventsourced.EventSourced", "bench.Other", "bench-other"),
    ("valueentity.ValueEntity", VALUE_SERVICE, "bench-value"),
    ("crdt.Crdt", COUNTER_SERVICE, "bench-counter"),
]
ENDLESS = f"/{ACTION_SERVICE}/Endless".encode()
MESSAGE_SIZE = 97

Requests = list[tuple[bytes, bytes, bytes | None]]


def echo_spec(passivation_timeout_ms: int) -> bytes:
    """The EntitySpec of the echo user function."""
    from stateside.proto import cloudstate

    entities = [cloudstate.Entity(entity_type="cloudstate.action.ActionProtocol", service_name=ACTION_SERVICE)]
    for entity_type, service, persistence_id in STATEFUL:
        entity = cloudstate.Entity(
            entity_type=f"cloudstate.{entity_type}", service_name=service, persistence_id=persistence_id
        )
        entity.passivation_strategy.timeout.timeout = passivation_timeout_ms
        entities.append(entity)
    info = cloudstate.ServiceInfo(
        service_name="bench-echo",
        support_library_name="stateside-bench",
        protocol_major_version=0,
        protocol_minor_version=2,
    )
    spec = cloudstate.EntitySpec(proto=ECHO_DESCRIPTORS.read_bytes(), entities=entities, service_info=info)
    serialized: bytes = spec.SerializeToString()
    return serialized


def echo_requests(method: str, entities: int, service: str = ECHO_SERVICE) -> Requests:
    """One command per entity; the answer has to be the command."""
    path = f"/{service}/{method}".encode()
    messages = [echo_message(f"entity-{number:06}") for number in range(entities)]
    return [(path, message, message) for message in messages]


def echo_message(key: str) -> bytes:
    """A bench.Message of MESSAGE_SIZE bytes."""
    body = bytes(range(MESSAGE_SIZE - 4 - len(key)))
    message: bytes = message_class("bench.Message")(key=key, body=body).SerializeToString()
    return message


def cart_requests(carts: int) -> Requests:
    """For each cart in turn: one item is added, and the cart is read. Only that there is an answer can be checked."""
    from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop

    add, get = (f"/{CART_SERVICE}/{method}".encode() for method in ("AddItem", "GetCart"))
    requests: Requests = []
    for number in range(carts):
        user = f"user-{number:06}"
        item = shop.AddLineItem(user_id=user, product_id=f"product-{number % 7}", name="A thing to buy", quantity=1)
        requests.append((add, item.SerializeToString(), b""))
        requests.append((get, shop.GetShoppingCart(user_id=user).SerializeToString(), None))
    return requests


WORKS = {
    "direct": lambda entities: echo_requests("Direct", entities),
    "read": lambda entities: echo_requests("Read", entities),
    "write": lambda entities: echo_requests("Write", entities),
    "fill": lambda entities: echo_requests("Fill", entities),
    "forward": lambda entities: echo_requests("Forward", entities),
    "value": lambda entities: echo_requests("Write", entities, VALUE_SERVICE),
    "increment": lambda entities: echo_requests("Increment", entities, COUNTER_SERVICE),
    "action": lambda entities: echo_requests("Unary", entities, ACTION_SERVICE),
    "cart": cart_requests,
}


@cache
def message_class(full_name: str) -> Any:
    """A protobuf class of the Echo service, from a pool of its own."""
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(_pool().FindMessageTypeByName(full_name))


@cache
def _pool() -> Any:
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.protobuf.descriptor_pool import DescriptorPool

    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(ECHO_DESCRIPTORS.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool

"""What the load generator sends, and what the echo user function says about itself.

A mix of commands is what `generator.Generator` takes. The message of the Echo service has 97 bytes, like the messages
of the figures that the design rests on.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from stateside.bench.generator import Command

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

BODY_SIZES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)  # of the works that are named after them

KEY_FIELD = 1
KEY_PREFIX = "entity-"
KEY_DIGITS = 6
PRODUCTS = 7


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


def echo_command(method: str, service: str = ECHO_SERVICE, weight: float = 1.0) -> Command:
    """The answer has to be the command."""
    keyless = echo_message("0" * (len(KEY_PREFIX) + KEY_DIGITS))[2 + len(KEY_PREFIX) + KEY_DIGITS :]
    return Command(f"/{service}/{method}".encode(), keyless, KEY_FIELD, weight, echoes=True)


def sized_command(body_size: int) -> Command:
    """`Read` with a body of so many bytes, which comes back; the whole message has 17 to 19 bytes more."""
    keyless: bytes = message_class("bench.Message")(body=bytes(body_size)).SerializeToString()
    return Command(f"/{ECHO_SERVICE}/Read".encode(), keyless, KEY_FIELD, echoes=True)


def echo_message(key: str) -> bytes:
    """A bench.Message of MESSAGE_SIZE bytes."""
    body = bytes(range(MESSAGE_SIZE - 4 - len(key)))
    message: bytes = message_class("bench.Message")(key=key, body=body).SerializeToString()
    return message


def cart_mix() -> list[Command]:
    """Items are added and carts are read, half and half. Of a cart only that there is one can be checked."""
    from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop

    add, get = (f"/{CART_SERVICE}/{method}".encode() for method in ("AddItem", "GetCart"))
    items = [
        shop.AddLineItem(product_id=f"product-{number}", name="A thing to buy", quantity=1)
        for number in range(PRODUCTS)
    ]
    adding = [Command(add, item.SerializeToString(), KEY_FIELD, 1.0, expected=b"") for item in items]
    return [Command(get, b"", KEY_FIELD, float(PRODUCTS)), *adding]


WORKS: dict[str, Callable[[], list[Command]]] = {
    "direct": lambda: [echo_command("Direct")],
    "read": lambda: [echo_command("Read")],
    "write": lambda: [echo_command("Write")],
    "mixed": lambda: [echo_command("Read", weight=0.75), echo_command("Write", weight=0.25)],
    "fill": lambda: [echo_command("Fill")],
    "forward": lambda: [echo_command("Forward")],
    "value": lambda: [echo_command("Write", VALUE_SERVICE)],
    "increment": lambda: [echo_command("Increment", COUNTER_SERVICE)],
    "action": lambda: [echo_command("Unary", ACTION_SERVICE)],
    "cart": cart_mix,
} | {f"read_{size}": partial(lambda size: [sized_command(size)], size) for size in BODY_SIZES}


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

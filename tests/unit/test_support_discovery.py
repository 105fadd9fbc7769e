"""What discovery tells the proxy: a complete descriptor set, the service information, the options of entities."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from examples.shopping_cart.entity import ShoppingCart
from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from stateside.proto import Empty, cloudstate
from stateside.proto.status import Status
from stateside.support import EventSourced, Hooks, RegistrationError, Stateside
from stateside.support.discovery import DiscoverHandler, ReportErrorHandler, descriptor_set
from tests.protos.tck import eventsourced_pb2 as tck

CART = shop.DESCRIPTOR.services_by_name["ShoppingCart"]
TWO = tck.DESCRIPTOR.services_by_name["EventSourcedTwo"]


@EventSourced(service=TWO, passivate_after=timedelta(milliseconds=100))
class Two: ...


class Call:
    """A unary call as the transport gives it."""

    def __init__(self) -> None:
        self.answer: bytes | None = None
        self.status: tuple[int, str] | None = None

    def reply(self, message: bytes) -> None:
        self.answer = message

    def fail(self, status: int, message: str) -> None:
        self.status = (status, message)


def spec(app: Stateside) -> Any:
    return cloudstate.EntitySpec.FromString(app.entity_spec())


def files(data: bytes) -> list[Any]:
    return list(FileDescriptorSet.FromString(data).file)


def test_the_descriptor_set_has_every_import_once_and_before_its_user() -> None:
    found = files(descriptor_set([CART, TWO]))
    names = [file.name for file in found]
    assert len(set(names)) == len(names)
    for position, file in enumerate(found):
        assert set(file.dependency) <= set(names[:position])
    assert {"google/protobuf/descriptor.proto", "google/api/http.proto", "cloudstate/entity_key.proto"} <= set(names)


def test_the_descriptor_set_can_be_loaded_and_keeps_its_options() -> None:
    pool = DescriptorPool()
    for file in files(descriptor_set([CART])):
        pool.AddSerializedFile(file.SerializeToString())
    assert [method.name for method in pool.FindServiceByName(CART.full_name).methods] == [
        "AddItem",
        "RemoveItem",
        "GetCart",
    ]
    key = pool.FindMessageTypeByName("com.example.shoppingcart.AddLineItem").fields_by_name["user_id"]
    assert key.GetOptions().SerializeToString() == bytes.fromhex("c0 43 01")  # field 1080 is true


def test_two_files_of_one_name_are_refused() -> None:
    pool = DescriptorPool()
    for file in files(descriptor_set([TWO])):
        if file.name == TWO.file.name:
            file.service.add(name="Extra")
        pool.AddSerializedFile(file.SerializeToString())
    other = pool.FindServiceByName("cloudstate.tck.model.Extra")
    with pytest.raises(RegistrationError, match="Two different files are called"):
        descriptor_set([TWO, other])


def test_entities_are_described() -> None:
    entities = spec(Stateside(ShoppingCart, Two)).entities
    assert [(e.entity_type, e.service_name, e.persistence_id) for e in entities] == [
        ("cloudstate.eventsourced.EventSourced", CART.full_name, "shopping-cart"),
        ("cloudstate.eventsourced.EventSourced", TWO.full_name, "EventSourcedTwo"),
    ]
    assert not entities[0].HasField("passivation_strategy")
    assert entities[1].passivation_strategy.timeout.timeout == 100


def test_the_service_information_is_complete() -> None:
    info = spec(Stateside(ShoppingCart, name="shop", version="1.2")).service_info
    assert (info.service_name, info.service_version) == ("shop", "1.2")
    assert (info.protocol_major_version, info.protocol_minor_version) == (0, 2)
    assert info.service_runtime.startswith("CPython 3.")
    assert info.support_library_name == "stateside-python-support"
    assert info.support_library_version.count(".") == 2


def test_the_application_is_named_after_its_service_or_its_distribution() -> None:
    assert spec(Stateside(ShoppingCart)).service_info.service_name == "ShoppingCart"
    assert spec(Stateside(ShoppingCart, name="protobuf")).service_info.service_version != ""


def test_a_persistence_id_belongs_to_one_entity() -> None:
    other: type = EventSourced(service=TWO, persistence_id="shopping-cart")(type("Other", (), {}))
    with pytest.raises(
        RegistrationError, match="Other: persistence id 'shopping-cart' is already that of ShoppingCart"
    ):
        Stateside(ShoppingCart, other)


def test_nothing_registered_is_an_error() -> None:
    with pytest.raises(RegistrationError, match="No entity is registered"):
        Stateside().entity_spec()


def test_discovery_answers_every_time_and_only_logs_unsupported_types(caplog: pytest.LogCaptureFixture) -> None:
    handler = DiscoverHandler(b"spec", {"cloudstate.eventsourced.EventSourced"}, Hooks())
    for _ in range(2):
        call = Call()
        with caplog.at_level(logging.INFO, "stateside.support"):
            handler.on_request(call, cloudstate.ProxyInfo(proxy_name="p", proxy_version="1").SerializeToString())
        assert call.answer == b"spec"
    assert "discovered by proxy p 1" in caplog.text
    assert "does not support entity types: cloudstate.eventsourced.EventSourced" in caplog.text


def test_reported_errors_are_logged_as_errors(caplog: pytest.LogCaptureFixture) -> None:
    call = Call()
    message = cloudstate.UserFunctionError(message="descriptor is odd").SerializeToString()
    ReportErrorHandler(Hooks()).on_request(call, message)
    assert [(r.levelname, r.name, r.getMessage()) for r in caplog.records] == [
        ("ERROR", "stateside.support", "error reported by the proxy: descriptor is odd")
    ]
    assert call.answer == Empty().SerializeToString()


@pytest.mark.parametrize("handler", [DiscoverHandler(b"", (), Hooks()), ReportErrorHandler(Hooks())])
def test_malformed_requests_are_refused(handler: Any) -> None:
    call = Call()
    handler.on_request(call, b"\xff")
    assert call.status is not None and call.status[0] == Status.INVALID_ARGUMENT

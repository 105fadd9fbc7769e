"""What methods may consume, by the option `(cloudstate.eventing)`: every rule, with what the author is told."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from stateside.proto import cloudstate
from stateside.proxy.config import load
from stateside.proxy.eventing_spec import OPTION, ConsumerModel
from stateside.proxy.spec import ACTION, EVENT_SOURCED, VALUE_ENTITY, ServiceModel, SpecError, validate

KEY = b"\xc0\x43\x01"
ANY = ".google.protobuf.Any"


def source(event_log: str = "carts", **more: Any) -> Any:
    return cloudstate.Eventing(**{"in": {"event_log": event_log} | more})


def as_option(eventing: Any) -> bytes:
    data: bytes = eventing.SerializeToString()
    return varint(OPTION << 3 | 2) + varint(len(data)) + data


def varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80, number >> 7])  # of 14 bits


def offer(**services: dict[str, tuple[str, Any]]) -> Any:
    """Entities carts and wallets (a value), and actions: service -> method -> (input type, Eventing or None)."""
    file = FileDescriptorProto(
        name="shop.proto", package="shop", syntax="proto3", dependency=["google/protobuf/any.proto"]
    )
    for name in ("Added", "Removed"):
        field = file.message_type.add(name=name).field.add(name="id", number=1, type=9, label=1)
        field.options.MergeFromString(KEY)
    entities = [
        cloudstate.Entity(entity_type=EVENT_SOURCED, service_name="shop.Cart", persistence_id="carts"),
        cloudstate.Entity(entity_type=VALUE_ENTITY, service_name="shop.Wallet", persistence_id="wallets"),
    ]
    for service, methods in {"Cart": {"Add": (".shop.Added", None)}, "Wallet": {"Fill": (".shop.Added", None)}}.items():
        services.setdefault(service, methods)
    for service, methods in services.items():
        added = file.service.add(name=service)
        for method, (input_type, eventing) in methods.items():
            made = added.method.add(name=method, input_type=input_type, output_type=".shop.Added")
            if eventing is not None:
                made.options.MergeFromString(as_option(eventing))
        if service not in ("Cart", "Wallet"):
            entities.append(cloudstate.Entity(entity_type=ACTION, service_name=f"shop.{service}"))
    any_file = FileDescriptorProto()
    any_file.name, any_file.package, any_file.syntax = "google/protobuf/any.proto", "google.protobuf", "proto3"
    any_file.message_type.add(name="Any")
    return cloudstate.EntitySpec(
        proto=FileDescriptorSet(file=[any_file, file]).SerializeToString(),
        entities=entities,
        service_info=cloudstate.ServiceInfo(protocol_major_version=0, protocol_minor_version=2),
    )


def accepted(spec: Any) -> ServiceModel:
    return validate(spec, load())


def refused(spec: Any) -> str:
    with pytest.raises(SpecError) as caught:
        accepted(spec)
    return str(caught.value)


def test_without_the_option_nothing_is_consumed() -> None:
    assert accepted(offer(Report={"Show": (".shop.Added", None)})).consumers == ()


def test_methods_with_the_same_source_are_one_consumer_named_after_the_service() -> None:
    model = accepted(offer(Report={"OnAdded": (".shop.Added", source()), "OnRemoved": (".shop.Removed", source())}))
    methods = (("shop.Added", "OnAdded"), ("shop.Removed", "OnRemoved"))
    assert model.consumers == (ConsumerModel("shop.Report", "shop.Report", "carts", methods),)
    assert not model.warnings


def test_another_group_or_another_service_is_another_consumer() -> None:
    one, other = source(consumer_group="a"), source(consumer_group="b")
    spec = offer(Report={"One": (".shop.Added", one), "Other": (".shop.Added", other)}, Audit={"All": (ANY, source())})
    assert [(each.service_name, each.group) for each in accepted(spec).consumers] == [
        ("shop.Report", "a"),
        ("shop.Report", "b"),
        ("shop.Audit", "shop.Audit"),
    ]


def test_entities_consume_too() -> None:
    model = accepted(offer(Wallet={"Fill": (".shop.Added", source())}))
    assert [each.service_name for each in model.consumers] == ["shop.Wallet"]


@pytest.mark.parametrize(
    ("type_url", "method"),
    [
        ("type.googleapis.com/shop.Added", "OnAdded"),
        ("example.com/shop.Added", "OnAdded"),
        ("type.googleapis.com/shop.Removed", "OnAny"),
        ("json.cloudstate.io/shop.Added", "OnAny"),
        ("p.cloudstate.io/string", "OnAny"),
        ("", "OnAny"),
    ],
)
def test_the_type_of_the_event_chooses_the_method(type_url: str, method: str) -> None:
    both = accepted(offer(Report={"OnAdded": (".shop.Added", source()), "OnAny": (ANY, source())})).consumers[0]
    assert both.method_for(type_url) == method
    typed = accepted(offer(Report={"OnAdded": (".shop.Added", source())})).consumers[0]
    assert typed.method_for(type_url) == (method if method == "OnAdded" else None)


def test_two_methods_for_the_same_events_are_refused() -> None:
    text = refused(offer(Report={"One": (".shop.Added", source()), "Other": (".shop.Added", source())}))
    for word in ("One", "Other", "shop.Report", "shop.Added", '"carts"'):
        assert word in text


def test_two_services_in_one_group_are_refused() -> None:
    shared = source(consumer_group="both")
    text = refused(offer(Report={"One": (".shop.Added", shared)}, Audit={"Other": (".shop.Removed", shared)}))
    for word in ("shop.Report", "shop.Audit", '"both"', '"carts"'):
        assert word in text


def test_an_unknown_event_log_is_refused_and_the_known_ones_are_named() -> None:
    text = refused(offer(Report={"One": (".shop.Added", source("cart"))}))
    assert '"cart"' in text and "There are: carts." in text and "shop.Report.One" in text


def test_values_have_no_event_log() -> None:
    text = refused(offer(Report={"One": (".shop.Added", source("wallets"))}))
    assert "value entity" in text and '"wallets"' in text


def test_names_that_cannot_be_kept_are_refused() -> None:
    assert "too long" in refused(offer(Report={"One": (".shop.Added", source(consumer_group="g" * 470))}))


@pytest.mark.parametrize(
    ("eventing", "words"),
    [
        (cloudstate.Eventing(**{"in": {"topic": "news"}}), '"news"'),
        (cloudstate.Eventing(**{"in": {"consumer_group": "a"}}), "neither"),
        (cloudstate.Eventing(out={"topic": "news"}), "publishing"),
    ],
)
def test_what_is_not_offered_is_warned_about_and_served_without(eventing: Any, words: str) -> None:
    model = accepted(offer(Report={"One": (".shop.Added", eventing)}))
    assert model.consumers == ()
    (warning,) = model.warnings
    assert "shop.Report.One" in warning and words in warning


def test_an_option_that_is_no_eventing_is_refused() -> None:
    spec = offer(Report={"One": (".shop.Added", source())})
    content = source().SerializeToString()
    assert spec.proto.count(content) == 1
    spec.proto = spec.proto.replace(content, b"\xff" * len(content))
    text = refused(spec)  # the first only where nobody registered the option, which whoever imports it does
    assert "shop.Report.One" in text or "FileDescriptorSet" in text

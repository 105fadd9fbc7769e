"""What a user function may offer: every rule of discovery, in order, with what its author is told."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from stateside.proto import cloudstate
from stateside.proxy.config import load
from stateside.proxy.spec import (
    ACTION,
    CRDT,
    EVENT_SOURCED,
    SUPPORTED_ENTITY_TYPES,
    VALUE_ENTITY,
    ServiceModel,
    SpecError,
    proxy_info,
    validate,
)
from stateside.proxy.version import VERSION

KEY = b"\xc0\x43\x01"
SCALARS = "string int32 int64 uint32 uint64 sint32 sint64 fixed32 fixed64 sfixed32 sfixed64 bool float double"


def shop_file() -> FileDescriptorProto:
    """Package shop: Cart with AddItem and GetCart, both keyed by user_id; Stock with Count; Color as an enum."""
    file = FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    color = file.enum_type.add(name="Color")
    for name, number in (("NONE", 0), ("RED", 1), ("ROT", 1), ("BLUE", 2)):
        color.value.add(name=name, number=number)
    color.options.allow_alias = True
    line = file.message_type.add(name="Line")
    add_field(line, "user_id", 1, key=True)
    add_field(line, "quantity", 2, Field.TYPE_INT32)
    file.message_type.add(name="Nothing")
    for service, methods in {"Cart": ("AddItem", "GetCart"), "Stock": ("Count",)}.items():
        added = file.service.add(name=service)
        for method in methods:
            added.method.add(name=method, input_type=".shop.Line", output_type=".shop.Nothing")
    return file


def add_field(
    message: Any, name: str, number: int, sort: Any = Field.TYPE_STRING, key: bool = False, **more: Any
) -> None:
    field = message.field.add(name=name, number=number, type=sort, **{"label": Field.LABEL_OPTIONAL} | more)
    if key:
        field.options.MergeFromString(KEY)


def entity(service: str = "shop.Cart", state: str = "carts", sort: str = EVENT_SOURCED, **more: Any) -> Any:
    return cloudstate.Entity(entity_type=sort, service_name=service, persistence_id=state, **more)


def offer(
    *entities: Any, file: FileDescriptorProto | None = None, version: tuple[int, int] = (0, 2), **more: Any
) -> Any:
    info = cloudstate.ServiceInfo(protocol_major_version=version[0], protocol_minor_version=version[1])
    proto = FileDescriptorSet(file=[file or shop_file()]).SerializeToString()
    return cloudstate.EntitySpec(**{"proto": proto, "entities": entities, "service_info": info} | more)


def accepted(spec: Any, **settings: str) -> ServiceModel:
    return validate(spec, load(settings))


def refused(spec: Any) -> str:
    with pytest.raises(SpecError) as caught:
        accepted(spec)
    return str(caught.value)


def keyed_by(change: Callable[[Any], None], sort: str = EVENT_SOURCED) -> Any:
    """An offer of shop.Cart whose request message was changed."""
    file = shop_file()
    del file.message_type[0].field[:]
    change(file.message_type[0])
    return offer(entity(sort=sort), file=file)


def test_the_model_names_all_that_the_router_needs() -> None:
    model = accepted(offer(entity(), entity("shop.Stock", "stock")))
    assert [each.service_name for each in model.entities] == ["shop.Cart", "shop.Stock"]
    cart = model.entities[0]
    assert (cart.entity_type, cart.persistence_id, cart.passivation_timeout) == (EVENT_SOURCED, "carts", None)
    assert [method.path for method in cart.methods] == [b"/shop.Cart/AddItem", b"/shop.Cart/GetCart"]
    method = cart.methods[0]
    assert (method.name, method.input_type, method.output_type) == ("AddItem", "shop.Line", "shop.Nothing")
    assert method.input_type_url == "type.googleapis.com/shop.Line"
    assert method.output_type_url == "type.googleapis.com/shop.Nothing"
    assert (method.client_streaming, method.server_streaming) == (False, False)
    assert method.key_fields == ((1, "string"),)
    assert method.enums == {}
    assert list(model.descriptors.raw) == ["shop.proto"]
    assert model.warnings == ()


def test_a_value_entity_is_modelled_as_an_event_sourced_one_and_needs_the_journal() -> None:
    model = accepted(offer(entity(sort=VALUE_ENTITY), entity("shop.Stock", "stock")))
    assert [each.entity_type for each in model.entities] == [VALUE_ENTITY, EVENT_SOURCED]
    assert model.entities[0].methods == accepted(offer(entity())).entities[0].methods
    assert accepted(offer(entity(sort=VALUE_ENTITY))).is_stored


def test_a_crdt_may_stream_replies_but_not_requests() -> None:
    file = shop_file()
    add, get = file.service[0].method
    get.server_streaming = True
    (model,) = accepted(offer(entity(sort=CRDT), file=file)).entities
    assert [method.server_streaming for method in model.methods] == [False, True]
    add.client_streaming = True
    text = refused(offer(entity(sort=CRDT), file=file))
    assert "shop.Cart" in text and "a CRDT entity and cannot have methods with streamed requests: AddItem" in text


def test_a_crdt_without_a_persistence_id_has_the_name_of_its_service() -> None:
    model = accepted(offer(entity(sort=CRDT, state="")))
    assert model.entities[0].persistence_id == "shop.Cart"
    assert (model.is_stored, model.is_replicated) == (True, True)
    assert not accepted(offer(entity())).is_replicated


def test_a_crdt_needs_an_entity_key() -> None:
    text = refused(keyed_by(lambda message: add_field(message, "user_id", 1), sort=CRDT))
    assert "without an entity key: AddItem,GetCart" in text


def test_service_names_are_sorted_for_reflection() -> None:
    model = accepted(offer(entity("shop.Stock", "stock"), entity()))
    assert model.service_names == ("shop.Cart", "shop.Stock")


def test_a_service_without_a_package_is_found() -> None:
    file = shop_file()
    file.ClearField("package")
    for service in file.service:
        for method in service.method:
            method.input_type, method.output_type = ".Line", ".Nothing"
    assert accepted(offer(entity("Cart"), file=file)).entities[0].methods[0].path == b"/Cart/AddItem"


@pytest.mark.parametrize("version", [(0, 1), (1, 2), (0, 3)])
def test_1_another_protocol_version_is_refused(version: tuple[int, int]) -> None:
    text = refused(offer(entity(), version=version))
    assert f"{version[0]}.{version[1]}" in text
    assert "only supported version is 0.2" in text


def test_1_missing_service_info_counts_as_version_0_0() -> None:
    assert "version 0.0" in refused(offer(entity(), service_info=None))


def test_1_another_version_is_a_warning_when_the_check_is_off() -> None:
    model = accepted(offer(entity(), version=(0, 1)), protocol_compatibility_check="false")
    assert len(model.warnings) == 1
    assert "0.1" in model.warnings[0]


def test_2_a_proto_that_does_not_decode_is_refused() -> None:
    assert "not a serialized FileDescriptorSet" in refused(offer(entity(), proto=b"\xff"))


def test_3_import_cycles_are_refused() -> None:
    file = shop_file()
    file.dependency.append("shop.proto")
    assert "shop.proto -> shop.proto" in refused(offer(entity(), file=file))


def test_4_missing_imports_are_refused() -> None:
    file = shop_file()
    file.dependency.append("google/protobuf/any.proto")
    assert "shop.proto -> google/protobuf/any.proto" in refused(offer(entity(), file=file))


def test_5_descriptors_that_do_not_link_are_refused() -> None:
    file = shop_file()
    file.service[0].method[0].input_type = ".shop.Missing"
    assert ".shop.Missing" in refused(offer(entity(), file=file))


def test_6_no_entity_is_refused() -> None:
    assert "no entity" in refused(offer())


@pytest.mark.parametrize(
    "name", ["shop.Cars", "Cart", "shop.Line", "other.Cart", "", "shop.", ".shop.Cart", "shop.Cart.AddItem"]
)
def test_7_a_service_that_is_not_defined_is_refused(name: str) -> None:
    assert f'"{name}"' in refused(offer(entity(name)))


@pytest.mark.parametrize("sort", ["cloudstate.crdt.CRDT", "x", ""])
def test_8_an_entity_type_that_is_not_supported_is_refused(sort: str) -> None:
    text = refused(offer(entity(sort=sort)))
    assert '"shop.Cart"' in text
    assert f'"{sort}"' in text
    assert f"Supported types: {','.join(SUPPORTED_ENTITY_TYPES)}." in text


@pytest.mark.parametrize(
    ("sort", "title"), [(EVENT_SOURCED, "an event sourced entity"), (VALUE_ENTITY, "a value entity")]
)
def test_9_streamed_methods_are_refused_naming_all_of_them(sort: str, title: str) -> None:
    file = shop_file()
    file.service[0].method[0].client_streaming = True
    file.service[0].method[1].server_streaming = True
    text = refused(offer(entity(sort=sort), file=file))
    assert f'"shop.Cart" is {title}' in text
    assert "AddItem,GetCart" in text


@pytest.mark.parametrize("sort", [EVENT_SOURCED, VALUE_ENTITY])
def test_11_methods_without_a_key_are_refused_naming_all_of_them(sort: str) -> None:
    text = refused(keyed_by(lambda message: add_field(message, "user_id", 1), sort))
    assert '"shop.Cart"' in text
    assert "AddItem,GetCart" in text
    assert "entity_key" in text


def test_the_first_broken_rule_wins() -> None:
    file = shop_file()
    file.service[0].method[0].client_streaming = True
    assert "version" in refused(offer(file=file, version=(9, 9)))
    assert "no entity" in refused(offer(file=file))
    assert "not defined" in refused(offer(entity("shop.X", sort="x"), file=file))
    assert "does not support" in refused(offer(entity(sort="x"), file=file))
    assert "streamed" in refused(offer(entity(), file=file))


def test_rules_hold_for_every_entity_not_only_the_first() -> None:
    file = shop_file()
    file.service[1].method[0].server_streaming = True
    assert '"shop.Stock"' in refused(offer(entity(), entity("shop.Stock", "stock"), file=file))


def test_one_service_offered_twice_is_refused() -> None:
    assert '"shop.Cart" is offered by two entities' in refused(offer(entity(), entity(state="other")))


def test_an_empty_persistence_id_is_refused() -> None:
    assert "empty persistence_id" in refused(offer(entity(state="")))


def test_a_persistence_id_with_the_separator_is_refused() -> None:
    text = refused(offer(entity(state="a|b")))
    assert '"a|b"' in text
    assert "reserved" in text


@pytest.mark.parametrize("sort", [EVENT_SOURCED, VALUE_ENTITY])
def test_two_entities_with_one_persistence_id_are_refused(sort: str) -> None:
    text = refused(offer(entity(state="same"), entity("shop.Stock", "same", sort=sort)))
    assert all(word in text for word in ('"shop.Cart"', '"shop.Stock"', '"same"'))


@pytest.mark.parametrize(
    ("sort", "more", "words"),
    [
        (Field.TYPE_BYTES, {}, "it is bytes"),
        (Field.TYPE_MESSAGE, {"type_name": ".shop.Nothing"}, "it is a message"),
        (Field.TYPE_STRING, {"label": Field.LABEL_REPEATED}, "it is repeated"),
    ],
)
def test_keys_that_have_no_stable_text_are_refused(sort: Any, more: dict[str, Any], words: str) -> None:
    text = refused(keyed_by(lambda message: add_field(message, "user_id", 1, sort, key=True, **more)))
    assert words in text
    assert '"user_id" of "shop.Line"' in text


@pytest.mark.parametrize("sort", SCALARS.split())
def test_all_other_scalars_may_be_keys(sort: str) -> None:
    number = Field.Type.Value(f"TYPE_{sort.upper()}")
    model = accepted(keyed_by(lambda message: add_field(message, "k", 7, number, key=True)))
    assert model.entities[0].methods[0].key_fields == ((7, sort),)


def test_an_enum_key_brings_the_names_of_its_values_the_first_of_aliases() -> None:
    model = accepted(
        keyed_by(lambda message: add_field(message, "k", 3, Field.TYPE_ENUM, key=True, type_name=".shop.Color"))
    )
    method = model.entities[0].methods[0]
    assert method.key_fields == ((3, "enum"),)
    assert method.enums == {3: {0: "NONE", 1: "RED", 2: "BLUE"}}


def test_several_keys_stand_in_order_of_declaration() -> None:
    def two_keys(message: Any) -> None:
        add_field(message, "b", 9, key=True)
        add_field(message, "a", 1, Field.TYPE_INT64, key=True)

    assert accepted(keyed_by(two_keys)).entities[0].methods[0].key_fields == ((9, "string"), (1, "int64"))


def test_12_an_action_may_stream_and_needs_neither_key_nor_persistence_id() -> None:
    file = shop_file()
    file.service[0].method[0].client_streaming = True
    file.service[0].method[1].server_streaming = True
    file.message_type[0].ClearField("field")
    model = accepted(offer(entity(state="", sort=ACTION), entity("shop.Stock", "", sort=ACTION), file=file))
    add, get = model.entities[0].methods
    assert (add.client_streaming, add.server_streaming) == (True, False)
    assert (get.client_streaming, get.server_streaming) == (False, True)
    assert not model.is_stored


def test_12_what_marks_keys_and_state_means_nothing_for_an_action() -> None:
    file = shop_file()
    add_field(file.message_type[0], "raw", 3, Field.TYPE_BYTES, key=True)
    spec = offer(entity("shop.Cart", "a|b", sort=ACTION), entity("shop.Stock", "a|b", sort=ACTION), file=file)
    assert [method.key_fields for method in accepted(spec).entities[0].methods] == [(), ()]


def test_an_action_may_have_the_persistence_id_of_an_entity() -> None:
    model = accepted(offer(entity("shop.Stock", "carts", sort=ACTION), entity()))
    assert model.is_stored


def test_an_action_offered_twice_is_refused() -> None:
    assert '"shop.Cart"' in refused(offer(entity(sort=ACTION), entity(sort=ACTION)))


def passivating(timeout_ms: int) -> Any:
    timeout = cloudstate.TimeoutPassivationStrategy(timeout=timeout_ms)
    return offer(entity(passivation_strategy=cloudstate.EntityPassivationStrategy(timeout=timeout)))


@pytest.mark.parametrize(("timeout_ms", "seconds"), [(100, 0.1), (30_000, 30.0), (0, None)])
def test_the_passivation_timeout_of_an_entity_is_kept(timeout_ms: int, seconds: float | None) -> None:
    assert accepted(passivating(timeout_ms)).entities[0].passivation_timeout == seconds


def test_a_strategy_without_a_timeout_is_the_default() -> None:
    spec = offer(entity(passivation_strategy=cloudstate.EntityPassivationStrategy()))
    assert accepted(spec).entities[0].passivation_timeout is None


def test_a_negative_passivation_timeout_is_refused() -> None:
    assert "-5 ms" in refused(passivating(-5))


def test_proxy_info_says_what_is_supported() -> None:
    info = proxy_info()
    assert (info.protocol_major_version, info.protocol_minor_version) == (0, 2)
    assert (info.proxy_name, info.proxy_version) == ("stateside", VERSION)
    kinds = {EVENT_SOURCED, VALUE_ENTITY, CRDT, ACTION}
    assert kinds <= set(info.supported_entity_types) == set(SUPPORTED_ENTITY_TYPES)


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION

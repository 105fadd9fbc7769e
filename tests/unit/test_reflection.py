"""Server reflection: v1alpha as the reference proxy answers it, v1 as its standard says."""

from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from stateside import proto
from stateside.proto.status import Status
from stateside.proxy import descriptors
from stateside.proxy.reflection import V1, V1ALPHA, Catalog, Reflection, handlers
from stateside.proxy.spec import EVENT_SOURCED, EntityModel, ServiceModel


def shop_files() -> list[FileDescriptorProto]:
    base = FileDescriptorProto(name="base.proto", package="base", syntax="proto2")
    base.message_type.add(name="Open").extension_range.add(start=100, end=200)
    shop = FileDescriptorProto(name="shop.proto", package="shop", syntax="proto2", dependency=["base.proto"])
    outer = shop.message_type.add(name="Outer")
    outer.nested_type.add(name="Inner")
    outer.enum_type.add(name="Shade").value.add(name="DARK", number=0)
    shop.enum_type.add(name="Color").value.add(name="RED", number=0)
    for number in (120, 101):
        shop.extension.add(
            name=f"mark_{number}", number=number, extendee=".base.Open", label=1, type=FieldDescriptorProto.TYPE_INT32
        )
    cart = shop.service.add(name="Cart")
    cart.method.add(name="Add", input_type=".shop.Outer", output_type=".shop.Outer")
    shop.service.add(name="Hidden")
    top = FileDescriptorProto(name="top.proto", package="top", syntax="proto3", dependency=["shop.proto"])
    top.message_type.add(name="Top")
    return [base, shop, top]


def model() -> ServiceModel:
    built = descriptors.build(FileDescriptorSet(file=shop_files()).SerializeToString())
    entities = tuple(
        EntityModel(EVENT_SOURCED, name, name, None, ()) for name in ("shop.Zebra", "shop.Cart", "other.Thing")
    )
    return ServiceModel(entities, built)


def ask(version: str, **question: Any) -> Any:
    messages: Any = proto.reflection_v1alpha if version == V1ALPHA else proto.reflection
    if "file_containing_extension" in question:
        containing_type, number = question["file_containing_extension"]
        extension = messages.ExtensionRequest(containing_type=containing_type, extension_number=number)
        question["file_containing_extension"] = extension
    request = messages.ServerReflectionRequest(host="me", **question)
    answer = messages.ServerReflectionResponse.FromString(
        Reflection(Catalog(model()), version).answer(request.SerializeToString())
    )
    assert answer.valid_host == "me"
    assert answer.original_request == request
    return answer


def file_names(answer: Any) -> list[str]:
    assert answer.WhichOneof("message_response") == "file_descriptor_response"
    files = answer.file_descriptor_response.file_descriptor_proto
    return [FileDescriptorProto.FromString(file).name for file in files]


@pytest.mark.parametrize("version", [V1ALPHA, V1])
@pytest.mark.parametrize("argument", ["", "nonsense.blabla."])
def test_services_are_the_reflection_service_then_the_entities_sorted_and_nothing_besides(
    version: str, argument: str
) -> None:
    services = ask(version, list_services=argument).list_services_response.service
    assert [service.name for service in services] == [version, "other.Thing", "shop.Cart", "shop.Zebra"]


SYMBOLS = [
    ("shop.Outer", "shop.proto"),
    ("shop.Outer.Inner", "shop.proto"),
    ("shop.Outer.Shade", "shop.proto"),
    ("shop.Color", "shop.proto"),
    ("shop.Cart", "shop.proto"),
    ("shop.Cart.Add", "shop.proto"),
    ("shop.mark_101", "shop.proto"),
    ("base.Open", "base.proto"),
    (V1ALPHA, "grpc/reflection/v1alpha/reflection.proto"),
    (V1 + ".ServerReflectionInfo", "grpc/reflection/v1/reflection.proto"),
    ("grpc.health.v1.Health", "grpc/health/v1/health.proto"),
]


@pytest.mark.parametrize("version", [V1ALPHA, V1])
@pytest.mark.parametrize(("symbol", "file"), SYMBOLS)
def test_symbols_are_found_nested_ones_too(version: str, symbol: str, file: str) -> None:
    assert file_names(ask(version, file_containing_symbol=symbol))[0] == file


def test_v1alpha_gives_each_file_alone_and_v1_with_all_its_imports() -> None:
    assert file_names(ask(V1ALPHA, file_by_filename="top.proto")) == ["top.proto"]
    assert file_names(ask(V1, file_by_filename="top.proto")) == ["top.proto", "shop.proto", "base.proto"]


def test_files_are_given_as_the_user_function_sent_them() -> None:
    answer = ask(V1ALPHA, file_by_filename="shop.proto")
    assert FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0]) == shop_files()[1]


UNKNOWN = [
    {"file_containing_symbol": "nonsense.blabla.Void"},
    {"file_containing_symbol": ""},
    {"file_containing_symbol": "shop.Outer.nothing"},
    {"file_containing_symbol": "cloudstate.EntitySpec"},
    {"file_by_filename": "no.proto"},
    {"file_by_filename": "cloudstate/entity.proto"},
    {"file_containing_extension": ("base.Open", 199)},
    {"file_containing_extension": ("no.Message", 1)},
]


@pytest.mark.parametrize("question", UNKNOWN)
def test_v1alpha_answers_what_is_unknown_with_an_empty_file_response(question: dict[str, Any]) -> None:
    assert file_names(ask(V1ALPHA, **question)) == []


@pytest.mark.parametrize("question", [*UNKNOWN, {"all_extension_numbers_of_type": "no.Message"}])
def test_v1_answers_what_is_unknown_with_not_found(question: dict[str, Any]) -> None:
    error = ask(V1, **question).error_response
    assert error.error_code == Status.NOT_FOUND
    assert error.error_message


@pytest.mark.parametrize("version", [V1ALPHA, V1])
def test_extensions_are_found_by_type_and_number(version: str) -> None:
    assert file_names(ask(version, file_containing_extension=("base.Open", 101)))[0] == "shop.proto"
    numbers = ask(version, all_extension_numbers_of_type="base.Open").all_extension_numbers_response
    assert (numbers.base_type_name, list(numbers.extension_number)) == ("base.Open", [101, 120])


def test_v1alpha_answers_extensions_of_an_unknown_type_with_no_numbers() -> None:
    numbers = ask(V1ALPHA, all_extension_numbers_of_type="no.Message").all_extension_numbers_response
    assert (numbers.base_type_name, list(numbers.extension_number)) == ("no.Message", [])


@pytest.mark.parametrize("version", [V1ALPHA, V1])
def test_a_request_that_asks_nothing_is_told_so(version: str) -> None:
    assert ask(version).error_response.error_code == Status.INVALID_ARGUMENT


class FakeCall:
    """A call that notes what is done to it. `room` = messages it takes before it is full."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.log: list[Any] = []

    def send(self, message: bytes) -> bool:
        self.room -= 1
        self.log.append("send")
        return self.room > 0

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.log.append((name, *args) if args else name)


def question() -> bytes:
    message: bytes = proto.reflection.ServerReflectionRequest(list_services="").SerializeToString()
    return message


def test_both_versions_have_a_path() -> None:
    assert set(handlers(model())) == {f"/{version}/ServerReflectionInfo".encode() for version in (V1ALPHA, V1)}


def test_a_stream_has_an_answer_for_each_request_and_ends_with_its_client() -> None:
    handler, call = handlers(model())[f"/{V1}/ServerReflectionInfo".encode()], FakeCall()
    for _ in range(3):
        handler.on_message(call, question())  # type: ignore[arg-type]
    handler.on_half_close(call)  # type: ignore[arg-type]
    assert call.log == ["send", "send", "send", "finish"]


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    handler, call = handlers(model())[f"/{V1}/ServerReflectionInfo".encode()], FakeCall(room=1)
    handler.on_message(call, question())  # type: ignore[arg-type]
    handler.on_drain(call)  # type: ignore[arg-type]
    assert call.log == ["send", "pause", "resume"]


def test_a_message_that_is_no_request_fails_the_call() -> None:
    handler, call = handlers(model())[f"/{V1}/ServerReflectionInfo".encode()], FakeCall()
    handler.on_message(call, b"\xff")  # type: ignore[arg-type]
    assert call.log[0][:2] == ("fail", Status.INVALID_ARGUMENT)

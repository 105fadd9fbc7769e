"""The message classes of the protocol, and what is generated from .proto files."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_tools import protoc

from stateside import proto
from stateside.proto import action, cloudstate, crdt, eventsourced, health, reflection, reflection_v1alpha, valueentity

ROOT = Path(__file__).parents[2]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_protos", ROOT / "scripts" / "generate_protos.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_files_are_what_the_script_generates() -> None:
    script = generator()
    assert [str(path) for path, content in script.generate().items() if not script.is_current(path, content)] == []


def test_packages_hold_their_messages_and_enums() -> None:
    assert cloudstate.ProxyInfo.DESCRIPTOR.full_name == "cloudstate.ProxyInfo"
    assert valueentity.ValueEntityStreamIn().WhichOneof("message") is None
    assert action.ActionCommand.DESCRIPTOR.fields_by_name["service_name"].number == 2
    assert crdt.CrdtWriteConsistency.MAJORITY == 1
    assert health.HealthCheckResponse.NOT_SERVING == 2
    assert reflection.ServerReflectionRequest.DESCRIPTOR.full_name.startswith("grpc.reflection.v1.")
    assert reflection_v1alpha.ErrorResponse(error_code=5).error_code == 5
    with pytest.raises(AttributeError, match="cloudstate has no message or enum Nonsense"):
        _ = cloudstate.Nonsense


def test_rpc_names_begin_with_a_lower_case_letter() -> None:
    methods = proto.pool().FindServiceByName("cloudstate.action.ActionProtocol").methods
    assert [method.name for method in methods] == [
        "handleUnary",
        "handleStreamedIn",
        "handleStreamedOut",
        "handleStreamed",
    ]


def test_messages_of_any_pool_are_packed_and_unpacked() -> None:
    foreign = descriptor_pb2.FileDescriptorProto(name="x.proto")
    packed = proto.pack(foreign)
    assert packed.type_url == "type.googleapis.com/google.protobuf.FileDescriptorProto"
    assert eventsourced.EventSourcedEvent(payload=packed).payload == packed
    assert proto.unpack(packed, descriptor_pb2.FileDescriptorProto) == foreign
    with pytest.raises(ValueError, match=r"FileDescriptorProto', not cloudstate\.Command"):
        proto.unpack(packed, cloudstate.Command)


def test_the_default_pool_stays_untouched() -> None:
    code = "from stateside import proto; proto.pool(); from google.protobuf import descriptor_pool as d;" + (
        "d.Default().FindFileByName('cloudstate/entity.proto')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Couldn't find file cloudstate/entity.proto" in run.stderr


def test_importing_does_not_load_protobuf() -> None:
    code = "import sys; from stateside.proto import cloudstate; print('google.protobuf' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_modules_of_the_options_are_in_the_default_pool() -> None:
    from cloudstate import entity_key_pb2, eventing_pb2, legacy_entity_key_pb2
    from shoppingcart import shoppingcart_pb2
    from shoppingcart.persistence import domain_pb2
    from tck import eventsourced_pb2

    assert entity_key_pb2.entity_key.number == 1080
    assert legacy_entity_key_pb2.legacy_entity_key.number == 50002
    assert eventing_pb2.eventing.number == 1081
    key = shoppingcart_pb2.AddLineItem.DESCRIPTOR.fields_by_name["user_id"]
    assert key.GetOptions().Extensions[entity_key_pb2.entity_key]
    assert domain_pb2.ItemAdded.DESCRIPTOR.full_name == "com.example.shoppingcart.persistence.ItemAdded"
    assert descriptor_pool.Default().FindServiceByName("cloudstate.tck.model.EventSourcedTckModel")
    assert eventsourced_pb2.Request(actions=[{"emit": {"value": "a"}}]).actions[0].emit.value == "a"


def test_options_of_a_user_function_are_read_with_the_private_pool() -> None:
    from shoppingcart import shoppingcart_pb2

    file = proto.protobuf.FileDescriptorProto.FromString(shoppingcart_pb2.DESCRIPTOR.serialized_pb)
    assert file.message_type[0].field[0].options.Extensions[proto.extension("cloudstate.entity_key")]
    get_cart = file.service[0].method[2].options.Extensions[proto.extension("google.api.http")]
    assert get_cart.additional_bindings[0].response_body == "items"


def test_protos_of_users_compile_against_the_include_folder(tmp_path: Path) -> None:
    imports = ["entity_key", "legacy_entity_key", "eventing", "entity", "event_sourced", "crdt"]
    lines = ['syntax = "proto3";', *(f'import "cloudstate/{name}.proto";' for name in imports)]
    lines.append("message M { string id = 1 [(cloudstate.entity_key) = true, (cloudstate.legacy_entity_key) = true]; }")
    (tmp_path / "user.proto").write_text("\n".join(lines))
    google = Path(protoc.__file__).parent / "_proto"
    includes = [f"-I{folder}" for folder in (tmp_path, proto.include_dir(), google)]
    assert protoc.main(["protoc", *includes, f"--python_out={tmp_path}", "user.proto"]) == 0
    assert (tmp_path / "user_pb2.py").exists()

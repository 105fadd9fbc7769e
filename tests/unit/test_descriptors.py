"""Descriptors of the user function: order, cycles, missing files, keys by raw option number, a pool of their own."""

import random

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from stateside.proxy.descriptors import SpecError, build, is_key, key_fields

KEY = b"\xc0\x43\x01"  # 1080: true
LEGACY_KEY = b"\x90\xb5\x18\x01"  # 50002: true


def a_file(name: str, *imports: str, package: str = "p") -> FileDescriptorProto:
    return FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=imports)


def a_message(file: FileDescriptorProto, name: str, *fields: tuple[str, int, bytes]) -> None:
    message = file.message_type.add(name=name)
    for field_name, number, options in fields:
        field = message.field.add(name=field_name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
        field.type = FieldDescriptorProto.TYPE_STRING
        field.options.MergeFromString(options)


def serialized(*files: FileDescriptorProto) -> bytes:
    return FileDescriptorSet(file=files).SerializeToString()


def refused(*files: FileDescriptorProto) -> str:
    with pytest.raises(SpecError) as caught:
        build(serialized(*files))
    return str(caught.value)


def test_files_may_come_in_any_order() -> None:
    files = [a_file(f"{n}.proto", *(f"{m}.proto" for m in range(n))) for n in range(12)]
    for seed in range(20):
        shuffled = random.Random(seed).sample(files, len(files))
        assert list(build(serialized(*shuffled)).raw) == [f"{n}.proto" for n in range(12)]


def test_a_long_chain_of_imports_needs_no_deep_stack() -> None:
    files = [a_file("0.proto"), *(a_file(f"{n}.proto", f"{n - 1}.proto") for n in range(1, 3000))]
    assert len(build(serialized(*reversed(files))).raw) == 3000


def test_files_that_import_each_other_are_refused_naming_the_cycle() -> None:
    text = refused(a_file("x", "a"), a_file("a", "b"), a_file("b", "c"), a_file("c", "a"))
    assert "cycle" in text
    assert "a -> b -> c -> a" in text
    assert "x ->" not in text


def test_a_file_that_imports_itself_is_a_cycle() -> None:
    assert "a -> a" in refused(a_file("a", "a"))


def test_a_missing_file_is_named_with_the_way_to_it() -> None:
    text = refused(a_file("a", "b"), a_file("b", "google/protobuf/any.proto"))
    assert '"google/protobuf/any.proto"' in text
    assert "a -> b -> google/protobuf/any.proto" in text


def test_the_same_file_twice_is_taken_once() -> None:
    assert list(build(serialized(a_file("a"), a_file("b", "a"), a_file("a"))).raw) == ["a", "b"]


def test_two_files_of_one_name_and_different_content_are_refused() -> None:
    assert 'two different files named "a"' in refused(a_file("a"), a_file("a", package="q"))


def test_what_cannot_be_linked_is_refused_naming_the_file() -> None:
    file = a_file("a.proto")
    a_message(file, "M", ("f", 1, b""))
    file.message_type[0].field[0].type = FieldDescriptorProto.TYPE_MESSAGE
    file.message_type[0].field[0].type_name = ".p.Nowhere"
    text = refused(file)
    assert '"a.proto"' in text
    assert ".p.Nowhere" in text


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05abc", b"\x0a\x02\x0a\xff"])
def test_bytes_that_are_no_descriptor_set_are_refused(data: bytes) -> None:
    with pytest.raises(SpecError, match="not a serialized FileDescriptorSet"):
        build(data)


def test_two_user_functions_may_define_the_same_names_and_the_default_pool_stays_clean() -> None:
    one, other = a_file("a.proto"), a_file("a.proto")
    a_message(one, "M", ("f", 1, b""))
    a_message(other, "M", ("g", 1, b""))
    pools = [build(serialized(file)).pool for file in (one, other)]
    assert [list(pool.FindMessageTypeByName("p.M").fields_by_name) for pool in pools] == [["f"], ["g"]]
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("p.M")


def test_keys_are_found_by_either_number_in_order_of_declaration() -> None:
    file = a_file("a.proto")
    a_message(file, "M", ("z", 9, LEGACY_KEY), ("plain", 1, b""), ("a", 3, KEY), ("false", 4, KEY[:-1] + b"\x00"))
    message = build(serialized(file)).pool.FindMessageTypeByName("p.M")
    assert [(field.name, field.number) for field in key_fields(message)] == [("z", 9), ("a", 3)]


def test_unknown_options_are_kept_and_do_not_disturb() -> None:
    file = a_file("a.proto")
    other_options = b"\xa2\x3f\x03abc\xa8\x3f\x05\xb5\x3f\x00\x00\x00\x00\xb9\x3f" + bytes(8)
    a_message(file, "M", ("f", 1, other_options + KEY), ("g", 2, other_options))
    file.options.MergeFromString(b"\xa2\x3f\x03abc")
    built = build(serialized(file))
    assert [field.name for field in key_fields(built.pool.FindMessageTypeByName("p.M"))] == ["f"]
    assert FileDescriptorProto.FromString(built.raw["a.proto"]) == file


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (b"", False),
        (KEY, True),
        (LEGACY_KEY, True),
        (KEY + KEY[:-1] + b"\x00", False),  # the last one wins
        (KEY[:-1] + b"\x00" + LEGACY_KEY, True),
        (b"\xa3\x3f" + KEY + b"\xa4\x3f", False),  # within an unknown group
        (b"\xa3\x3f\xa4\x3f" + KEY, True),
        (b"\xc0\x43\x80\x80\x01", True),
        (b"\xc2\x43\x01\x01", False),  # right number, wrong wire type
    ],
)
def test_key_options_are_read_from_raw_bytes(options: bytes, expected: bool) -> None:
    assert is_key(options) is expected

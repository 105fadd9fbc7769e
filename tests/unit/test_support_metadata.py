"""Metadata: an ordered multimap whose names know no case."""

import pytest

from stateside.proto import cloudstate
from stateside.support import Metadata

ENTRIES: list[tuple[str, str | bytes]] = [("Accept", "a"), ("x-bin", b"\x00"), ("accept", "b")]


def test_names_compare_without_case_and_keep_theirs() -> None:
    metadata = Metadata(ENTRIES)
    assert metadata.get("ACCEPT") == "a"
    assert metadata.get_all("aCCept") == ["a", "b"]
    assert list(metadata) == ENTRIES
    assert "X-BIN" in metadata
    assert metadata.get("absent") is None and "absent" not in metadata


def test_changes_return_copies() -> None:
    metadata = Metadata(ENTRIES)
    assert list(metadata.set("ACCEPT", "c")) == [("x-bin", b"\x00"), ("ACCEPT", "c")]
    assert list(metadata.add("n", b"1")) == [*ENTRIES, ("n", b"1")]
    assert list(metadata.remove("x-BIN")) == [ENTRIES[0], ENTRIES[2]]
    assert list(metadata) == ENTRIES and len(metadata) == 3


def test_it_survives_the_wire() -> None:
    metadata = Metadata([*ENTRIES, ("empty", ""), ("none", b"")])
    assert Metadata.parse(metadata.to_message().SerializeToString()) == metadata


def test_an_entry_without_value_is_empty_text() -> None:
    message = cloudstate.Metadata()
    message.entries.add(key="bare")
    assert list(Metadata.parse(message.SerializeToString())) == [("bare", "")]


def test_absent_metadata_is_empty() -> None:
    assert len(Metadata.parse(None)) == 0


def test_other_values_are_refused() -> None:
    with pytest.raises(TypeError, match="str or bytes"):
        Metadata([("n", 1)])  # type: ignore[list-item]

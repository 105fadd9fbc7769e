"""Metadata read and written as a CloudEvent."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from stateside.support import CloudEvent, Metadata

FULL = Metadata(
    [
        ("CE-SpecVersion", "1.0"),
        ("ce-id", "17"),
        ("ce-source", "/shop"),
        ("ce-type", "item.added"),
        ("content-type", "application/protobuf"),
        ("ce-dataschema", "https://example.com/schema"),
        ("ce-subject", "alice"),
        ("ce-time", "2020-01-02T03:04:05.5Z"),
        ("x-other", "kept"),
    ]
)


def test_all_attributes_are_read_without_regard_to_case() -> None:
    assert CloudEvent.of(FULL) == CloudEvent(
        id="17",
        source="/shop",
        type="item.added",
        content_type="application/protobuf",
        data_schema="https://example.com/schema",
        subject="alice",
        time=datetime(2020, 1, 2, 3, 4, 5, 500_000, UTC),
    )


@pytest.mark.parametrize("missing", ["ce-specversion", "ce-id", "ce-source", "ce-type"])
def test_without_a_required_attribute_there_is_no_event(missing: str) -> None:
    assert CloudEvent.of(FULL.remove(missing)) is None


def test_what_is_written_is_read_back_and_other_entries_stay() -> None:
    event = CloudEvent.of(FULL)
    assert event is not None
    changed = replace(event, id="18", subject=None, time=datetime(2021, 1, 1, tzinfo=UTC))
    written = changed.put_into(FULL)
    assert CloudEvent.of(written) == changed
    assert (written.get("x-other"), written.get("ce-time")) == ("kept", "2021-01-01T00:00:00Z")
    assert "ce-subject" not in written


@pytest.mark.parametrize("time", ["yesterday", "2020-01-02T03:04:05"])
def test_a_time_that_is_none(time: str) -> None:
    with pytest.raises(ValueError, match=f"ce-time '{time}' is no RFC 3339 time"):
        CloudEvent.of(FULL.set("ce-time", time))

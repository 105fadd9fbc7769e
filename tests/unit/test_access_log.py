"""The access log: lines that nobody can forge, a bounded buffer, and a file that may be rotated."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stateside._speedups.accesslog import AccessLog
from stateside.proxy import accesslog
from stateside.proxy.accesslog import AccessLogWriter
from stateside.proxy.config import load

WAIT = 5.0
PEER = "127.0.0.1:50000"
TEXT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \S+ \S+ \S+ \S+ \d+\.\d{6} \d+ \d+( \S*)?")


def drained(log: AccessLog) -> bytes:
    """What the log holds. A pipe holds so much without a reader."""
    reader, writer = os.pipe()
    try:
        assert log.drain(writer) == 0
        os.close(writer)
        with open(reader, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(reader)


def new_log(*, text: bool = False, keys: bool = True, most: int = 1 << 20) -> AccessLog:
    return AccessLog(json=not text, keys=keys, most=most)


def test_a_line_of_json() -> None:
    log = new_log()
    before = datetime.now(UTC)
    log.write("grpc", "/shop.Cart/Add", "OK", 0.25, PEER, 12, 3456)
    line = json.loads(drained(log))
    begun = datetime.fromisoformat(line.pop("time"))
    assert abs((before - begun).total_seconds() - 0.25) < 1
    assert line == {
        "peer": PEER,
        "protocol": "grpc",
        "method": "/shop.Cart/Add",
        "status": "OK",
        "seconds": 0.25,
        "bytes_in": 12,
        "bytes_out": 3456,
    }


def test_a_line_of_text() -> None:
    log = new_log(text=True)
    log.write("http/1.1", "/shop.Cart/Add", "200", 12.3456789, PEER, 0, 1, "user 1")
    line = drained(log).decode()
    assert TEXT.fullmatch(line.rstrip("\n"))
    assert line.endswith(f"Z {PEER} http/1.1 /shop.Cart/Add 200 12.345679 0 1 user\\u00201\n")


def test_a_long_method_is_not_cut_within_an_escape() -> None:
    log = new_log()
    log.write("grpc", "\x80" * 1000, "OK", 0.0, PEER, 0, 0)
    assert json.loads(drained(log))["method"].startswith("\xc2\x80")


@given(st.text(), st.text(), st.text(), st.floats(0, 1e6), st.integers(0, 2**62), st.integers(0, 2**62), st.booleans())
def test_whatever_comes_makes_one_well_formed_line(
    method: str, status: str, key: str, seconds: float, size_in: int, size_out: int, text: bool
) -> None:
    key = key.encode("utf-8", "replace").decode()
    log = new_log(text=text)
    log.write(
        "grpc", method or "-", status.encode("utf-8", "replace").decode() or "-", seconds, PEER, size_in, size_out, key
    )
    lines = drained(log).decode()
    assert lines.count("\n") == 1 and lines.isprintable() is False
    if text:
        assert re.fullmatch(r"[^\x00-\x20\x7f]+( [^\x00-\x20\x7f]*){8}\n", lines)
    else:
        line = json.loads(lines)
        assert (line["bytes_in"], line["bytes_out"]) == (size_in, size_out)
        assert line["seconds"] == pytest.approx(seconds, abs=1e-6)
        assert line["key"] == key.encode()[:512].decode("utf-8", "ignore")


def test_long_names_are_cut() -> None:
    log = new_log()
    log.write("grpc", "/" + "x" * 100_000, "OK", 0.0, PEER, 0, 0, "k" * 100_000)
    line = json.loads(drained(log))
    assert len(line["method"]) == 200
    assert len(line["key"]) == 512


def test_what_does_not_fit_is_counted_and_the_next_lines_are_kept_again() -> None:
    log = new_log(most=10_000)
    for _ in range(1000):
        log.write("grpc", "/a/b", "OK", 0.0, PEER, 0, 0)
    kept = drained(log).count(b"\n")
    assert 0 < kept < 100
    assert log.dropped == 1000 - kept
    assert log.lines == kept
    log.write("grpc", "/a/b", "OK", 0.0, PEER, 0, 0)
    assert drained(log).count(b"\n") == 1


def test_lines_that_cannot_be_written_are_counted() -> None:
    log = new_log()
    log.write("grpc", "/a/b", "OK", 0.0, PEER, 0, 0)
    with open("/dev/full", "wb") as full:
        assert log.drain(full.fileno()) == errno.ENOSPC
    assert (log.lines, log.dropped) == (0, 1)
    assert drained(log) == b""


def test_a_reader_that_is_slow_does_not_hold_those_who_write() -> None:
    log = new_log(most=1 << 21)
    for _ in range(10_000):
        log.write("grpc", "/a/b", "OK", 0.0, PEER, 0, 0)
    reader, writer = os.pipe()
    draining = threading.Thread(target=log.drain, args=(writer,))
    draining.start()  # it is stuck: a pipe holds 64 KiB
    for _ in range(10_000):
        log.write("grpc", "/c/d", "OK", 0.0, PEER, 0, 0)
    with pytest.raises(RuntimeError, match="already"):
        log.drain(writer)
    found = b""
    while found.count(b"\n") < 10_000:
        found += os.read(reader, 1 << 16)
    draining.join(WAIT)
    assert b"/c/d" not in found
    os.close(reader)
    os.close(writer)
    assert log.dropped == 0


# --- the file ---


def await_in(path: Path, wanted: Callable[[str], bool]) -> None:
    """Wait until the file's text is as wanted; the thread writes it within its interval."""
    ticks = threading.Event()
    for _ in range(int(WAIT / 0.01)):
        if path.exists() and wanted(path.read_text()):
            return
        ticks.wait(0.01)
    raise AssertionError(f"{path} never became as wanted: {path.read_text() if path.exists() else None}")


def test_lines_reach_the_file_soon_and_the_rest_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("old\n")
    writer = AccessLogWriter(load({"access_log": "text", "access_log_file": str(path)}))
    writer.lines.write("grpc", "/a/b", "OK", 0.0, PEER, 0, 0)
    await_in(path, lambda text: "/a/b" in text)
    writer.lines.write("grpc", "/c/d", "OK", 0.0, PEER, 0, 0)
    writer.close()
    old, first, second = path.read_text().splitlines()
    assert old == "old"
    assert "/a/b" in first and "/c/d" in second


def test_a_file_that_was_rotated_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesslog, "LOOK_AFTER_FILE", 1)
    path = tmp_path / "access.log"
    writer = AccessLogWriter(load({"access_log": "json", "access_log_file": str(path)}))
    path.rename(tmp_path / "access.log.1")
    await_in(path, lambda text: text == "")
    writer.lines.write("grpc", "/a/b", "OK", 0.0, PEER, 0, 0)
    await_in(path, lambda text: "/a/b" in text)
    writer.close()


def test_a_file_that_cannot_be_written_is_said_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="access_log_file = .*: cannot be written: Is a directory"):
        AccessLogWriter(load({"access_log": "json", "access_log_file": str(tmp_path)}))

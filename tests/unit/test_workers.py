"""The parts of several workers that need no processes: figures merged, settings passed on, the port, the folder."""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from stateside.journal.sharding import worker_name
from stateside.proxy import run_folder
from stateside.proxy.child import BACK_OFF_MAX_S, _delay
from stateside.proxy.config import Settings, load
from stateside.proxy.expositions import Merged
from stateside.proxy.main_port import MainPort
from stateside.proxy.place import ALONE, REPLICATOR, VARIABLE, Place, from_environment
from stateside.proxy.run_folder import RunFolder
from stateside.proxy.words import worker_journal
from stateside.proxy.worker import settings_environment

# --- figures ---------------------------------------------------------------------------------------------------------

NASTY = 'a"b\\c\nd {x="1"} #'


def exposition(value: float, label: str = NASTY) -> bytes:
    registry = CollectorRegistry()
    Gauge("plain", "Without labels", registry=registry).set(value)
    Counter("counted", "With a label\nand a line", ["of"], registry=registry).labels(label).inc(value)
    Histogram("seconds", "In buckets", ["of"], buckets=(0.1, 1.0), registry=registry).labels(label).observe(value)
    Summary("life", "Sum and count", registry=registry).observe(value)
    return generate_latest(registry)


def samples(text: bytes) -> list[tuple[str, dict[str, str], float]]:
    families = list(text_string_to_metric_families(text.decode()))
    return [(each.name, dict(each.labels), each.value) for family in families for each in family.samples]


@given(label=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85  ")))
def test_every_series_of_every_process_is_there_once_with_its_worker(label: str) -> None:
    merged = Merged()
    of = {"0": exposition(0.5, label), "1": exposition(2.0, label)}
    for worker, text in of.items():
        merged.add(text, worker)
    expected = [
        (name, {"worker": worker} | labels, value)
        for worker, text in of.items()
        for name, labels, value in samples(text)
    ]
    found = samples(merged.render())
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_each_family_has_its_type_once_before_all_its_series() -> None:
    merged = Merged()
    for worker in ("0", "1"):
        merged.add(exposition(1.0), worker)
    lines = merged.render().decode().splitlines()
    for name in ("plain", "counted_total", "seconds", "life"):
        (at,) = (number for number, line in enumerate(lines) if line.startswith(f"# TYPE {name} "))
        mine = [number for number, line in enumerate(lines) if line.startswith(name) and "_created" not in line]
        assert mine == list(range(at + 1, at + 1 + len(mine)))
        assert lines[at - 1].startswith(f"# HELP {name} ")


def test_only_the_series_that_are_asked_for_are_shown() -> None:
    merged = Merged()
    merged.add(exposition(1.0), "0")
    merged.add_family("gauge", "own", "Ours", {'of="x"': 3})
    assert merged.render(["plain", "own"]).decode().splitlines() == [
        "# HELP plain Without labels",
        "# TYPE plain gauge",
        'plain{worker="0"} 1.0',
        "# HELP own Ours",
        "# TYPE own gauge",
        'own{of="x"} 3.0',
    ]


# --- settings --------------------------------------------------------------------------------------------------------

UNUSUAL: dict[str, Any] = {
    "http_port": 0,
    "max_request_size": 12345679,
    "max_loop_lag": 0.0,
    "graceful_termination_timeout": 12.3456789,
    "idle_timeout": 1_234_567.5,
    "backoff_random_factor": 0.00001,
    "cors_allow_origins": ("https://a:1", "https://b"),
    "journal": "postgresql://user:pass word@h/db?x=1",
    "postgres_schema": "sta te,side",
    "peers": ("h:1", "[::1]:2"),
    "peer_port": 7000,
    "metrics_enabled": False,
    "dev_mode": True,
}


@pytest.mark.parametrize("settings", [Settings(), Settings(**UNUSUAL)])
def test_a_child_has_the_settings_of_its_supervisor_whatever_else_says_otherwise(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stateside.toml").write_text("stash_depth = 7\n")
    environ = {"HTTP_PORT": "1", "STATESIDE_STASH_DEPTH": "8", "STATESIDE_PLACE": "{}", "PATH": "/bin"}
    made = settings_environment(settings, environ)
    found = load({}, made)
    assert {each.name: getattr(found, each.name) for each in fields(Settings)} == {
        each.name: getattr(settings, each.name) for each in fields(Settings)
    }
    assert made["PATH"] == "/bin" and VARIABLE not in made


def test_a_place_goes_through_the_environment() -> None:
    place = Place(worker_name(3), 3, 4, "/run/x", 9000, 1 << 62)
    assert from_environment(place.to_environment()) == place
    assert (place.label, ALONE.label, Place(REPLICATOR, 0, 4, "/run/x", 9000, 0).label) == ("3", "0", REPLICATOR)
    assert from_environment({}) is ALONE


def test_each_worker_has_a_journal_of_its_own_unless_it_is_shared() -> None:
    first, second = (Place(worker_name(index), index, 2, "/run/x", 9000, 0) for index in (0, 1))
    assert worker_journal("lmdb:./data", first) == "lmdb:./data"
    assert worker_journal("lmdb:./data", second) == "lmdb:./data/worker-1"
    assert worker_journal("postgresql://h/db", second) == "postgresql://h/db"


# --- ends in a row ---------------------------------------------------------------------------------------------------


def test_who_dies_soon_again_waits_twice_as_long_each_time_up_to_a_bound() -> None:
    assert [_delay(ends) for ends in range(6)] == [0, 0, 0.25, 0.5, 1, 2]
    assert _delay(1000) == BACK_OFF_MAX_S


# --- the main port ---------------------------------------------------------------------------------------------------


def listener(port: int, address: str = "127.0.0.1") -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((address, port))
    made.listen()
    return made


def test_the_port_is_held_for_those_who_share_it_and_takes_no_connection_itself() -> None:
    held = MainPort(load({"http_port": "0", "http_interface": "127.0.0.1"}))
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", held.number))
        with listener(held.number), listener(held.number) as second:
            second.setblocking(False)
            socket.create_connection(("127.0.0.1", held.number)).close()
    finally:
        held.close()


def test_a_port_that_is_left_with_connections_behind_is_free_for_sharing() -> None:
    """A proxy of one worker was there a moment ago, and its side of the connections waits in TIME_WAIT."""
    with socket.socket() as single:
        single.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        single.bind(("127.0.0.1", 0))
        single.listen()
        port = single.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = single.accept()
        accepted.close()
        assert client.recv(1) == b""
        client.close()
    held = MainPort(load({"http_port": str(port), "http_interface": "127.0.0.1"}))
    try:
        listener(port).close()
    finally:
        held.close()


def test_a_host_name_is_held_on_all_its_addresses_under_one_number() -> None:
    held = MainPort(load({"http_port": "0", "http_interface": "localhost"}))
    try:
        assert {each.getsockname()[1] for each in held._held} == {held.number}
    finally:
        held.close()


# --- the folder of sockets -------------------------------------------------------------------------------------------


def test_a_folder_that_nobody_holds_any_more_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder.tempfile, "gettempdir", lambda: "/nowhere")
    short = Path(run_folder.tempfile.mkdtemp(dir="/tmp"))
    try:
        environ = {"XDG_RUNTIME_DIR": str(short)}
        left, used = RunFolder(environ), RunFolder(environ)
        os.close(left.lock)
        (short / f"{run_folder.PREFIX}other").mkdir()  # not ours: it has no lock
        third = RunFolder(environ)
        assert not left.path.exists() and used.path.exists()
        assert (short / f"{run_folder.PREFIX}other").exists()
        assert used.path.stat().st_mode & 0o777 == 0o700
        used.close()
        third.close()
        assert [each.name for each in short.iterdir()] == [f"{run_folder.PREFIX}other"]
    finally:
        run_folder.shutil.rmtree(short)


def test_a_child_holds_the_folder_beyond_its_supervisor() -> None:
    folder = RunFolder()
    inherited = os.dup(folder.lock)
    os.close(folder.lock)
    try:
        another = RunFolder()
        assert folder.path.exists()
        another.close()
    finally:
        fcntl.flock(inherited, fcntl.LOCK_UN)
        folder.lock = inherited
        folder.close()


def test_the_folder_stands_where_paths_of_sockets_are_short_enough(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60) / ("y" * 60)
    long.mkdir(parents=True)
    folder = RunFolder({"XDG_RUNTIME_DIR": str(long)})
    try:
        place = Place(worker_name(255), 255, 256, str(folder.path), 1, 0)
        longest = max(place.admin_socket(place.name), place.relay_socket(255), place.replicator_socket, key=len)
        assert len(longest) <= run_folder.MAX_SOCKET_PATH
        assert folder.path.parent != long
    finally:
        folder.close()

"""The folder of a journal with several workers: what is in its layout file, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from stateside.journal.contract import Durability, JournalError
from stateside.journal.layout import JournalFolder, require_one_environment
from stateside.journal.layout_file import LAYOUT_FILE, Layout, read_layout, write_layout
from stateside.journal.limits import NODE_ENTITY
from stateside.journal.lmdb import LmdbJournal, lock_directory
from tests.helpers.journal import append, put, read_all, run

SHARDS = 64


def opened(path, workers=1, number_of_shards=SHARDS):
    return JournalFolder.open(path, workers, number_of_shards)


def open_and_close(path, workers=1, number_of_shards=SHARDS):
    with opened(path, workers, number_of_shards) as folder:
        return folder


async def in_journal(path, work):
    journal = LmdbJournal(path, Durability.NONE)
    await journal.open()
    try:
        return await work(journal)
    finally:
        await journal.close()


def test_worker_0_has_the_folder_itself_and_the_others_have_folders_in_it(tmp_path):
    with opened(tmp_path / "journal", workers=3) as folder:
        assert folder.environment(0) == tmp_path / "journal"
        assert folder.environment(2) == tmp_path / "journal" / "worker-2"
        with pytest.raises(ValueError, match="no worker 3"):
            folder.environment(3)


def test_every_environment_of_a_new_folder_can_be_opened_and_claimed_by_its_worker(tmp_path):
    async def claim(journal):
        return await journal.claim([0], SHARDS)

    with opened(tmp_path, workers=2) as folder:
        for index in range(2):
            assert run(in_journal(folder.environment(index), claim)) == 1
            assert run(in_journal(folder.environment(index), claim)) == 2


def test_the_identity_of_the_nodes_replicas_lasts(tmp_path):
    first = open_and_close(tmp_path / "a", workers=2)
    assert 0 < first.replica < 1 << 64
    assert open_and_close(tmp_path / "a", workers=2).replica == first.replica
    assert open_and_close(tmp_path / "b").replica != first.replica


def test_a_folder_from_before_there_were_layouts_has_one_worker_and_keeps_its_node(tmp_path):
    async def fill(journal):
        await put(journal, NODE_ENTITY, 1, b"\x01" + (77).to_bytes(8, "big") + b"\0\0")
        await append(journal, "cart|a", 1, b"event")

    async def look(journal):
        return await read_all(journal, "cart|a")

    run(in_journal(tmp_path, fill))
    folder = open_and_close(tmp_path)
    assert folder.replica == 77
    assert read_layout(tmp_path) == Layout(SHARDS, 1, 77)
    assert run(in_journal(folder.environment(0), look)) == [b"event"]


def test_a_folder_from_before_that_was_claimed_for_another_number_of_shards_is_refused(tmp_path):
    async def claim(journal):
        await journal.claim([0], 16)

    run(in_journal(tmp_path, claim))
    with pytest.raises(JournalError, match="16 shards, not 64"):
        open_and_close(tmp_path)


def test_another_number_of_shards_is_refused_and_says_what_to_do(tmp_path):
    open_and_close(tmp_path)
    with pytest.raises(JournalError, match=r"64 shards, not 32.*number_of_shards = 64.*stateside journal copy"):
        open_and_close(tmp_path, number_of_shards=32)
    open_and_close(tmp_path)


def test_a_folder_that_another_process_opened_is_refused_and_names_it(tmp_path):
    program = (
        "import sys; from stateside.journal.layout import JournalFolder\n"
        f"folder = JournalFolder.open(sys.argv[1], 1, {SHARDS})\nprint('open', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(JournalError, match=rf"in use by process {other.pid}; stop it"):
            open_and_close(tmp_path)
        other.stdin.close()
        assert other.wait() == 0
    open_and_close(tmp_path)


@pytest.mark.parametrize("index", [0, 1])
def test_a_folder_whose_worker_still_runs_is_refused(tmp_path, index):
    folder = open_and_close(tmp_path, workers=2)
    with (
        lock_directory(folder.environment(index)),
        pytest.raises(JournalError, match=rf"in use by process {os.getpid()}"),
    ):
        open_and_close(tmp_path, workers=2)
    open_and_close(tmp_path, workers=2)


def test_a_layout_of_a_newer_program_is_refused(tmp_path):
    open_and_close(tmp_path)
    layout = json.loads((tmp_path / LAYOUT_FILE).read_text())
    (tmp_path / LAYOUT_FILE).write_text(json.dumps(layout | {"format": 2, "colour": "blue"}))
    with pytest.raises(JournalError, match="layout version 2 is unknown, this program knows version 1"):
        open_and_close(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "\xff\0",
        lambda text: text.replace('"workers": 2', '"workers": 3'),
        lambda text: text.replace('"format": 1', '"format": "1"'),
        lambda text: text.replace('"moves": 0', '"moves": 0, "more": 1'),
    ],
)
def test_a_damaged_layout_is_refused(tmp_path, damage):
    open_and_close(tmp_path, workers=2)
    text = (tmp_path / LAYOUT_FILE).read_text()
    (tmp_path / LAYOUT_FILE).write_text(damage(text), encoding="latin-1")
    with pytest.raises(JournalError, match=r"layout.json is damaged .*backup"):
        open_and_close(tmp_path, workers=2)
    (tmp_path / LAYOUT_FILE).write_text(text)
    open_and_close(tmp_path, workers=2)


def test_a_lost_layout_does_not_hide_the_environments_of_workers(tmp_path):
    open_and_close(tmp_path, workers=2)
    (tmp_path / LAYOUT_FILE).unlink()
    with pytest.raises(JournalError, match=r"layout.json is missing, though there is .*worker-1"):
        open_and_close(tmp_path)


@pytest.mark.parametrize("index", [0, 1])
def test_a_lost_environment_is_refused(tmp_path, index):
    folder = open_and_close(tmp_path, workers=2)
    (folder.environment(index) / "data.mdb").unlink()
    with pytest.raises(JournalError, match=rf"environment of worker-{index} is missing"):
        open_and_close(tmp_path, workers=2)


def test_a_crash_while_the_layout_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    folder = open_and_close(tmp_path, workers=2)

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("stateside.journal.layout_file.os.replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_layout(tmp_path, Layout(1, 1, 1))
    assert read_layout(tmp_path) == Layout(SHARDS, 2, folder.replica)


def test_what_knows_one_environment_only_is_kept_from_those_of_several_workers(tmp_path):
    require_one_environment(tmp_path)
    open_and_close(tmp_path)
    require_one_environment(tmp_path)
    open_and_close(tmp_path, workers=2)
    with pytest.raises(JournalError, match="environments of 2 workers"):
        require_one_environment(tmp_path)


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="choose another directory"):
        open_and_close(tmp_path / "file" / "journal")

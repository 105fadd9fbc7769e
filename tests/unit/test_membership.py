"""Members of a static cluster, what is needed of them, and the record of the node that outlives a restart."""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop

from stateside.journal import open_journal
from stateside.journal.contract import Journal, JournalError
from stateside.journal.limits import NODE_ENTITY
from stateside.journal.reader import StoredJournal
from stateside.journal.transfer import export_lines
from stateside.proxy.membership import StaticMembership
from stateside.proxy.node_record import NodeRecord
from stateside.proxy.peer_messages import Left
from stateside.proxy.quorum import Quorums
from stateside.proxy.replicas import Consistency, Member
from tests.helpers.journal import append, put

OWN = Member("a:1", 10, 100)


def membership(*peers: str) -> tuple[StaticMembership, list[None]]:
    members, told = StaticMembership(OWN, peers), list[None]()
    members.watch(lambda: told.append(None))
    return members, told


def test_members_that_were_never_heard_of_count_and_this_node_is_the_first() -> None:
    members, _ = membership("b:1", "a:1", "c:1")
    assert members.members() == (OWN, Member("b:1", 0, 0), Member("c:1", 0, 0))


def test_a_member_is_known_when_it_was_heard_of_by_name_or_by_identity() -> None:
    members, told = membership("b:1")
    members.heard("b:1", 20, 200)
    members.heard("b:1", 20, 200)
    assert len(told) == 1
    members.heard("called-otherwise:1", 20, 201)  # it restarted, and calls itself by another name
    assert members.others == {"b:1": Member("b:1", 20, 201)}
    members.heard("stranger:1", 30, 300)
    assert len(members.members()) == 2
    assert len(told) == 2


def test_a_member_leaves_by_name_or_by_identity_and_may_come_again() -> None:
    members, told = membership("b:1", "c:1")
    members.heard("c:1", 30, 300)
    assert members.remove("b:1", 0) == Member("b:1", 0, 0)
    assert members.remove("otherwise:1", 30) == Member("c:1", 30, 300)
    assert members.remove("c:1", 30) is None
    assert members.members() == (OWN,)
    members.add("b:1")
    members.add("a:1")
    assert members.members() == (OWN, Member("b:1", 0, 0))
    assert len(told) == 4


@pytest.mark.parametrize(("members", "majority", "everyone"), [(1, 0, 0), (2, 1, 1), (3, 1, 2), (4, 2, 3), (5, 2, 4)])
def test_how_many_others_a_write_needs(members: int, majority: int, everyone: int) -> None:
    others = frozenset(str(number) for number in range(members - 1))
    quorums = Quorums(1.0, lambda: others)
    assert [quorums.needed(level) for level in Consistency] == [0, majority, everyone]


# --- the record ------------------------------------------------------------------------------------------------------


async def recorded(journal: Journal, lasting: bool, fresh: int) -> NodeRecord:
    record = NodeRecord(journal)
    await record.load(lasting, fresh)
    return record


@pytest.mark.parametrize("lasting", [True, False])
def test_an_identity_lasts_if_it_may_and_who_left_is_remembered_in_any_case(tmp_path: Path, lasting: bool) -> None:
    async def scenario() -> None:
        for start in (1, 2, 3):
            journal = open_journal(f"lmdb:{tmp_path / 'journal'}")
            await journal.open()
            record = await recorded(journal, lasting, fresh=start)
            assert record.replica == (1 if lasting else start)
            if start == 1:
                record.add(Left(7, "gone:1"))
                record.add(Left(0, "never-heard-of:1"))
                record.set_pruned(7)
                await record.flush()
            assert record.left == {Left(7, "gone:1"): True, Left(0, "never-heard-of:1"): False}
            assert record.departed == {7}
            await journal.close()

    uvloop.run(scenario())


def test_a_record_that_cannot_be_read_is_an_error_that_names_it() -> None:
    async def scenario() -> None:
        for value in (b"", b"\x09" + bytes(10), b"\x01" + bytes(8) + b"\x00\x05"):
            journal = open_journal("memory:")
            await journal.open()
            await put(journal, NODE_ENTITY, 1, value)
            with pytest.raises(JournalError, match="node"):
                await recorded(journal, True, 1)
            await journal.close()

    uvloop.run(scenario())


def test_an_export_leaves_the_record_out_because_a_copy_belongs_to_another_node(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = open_journal(f"lmdb:{tmp_path / 'journal'}")
        await journal.open()
        await recorded(journal, True, 1)
        await append(journal, "|crdt|key", 1, b"\x03", snapshot=b"\x03")
        await journal.close()

    uvloop.run(scenario())
    with StoredJournal(tmp_path / "journal") as stored, stored.view() as view:
        lines = list(export_lines(view, pytest.fail))
    assert len(lines) == 2
    assert all("|crdt|key" in line for line in lines)

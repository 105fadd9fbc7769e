"""Model scenarios of the TCK for GSet and ORSet: U1 to U8, O1 to O8."""

from __future__ import annotations

from tests.tck.crdt_scenarios import DELETE, DELETED, Played, d_gs, d_os, edit, g_add, s_gs, s_os, tck
from tests.tck.driver import Driver


def adds(*elements: str) -> list[tck.Update]:
    return [g_add(element) for element in elements]


def edits(*words: str) -> list[tck.Update]:
    return [edit(word) for word in words]


def test_u1_initial_state(driver: Driver) -> None:
    Played(driver, "GSet").init().command(1, [], s_gs()).passivate()


def test_u2_only_new_elements_are_in_the_delta(driver: Driver) -> None:
    played = Played(driver, "GSet").init().command(1, adds("a", "b"), s_gs("a", "b"), d_gs("a", "b"))
    played.command(2, adds("b", "c"), s_gs("a", "b", "c"), d_gs("c"))
    played.command(3, adds("c", "a"), s_gs("a", "b", "c")).passivate()


def test_u3_initial_delta(driver: Driver) -> None:
    played = Played(driver, "GSet").init(d_gs("a", "b", "c"))
    played.command(1, adds("c", "d", "e"), s_gs(*"abcde"), d_gs("d", "e")).passivate()


def test_u4_delta_before_the_first_command(driver: Driver) -> None:
    played = Played(driver, "GSet").init().delta(d_gs("x", "y"))
    played.command(1, adds("z"), s_gs("x", "y", "z"), d_gs("z")).passivate()


def test_u5_deltas_from_both_sides(driver: Driver) -> None:
    played = Played(driver, "GSet").init().command(1, adds("a"), s_gs("a"), d_gs("a"))
    played.delta(d_gs("a"), d_gs("b"), d_gs("c")).command(2, [], s_gs("a", "b", "c"))
    played.command(3, adds("c", "d", "e"), s_gs(*"abcde"), d_gs("d", "e"))
    played.delta(d_gs("f")).command(4, adds("g", "d", "b"), s_gs(*"abcdefg"), d_gs("g")).passivate()


def test_u6_passivation(driver: Driver) -> None:
    played = Played(driver, "GSet").init().command(1, adds("a"), s_gs("a"), d_gs("a")).delta(d_gs("b"))
    played.command(2, [], s_gs("a", "b")).command(3, adds("c"), s_gs(*"abc"), d_gs("c")).passivate()
    played.init(d_gs("a", "b", "c")).command(1, [], s_gs("a", "b", "c"))
    played.delta(d_gs("d")).command(2, adds("e"), s_gs(*"abcde"), d_gs("e")).passivate()


def test_u7_deletion(driver: Driver) -> None:
    played = Played(driver, "GSet").init().command(1, adds("x"), s_gs("x"), d_gs("x"))
    played.command(2, [DELETE], s_gs("x"), DELETED).passivate()


def test_u8_deleted_elsewhere(driver: Driver) -> None:
    Played(driver, "GSet").init().deleted_elsewhere()


def test_o1_initial_state(driver: Driver) -> None:
    Played(driver, "ORSet").init().command(1, [], s_os()).passivate()


def test_o2_adds_and_removes_cancel_each_other(driver: Driver) -> None:
    played = Played(driver, "ORSet").init().command(1, edits("+a", "+b"), s_os("a", "b"), d_os("+a", "+b"))
    played.command(2, edits("+b", "+c"), s_os("a", "b", "c"), d_os("+c"))
    played.command(3, edits("+c", "+a"), s_os("a", "b", "c"))
    played.command(4, edits("-b", "-d"), s_os("a", "c"), d_os("-b"))
    played.command(5, edits("-c", "-d", "+b", "+c"), s_os("a", "b", "c"), d_os("+b"))
    played.command(6, edits("clear"), s_os(), d_os("clear"))
    played.command(7, edits("+a", "clear", "+x"), s_os("x"), d_os("clear", "+x")).passivate()


def test_o3_initial_delta(driver: Driver) -> None:
    played = Played(driver, "ORSet").init(d_os("+a", "+b", "+c"))
    played.command(1, edits("-c", "+d"), s_os("a", "b", "d"), d_os("-c", "+d")).passivate()


def test_o4_delta_before_the_first_command(driver: Driver) -> None:
    played = Played(driver, "ORSet").init().delta(d_os("+x", "+y"))
    played.command(1, edits("-x", "+z"), s_os("y", "z"), d_os("-x", "+z")).passivate()


def test_o5_deltas_from_both_sides(driver: Driver) -> None:
    played = Played(driver, "ORSet").init().command(1, edits("+a"), s_os("a"), d_os("+a"))
    played.delta(d_os("+a", "+b"), d_os("+c", "+d"), d_os("-b", "-d")).command(2, [], s_os("a", "c"))
    played.command(3, edits("+c", "+d", "+e"), s_os("a", "c", "d", "e"), d_os("+d", "+e")).delta(d_os("-a", "-c", "+f"))
    played.command(4, edits("+g", "-a", "-d"), s_os("e", "f", "g"), d_os("-d", "+g"))
    played.delta(d_os("clear", "+x", "+y", "+z"))
    played.command(5, edits("+q", "+x", "-z"), s_os("q", "x", "y"), d_os("-z", "+q"))
    played.delta(d_os("-x", "-y", "+r", "+p"))
    played.command(6, edits("+s"), s_os("p", "q", "r", "s"), d_os("+s")).delta(d_os("+a", "+b", "+c"))
    played.command(7, edits("clear", "+abc"), s_os("abc"), d_os("clear", "+abc")).passivate()


def test_o6_passivation(driver: Driver) -> None:
    played = Played(driver, "ORSet").init().command(1, edits("+a"), s_os("a"), d_os("+a")).delta(d_os("-a", "+b"))
    played.command(2, [], s_os("b")).command(3, edits("+c"), s_os("b", "c"), d_os("+c")).passivate()
    played.init(d_os("+b", "+c")).command(1, [], s_os("b", "c")).delta(d_os("clear", "+p", "+q"))
    played.command(2, edits("+x", "+y", "-x"), s_os("p", "q", "y"), d_os("+y")).passivate()


def test_o7_deletion(driver: Driver) -> None:
    played = Played(driver, "ORSet").init().command(1, edits("+x"), s_os("x"), d_os("+x"))
    played.command(2, [DELETE], s_os("x"), DELETED).passivate()


def test_o8_deleted_elsewhere(driver: Driver) -> None:
    Played(driver, "ORSet").init().deleted_elsewhere()

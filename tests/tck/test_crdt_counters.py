"""Model scenarios of the TCK for GCounter and PNCounter: G1 to G8, N1 to N8."""

from __future__ import annotations

from tests.tck.crdt_scenarios import DELETE, DELETED, Played, change, d_gc, d_pn, inc, s_gc, s_pn
from tests.tck.driver import Driver


def test_g1_initial_state(driver: Driver) -> None:
    Played(driver, "GCounter").init().command(1, [], s_gc(0)).passivate()


def test_g2_one_delta_per_command(driver: Driver) -> None:
    played = Played(driver, "GCounter").init().command(1, [inc(42)], s_gc(42), d_gc(42))
    played.command(2, [inc(1), inc(2), inc(3)], s_gc(48), d_gc(6)).passivate()


def test_g3_initial_delta(driver: Driver) -> None:
    Played(driver, "GCounter").init(d_gc(42)).command(1, [inc(123)], s_gc(165), d_gc(123)).passivate()


def test_g4_delta_before_the_first_command(driver: Driver) -> None:
    Played(driver, "GCounter").init().delta(d_gc(42)).command(1, [inc(123)], s_gc(165), d_gc(123)).passivate()


def test_g5_deltas_from_both_sides(driver: Driver) -> None:
    played = Played(driver, "GCounter").init().command(1, [inc(1)], s_gc(1), d_gc(1))
    played.delta(d_gc(2), d_gc(3)).command(2, [], s_gc(6)).command(3, [inc(4)], s_gc(10), d_gc(4))
    played.delta(d_gc(5)).command(4, [inc(6)], s_gc(21), d_gc(6)).passivate()


def test_g6_passivation(driver: Driver) -> None:
    played = Played(driver, "GCounter").init().command(1, [inc(1)], s_gc(1), d_gc(1))
    played.delta(d_gc(2)).command(2, [], s_gc(3)).command(3, [inc(3)], s_gc(6), d_gc(3)).passivate()
    played.init(d_gc(6)).command(1, [], s_gc(6)).delta(d_gc(4)).command(2, [inc(5)], s_gc(15), d_gc(5)).passivate()


def test_g7_deletion(driver: Driver) -> None:
    played = Played(driver, "GCounter").init().command(1, [inc(42)], s_gc(42), d_gc(42))
    played.command(2, [DELETE], s_gc(42), DELETED).passivate()


def test_g8_deleted_elsewhere(driver: Driver) -> None:
    Played(driver, "GCounter").init().deleted_elsewhere()


def test_n1_initial_state(driver: Driver) -> None:
    Played(driver, "PNCounter").init().command(1, [], s_pn(0)).passivate()


def test_n2_one_delta_per_command(driver: Driver) -> None:
    played = Played(driver, "PNCounter").init().command(1, [change(1), change(-2), change(3)], s_pn(2), d_pn(2))
    played.command(2, [change(-4), change(5), change(-6)], s_pn(-3), d_pn(-5)).passivate()


def test_n3_initial_delta(driver: Driver) -> None:
    Played(driver, "PNCounter").init(d_pn(42)).command(1, [change(-123)], s_pn(-81), d_pn(-123)).passivate()


def test_n4_delta_before_the_first_command(driver: Driver) -> None:
    Played(driver, "PNCounter").init().delta(d_pn(-42)).command(1, [change(123)], s_pn(81), d_pn(123)).passivate()


def test_n5_deltas_from_both_sides(driver: Driver) -> None:
    played = Played(driver, "PNCounter").init().command(1, [change(1)], s_pn(1), d_pn(1))
    played.delta(d_pn(-2), d_pn(3)).command(2, [], s_pn(2)).command(3, [change(-4)], s_pn(-2), d_pn(-4))
    played.delta(d_pn(5)).command(4, [change(-6)], s_pn(-3), d_pn(-6)).passivate()


def test_n6_passivation(driver: Driver) -> None:
    played = Played(driver, "PNCounter").init().command(1, [change(1)], s_pn(1), d_pn(1))
    played.delta(d_pn(-2)).command(2, [], s_pn(-1)).command(3, [change(3)], s_pn(2), d_pn(3)).passivate()
    played.init(d_pn(2)).command(1, [], s_pn(2)).delta(d_pn(-4)).command(2, [change(5)], s_pn(3), d_pn(5)).passivate()


def test_n7_deletion(driver: Driver) -> None:
    played = Played(driver, "PNCounter").init().command(1, [change(42)], s_pn(42), d_pn(42))
    played.command(2, [DELETE], s_pn(42), DELETED).passivate()


def test_n8_deleted_elsewhere(driver: Driver) -> None:
    Played(driver, "PNCounter").init().deleted_elsewhere()

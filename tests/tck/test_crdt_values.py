"""Model scenarios of the TCK for LWWRegister, Flag and Vote: W1 to W9, F1 to F8, V1 to V8."""

from __future__ import annotations

from tests.tck.crdt_scenarios import (
    DELETE,
    DELETED,
    Played,
    d_fl,
    d_lw,
    d_vote,
    enable,
    put,
    s_fl,
    s_lw,
    s_vote,
    vote_as,
)
from tests.tck.driver import Driver

YES, NO = [vote_as(True)], [vote_as(False)]


def test_w1_the_default_value_is_written_with_the_first_reply(driver: Driver) -> None:
    Played(driver, "LWWRegister").init().command(1, [], s_lw(""), d_lw("")).passivate()


def test_w2_values(driver: Driver) -> None:
    played = Played(driver, "LWWRegister").init().command(1, [put("one")], s_lw("one"), d_lw("one"))
    played.command(2, [put("two")], s_lw("two"), d_lw("two")).passivate()


def test_w3_initial_delta(driver: Driver) -> None:
    Played(driver, "LWWRegister").init(d_lw("one")).command(1, [], s_lw("one")).passivate()


def test_w4_a_delta_before_the_first_command_takes_the_place_of_the_default(driver: Driver) -> None:
    Played(driver, "LWWRegister").init().delta(d_lw("one")).command(1, [], s_lw("one")).passivate()


def test_w5_deltas_from_both_sides(driver: Driver) -> None:
    played = Played(driver, "LWWRegister").init().command(1, [put("A")], s_lw("A"), d_lw("A"))
    played.delta(d_lw("B"), d_lw("C")).command(2, [], s_lw("C")).command(3, [put("D")], s_lw("D"), d_lw("D"))
    played.delta(d_lw("D")).command(4, [put("E")], s_lw("E"), d_lw("E")).passivate()


def test_w6_clocks(driver: Driver) -> None:
    played = Played(driver, "LWWRegister").init()
    played.command(1, [put("A", "REVERSE")], s_lw("A"), d_lw("A", "REVERSE"))
    played.command(2, [put("A", "CUSTOM", 123)], s_lw("A"), d_lw("A", "CUSTOM", 123))
    played.command(2, [put("A", "AUTO_INC", 456)], s_lw("A"), d_lw("A", "AUTO_INC", 456)).passivate()


def test_w7_passivation(driver: Driver) -> None:
    played = Played(driver, "LWWRegister").init().command(1, [put("A")], s_lw("A"), d_lw("A")).delta(d_lw("B"))
    played.command(2, [], s_lw("B")).command(3, [put("C")], s_lw("C"), d_lw("C")).passivate()
    played.init(d_lw("C")).command(1, [], s_lw("C")).delta(d_lw("D"))
    played.command(2, [put("E")], s_lw("E"), d_lw("E")).passivate()


def test_w8_deletion(driver: Driver) -> None:
    played = Played(driver, "LWWRegister").init().command(1, [put("one")], s_lw("one"), d_lw("one"))
    played.command(2, [DELETE], s_lw("one"), DELETED).passivate()


def test_w9_deleted_elsewhere(driver: Driver) -> None:
    Played(driver, "LWWRegister").init().deleted_elsewhere()


def test_f1_initial_state(driver: Driver) -> None:
    Played(driver, "Flag").init().command(1, [], s_fl(False)).passivate()


def test_f2_enabling(driver: Driver) -> None:
    Played(driver, "Flag").init().command(1, [enable()], s_fl(True), d_fl(True)).passivate()


def test_f3_initial_deltas(driver: Driver) -> None:
    for value in (False, True):
        Played(driver, "Flag").init(d_fl(value)).command(1, [], s_fl(value)).passivate()


def test_f4_deltas_before_the_first_command(driver: Driver) -> None:
    for value in (False, True):
        Played(driver, "Flag").init().delta(d_fl(value)).command(1, [], s_fl(value)).passivate()


def test_f5_no_delta_switches_it_off(driver: Driver) -> None:
    played = Played(driver, "Flag").init().delta(d_fl(False)).command(1, [], s_fl(False))
    played.command(2, [enable()], s_fl(True), d_fl(True)).delta(d_fl(True), d_fl(False))
    played.command(3, [], s_fl(True)).passivate()
    played.init().delta(d_fl(True)).command(1, [], s_fl(True)).command(2, [enable()], s_fl(True))
    played.delta(d_fl(True), d_fl(False)).command(3, [], s_fl(True)).passivate()


def test_f6_passivation(driver: Driver) -> None:
    played = Played(driver, "Flag").init().command(1, [], s_fl(False))
    played.command(2, [enable()], s_fl(True), d_fl(True)).passivate()
    played.init(d_fl(True)).command(1, [], s_fl(True)).passivate()


def test_f7_deletion(driver: Driver) -> None:
    played = Played(driver, "Flag").init().command(1, [enable()], s_fl(True), d_fl(True))
    played.command(2, [DELETE], s_fl(True), DELETED).passivate()


def test_f8_deleted_elsewhere(driver: Driver) -> None:
    Played(driver, "Flag").init().deleted_elsewhere()


def test_v1_initial_state(driver: Driver) -> None:
    Played(driver, "Vote").init().command(1, [], s_vote(False, 0, 1)).passivate()


def test_v2_only_a_change_of_the_own_vote_is_told(driver: Driver) -> None:
    played = Played(driver, "Vote").init().command(1, YES, s_vote(True, 1, 1), d_vote(True))
    played.command(2, YES, s_vote(True, 1, 1)).command(3, NO, s_vote(False, 0, 1), d_vote(False))
    played.command(4, NO, s_vote(False, 0, 1)).passivate()


def test_v3_initial_delta(driver: Driver) -> None:
    played = Played(driver, "Vote").init(d_vote(True, 2, 3)).command(1, [], s_vote(True, 2, 3))
    played.command(2, NO, s_vote(False, 1, 3), d_vote(False)).passivate()


def test_v4_delta_before_the_first_command(driver: Driver) -> None:
    played = Played(driver, "Vote").init().delta(d_vote(False, 3, 5)).command(1, [], s_vote(False, 3, 5))
    played.command(2, YES, s_vote(True, 4, 5), d_vote(True)).passivate()


def test_v5_deltas_from_both_sides(driver: Driver) -> None:
    played = Played(driver, "Vote").init().delta(d_vote(False, 2, 4)).command(1, [], s_vote(False, 2, 4))
    played.command(2, YES, s_vote(True, 3, 4), d_vote(True)).delta(d_vote(True, 5, 7), d_vote(True, 4, 6))
    played.command(3, NO, s_vote(False, 3, 6), d_vote(False)).passivate()


def test_v6_passivation(driver: Driver) -> None:
    played = Played(driver, "Vote").init().command(1, [], s_vote(False, 0, 1)).delta(d_vote(False, 2, 5))
    played.command(2, YES, s_vote(True, 3, 5), d_vote(True)).passivate()
    played.init(d_vote(True, 3, 5)).command(1, [], s_vote(True, 3, 5))
    played.command(2, NO, s_vote(False, 2, 5), d_vote(False)).passivate()


def test_v7_deletion(driver: Driver) -> None:
    played = Played(driver, "Vote").init().command(1, YES, s_vote(True, 1, 1), d_vote(True))
    played.command(2, [DELETE], s_vote(True, 1, 1), DELETED).passivate()


def test_v8_deleted_elsewhere(driver: Driver) -> None:
    Played(driver, "Vote").init().deleted_elsewhere()

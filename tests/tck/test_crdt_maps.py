"""Model scenarios of the TCK for ORMap: M1 to M8."""

from __future__ import annotations

from tests.tck.crdt_scenarios import (
    DELETE,
    DELETED,
    FL,
    GC,
    GS,
    LW,
    OS,
    PN,
    Played,
    change,
    d_fl,
    d_gc,
    d_gs,
    d_lw,
    d_map,
    d_os,
    d_pn,
    edit,
    enable,
    g_add,
    inc,
    m_add,
    m_clear,
    m_remove,
    m_update,
    put,
    s_fl,
    s_gc,
    s_gs,
    s_lw,
    s_map,
    s_os,
    s_pn,
    tck,
)
from tests.tck.driver import Driver

PN2, OS2, LW2, OM = "PNCounter-2", "ORSet-2", "LWWRegister-2", "ORMap-1"


def in_set(*words: str) -> list[tck.Update]:
    return [m_update(OS, edit(word)) for word in words]


def test_m1_initial_state(driver: Driver) -> None:
    Played(driver, "ORMap").init().command(1, [], s_map()).passivate()


def test_m2_entries_are_added_updated_removed_and_cleared(driver: Driver) -> None:
    played = Played(driver, "ORMap").init()
    played.command(1, [m_add(PN), m_add(OS)], s_map({OS: s_os(), PN: s_pn(0)}), d_map(added={OS: d_os(), PN: d_pn(0)}))
    state = {LW: s_lw("zero"), OS: s_os(), PN: s_pn(0)}
    played.command(2, [m_add(OS), m_update(LW, put("zero"))], s_map(state), d_map(added={LW: d_lw("zero")}))
    state |= {LW: s_lw("one"), PN: s_pn(42)}
    delta = d_map(updated={LW: d_lw("one"), PN: d_pn(42)})
    played.command(3, [m_update(PN, change(42)), m_update(LW, put("one"))], s_map(state), delta)
    state |= {OS: s_os("a", "b", "c")}
    played.command(4, in_set("+a", "+b", "+c"), s_map(state), d_map(updated={OS: d_os("+a", "+b", "+c")}))
    state = {LW: s_lw("two"), OS: s_os("a", "c", "d"), PN: s_pn(-81)}
    delta = d_map(updated={LW: d_lw("two"), OS: d_os("-b", "+d"), PN: d_pn(-123)})
    actions = [*in_set("-b", "+d"), m_update(PN, change(-123)), m_update(LW, put("two"))]
    played.command(5, actions, s_map(state), delta)
    del state[OS]
    played.command(6, [m_remove(OS)], s_map(state), d_map(removed=[OS]))
    state = {FL: s_fl(True), PN: s_pn(-81)}
    delta = d_map(removed=[LW], added={FL: d_fl(True)})
    played.command(7, [m_remove(LW), m_update(FL, enable())], s_map(state), delta)
    played.command(8, [m_clear()], s_map(), d_map(cleared=True))
    delta = d_map(cleared=True, added={GC: d_gc(123)})
    played.command(9, [m_add(PN2), m_clear(), m_update(GC, inc(123))], s_map({GC: s_gc(123)}), delta).passivate()


def test_m3_initial_delta(driver: Driver) -> None:
    played = Played(driver, "ORMap").init(d_map(added={PN: d_pn(123), LW: d_lw("one"), GS: d_gs("a", "b", "c")}))
    played.command(1, [], s_map({PN: s_pn(123), LW: s_lw("one"), GS: s_gs("a", "b", "c")}))
    state = s_map({GS: s_gs("a", "b", "c"), PN: s_pn(81)})
    delta = d_map(removed=[LW], updated={PN: d_pn(-42)})
    played.command(2, [m_remove(LW), m_update(PN, change(-42))], state, delta).passivate()


def test_m4_delta_before_the_first_command(driver: Driver) -> None:
    played = Played(driver, "ORMap").init()
    played.delta(d_map(added={GC: d_gc(42), OS: d_os("+a", "+b", "+c"), FL: d_fl(False)}))
    played.command(1, [], s_map({GC: s_gc(42), OS: s_os("a", "b", "c"), FL: s_fl(False)})).passivate()


def test_m5_deltas_from_both_sides(driver: Driver) -> None:
    played = Played(driver, "ORMap").init()
    played.command(1, [m_add(PN)], s_map({PN: s_pn(0)}), d_map(added={PN: d_pn(0)}))
    played.delta(d_map(added={OS: d_os("+x")}), d_map(added={LW: d_lw("one")}, updated={OS: d_os("+y", "+z")}))
    state = {PN: s_pn(0), OS: s_os("x", "y", "z"), LW: s_lw("one"), LW2: s_lw("two"), OS2: s_os()}
    delta = d_map(added={LW2: d_lw("two"), OS2: d_os()})
    played.command(2, [m_add(OS2), m_update(LW2, put("two"))], s_map(state), delta)
    state |= {PN: s_pn(42), LW: s_lw("ONE")}
    delta = d_map(updated={LW: d_lw("ONE"), PN: d_pn(42)})
    played.command(3, [m_update(PN, change(42)), m_update(LW, put("ONE"))], s_map(state), delta)

    played.delta(d_map(removed=[LW2], added={OM: d_map(added={PN: d_pn(123)})}))
    nested = d_map(added={LW: d_lw("ABC")})
    played.delta(d_map(removed=[OS], updated={OS2: d_os("+a", "+b", "+c"), OM: nested}))
    inner = s_map({LW: s_lw("ABC"), PN: s_pn(-333)})
    state = {LW: s_lw("ONE"), OM: inner, OS2: s_os("a", "b", "c"), PN: s_pn(42)}
    delta = d_map(updated={OM: d_map(updated={PN: d_pn(-456)})})
    played.command(4, [m_update(OM, m_update(PN, change(-456)))], s_map(state), delta)

    played.delta(d_map(cleared=True, added={GS: d_gs("1", "2", "3")}))
    actions = [m_remove(PN), m_remove(LW), *[m_update(GS, g_add(each)) for each in "246"]]
    played.command(5, actions, s_map({GS: s_gs("1", "2", "3", "4", "6")}), d_map(updated={GS: d_gs("4", "6")}))
    played.command(6, [m_clear(), m_add(GC)], s_map({GC: s_gc(0)}), d_map(cleared=True, added={GC: d_gc(0)}))
    played.delta(d_map(removed=[GS], added={GC: d_gc(42)}))
    played.command(7, [m_update(GC, inc(7))], s_map({GC: s_gc(49)}), d_map(updated={GC: d_gc(7)})).passivate()


def test_m6_passivation(driver: Driver) -> None:
    played = Played(driver, "ORMap").init().delta(d_map(added={PN: d_pn(123)}))
    played.command(1, [m_update(PN, change(321))], s_map({PN: s_pn(444)}), d_map(updated={PN: d_pn(321)})).passivate()
    played.init(d_map(added={PN: d_pn(444)})).command(1, [], s_map({PN: s_pn(444)}))
    played.delta(d_map(updated={PN: d_pn(-42)}))
    delta = d_map(updated={PN: d_pn(-360)})
    played.command(2, [m_update(PN, change(-360))], s_map({PN: s_pn(42)}), delta).passivate()


def test_m7_deletion(driver: Driver) -> None:
    played = Played(driver, "ORMap").init()
    played.command(1, [m_add(FL)], s_map({FL: s_fl(False)}), d_map(added={FL: d_fl(False)}))
    played.command(2, [m_update(FL, enable()), DELETE], s_map({FL: s_fl(True)}), DELETED).passivate()


def test_m8_deleted_elsewhere(driver: Driver) -> None:
    Played(driver, "ORMap").init().deleted_elsewhere()

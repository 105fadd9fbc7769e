"""Model scenarios of the TCK for CRDT entities that call others, fail, ask for consistency and stream: Z1 and Z2, X1 to
X7, E1 and E2, C1, T1 to T5.
"""

from __future__ import annotations

from tests.tck.crdt_scenarios import (
    ALL,
    CONFIGURED,
    FRESH,
    GS,
    LOCAL,
    MAJORITY,
    MODEL,
    PN,
    TWO,
    Played,
    act,
    change,
    d_gc,
    d_gs,
    d_lw,
    d_map,
    d_pn,
    effect,
    fail,
    failed,
    forward,
    forwarded,
    g_add,
    inc,
    m_add,
    m_update,
    s_fl,
    s_gc,
    s_gs,
    s_map,
    s_os,
    s_pn,
    side_effect,
    tck,
)
from tests.tck.driver import Driver


def fresh() -> str:
    return f"X-{next(FRESH)}"


def test_z1_and_z2_discovery(driver: Driver) -> None:
    entities = {entity.service_name: entity for entity in driver.discover().entities}
    for service in (MODEL, TWO, CONFIGURED):
        assert entities[service].entity_type == "cloudstate.crdt.Crdt"
    assert entities[CONFIGURED].passivation_strategy.timeout.timeout == 100
    assert not entities[MODEL].HasField("passivation_strategy")


def test_x1_forward(driver: Driver) -> None:
    x = fresh()
    played = Played(driver, "GCounter").init().command(1, [inc(42)], s_gc(42), d_gc(42))
    played.send(2, forward(x)).expect(2, forwarded(x)).command(3, [], s_gc(42)).passivate()


def test_x2_forward_with_a_change(driver: Driver) -> None:
    x = fresh()
    Played(driver, "PNCounter").init().send(1, change(-42), forward(x)).expect(1, forwarded(x), d_pn(-42)).passivate()


def test_x3_side_effect(driver: Driver) -> None:
    x = fresh()
    played = Played(driver, "GSet").init().command(1, [g_add("one")], s_gs("one"), d_gs("one"))
    played.send(2, effect(x)).expect(2, s_gs("one"), effects=[side_effect(x)])
    played.command(3, [], s_gs("one")).passivate()


def test_x4_synchronous_side_effect(driver: Driver) -> None:
    x = fresh()
    played = Played(driver, "ORSet").init().send(1, effect(x, True))
    played.expect(1, s_os(), effects=[side_effect(x, True)]).passivate()


def test_x5_side_effect_and_forward(driver: Driver) -> None:
    a, b = fresh(), fresh()
    played = Played(driver, "LWWRegister").init().send(1, effect(b), forward(a))
    played.expect(1, forwarded(a), d_lw(""), effects=[side_effect(b)]).passivate()


def test_x6_side_effects_in_order(driver: Driver) -> None:
    targets = [fresh() for _ in range(3)]
    played = Played(driver, "Flag").init().send(1, *map(effect, targets))
    played.expect(1, s_fl(False), effects=map(side_effect, targets)).passivate()


def test_x7_changes_with_side_effects(driver: Driver) -> None:
    targets = [fresh() for _ in range(3)]
    adds = [m_update(GS, g_add(element)) for element in "abc"]
    played = Played(driver, "ORMap").init().send(1, m_add(PN), *adds, *map(effect, targets))
    delta = d_map(added={PN: d_pn(0), GS: d_gs("a", "b", "c")})
    state = s_map({PN: s_pn(0), GS: s_gs("a", "b", "c")})
    played.expect(1, state, delta, effects=map(side_effect, targets)).passivate()


def test_e1_failure(driver: Driver) -> None:
    Played(driver, "GCounter").init().send(1, fail("no")).expect(1, failed(1, "no")).passivate()


def test_e2_the_stream_survives_a_failure(driver: Driver) -> None:
    played = Played(driver, "PNCounter").init().command(1, [change(42)], s_pn(42), d_pn(42))
    played.send(2, fail("no")).expect(2, failed(2, "no")).command(3, [], s_pn(42)).passivate()


def test_e2_what_a_failed_command_changed_is_taken_back(driver: Driver) -> None:
    played = Played(driver, "PNCounter").init().command(1, [change(42)], s_pn(42), d_pn(42))
    played.send(2, change(7), effect("x"), fail("no")).expect(2, failed(2, "no"))
    played.command(3, [change(1)], s_pn(43), d_pn(1)).passivate()


def test_c1_write_consistency(driver: Driver) -> None:
    played = Played(driver, "GCounter").init()
    for command_id, consistency, total in ((1, LOCAL, 1), (2, MAJORITY, 3), (3, ALL, 6)):
        played.send(command_id, act(inc(command_id), consistency))
        played.expect(command_id, s_gc(total), d_gc(command_id), consistency=consistency)
    played.passivate()


def test_t1_a_message_after_each_change(driver: Driver) -> None:
    played = Played(driver, "GCounter").init().stream_to(1).expect(1, s_gc(0), streamed=True)
    for command_id, by, total in ((2, 1, 1), (3, 2, 3), (4, 3, 6)):
        played.command(command_id, [inc(by)], s_gc(total), d_gc(by)).message(1, s_gc(total))
    played.passivate()


def test_t2_the_end_of_a_stream(driver: Driver) -> None:
    played = Played(driver, "GCounter").init().stream_to(1, end_state=s_gc(3)).expect(1, s_gc(0), streamed=True)
    played.command(2, [inc(1)], s_gc(1), d_gc(1)).message(1, s_gc(1))
    played.command(3, [inc(2)], s_gc(3), d_gc(2)).message(1, s_gc(3), end=True)
    played.command(4, [inc(3)], s_gc(6), d_gc(3)).passivate()


def test_t3_a_change_when_the_client_goes(driver: Driver) -> None:
    played = Played(driver, "PNCounter").init().stream_to(1, cancel_update=change(-42))
    played.expect(1, s_pn(0), streamed=True)
    played.command(2, [change(10)], s_pn(10), d_pn(10)).message(1, s_pn(10))
    played.command(3, [change(20)], s_pn(30), d_pn(20)).message(1, s_pn(30))
    played.cancel(1, d_pn(-42))
    played.command(4, [], s_pn(-12)).command(5, [change(30)], s_pn(18), d_pn(30)).passivate()


def test_t4_a_stream_without_messages(driver: Driver) -> None:
    played = Played(driver, "PNCounter").init().command(1, [change(10)], s_pn(10), d_pn(10))
    played.stream_to(2, cancel_update=change(-42), empty=True).expect(2, streamed=True)
    played.cancel(2, d_pn(-42)).command(3, [], s_pn(-32)).passivate()


def test_t5_side_effects_of_messages(driver: Driver) -> None:
    one, two = fresh(), fresh()
    asked = [tck.Effect(id=one), tck.Effect(id=two, synchronous=True)]
    effects = [side_effect(one), side_effect(two, True)]
    played = Played(driver, "GSet").init().stream_to(1, effects=asked).expect(1, s_gs(), streamed=True)
    for command_id, element, state in ((2, "a", s_gs("a")), (3, "b", s_gs("a", "b"))):
        played.command(command_id, [g_add(element)], state, d_gs(element)).message(1, state, effects=effects)
    played.passivate()

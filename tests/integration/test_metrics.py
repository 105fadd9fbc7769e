"""The figures of event sourced entities as a scraper sees them: core 10.5."""

from __future__ import annotations

from .harness import World, ok, unknown
from .messages import CONFIGURED, command, event, failed, init, persisted, reply, stream_failure

SETTINGS = {"journal": "memory:", "passivation_timeout": "1h"}


def bytes_of(*values: str) -> int:
    return sum(len(persisted(value).SerializeToString()) for value in values)


async def test_a_fresh_instance(world: World) -> None:
    before = await world.proxy.metrics()
    key = world.user_function.play()
    call, stream = await world.busy(key)
    changes = (await world.proxy.metrics()).since(before)
    assert changes == {"activated_entities_total": 1, "recovery_time_seconds_count": 1, "received_commands_total": 1}
    await stream.send(reply(1))
    assert await call == ok()


async def test_a_command_behind_another(world: World) -> None:
    key = world.user_function.play()
    before = await world.proxy.metrics()
    call, stream = await world.busy(key)
    second = world.client.start(key)
    await world.queued(1)
    changes = (await world.proxy.metrics()).since(before)
    assert changes["received_commands_total"] == 2
    assert changes["stashed_commands_total"] == 1
    assert "unstashed_commands_total" not in changes
    await stream.send(reply(1))
    await stream.next()
    await stream.send(reply(2))
    assert (await call, await second) == (ok(), ok())
    changes = (await world.proxy.metrics()).since(before)
    assert changes["unstashed_commands_total"] == changes["command_stash_time_seconds_count"] == 1


async def test_a_reply_with_three_events_and_a_snapshot(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    before = await world.proxy.metrics()
    await stream.send(reply(1, events=["a", "bb", "ccc"], snapshot="abbccc"))
    assert await call == ok()
    assert (await world.proxy.metrics()).since(before) == {
        "command_processing_time_seconds_count": 1,
        "persisted_events_total": 3,
        "persisted_event_bytes_total": bytes_of("a", "bb", "ccc"),
        "persist_time_seconds_count": 1,
        "persisted_snapshots_total": 1,
        "persisted_snapshot_bytes_total": bytes_of("abbccc"),
        "completed_commands_total": 1,
        "command_total_time_seconds_count": 1,
    }


async def test_an_activation_with_a_snapshot_and_two_events(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key, service=CONFIGURED)
    await stream.send(reply(1, events="abc", snapshot="abc"))
    await call
    call = world.client.start(key, service=CONFIGURED)
    await stream.next()
    await stream.send(reply(2, events="de"))
    await call
    await stream.close_as_asked()
    before = await world.proxy.metrics(CONFIGURED)
    call = world.client.start(key, service=CONFIGURED)
    stream = await world.user_function.stream(key)
    expected = [init(key, CONFIGURED, "abc", 3), event(4, "d"), event(5, "e"), command(1, key, service=CONFIGURED)]
    assert [await stream.next() for _ in expected] == expected
    changes = (await world.proxy.metrics(CONFIGURED)).since(before)
    assert changes["loaded_snapshots_total"] == 1
    assert changes["loaded_snapshot_bytes_total"] == bytes_of("abc")
    assert changes["loaded_events_total"] == 2
    assert changes["loaded_event_bytes_total"] == bytes_of("d", "e")
    assert changes["activated_entities_total"] == 1
    await stream.send(reply(1))
    await call


async def test_a_failure_action(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    before = await world.proxy.metrics()
    await stream.send(failed(1, "no"))
    assert await call == unknown("no")
    assert (await world.proxy.metrics()).since(before) == {
        "failed_commands_total": 1,
        "completed_commands_total": 1,
        "command_processing_time_seconds_count": 1,
        "command_total_time_seconds_count": 1,
    }


async def test_a_stream_failure_with_the_id_in_flight(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    before = await world.proxy.metrics()
    await stream.send(stream_failure(1))
    await call
    await stream.close_as_asked()
    await world.until_metric("passivated_entities_total", before["passivated_entities_total"] + 1)
    changes = (await world.proxy.metrics()).since(before)
    assert changes["failed_commands_total"] == 1
    assert changes["completed_commands_total"] == 1
    assert changes["failed_entities_total"] == 1
    assert changes["entity_active_time_seconds_count"] == 1


async def test_a_restart_with_two_commands_queued(world: World) -> None:
    """Those two count again as received, and one of them again as stashed."""
    key = world.user_function.play()
    before = await world.proxy.metrics()
    call, stream = await world.busy(key)
    waiting = [world.client.start(key) for _ in range(2)]
    await world.queued(2)
    await stream.send(failed(1, "start over", restart=True))
    await call
    await stream.close_as_asked()
    stream = await world.user_function.ready_stream(key)
    assert await stream.next() == command(1, key)
    changes = (await world.proxy.metrics()).since(before)
    assert changes["unstashed_commands_total"] == 2
    assert changes["passivated_entities_total"] == 1
    assert changes["activated_entities_total"] == 2
    assert changes["received_commands_total"] == 3 + 2
    assert changes["stashed_commands_total"] == 2 + 1
    for number, queued in enumerate(waiting, 1):
        await stream.send(reply(number))
        assert await queued == ok()


async def test_what_comes_in_goes_out_in_every_queue(world: World) -> None:
    """After all the tests above: no command is counted as waiting."""
    metrics = await world.proxy.metrics()
    assert metrics["stashed_commands_total"] == metrics["unstashed_commands_total"]


async def test_a_scraper_may_ask_for_some_names_only(world: World) -> None:
    _, text = await world.proxy.admin("/metrics?name[]=cloudstate_eventsourced_activated_entities_total")
    names = {line.split("{")[0] for line in text.splitlines() if not line.startswith("#")}
    assert names == {"cloudstate_eventsourced_activated_entities_total"}

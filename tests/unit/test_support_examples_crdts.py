"""The examples of CRDT entities in the test kit: what each does by itself, and what other nodes do to it."""

from __future__ import annotations

from typing import Any

from examples.chat.protos.chat import chat_pb2 as chat
from examples.chat.rooms import Room
from examples.shared_counter.entity import SharedCounter
from examples.shared_counter.protos.counter import counter_pb2 as shared
from examples.todo.entity import TodoList
from examples.todo.protos.todo import todo_pb2 as todo
from examples.voting.polls import Poll
from examples.voting.protos.voting import voting_pb2 as voting
from stateside.support import WriteConsistency
from stateside.support.testkit import TestKit
from stateside.support.testkit_crdt import TestStream

LOOK = chat.GetRoom(room="r")


def join(room: Any, user: str) -> TestStream:
    stream = room.join(chat.JoinRoom(room="r", user=user))
    assert isinstance(stream, TestStream)
    return stream


def texts(update: chat.Room) -> list[str]:
    return [message.text for message in update.messages]


def test_a_counter_that_two_nodes_change() -> None:
    counter = TestKit(SharedCounter).crdt("c")
    watch = counter.watch(shared.CounterKey(counter="c"))
    assert counter.add(shared.Change(counter="c", by=5)).reply.value == 5
    counter.elsewhere(lambda other: other.increment(-2))
    assert counter.add(shared.Change(counter="c", by=1)).reply.value == 4
    assert [value.value for value in watch.replies] == [0, 5, 3, 4]
    assert counter.get(shared.CounterKey(counter="c")).delta is None


def test_who_joins_a_room_sees_what_was_said_and_then_what_is_new() -> None:
    room = TestKit(Room).crdt("r")
    room.say(chat.Post(room="r", user="alice", text="hello"))
    bob = join(room, "bob")
    assert (texts(bob.replies[0]), bob.replies[0].online) == (["hello"], ["bob"])
    room.say(chat.Post(room="r", user="alice", text="there"))
    assert (texts(bob.replies[1]), bob.replies[1].online, len(bob.replies)) == (["there"], ["bob"], 2)


def test_somebody_is_online_while_one_of_his_calls_goes_on() -> None:
    room = TestKit(Room).crdt("r")
    alice, first, second = join(room, "alice"), join(room, "bob"), join(room, "bob")
    assert alice.replies[-1].online == ["alice", "bob"]
    first.cancel()
    assert room.look(LOOK).reply.online == ["alice", "bob"]
    assert second.cancel().delta is not None
    assert alice.replies[-1].online == room.look(LOOK).reply.online == ["alice"]


def test_a_user_function_that_starts_again_knows_nobody_until_he_joins_again() -> None:
    room = TestKit(Room).crdt("r")
    join(room, "alice"), join(room, "bob")
    room.passivate()
    assert room.look(LOOK).reply.online == ["alice", "bob"]
    assert join(room, "bob").replies[0].online == ["bob"]


def test_somebody_who_is_on_another_node_is_online() -> None:
    room = TestKit(Room).crdt("r")
    room.elsewhere(lambda other: setattr(other.map("presence").vote("carol"), "vote", True))
    room.elsewhere(lambda other: other.gset("messages").add(chat.Message(user="carol", text="hi", sent_at_us=1)))
    seen = room.look(LOOK).reply
    assert (texts(seen), seen.online) == (["hi"], ["carol"])
    assert room.join(chat.JoinRoom(room="r")).results[0].failure == "Who are you?"


def ballot(voter: str, choice: str) -> voting.Ballot:
    return voting.Ballot(poll="p", voter=voter, choice=choice)


def test_a_poll_counts_each_voter_once_and_tells_the_count() -> None:
    poll = TestKit(Poll).crdt("p")
    key = voting.PollKey(poll="p")
    watch = poll.watch(key)
    poll.cast(ballot("alice", "tea"))
    poll.cast(ballot("bob", "tea"))
    assert poll.cast(ballot("alice", "coffee")).reply.votes == {"tea": 1, "coffee": 1}
    closed = poll.close(key)
    assert (closed.reply.closed, closed.write_consistency) == (True, WriteConsistency.MAJORITY)
    assert [sum(tally.votes.values()) for tally in watch.replies] == [0, 1, 2, 2, 2] and not watch.streamed
    assert poll.cast(ballot("carol", "tea")).failure == "The poll is closed"
    assert poll.count(key).reply == closed.reply and poll.count(key).delta is None
    assert poll.cast(ballot("", "tea")).failure == "The poll is closed"


def test_what_is_no_ballot() -> None:
    assert TestKit(Poll).crdt("p").cast(ballot("", "tea")).failure == "A ballot has a voter and a choice"


def test_changes_to_different_fields_of_an_item_do_not_collide() -> None:
    todos = TestKit(TodoList).crdt("home")
    todos.write(todo.Edit(list="home", item="1", title="milk", add_labels=["shop", "now"]))
    watch = todos.watch(todo.ListKey(list="home"))
    todos.elsewhere(lambda items: items.map("1").register("done").set(True))
    todos.elsewhere(lambda items: items.map("1").orset("labels").discard("now"))
    edited = todos.write(todo.Edit(list="home", item="1", title="oat milk", remove_labels=["x"], add_labels=["soon"]))
    assert edited.reply == todo.Item(item="1", title="oat milk", done=True, labels=["shop", "soon"])
    assert watch.replies[-1].items == [edited.reply]
    todos.remove(todo.ItemKey(list="home", item="1"))
    assert not watch.replies[-1].items
    assert todos.write(todo.Edit(list="home")).failure == "Which item?"

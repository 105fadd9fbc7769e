"""The examples behind a real proxy: all their services in one user function, called by a gRPC client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from examples.chat.protos.chat import chat_pb2 as chat
from examples.chat.rooms import Room
from examples.fraud_scoring.protos.fraud import fraud_pb2 as fraud
from examples.fraud_scoring.services import CustomerCase, Scoring
from examples.ping_pong.players import Pinger, Ponger
from examples.ping_pong.protos.pingpong import pingpong_pb2 as game
from examples.shared_counter.entity import SharedCounter
from examples.shared_counter.protos.counter import counter_pb2 as shared
from examples.shopping_cart.entity import ShoppingCart
from examples.todo.entity import TodoList
from examples.todo.protos.todo import todo_pb2 as todo
from examples.transfer.protos.transfer import transfer_pb2 as bank
from examples.transfer.services import Account, Transfers
from examples.value_cart.entity import ValueCart
from examples.value_cart.protos.valuecart import shoppingcart_pb2 as shop
from examples.voting.polls import Poll
from examples.voting.protos.voting import voting_pb2 as voting
from stateside.support import Stateside

from .harness import Client, ProxyProcess
from .user_function import PATIENCE_S


class Served:
    """All examples in one process behind one proxy."""

    def __init__(self, folder: Path) -> None:
        self.app = Stateside(
            *(ShoppingCart, ValueCart, Pinger, Ponger, Scoring(), CustomerCase, Transfers, Account),
            *(Room, Poll, SharedCounter, TodoList),
            name="examples",
        )
        self.folder = folder

    async def start(self) -> Served:
        port = await self.app.start("127.0.0.1", 0)
        self.proxy = await ProxyProcess(port, self.folder, journal="memory:").start()
        self.client = Client(self.proxy.port)
        return self

    async def stop(self) -> None:
        await self.client.close()
        await self.proxy.stop()
        await self.app.stop(0)

    async def call(self, method: str, request: Any, reply_class: Any) -> Any:
        return reply_class.FromString(await self.client.call(f"/{method}", request.SerializeToString()))


@pytest.fixture(scope="module")
def served(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("examples"))
    runner.run(served.start())
    yield served
    runner.run(served.stop())


async def test_value_cart(served: Served) -> None:
    service = "com.example.valueentity.shoppingcart.ShoppingCart"
    for quantity in (2, 3):
        line = shop.AddLineItem(user_id="u", product_id="tea", name="Tea", quantity=quantity)
        await served.call(f"{service}/AddItem", line, shop.Cart)
    cart = await served.call(f"{service}/GetCart", shop.GetShoppingCart(user_id="u"), shop.Cart)
    assert cart == shop.Cart(items=[shop.LineItem(product_id="tea", name="Tea", quantity=5)])
    await served.call(f"{service}/RemoveCart", shop.RemoveShoppingCart(user_id="u"), shop.Cart)
    assert await served.call(f"{service}/GetCart", shop.GetShoppingCart(user_id="u"), shop.Cart) == shop.Cart()


async def test_ping_pong(served: Served) -> None:
    ping = await served.call("cloudstate.pingpong.Pinger/Ping", game.PongSent(id="g"), game.PingSent)
    assert ping.sequence_number == 1
    pong = game.PongSent(id="g", sequence_number=1)
    rally = await served.call("cloudstate.pingpong.Pinger/Rally", pong, game.PongSent)
    assert rally.sequence_number == 3
    for player in ("Pinger", "Ponger"):
        stats = await served.call(f"cloudstate.pingpong.{player}/Report", game.GetReport(id="g"), game.Stats)
        assert stats == (game.Stats(sent=2, seen=1) if player == "Pinger" else game.Stats(sent=1, seen=2))


async def test_fraud_scoring(served: Served) -> None:
    suspicious = fraud.Payment(payment_id="p1", customer="c", country="XX", amount_cents=5_000_00)
    score = await served.call("example.fraud.Scoring/ScorePayment", suspicious, fraud.Score)
    assert score.points == 70
    case = await served.call("example.fraud.Cases/Get", fraud.GetCase(customer="c"), fraud.Case)
    assert case == fraud.Case(payment_ids=["p1"], points=70)


async def test_fraud_scoring_of_streams(served: Served) -> None:
    payments = [fraud.Payment(payment_id=f"s{n}", customer="d", amount_cents=n * 1_000_00) for n in range(3)]

    async def sent() -> AsyncIterator[bytes]:
        for payment in payments:
            yield payment.SerializeToString()

    watch = served.client.channel.stream_stream("/example.fraud.Scoring/Watch")(sent(), timeout=PATIENCE_S)
    scores = [fraud.Score.FromString(data) async for data in watch]
    assert [(score.payment_id, score.points) for score in scores] == [("s0", 30), ("s1", 70), ("s2", 70)]
    summarize = served.client.channel.stream_unary("/example.fraud.Scoring/Summarize")(sent(), timeout=PATIENCE_S)
    assert fraud.Summary.FromString(await summarize) == fraud.Summary(payments=3, suspicious=2)
    case = await served.call("example.fraud.Cases/Get", fraud.GetCase(customer="d"), fraud.Case)
    assert case.payment_ids == ["s1", "s2"]


async def balance(served: Served, account: str) -> Any:
    return await served.call("example.transfer.Accounts/Get", bank.AccountKey(account=account), bank.Balance)


async def test_a_transfer_moves_money(served: Served) -> None:
    await served.call("example.transfer.Accounts/PayIn", bank.Amount(account="a", amount=100), bank.Balance)
    transfer = bank.Transfer(transfer_id="t1", sender="a", receiver="b", amount=30)
    for _ in range(2):  # asked again it is not done again
        progress = await served.call("example.transfer.Transfers/Start", transfer, bank.Progress)
        assert progress.transfer == transfer
    assert await balance(served, "a") == bank.Balance(amount=70, outgoing={"t1": bank.DONE})
    assert (await balance(served, "b")).amount == 30


async def test_a_transfer_to_a_closed_account_is_refunded(served: Served) -> None:
    await served.call("example.transfer.Accounts/PayIn", bank.Amount(account="c", amount=100), bank.Balance)
    await served.call("example.transfer.Accounts/Close", bank.AccountKey(account="d"), bank.Balance)
    transfer = bank.Transfer(transfer_id="t2", sender="c", receiver="d", amount=30)
    await served.call("example.transfer.Transfers/Start", transfer, bank.Progress)
    assert await balance(served, "c") == bank.Balance(amount=100, outgoing={"t2": bank.REFUNDED})
    assert (await balance(served, "d")).amount == 0


async def test_a_transfer_of_more_than_there_is(served: Served) -> None:
    transfer = bank.Transfer(transfer_id="t3", sender="poor", receiver="b", amount=30)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.call("example.transfer.Transfers/Start", transfer, bank.Progress)
    assert caught.value.details() == "Account poor does not have 30"


class Watching:
    """A streamed call."""

    def __init__(self, served: Served, method: str, request: Any, reply_class: Any) -> None:
        self._call = served.client.channel.unary_stream(f"/{method}")(request.SerializeToString(), timeout=PATIENCE_S)
        self._reply_class = reply_class

    async def next(self) -> Any:
        message = await self._call.read()
        return message if message is grpc.aio.EOF else self._reply_class.FromString(message)

    def cancel(self) -> None:
        self._call.cancel()


async def test_a_shared_counter(served: Served) -> None:
    watch = Watching(served, "example.counter.Counters/Watch", shared.CounterKey(counter="c"), shared.Value)
    assert (await watch.next()).value == 0
    for by, value in ((5, 5), (-7, -2)):
        change = shared.Change(counter="c", by=by)
        assert (await served.call("example.counter.Counters/Add", change, shared.Value)).value == value
        assert (await watch.next()).value == value
    watch.cancel()
    assert (await served.call("example.counter.Counters/Get", shared.CounterKey(counter="c"), shared.Value)).value == -2


async def test_a_poll(served: Served) -> None:
    key = voting.PollKey(poll="p")
    watch = Watching(served, "example.voting.Polls/Watch", key, voting.Tally)
    assert await watch.next() == voting.Tally()
    ballot = voting.Ballot(poll="p", voter="alice", choice="tea")
    tally = await served.call("example.voting.Polls/Cast", ballot, voting.Tally)
    assert tally == await watch.next() == voting.Tally(votes={"tea": 1})
    closed = await served.call("example.voting.Polls/Close", key, voting.Tally)
    assert closed == await watch.next() == voting.Tally(votes={"tea": 1}, closed=True)
    assert await watch.next() is grpc.aio.EOF
    with pytest.raises(grpc.aio.AioRpcError, match="The poll is closed"):
        await served.call("example.voting.Polls/Cast", ballot, voting.Tally)


async def test_a_todo_list(served: Served) -> None:
    edit = todo.Edit(list="home", item="1", title="milk", add_labels=["shop"])
    await served.call("example.todo.Todos/Write", edit, todo.Item)
    await served.call("example.todo.Todos/Write", todo.Edit(list="home", item="1", done=True), todo.Item)
    listed = await served.call("example.todo.Todos/Get", todo.ListKey(list="home"), todo.TodoList)
    assert listed == todo.TodoList(items=[todo.Item(item="1", title="milk", done=True, labels=["shop"])])
    await served.call("example.todo.Todos/Remove", todo.ItemKey(list="home", item="1"), todo.Item)
    assert not (await served.call("example.todo.Todos/Get", todo.ListKey(list="home"), todo.TodoList)).items


async def test_a_chat_room(served: Served) -> None:
    alice = Watching(served, "example.chat.Rooms/Join", chat.JoinRoom(room="r", user="alice"), chat.Room)
    assert (await alice.next()).online == ["alice"]
    bob = Watching(served, "example.chat.Rooms/Join", chat.JoinRoom(room="r", user="bob"), chat.Room)
    assert (await bob.next()).online == (await alice.next()).online == ["alice", "bob"]
    await served.call("example.chat.Rooms/Say", chat.Post(room="r", user="bob", text="hello"), chat.Room)
    for guest in (alice, bob):
        assert [message.text for message in (await guest.next()).messages] == ["hello"]
    bob.cancel()
    assert (await alice.next()).online == ["alice"]
    alice.cancel()
    room = chat.GetRoom(room="r")
    while (seen := await served.call("example.chat.Rooms/Look", room, chat.Room)).online:
        await asyncio.sleep(0.01)
    assert [message.text for message in seen.messages] == ["hello"]

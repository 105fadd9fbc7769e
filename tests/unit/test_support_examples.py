"""The examples in the test kit: what each service does by itself. Together they are tried behind a proxy, in
tests/integration/test_examples.py.
"""

from __future__ import annotations

from examples.fraud_scoring.protos.fraud import fraud_pb2 as fraud
from examples.fraud_scoring.services import CustomerCase, Scoring
from examples.ping_pong.players import Pinger, Ponger
from examples.ping_pong.protos.pingpong import pingpong_pb2 as game
from examples.transfer.protos.transfer import transfer_pb2 as bank
from examples.transfer.services import Account, Transfers
from examples.value_cart.entity import ValueCart
from examples.value_cart.protos.valuecart import shoppingcart_pb2 as shop
from stateside.support.testkit import TestKit

GET = shop.GetShoppingCart(user_id="u")


def line(product: str, quantity: int = 1) -> shop.AddLineItem:
    return shop.AddLineItem(user_id="u", product_id=product, name=product.title(), quantity=quantity)


# --- value cart ------------------------------------------------------------------------------------------------------


def test_a_cart_sums_quantities_and_is_sorted_by_product() -> None:
    kit = TestKit(ValueCart)
    cart = kit.entity("u")
    for product, quantity in (("tea", 2), ("cup", 1), ("tea", 3)):
        cart.add_item(line(product, quantity))
    kit.restart()
    items = [(item.product_id, item.name, item.quantity) for item in cart.get_cart(GET).reply.items]
    assert items == [("cup", "Cup", 1), ("tea", "Tea", 5)]


def test_what_a_cart_refuses() -> None:
    cart = TestKit(ValueCart).entity("u")
    assert cart.add_item(line("tea", 0)).failure == "Cannot add negative quantity of to item tea"
    missing = cart.remove_item(shop.RemoveLineItem(product_id="tea"))
    assert missing.failure == "Cannot remove item tea because it is not in the cart."


def test_lines_and_carts_are_removed() -> None:
    cart = TestKit(ValueCart).entity("u")
    cart.add_item(line("tea"))
    cart.add_item(line("cup"))
    cart.remove_item(shop.RemoveLineItem(product_id="tea"))
    assert [item.product_id for item in cart.get_cart(GET).reply.items] == ["cup"]
    assert cart.remove_cart(shop.RemoveShoppingCart(user_id="u")).deleted
    assert cart.get_cart(GET).reply == shop.Cart()


# --- ping pong -------------------------------------------------------------------------------------------------------


def test_the_pinger_tells_the_ponger() -> None:
    pinger = TestKit(Pinger, targets=[Ponger]).entity("g")
    result = pinger.ping(game.PongSent(id="g", sequence_number=4))
    assert result.reply == game.PingSent(id="g", sequence_number=5)
    assert [effect.call.command_name for effect in result.effects] == ["SeenPing"]
    forward = pinger.rally(game.PongSent(id="g")).forward
    assert forward is not None
    assert (forward.command_name, forward.message) == ("Pong", game.PingSent(id="g", sequence_number=1))
    assert pinger.report(game.GetReport(id="g")).reply == game.Stats(sent=2)


def test_the_ponger_tells_the_pinger() -> None:
    ponger = TestKit(Ponger, targets=[Pinger]).entity("g")
    result = ponger.pong(game.PingSent(id="g", sequence_number=1))
    assert (result.reply.sequence_number, result.updated) == (2, game.Stats(sent=1))
    ponger.seen_ping(game.PingSent(id="g"))
    assert ponger.report(game.GetReport(id="g")).reply == game.Stats(sent=1, seen=1)


# --- fraud scoring ---------------------------------------------------------------------------------------------------


def payment(cents: int, country: str = "AT", customer: str = "c") -> fraud.Payment:
    return fraud.Payment(payment_id="p", customer=customer, country=country, amount_cents=cents)


def test_only_suspicious_payments_reach_the_case() -> None:
    scoring = TestKit(Scoring(home="AT"), targets=[CustomerCase]).action
    harmless = scoring.score_payment(payment(10_00))
    assert (harmless.reply.points, harmless.effects) == (0, [])
    suspicious = scoring.score_payment(payment(5_000_00, "XX"))
    assert list(suspicious.reply.reasons) == ["large amount", "foreign country"]
    [effect] = suspicious.effects
    assert effect.synchronous and effect.call.message == fraud.Suspicion(customer="c", payment_id="p", points=70)
    assert scoring.score_payment(payment(1, customer="")).failure == "A payment has a customer"


def test_a_suspicion_that_comes_twice_counts_once() -> None:
    kit = TestKit(CustomerCase)
    case = kit.entity("c")
    for _ in range(2):
        case.suspect(fraud.Suspicion(customer="c", payment_id="p", points=70))
    kit.restart()
    assert case.get(fraud.GetCase(customer="c")).reply == fraud.Case(payment_ids=["p"], points=70)


# --- transfer --------------------------------------------------------------------------------------------------------

MOVE = bank.Transfer(transfer_id="t", sender="a", receiver="b", amount=30)


def test_the_action_decides_what_comes_next() -> None:
    action = TestKit(Transfers, targets=[Account]).action
    start = action.start(MOVE).forward
    assert start is not None and start.command_name == "Withdraw"
    steps = {bank.WITHDRAWN: ("Deposit", "b"), bank.DEPOSITED: ("Settle", "a"), bank.REFUSED: ("Refund", "a")}
    for step, (name, account) in steps.items():
        [effect] = action.proceed(bank.Progress(transfer=MOVE, step=step)).effects
        assert (effect.call.command_name, effect.call.message.account) == (name, account)  # type: ignore[attr-defined]
    assert (
        action.start(bank.Transfer(transfer_id="t", amount=0)).failure == "A transfer has an id and a positive amount"
    )


def test_steps_that_come_twice_are_done_once() -> None:
    account = TestKit(Account, targets=[Transfers]).entity("a")
    account.pay_in(bank.Amount(account="a", amount=100))
    request = bank.AccountStep(account="a", transfer=MOVE)
    for _ in range(2):
        assert account.withdraw(request).reply.step == bank.WITHDRAWN
    assert account.state.amount == 70
    for _ in range(2):
        assert account.refund(request).reply.step == bank.REFUNDED
    assert account.settle(request).reply.step == bank.REFUNDED
    assert account.state.amount == 100


def test_a_closed_account_refuses_a_deposit() -> None:
    account = TestKit(Account, targets=[Transfers]).entity("b")
    account.close(bank.AccountKey(account="b"))
    result = account.deposit(bank.AccountStep(account="b", transfer=MOVE))
    assert (result.reply.step, account.state.amount) == (bank.REFUSED, 0)

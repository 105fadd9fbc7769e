"""An action that scores payments, and an event sourced entity per customer that collects the suspicious ones."""

from collections.abc import AsyncIterator

from stateside.support import (
    Action,
    ActionContext,
    EventSourced,
    EventSourcedContext,
    Service,
    command,
    event,
    snapshot,
    snapshot_handler,
)

from .protos.fraud import fraud_pb2 as fraud

SERVICES = fraud.DESCRIPTOR.services_by_name
CASES = Service(SERVICES["Cases"])
SUSPICIOUS = 50  # points
LARGE_CENTS = 1_000_00


@Action(service=SERVICES["Scoring"])
class Scoring:
    """home: the country that payments usually come from."""

    def __init__(self, home: str = "AT") -> None:
        self.home = home

    @command
    def score_payment(self, payment: fraud.Payment, ctx: ActionContext) -> fraud.Score:
        if not payment.customer:
            ctx.fail("A payment has a customer")
        score = self._score(payment)
        if score.points >= SUSPICIOUS:
            suspicion = fraud.Suspicion(customer=payment.customer, payment_id=payment.payment_id, points=score.points)
            ctx.effect(CASES.call("Suspect", suspicion), synchronous=True)
        return score

    @command
    async def watch(self, payments: AsyncIterator[fraud.Payment], ctx: ActionContext) -> AsyncIterator[fraud.Score]:
        async for payment in payments:
            yield self.score_payment(payment, ctx)

    @command
    async def summarize(self, payments: AsyncIterator[fraud.Payment]) -> fraud.Summary:
        summary = fraud.Summary()
        async for payment in payments:
            summary.payments += 1
            summary.suspicious += self._score(payment).points >= SUSPICIOUS
        return summary

    def _score(self, payment: fraud.Payment) -> fraud.Score:
        score = fraud.Score(payment_id=payment.payment_id)
        if payment.amount_cents >= LARGE_CENTS:
            score.points += 40
            score.reasons.append("large amount")
        if payment.country != self.home:
            score.points += 30
            score.reasons.append("foreign country")
        return score


@EventSourced(service=SERVICES["Cases"], persistence_id="fraud-case", snapshot_every=50)
class CustomerCase:
    def __init__(self) -> None:
        self.case = fraud.Case()

    @command
    def suspect(self, suspicion: fraud.Suspicion, ctx: EventSourcedContext) -> None:
        if suspicion.payment_id not in self.case.payment_ids:  # an effect may come twice
            ctx.emit(suspicion)

    @command
    def get(self) -> fraud.Case:
        return self.case

    @event
    def suspected(self, event: fraud.Suspicion) -> None:
        self.case.payment_ids.append(event.payment_id)
        self.case.points += event.points

    @snapshot
    def take(self) -> fraud.Case:
        return self.case

    @snapshot_handler
    def load(self, case: fraud.Case) -> None:
        self.case.CopyFrom(case)

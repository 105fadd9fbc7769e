"""A transfer between two accounts as a saga with compensation.

    Start --forward--> Withdraw(sender) --effect--> Proceed(WITHDRAWN) --effect--> Deposit(receiver)
    Deposit --effect--> Proceed(DEPOSITED) --effect--> Settle(sender)                     money has moved
            --effect--> Proceed(REFUSED)   --effect--> Refund(sender)                     compensation

The accounts are event sourced and know each step they took, so that a step that comes twice is done once. The action
decides what comes next, and keeps nothing.
"""

from stateside.support import (
    Action,
    ActionContext,
    EventSourced,
    EventSourcedContext,
    Forward,
    Service,
    ServiceCall,
    command,
    event,
)

from .protos.transfer import transfer_pb2 as bank

SERVICES = bank.DESCRIPTOR.services_by_name
TRANSFERS = Service(SERVICES["Transfers"])
ACCOUNTS = Service(SERVICES["Accounts"])


@Action(service=SERVICES["Transfers"])
class Transfers:
    @command
    def start(self, transfer: bank.Transfer, ctx: ActionContext) -> Forward:
        if transfer.amount <= 0 or not transfer.transfer_id:
            ctx.fail("A transfer has an id and a positive amount")
        if transfer.sender == transfer.receiver:
            ctx.fail("A transfer goes to another account")
        return Forward(step(transfer, "Withdraw", transfer.sender))

    @command
    def proceed(self, progress: bank.Progress, ctx: ActionContext) -> None:
        transfer = progress.transfer
        match progress.step:
            case bank.WITHDRAWN:
                ctx.effect(step(transfer, "Deposit", transfer.receiver), synchronous=True)
            case bank.DEPOSITED:
                ctx.effect(step(transfer, "Settle", transfer.sender), synchronous=True)
            case bank.REFUSED:
                ctx.effect(step(transfer, "Refund", transfer.sender), synchronous=True)


@EventSourced(service=SERVICES["Accounts"], persistence_id="account")
class Account:
    def __init__(self) -> None:
        self.amount = 0
        self.closed = False
        self.outgoing: dict[str, bank.Step] = {}
        self.incoming: dict[str, bank.Step] = {}

    @command
    def pay_in(self, request: bank.Amount, ctx: EventSourcedContext) -> None:
        ctx.emit(bank.PaidIn(amount=request.amount))

    @command
    def close(self, ctx: EventSourcedContext) -> None:
        ctx.emit(bank.Closed())

    @command
    def get(self) -> bank.Balance:
        return bank.Balance(amount=self.amount, closed=self.closed, outgoing=self.outgoing)

    @command
    def withdraw(self, request: bank.AccountStep, ctx: EventSourcedContext) -> bank.Progress:
        transfer = request.transfer
        known = self.outgoing.get(transfer.transfer_id)
        if known is not None:
            return bank.Progress(transfer=transfer, step=known)
        if transfer.amount > self.amount:
            ctx.fail(f"Account {request.account} does not have {transfer.amount}")
        return self._step(ctx, transfer, bank.WITHDRAWN)

    @command
    def deposit(self, request: bank.AccountStep, ctx: EventSourcedContext) -> bank.Progress:
        known = self.incoming.get(request.transfer.transfer_id)
        if known is not None:
            return bank.Progress(transfer=request.transfer, step=known)
        return self._step(ctx, request.transfer, bank.REFUSED if self.closed else bank.DEPOSITED)

    @command
    def settle(self, request: bank.AccountStep, ctx: EventSourcedContext) -> bank.Progress:
        return self._finish(ctx, request.transfer, bank.DONE)

    @command
    def refund(self, request: bank.AccountStep, ctx: EventSourcedContext) -> bank.Progress:
        return self._finish(ctx, request.transfer, bank.REFUNDED)

    @event
    def paid_in(self, event: bank.PaidIn) -> None:
        self.amount += event.amount

    @event
    def was_closed(self, event: bank.Closed) -> None:
        self.closed = True

    @event
    def stepped(self, event: bank.Stepped) -> None:
        transfer, step = event.transfer, event.step
        if step in (bank.DEPOSITED, bank.REFUSED):
            self.incoming[transfer.transfer_id] = step
        else:
            self.outgoing[transfer.transfer_id] = step
        self.amount += transfer.amount * {bank.WITHDRAWN: -1, bank.DEPOSITED: 1, bank.REFUNDED: 1}.get(step, 0)

    def _step(self, ctx: EventSourcedContext, transfer: bank.Transfer, step: bank.Step) -> bank.Progress:
        """Take a step and tell the action, which sees to the next one."""
        progress = bank.Progress(transfer=transfer, step=step)
        ctx.emit(bank.Stepped(transfer=transfer, step=step))
        ctx.effect(TRANSFERS.call("Proceed", progress), synchronous=True)
        return progress

    def _finish(self, ctx: EventSourcedContext, transfer: bank.Transfer, step: bank.Step) -> bank.Progress:
        """The last step, which only an open transfer takes."""
        if self.outgoing.get(transfer.transfer_id) == bank.WITHDRAWN:
            ctx.emit(bank.Stepped(transfer=transfer, step=step))
        return bank.Progress(transfer=transfer, step=self.outgoing[transfer.transfer_id])


def step(transfer: bank.Transfer, name: str, account: str) -> ServiceCall:
    """The call of one step on one account."""
    return ACCOUNTS.call(name, bank.AccountStep(account=account, transfer=transfer))

"""Polls with live counts. A ballot is a register, so that a voter counts once, wherever and how often he votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

from stateside.support import CrdtContext, CrdtEntity, LWWMap, ORMap, WriteConsistency, command

from .protos.voting import voting_pb2 as voting

SERVICE = voting.DESCRIPTOR.services_by_name["Polls"]
BALLOTS, CLOSED = "ballots", "closed"


@CrdtEntity(service=SERVICE, persistence_id="polls")
class Poll:
    @command
    def cast(self, ballot: voting.Ballot, poll: ORMap[str], ctx: CrdtContext[ORMap[str]]) -> voting.Tally:
        if poll.flag(CLOSED):
            ctx.fail("The poll is closed")
        if not ballot.voter or not ballot.choice:
            ctx.fail("A ballot has a voter and a choice")
        LWWMap[str, str](poll.map(BALLOTS))[ballot.voter] = ballot.choice
        return tally(poll)

    @command
    def close(self, poll: ORMap[str], ctx: CrdtContext[ORMap[str]]) -> voting.Tally:
        ctx.write_consistency = WriteConsistency.MAJORITY
        poll.flag(CLOSED).enable()
        return tally(poll)

    @command
    def count(self, poll: ORMap[str]) -> voting.Tally:
        return tally(poll)

    @command
    def watch(self, poll: ORMap[str]) -> Generator[voting.Tally, None, voting.Tally]:
        while not (counted := tally(poll)).closed:
            yield counted
        return counted


def tally(poll: ORMap[str]) -> voting.Tally:
    """The count so far. It makes no entries: to look is not to change."""
    ballots = LWWMap[str, str](poll.map(BALLOTS) if BALLOTS in poll else None)
    return voting.Tally(votes=Counter(ballots.values()), closed=CLOSED in poll and bool(poll.flag(CLOSED)))

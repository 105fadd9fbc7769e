"""What a user function is told of a state that came from elsewhere while it was working from nothing."""

from typing import Any

from stateside._speedups.crdt import ORMAP, State
from stateside.proto import crdt as messages
from stateside.proxy.crdt_view import View
from tests.helpers.replicas import AReplica, SomeReplicas

KEY = "room"


def voting(user: str) -> bytes:
    """CrdtDelta of a map of maps with a vote."""
    return nested("presence", nested(user, {"vote": {"self_vote": True}})).SerializeToString()  # type: ignore[no-any-return]


def nested(key: str, content: Any) -> Any:
    return messages.CrdtDelta(ormap={"added": [{"key": any_of(key), "delta": content}]})


def any_of(text: str) -> dict[str, Any]:
    return {"type_url": "k", "value": text.encode()}


def told_of(change: bytes) -> dict[str, tuple[bool, int, int]]:
    """Votes by user that a change of the outer map tells."""
    (presence,) = messages.CrdtDelta.FromString(change).ormap.updated
    inner = presence.delta.ormap
    votes = {entry.key.value.decode(): entry.delta.vote for entry in [*inner.added, *inner.updated]}
    return {user: (vote.self_vote, vote.votes_for, vote.total_voters) for user, vote in votes.items()}


def test_votes_of_two_nodes_that_made_a_map_at_the_same_moment_are_counted_for_both() -> None:
    replicas = SomeReplicas()
    replica = replicas.replicas[KEY] = AReplica(KEY)
    view = View(replicas, replica)
    assert view.begin() is None

    def elsewhere(state: State) -> None:
        state.apply(voting("alice"), 0)

    replicas.elsewhere(KEY, ORMAP, elsewhere)
    assert replica.state is not None
    replicas.seat(replica.state)
    view.apply(voting("bob"))
    told = told_of(view.change())
    assert told["alice"] == (False, 1, 2)
    assert told.get("bob", (True, 1, 2)) == (True, 1, 2)
    assert view.change() == b""

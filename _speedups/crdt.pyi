"""CRDTs with compiled kernels: the replicated state behind every CRDT entity.

A `State` is one delta-state CRDT (Almeida, Shoker, Baquero 2018) of one of eight types, an ORMap with all types
below it. It has one causal
context for its whole tree, dots dense per (state, replica), one join for deltas and full states, and reset-remove in
maps (Brown et al. 2014). It speaks two languages: to the user function `CrdtDelta` messages, changes of a plain value
(spec crdt 0.4, 1); to other replicas its own encoding (docs/crdt-format.md). It never blocks, keeps no reference to
what it was given, and does not know about journals, peers or streams.

What the structure is, so that a model in plain Python can be compared with it (`State.dump`):

- A *dot* is (replica, n): the n-th change that a replica made to this state, n = 1, 2, 3, ... over the whole tree.
- A *causal context* is the set of dots ever seen: per replica a contiguous prefix, and a cloud of dots beyond it.
- Stores. Every entry below is alive as long as it is there; a dot in the context without an entry is history.
    GCOUNTER   replica -> (n, p)        one entry per replica, its latest dot and its sum; value: sum of p
    PNCOUNTER  replica -> (n, p, m)     value: sum of p - sum of m
    VOTE       replica -> (n, incarnation, vote)
    LWWREGISTER replica -> (n, timestamp, value)   value: largest (timestamp, then *lower* replica, then larger bytes)
    GSET, ORSET element -> {dots}
    FLAG       {dots}                   on while there is one
    ORMAP      (key, type) -> ({dots}, store)    a key is there while one of its types has dots; its type is that of
    the
               newest dot, largest (n, then replica)
- Join of two states A, B, store by store. Sets of dots: those in both, and those in one that the other's context does
  not have. Per-replica entries: of one replica's two entries the one with the higher n; an entry that only one side
  has stays unless the other's context has its dot. Elements and keys without dots go, and all below them. Contexts:
  union.
- A change makes a new dot for each part that it touches: an added element, a counter, a register, a key for every
entry of a map
  that was added or updated (its dot replaces those of the key that the user function has seen). Removing covers what
  the user function has seen (see `View`) and nothing else, so that concurrent additions stay.
- An own counter entry goes on from its sum; after the entry was removed from elsewhere it begins again at 0.
"""

from collections.abc import Collection
from typing import Any

# Types, numbered as the members of CrdtDelta.
GCOUNTER: int  # 1
PNCOUNTER: int  # 2
GSET: int  # 3
ORSET: int  # 4
LWWREGISTER: int  # 5
FLAG: int  # 6
ORMAP: int  # 7
VOTE: int  # 8

FORMAT: int
"""Version of the encoding, its first byte."""

class CrdtError(ValueError):
    """Base. The text names what was wrong."""

class Rejected(CrdtError):
    """A user function's delta that may not be applied: another type, a decrement of a GCounter, a Flag switched off
    when it was seen on, a map entry without key ... The state is untouched."""

class Malformed(CrdtError):
    """Bytes that are no CrdtDelta, no replica's delta and no state, or are beyond a bound. The state is untouched."""

class Bounds:
    """What is accepted from outside, user functions and replicas alike. Sizes in bytes."""
    def __init__(
        self,
        *,
        max_state_size: int = 64 * 1024 * 1024,  # encoded; `apply` and `merge` refuse what would exceed it, roughly
        max_depth: int = 32,  # maps in maps
        max_replicas: int = 4096,  # ever seen by one state
        max_cloud: int = 100_000,  # dots beyond the prefixes: more is refused, and a full state heals it
    ) -> None: ...

def kind_of(data: bytes) -> int:
    """Type of an encoded delta or state. Malformed if it is none."""

def kind_of_delta(delta: bytes) -> int:
    """Type of a user function's CrdtDelta; 0 when no member is set. Malformed."""

def join_deltas(deltas: Collection[bytes]) -> bytes:
    """One delta that does what these do, in any order; all of one type. Malformed."""

class State:
    """One CRDT.

    replica: 64-bit identity of this copy, as its own changes are marked; never to be used by another, nor again by a
    process that lost changes which others have seen. incarnation: 64-bit identity of the process, for votes: those of
    earlier incarnations do not count.
    """

    kind: int
    replica: int
    def __init__(self, kind: int, replica: int, incarnation: int = 0, bounds: Bounds | None = None) -> None:
        """The zero of a type."""
    @staticmethod
    def decode(data: bytes, replica: int, incarnation: int = 0, bounds: Bounds | None = None) -> State:
        """From `encode`, or from a delta: one joined with zero. Malformed."""

    # --- changes of the user function
    # --------------------------------------------------------------------------------

    def apply(self, delta: bytes, now: int) -> None:
        """Apply a CrdtDelta of the user function. now: wall clock in milliseconds, for registers.

        All or nothing. The user function's view (see `open_view`) has the change at once. Rejected, Malformed.
        Order within a set or map: cleared, removed, updated, added. `updated` of an absent key, or of another type,
        is ignored
        (it was removed concurrently); `added` of a present key of that type changes it, of another type adds that
        type
        and removes the one seen. A losing register write changes nothing (the user function's view gets the winner
        with the next `take_change`). Clocks: DEFAULT max(now, t+1); REVERSE min(-now, t-1); CUSTOM as given;
        CUSTOM_AUTO_INCREMENT
        custom if custom > t, else t+1; an unknown one is DEFAULT (spec crdt 0.4); t of no value is minus infinity, and
        t+1, t-1 saturate.
        GCounters and PNCounters are unbounded: nothing wraps.
        """
    def take_delta(self) -> bytes:
        """What own changes since the last call add to any replica, b"" when there were none. For journal and
        peers."""

    # --- changes of others
    # -------------------------------------------------------------------------------------------

    def merge(self, data: bytes) -> bool:
        """Join a replica's delta or full state; whether anything changed. Malformed, also when its type is
        another."""
    def prune(self, gone: int, heir: int) -> None:
        """`gone` has left for good and all its changes are here: its part of counters moves to `heir`, dots of
        elements, keys, registers and flags are made anew as `heir`'s, its votes go, and its name with them. Only to
        be
        called by `heir` (heir == self.replica). The next `take_delta` carries the whole state and tells the others
        to do the same; from then
        on whatever still comes from `gone` is ignored."""
    @property
    def pruned(self) -> frozenset[int]: ...
    def names(self, replica: int) -> bool:
        """Whether changes of `replica` may be in here: False means that there is nothing of it to be pruned. O(1)."""
    def forget_pruned(self, gone: int) -> None:
        """Nothing of `gone` can come any more: drop the mark."""

    # --- the user function's view
    # ------------------------------------------------------------------------------------

    def open_view(self) -> bytes:
        """Begin to follow what a user function knows; the whole value as a CrdtDelta from zero (never b"")."""
    def take_change(self) -> bytes:
        """CrdtDelta of what changed since the view was opened or last asked, by others' changes and by own that
        lost; b"" when the user function
        knows all. Shapes of spec crdt 1.5 and 1.8: `cleared` and everything anew when that is shorter; `added` never
        names a key the user function has, unless `removed` does too. Steps beyond 64 bits are clamped and the rest
        follows with the next call."""
    def close_view(self) -> None: ...
    def set_members(self, incarnations: Collection[int], absent: int = 0) -> bool:
        """Who votes, own incarnation included; `absent`: further voters that were never heard of. Whether
        `take_change`
        now has something to tell. Meant for VOTE, at any depth; without a call only the own vote counts, of one."""

    # --- as a whole
    # --------------------------------------------------------------------------------------------------

    def encode(self, canonical: bool = False) -> bytes:
        """The whole state. canonical: equal states give equal bytes; otherwise in any order, faster."""
    def digest(self) -> bytes:
        """16 bytes, equal if and only if two states are (replica and view aside); O(1) after O(changes)."""
    @property
    def size(self) -> int:
        """Rough length of `encode`, O(1)."""
    def dump(self) -> tuple[Any, ...]:
        """(kind, context, store, pruned) as plain Python, canonical, for tests.

        context: {replica: (prefix, (dots of the cloud, sorted))} without replicas that have none. store: the table
        of the module's
        text as dicts; sets of dots as frozensets of (replica, n); elements and keys as (type_url, value); pruned:
        frozenset.
        """

    # --- single operations, for those who speak no protobuf (benches, tests)
    # -----------------------------------------
    # Each does what `apply` does for the delta of that one change, with keys and elements as serialized Any.

    def value(self) -> Any:
        """int; int; set of Any bytes; set of Any bytes; Any bytes or None; bool; dict of Any bytes to values;
        (self_vote, votes_for, total)."""
    def increment(self, amount: int = 1) -> None: ...
    def add(self, element: bytes) -> None: ...
    def remove(self, element: bytes) -> None: ...
    def clear(self) -> None: ...
    def contains(self, element: bytes) -> bool: ...
    def set(self, value: bytes, now: int, clock: int = 0, custom: int = 0) -> bool:
        """Register; whether the value won."""
    def enable(self) -> None: ...
    def vote(self, vote: bool) -> None: ...

def live_states() -> int:
    """Count of live states of this process, for leak tests."""

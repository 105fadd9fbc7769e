"""What every store accepts, checked the same way by all of them before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

from stateside.journal.contract import JournalError, TooLarge

APPEND_OFFSETS = 1 << 24  # offsets of the log set aside for each append: it has as many events at most
# Ids of what the proxy keeps for itself begin with it, behind an empty persistence id. Of their events, those before
# the one that a snapshot covers are nobody's history, and `compact` may leave them out.
INTERNAL = "|"
CRDT_PREFIX = "|crdt|"  # before the persistence id and the key of a replicated state
MAX_ENTITY_BYTES = 480  # an index key is the entity + 9 bytes, and LMDB keys end at 511
MOVED_ENTITY = "|moved|"  # a value at the end of a log from which events were moved away; an export leaves it out
NODE_ENTITY = "|node|"  # a value that says whose journal this is; an export leaves it out


def entity_error(entity: str) -> JournalError | None:
    """Why this entity id cannot be stored, or None."""
    size = len(entity.encode("utf-8", "surrogatepass"))
    if size == 0:
        return JournalError("entity id is empty: events can only be kept for an entity that has a name")
    if size > MAX_ENTITY_BYTES:
        return TooLarge(f"entity id {entity[:40]!r}... has {size} bytes, at most {MAX_ENTITY_BYTES} are possible")
    return None


def shards_error(where: str, kept: int, asked: int) -> JournalError:
    """What to say to a claim with another number of shards than the store was made for."""
    return JournalError(
        f"{where}: it was made for {kept} shards, not {asked}: set number_of_shards = {kept}; "
        "`stateside journal copy` into a new journal can change the number"
    )


def check_append(first_sequence: int, events: Sequence[bytes], snapshot: bytes | None) -> None:
    """Refuse what no correct caller asks for."""
    if first_sequence < 1:
        raise ValueError(f"first_sequence is {first_sequence}, sequences begin at 1")
    if not events and (snapshot is None or first_sequence == 1):
        raise ValueError("nothing to append: no events, and no stored event that a snapshot could cover")


def check_put(version: int) -> None:
    if version < 1:
        raise ValueError(f"version is {version}, versions begin at 1")


def check_read(from_sequence: int) -> None:
    if from_sequence < 1:
        raise ValueError(f"from_sequence is {from_sequence}, sequences begin at 1")


def check_read_log(limit: int) -> None:
    if limit < 1:
        raise ValueError(f"limit is {limit}: at least one event has to be asked for")


def check_list(limit: int) -> None:
    if limit < 1:
        raise ValueError(f"limit is {limit}: at least one entity has to be asked for")

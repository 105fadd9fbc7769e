"""What a schema of Postgres is: a journal that proxies write, or a replica that one replicator writes. Never both.

    (new) -> journal                                a proxy opened it
    (new) -> replica -> journal (promoted)          a replicator claimed it; the replicator is gone, a proxy opened it

A replicator writes under a name of its own (`holder`), checked and renewed by each of its transactions. A proxy may
open the schema as its journal once the holder has let go of it, or has not been heard of for LEASE seconds of the
server's clock; from then on no replicator can write there. The way back is a new schema. docs/journal-postgres.md
tells operators.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from stateside.journal.contract import JournalError

LEASE = 10.0  # seconds; a replicator is heard of three times as often
WAIT_INTERVAL = 0.25

# `source` is the identity of the LMDB journal that the replica was begun with. Rows of `replica_logs` are what was read
# of each worker's log: the record before `applied` had `checksum`. Rows of `replica_positions` are offsets of consumers
# as the workers stored them. Errors of `replicate`: SS001 the schema is not the caller's, SS002 it has stored something
# else than it believes, SS003 what it brings does not go with what is there.
MIGRATION = """
CREATE TABLE role (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    kind text NOT NULL CHECK (kind IN ('journal', 'replica')),
    source text NOT NULL DEFAULT '',
    holder uuid,
    seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    promoted timestamptz
);
INSERT INTO role (kind) SELECT 'journal' WHERE EXISTS (SELECT FROM entities) OR EXISTS (SELECT FROM writers);

CREATE TABLE replica_logs (
    log text PRIMARY KEY,
    identity text NOT NULL,
    applied bigint NOT NULL DEFAULT 0,
    checksum bytea NOT NULL DEFAULT ''
);
CREATE TABLE replica_positions (
    log text NOT NULL,
    entity bytea NOT NULL,
    source_offset bigint NOT NULL,
    PRIMARY KEY (log, entity)
);

CREATE FUNCTION notify_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('stateside_' || md5(TG_TABLE_SCHEMA), '');
    RETURN NULL;
END $$;
CREATE TRIGGER notify_events AFTER UPDATE ON log
FOR EACH ROW WHEN (OLD.next_offset <> NEW.next_offset) EXECUTE FUNCTION notify_events();

-- Behind the events of a batch, in their transaction: everything else of it.
CREATE FUNCTION replicate(
    in_holder uuid, in_log text, in_from bigint, in_through bigint, in_checksum bytea,
    in_first_offset bigint, in_next_offset bigint,
    in_entities bytea[], in_firsts bigint[], in_lasts bigint[], in_values boolean[],
    in_snapshot_sequences bigint[], in_snapshots bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    UPDATE role SET seen = clock_timestamp() WHERE kind = 'replica' AND holder = in_holder;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the schema was taken over' USING ERRCODE = 'SS001';
    END IF;
    UPDATE log SET next_offset = in_next_offset WHERE next_offset = in_first_offset;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the next offset is not %', in_first_offset USING ERRCODE = 'SS002';
    END IF;
    UPDATE replica_logs SET applied = in_through, checksum = in_checksum WHERE log = in_log AND applied = in_from;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% was not applied up to %', in_log, in_from USING ERRCODE = 'SS002';
    END IF;

    SELECT g.entity, g.first, e.last_sequence INTO wrong
    FROM unnest(in_entities, in_firsts, in_values) AS g(entity, first, is_value)
    LEFT JOIN entities e ON e.entity = g.entity
    WHERE e.keeps_value <> g.is_value
       OR NOT g.is_value AND g.first > coalesce(e.last_sequence, 0) + 1 AND get_byte(g.entity, 0) <> ascii('|')
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'entity % has sequence % here, % does not go with it',
            encode(wrong.entity, 'escape'), coalesce(wrong.last_sequence, 0), wrong.first USING ERRCODE = 'SS003';
    END IF;

    INSERT INTO entities AS e
    SELECT g.entity, g.last, 0, g.is_value, g.snapshot_sequence, g.snapshot
    FROM unnest(in_entities, in_lasts, in_values, in_snapshot_sequences, in_snapshots)
        AS g(entity, last, is_value, snapshot_sequence, snapshot)
    ON CONFLICT (entity) DO UPDATE SET
        last_sequence = greatest(e.last_sequence, excluded.last_sequence),
        snapshot = CASE WHEN excluded.snapshot_sequence > e.snapshot_sequence THEN excluded.snapshot
                        ELSE e.snapshot END,
        snapshot_sequence = greatest(e.snapshot_sequence, excluded.snapshot_sequence);
END $$;
"""

REPLICATE = "SELECT replicate($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
# Sequences that may be here already come through this table: another log has had them, before the entity moved.
STAGE = "CREATE TEMP TABLE IF NOT EXISTS replica_stage (LIKE events) ON COMMIT DELETE ROWS"
STAGED_OTHERWISE = """
SELECT s.entity, s.sequence FROM replica_stage s JOIN events v USING (entity, sequence) WHERE v.event <> s.event LIMIT 1
"""
UNSTAGE = "INSERT INTO events SELECT * FROM replica_stage ON CONFLICT (entity, sequence) DO NOTHING"
RENEW = "UPDATE role SET seen = clock_timestamp() WHERE kind = 'replica' AND holder = $1 RETURNING true"
RELEASE = "UPDATE role SET holder = NULL WHERE kind = 'replica' AND holder = $1"
LOGS = "SELECT log, identity, applied, checksum FROM replica_logs"
# A log of a new identity is another file in place of one that was emptied or removed, under the same first log.
SET_LOG = """
INSERT INTO replica_logs (log, identity) VALUES ($1, $2)
ON CONFLICT (log) DO UPDATE SET identity = excluded.identity, applied = 0, checksum = ''
"""
POSITIONS = "SELECT log, entity, source_offset FROM replica_positions"
SET_POSITION = """
INSERT INTO replica_positions VALUES ($1, $2, $3)
ON CONFLICT (log, entity) DO UPDATE SET source_offset = excluded.source_offset
"""
FORGET_POSITIONS = "DELETE FROM replica_positions WHERE log = $1"
# As one version more of the value that a proxy here will find.
STORE_POSITION = """
INSERT INTO entities AS e VALUES ($1, 1, 0, true, 1, $2)
ON CONFLICT (entity) DO UPDATE SET
    last_sequence = e.last_sequence + 1, snapshot_sequence = e.last_sequence + 1, snapshot = excluded.snapshot
"""
OFFSET_OF = "SELECT log_offset FROM events WHERE entity = $1 AND sequence = $2"
SNAPSHOTS_OF = "SELECT entity, snapshot_sequence FROM entities WHERE entity = ANY($1) AND NOT keeps_value"
SET_SNAPSHOTS = """
UPDATE entities e SET snapshot_sequence = g.sequence, snapshot = g.snapshot
FROM unnest($1::bytea[], $2::bigint[], $3::bytea[]) AS g(entity, sequence, snapshot)
WHERE e.entity = g.entity AND NOT e.keeps_value AND g.sequence > e.snapshot_sequence AND g.sequence <= e.last_sequence
"""

_ROLE = "SELECT *, clock_timestamp() - seen > make_interval(secs => $1) AS is_over FROM role FOR UPDATE"
_LOCK = "LOCK TABLE role IN SHARE ROW EXCLUSIVE MODE"
_PROMOTE = "UPDATE role SET kind = 'journal', holder = NULL, promoted = clock_timestamp()"


def channel_of(connection_schema: str) -> str:
    """Where a commit with events is told of."""
    import hashlib

    return "stateside_" + hashlib.md5(connection_schema.encode(), usedforsecurity=False).hexdigest()


async def claim_as_replica(connection: Any, schema: str, source: str, holder: UUID) -> None:
    """Make the schema, which is up to date, the replica of the journal with the identity `source`, and `holder` the
    only one that writes to it. Raises JournalError when it is something else."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        role = await connection.fetchrow(_ROLE, LEASE)
        if role is None:
            await connection.execute(
                "INSERT INTO role (kind, source, holder) VALUES ('replica', $1, $2)", source, holder
            )
            return
        if role["kind"] == "journal":
            raise JournalError(_refusal(schema, role))
        if role["source"] != source:
            raise JournalError(
                f"the schema {schema!r} is a replica of the journal {role['source']}, and this is the journal "
                f"{source}: the folder was made anew, or belongs to another proxy; choose another postgres_schema, or "
                "start a proxy from that schema (journal = postgresql://...)"
            )
        await connection.execute("UPDATE role SET holder = $1, seen = clock_timestamp()", holder)


def _refusal(schema: str, role: Any) -> str:
    if role["promoted"] is None:
        return f"the schema {schema!r} is the journal of a proxy, not a replica; choose another postgres_schema"
    when = role["promoted"].isoformat(sep=" ", timespec="seconds")
    return (
        f"the schema {schema!r} was a replica of the journal {role['source']} until a proxy took it over at {when}; "
        "nothing is replicated to it any more; choose another postgres_schema"
    )


async def enter_as_journal(connection: Any, schema: str) -> None:
    """Take the schema as a proxy's journal. A replica whose replicator has gone is promoted; until that is sure, this
    waits, LEASE seconds at most. Raises JournalError while a replicator writes to it."""
    first_seen = None
    while True:
        async with connection.transaction():
            await connection.execute(_LOCK)
            role = await connection.fetchrow(_ROLE, LEASE)
            if role is None:
                await connection.execute("INSERT INTO role (kind) VALUES ('journal')")
                return
            if role["kind"] == "journal":
                return
            if role["holder"] is None or role["is_over"]:
                await connection.execute(_PROMOTE)
                return
        if role["seen"] != (first_seen := first_seen or role["seen"]):
            raise JournalError(
                f"the schema {schema!r} is a replica of the journal {role['source']}, and its proxy is writing to it: "
                "stop that proxy and start again, or, when it must not be waited for, run `stateside journal promote`"
            )
        await asyncio.sleep(WAIT_INTERVAL)


async def promote(connection: Any, schema: str) -> str:
    """Make a replica a journal, whoever writes to it. Its source; raises JournalError when it is none."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        role = await connection.fetchrow(_ROLE, LEASE)
        if role is None or role["kind"] != "replica":
            raise JournalError(f"the schema {schema!r} is no replica: there is nothing to promote")
        await connection.execute(_PROMOTE)
        return str(role["source"])

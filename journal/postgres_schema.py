"""Tables of the journal in Postgres, as numbered migrations, and the statements on them.

Everything lies in one schema of the database (docs/journal-postgres.md has the whole picture). Entity ids are bytes,
because texts of Postgres cannot hold every text that a key may be. One batch of appends is one call of the function
`append`: it checks every entity, stores those that are right, and remembers its own outcome, so that asking again after
a lost answer changes nothing.
"""

from __future__ import annotations

from typing import Any

from stateside.journal import postgres_standby
from stateside.journal.contract import JournalError

# Taken while the schema is looked at and changed: only one process does that.
MIGRATION_LOCK = 0x5374617465

_FIRST = """
CREATE TABLE entities (
    entity bytea PRIMARY KEY,
    last_sequence bigint NOT NULL,
    epoch bigint NOT NULL,
    keeps_value boolean NOT NULL,
    snapshot_sequence bigint NOT NULL,
    snapshot bytea
);

CREATE TABLE events (
    entity bytea NOT NULL,
    sequence bigint NOT NULL,
    log_offset bigint NOT NULL,
    epoch bigint NOT NULL,
    event bytea NOT NULL,
    PRIMARY KEY (entity, sequence)
);
CREATE UNIQUE INDEX events_by_offset ON events (log_offset);

-- One row, locked by each batch until it is committed: batches follow one another, and offsets are seen in their order.
CREATE TABLE log (next_offset bigint NOT NULL);
INSERT INTO log VALUES (1);

-- The last batch of each writer and what of it was refused: a batch whose answer was lost is asked for again.
CREATE TABLE writers (
    writer uuid PRIMARY KEY,
    batch bigint NOT NULL,
    refusals bigint[] NOT NULL,
    seen timestamptz NOT NULL DEFAULT now()
);

-- A group is consecutive appends of one entity. kind 0: events; 1: a value; 2: a value whose version may leave a gap.
-- The answer has, for each group that is refused, four numbers: its place from 1, the last sequence stored, the epoch
-- stored, 1 if the entity keeps a value.
CREATE FUNCTION append(
    in_writer uuid, in_batch bigint,
    in_entities bytea[], in_firsts bigint[], in_lasts bigint[], in_epochs bigint[], in_kinds smallint[],
    in_snapshot_sequences bigint[], in_snapshots bytea[],
    in_event_groups int[], in_event_sequences bigint[], in_events bytea[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    done record;
    first_offset bigint;
    refusals bigint[];
    refused bigint[];
BEGIN
    SELECT next_offset INTO first_offset FROM log FOR UPDATE;
    SELECT w.batch, w.refusals INTO done FROM writers w WHERE w.writer = in_writer;
    IF done.batch >= in_batch THEN
        RETURN done.refusals;
    END IF;

    SELECT coalesce(array_agg(n ORDER BY g.place, n_place), '{}'), coalesce(array_agg(DISTINCT g.place), '{}')
    INTO refusals, refused
    FROM unnest(in_entities, in_firsts, in_epochs, in_kinds) WITH ORDINALITY AS g(entity, first, epoch, kind, place)
    LEFT JOIN entities e ON e.entity = g.entity
    CROSS JOIN LATERAL unnest(ARRAY[
        g.place, coalesce(e.last_sequence, 0), coalesce(e.epoch, 0), coalesce(e.keeps_value, false)::int::bigint
    ]) WITH ORDINALITY AS numbers(n, n_place)
    WHERE e.epoch > g.epoch
       OR e.keeps_value <> (g.kind > 0)
       OR CASE WHEN g.kind = 2 THEN g.first <= coalesce(e.last_sequence, 0)
               ELSE g.first <> coalesce(e.last_sequence, 0) + 1 END;

    INSERT INTO entities AS e
    SELECT g.entity, g.last, g.epoch, g.kind > 0, g.snapshot_sequence, g.snapshot
    FROM unnest(in_entities, in_lasts, in_epochs, in_kinds, in_snapshot_sequences, in_snapshots) WITH ORDINALITY
        AS g(entity, last, epoch, kind, snapshot_sequence, snapshot, place)
    WHERE g.place <> ALL (refused)
    ON CONFLICT (entity) DO UPDATE SET
        last_sequence = excluded.last_sequence,
        epoch = excluded.epoch,
        snapshot = CASE WHEN excluded.snapshot_sequence > 0 THEN excluded.snapshot ELSE e.snapshot END,
        snapshot_sequence = CASE WHEN excluded.snapshot_sequence > 0 THEN excluded.snapshot_sequence
                                 ELSE e.snapshot_sequence END;

    INSERT INTO events
    SELECT in_entities[v.in_group], v.sequence, first_offset + v.place - 1, in_epochs[v.in_group], v.event
    FROM unnest(in_event_groups, in_event_sequences, in_events) WITH ORDINALITY AS v(in_group, sequence, event, place)
    WHERE v.in_group <> ALL (refused);

    UPDATE log SET next_offset = first_offset + coalesce(array_length(in_events, 1), 0);
    INSERT INTO writers VALUES (in_writer, in_batch, refusals)
    ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, refusals = excluded.refusals, seen = now();
    RETURN refusals;
END $$;
"""

# Shards and their owners' epochs. `log.epoch` is the highest epoch that was ever given or used; its row is locked by
# claims as it is by batches, so a claim and a batch under way follow one another.
_SHARDS = """
ALTER TABLE log ADD COLUMN epoch bigint NOT NULL DEFAULT 0, ADD COLUMN number_of_shards int;
UPDATE log SET epoch = (SELECT coalesce(max(epoch), 0) FROM entities);
CREATE TABLE shards (shard int PRIMARY KEY, epoch bigint NOT NULL);

-- The new epoch. Negative: the number of shards that the store was made for, which is another one.
CREATE FUNCTION claim(in_shards int[], in_number_of_shards int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    kept record;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    SELECT l.epoch, l.number_of_shards INTO kept FROM log l FOR UPDATE;
    IF kept.number_of_shards <> in_number_of_shards THEN
        RETURN -kept.number_of_shards;
    END IF;
    UPDATE log SET epoch = kept.epoch + 1, number_of_shards = in_number_of_shards;
    INSERT INTO shards SELECT shard, kept.epoch + 1 FROM unnest(in_shards) AS s(shard)
    ON CONFLICT (shard) DO UPDATE SET epoch = excluded.epoch;
    RETURN kept.epoch + 1;
END $$;

DROP FUNCTION append(
    uuid, bigint, bytea[], bigint[], bigint[], bigint[], smallint[], bigint[], bytea[], int[], bigint[], bytea[]
);

-- As before, and in_shards has the shard of each group: -1 for an entity that is in none, NULL if the writer does not
-- know how many there are. The third number of a refusal is the lowest epoch that would be taken.
CREATE FUNCTION append(
    in_writer uuid, in_batch bigint,
    in_entities bytea[], in_firsts bigint[], in_lasts bigint[], in_epochs bigint[], in_kinds smallint[],
    in_snapshot_sequences bigint[], in_snapshots bytea[],
    in_event_groups int[], in_event_sequences bigint[], in_events bytea[], in_shards int[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    done record;
    kept record;
    refusals bigint[];
    refused bigint[];
BEGIN
    SELECT l.next_offset, CASE WHEN l.number_of_shards IS NULL THEN 0 ELSE l.epoch END AS owned
    INTO kept FROM log l FOR UPDATE;
    SELECT w.batch, w.refusals INTO done FROM writers w WHERE w.writer = in_writer;
    IF done.batch >= in_batch THEN
        RETURN done.refusals;
    END IF;

    SELECT coalesce(array_agg(n ORDER BY g.place, n_place), '{}'), coalesce(array_agg(DISTINCT g.place), '{}')
    INTO refusals, refused
    FROM unnest(in_entities, in_firsts, in_epochs, in_kinds, in_shards) WITH ORDINALITY
        AS g(entity, first, epoch, kind, shard, place)
    LEFT JOIN entities e ON e.entity = g.entity
    LEFT JOIN shards s ON s.shard = g.shard
    CROSS JOIN LATERAL (
        SELECT greatest(e.epoch, s.epoch, CASE WHEN g.shard IS NULL THEN kept.owned ELSE 0 END) AS epoch
    ) AS owned
    CROSS JOIN LATERAL unnest(ARRAY[
        g.place, coalesce(e.last_sequence, 0), owned.epoch, coalesce(e.keeps_value, false)::int::bigint
    ]) WITH ORDINALITY AS numbers(n, n_place)
    WHERE owned.epoch > g.epoch
       OR e.keeps_value <> (g.kind > 0)
       OR CASE WHEN g.kind = 2 THEN g.first <= coalesce(e.last_sequence, 0)
               ELSE g.first <> coalesce(e.last_sequence, 0) + 1 END;

    INSERT INTO entities AS e
    SELECT g.entity, g.last, g.epoch, g.kind > 0, g.snapshot_sequence, g.snapshot
    FROM unnest(in_entities, in_lasts, in_epochs, in_kinds, in_snapshot_sequences, in_snapshots) WITH ORDINALITY
        AS g(entity, last, epoch, kind, snapshot_sequence, snapshot, place)
    WHERE g.place <> ALL (refused)
    ON CONFLICT (entity) DO UPDATE SET
        last_sequence = excluded.last_sequence,
        epoch = excluded.epoch,
        snapshot = CASE WHEN excluded.snapshot_sequence > 0 THEN excluded.snapshot ELSE e.snapshot END,
        snapshot_sequence = CASE WHEN excluded.snapshot_sequence > 0 THEN excluded.snapshot_sequence
                                 ELSE e.snapshot_sequence END;

    INSERT INTO events
    SELECT in_entities[v.in_group], v.sequence, kept.next_offset + v.place - 1, in_epochs[v.in_group], v.event
    FROM unnest(in_event_groups, in_event_sequences, in_events) WITH ORDINALITY AS v(in_group, sequence, event, place)
    WHERE v.in_group <> ALL (refused);

    UPDATE log l SET next_offset = kept.next_offset + coalesce(array_length(in_events, 1), 0),
        epoch = greatest(l.epoch, (SELECT max(epoch) FROM unnest(in_epochs) AS used(epoch)));
    INSERT INTO writers VALUES (in_writer, in_batch, refusals)
    ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, refusals = excluded.refusals, seen = now();
    RETURN refusals;
END $$;
"""

# Numbered from 1. What was released is never changed: a change is another migration.
MIGRATIONS: tuple[str, ...] = (_FIRST, _SHARDS, postgres_standby.MIGRATION)

APPEND = "SELECT append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
CLAIM = "SELECT claim($1, $2)"
NUMBER_OF_SHARDS = "SELECT number_of_shards FROM log"
LOAD = "SELECT entity, last_sequence, snapshot_sequence, snapshot FROM entities WHERE entity = ANY($1)"
# Events of one entity from $2 on: the first, and those that fit into $3 bytes; as many rows as $4 at most. With each,
# the last sequence of the entity.
READ = """
SELECT sequence, event, (SELECT last_sequence FROM entities WHERE entity = $1 AND NOT keeps_value) AS last
FROM (
    SELECT sequence, event, sum(octet_length(event)) OVER (ORDER BY sequence) AS size
    FROM (SELECT * FROM events WHERE entity = $1 AND sequence >= $2 ORDER BY sequence LIMIT $4) AS found
) AS sized
WHERE size <= $3 OR sequence = $2
ORDER BY sequence
"""
# The same over all entities, by offset; entities from $3 to $4 exclusively.
READ_LOG = """
SELECT log_offset, entity, sequence, event
FROM (
    SELECT *, sum(octet_length(event)) OVER (ORDER BY log_offset) - octet_length(event) AS size_before
    FROM (
        SELECT * FROM events
        WHERE log_offset >= $1 AND log_offset < $2 AND entity >= $3 AND entity < $4
        ORDER BY log_offset LIMIT $5
    ) AS found
) AS sized
WHERE size_before < $6
ORDER BY log_offset
"""
FORGET = """
DELETE FROM events v USING unnest($1::bytea[], $2::bigint[]) AS f(entity, through), entities e
WHERE e.entity = f.entity AND v.entity = f.entity AND v.sequence <= least(f.through, e.snapshot_sequence)
"""
NEXT_OFFSET = "SELECT next_offset FROM log"
LIST = "SELECT entity FROM entities WHERE entity >= $1 AND entity < $2 AND entity > $3 ORDER BY entity LIMIT $4"


async def migrate(connection: Any, schema: str) -> None:
    """Bring the schema to what this program knows. Raises JournalError when it is newer."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
        if not await connection.fetchval("SELECT to_regnamespace($1)", quoted(schema)):
            await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (number int PRIMARY KEY, applied timestamptz DEFAULT now())"
        )
        known = await connection.fetchval("SELECT coalesce(max(number), 0) FROM migrations")
        if known > len(MIGRATIONS):
            raise JournalError(
                f"the schema {schema!r} has version {known}, this program knows version {len(MIGRATIONS)}: "
                "use the newer program, or another schema"
            )
        for number in range(known + 1, len(MIGRATIONS) + 1):
            await connection.execute(MIGRATIONS[number - 1])
            await connection.execute("INSERT INTO migrations (number) VALUES ($1)", number)


def quoted(name: str) -> str:
    """A name as an identifier."""
    return '"' + name.replace('"', '""') + '"'

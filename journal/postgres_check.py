"""What a journal in Postgres holds, and whether its tables agree: `stateside journal stat` and `verify` with a URL.

The bytes themselves are in Postgres's care (its checksums are a setting of the cluster).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stateside.journal.copy_postgres import BEHIND_OWN, OWN, Reading, check_version, connect, text_of, without_password
from stateside.journal.limits import COPY_ENTITY
from stateside.journal.verify import Totals

# An own entity may have lost events that its snapshot covers (`forget`).
_WRONG = """
SELECT e.entity, e.keeps_value, e.last_sequence, e.snapshot_sequence, v.found, v.first, v.last,
       e.entity >= $1 AND e.entity < $2 AS is_own
FROM entities e
LEFT JOIN (
    SELECT entity, count(*) AS found, min(sequence) AS first, max(sequence) AS last FROM events GROUP BY entity
) AS v ON v.entity = e.entity
WHERE e.snapshot_sequence > e.last_sequence
   OR (e.keeps_value AND (v.found IS NOT NULL OR e.snapshot_sequence <> e.last_sequence))
   OR (NOT e.keeps_value AND NOT (e.entity >= $1 AND e.entity < $2)
       AND (v.found IS DISTINCT FROM e.last_sequence OR v.first <> 1 OR v.last <> e.last_sequence))
   OR (NOT e.keeps_value AND e.entity >= $1 AND e.entity < $2
       AND (coalesce(v.last, e.snapshot_sequence) <> e.last_sequence
            OR coalesce(v.first, 1) > e.snapshot_sequence + 1
            OR v.found <> v.last - v.first + 1))
ORDER BY e.entity
LIMIT 1000
"""
_HOMELESS = """
SELECT DISTINCT v.entity FROM events v LEFT JOIN entities e ON e.entity = v.entity WHERE e.entity IS NULL LIMIT 1000
"""
_COUNTS = """
SELECT (SELECT count(*) FROM entities) AS entities,
       (SELECT count(*) FROM events) AS events,
       (SELECT count(*) FROM entities WHERE keeps_value) AS values,
       (SELECT count(*) FROM entities WHERE NOT keeps_value AND snapshot_sequence > 0) AS snapshots,
       (SELECT next_offset FROM log) AS next_offset,
       (SELECT coalesce(max(log_offset), 0) FROM events) AS last_offset,
       (SELECT coalesce(number_of_shards, 0) FROM log) AS number_of_shards,
       (SELECT epoch FROM log) AS epoch,
       coalesce((SELECT kind FROM role), 'journal') AS role,
       (SELECT max(number) FROM migrations) AS version
"""
_BYTES = "SELECT pg_total_relation_size('events') + pg_total_relation_size('entities')"


async def statistics(dsn: str, schema: str) -> dict[str, int | str]:
    """Raises JournalError."""
    async with _reading(dsn, schema) as reading:
        row = (await reading.fetch(_COUNTS))[0]
        size = (await reading.fetch(_BYTES))[0][0]
    names = ("version", "role", "entities", "events", "values", "snapshots", "number_of_shards", "epoch")
    return {name: row[name] for name in names} | {"bytes": size}


async def verify(dsn: str, schema: str) -> Totals:
    """Raises JournalError."""
    async with _reading(dsn, schema) as reading:
        return await _verify(reading)


@asynccontextmanager
async def _reading(dsn: str, schema: str) -> AsyncIterator[Reading]:
    label = f"{without_password(dsn)} (schema {schema})"
    connection = await connect(dsn, schema)
    try:
        await check_version(connection, schema, label)
        await connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield Reading(connection, label)
    finally:
        await connection.close()


async def _verify(reading: Reading) -> Totals:
    row = (await reading.fetch(_COUNTS))[0]
    verdict = Totals(row["entities"], row["events"], row["events"], row["snapshots"], row["values"])
    for wrong in await reading.fetch(_WRONG, OWN, BEHIND_OWN):
        verdict.report(text_of(wrong["entity"]), _what(wrong))
    for (entity,) in await reading.fetch(_HOMELESS):
        verdict.report(text_of(entity), "it has events, and nothing says how many there should be")
    if row["last_offset"] >= row["next_offset"]:
        verdict.report(None, f"the last offset is {row['last_offset']}, the next one {row['next_offset']}")
    state = await reading.fetch("SELECT snapshot FROM entities WHERE entity = $1", COPY_ENTITY.encode())
    if state and not json.loads(state[0][0])["done"]:
        verdict.report(COPY_ENTITY, "a copy into this journal is not complete")
    return verdict


def _what(wrong: Any) -> str:
    last, found = wrong["last_sequence"], wrong["found"] or 0
    if wrong["snapshot_sequence"] > last:
        return f"snapshot covers sequence {wrong['snapshot_sequence']}, the last one is {last}"
    if wrong["keeps_value"]:
        return f"a value of version {last} with {found} events beside it"
    return f"the last sequence is {last}, there are {found} events, from {wrong['first']} to {wrong['last']}"

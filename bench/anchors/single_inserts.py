"""`python -m stateside.bench.anchors.single_inserts DSN`: rows of 100 bytes, each inserted and committed by itself,
over 16 connections of asyncpg.

What durable writes to Postgres cost without batches. One JSON object on stdout.
"""

import argparse
import asyncio
import json
from time import monotonic

import asyncpg
import uvloop

CONNECTIONS = 16
EVENT = bytes(100)
TABLE = "CREATE TABLE inserted (connection int, number int, event bytea, PRIMARY KEY (connection, number))"


async def insert(dsn: str, connection: int, begun: float, seconds: float) -> int:
    """Rows that one connection has inserted."""
    database = await asyncpg.connect(dsn)
    statement = await database.prepare("INSERT INTO inserted VALUES ($1, $2, $3)")
    number = 0
    while monotonic() - begun < seconds:
        await statement.fetch(connection, number, EVENT)
        number += 1
    await database.close()
    return number


async def run(dsn: str, seconds: float) -> None:
    database = await asyncpg.connect(dsn)
    await database.execute(TABLE)
    await database.close()
    begun = monotonic()
    rows = sum(await asyncio.gather(*(insert(dsn, each, begun, seconds) for each in range(CONNECTIONS))))
    print(json.dumps({"rows": rows, "rows_per_s": rows / (monotonic() - begun)}))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="stateside.bench.anchors.single_inserts", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("dsn")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    uvloop.run(run(options.dsn, options.seconds))


if __name__ == "__main__":
    main()

"""`stateside journal promote`: a replica in Postgres becomes a journal, whoever still writes to it."""

from __future__ import annotations

import asyncio

import click

from stateside.journal.contract import JournalError


@click.command("promote")
@click.argument("url")
@click.option("--schema", default="stateside", show_default=True, help="As `postgres_schema`.")
def promote_command(url: str, schema: str) -> None:
    """Make the replica in the database URL (postgresql://...) a journal that a proxy can start from.

    A proxy with journal = URL does so by itself once nobody writes to the replica any more. This is for a proxy that
    still does and cannot be stopped: nothing more is replicated from then on.
    """
    source = asyncio.run(_promote(url, schema))
    click.echo(f"the schema {schema!r} was a replica of the journal {source}, and is a journal now")


async def _promote(url: str, schema: str) -> str:
    import asyncpg

    from stateside.journal import postgres_standby
    from stateside.journal.postgres import LOST, said
    from stateside.journal.postgres_schema import quoted

    try:
        connection = await asyncpg.connect(url, timeout=10.0, server_settings={"search_path": quoted(schema)})
        try:
            return await postgres_standby.promote(connection, schema)
        finally:
            await connection.close()
    except asyncpg.UndefinedTableError:
        raise JournalError(f"there is no replica in the schema {schema!r}") from None
    except (*LOST, asyncpg.PostgresError, TimeoutError, ValueError) as error:
        raise JournalError(f"Postgres cannot be asked: {said(error)}") from error

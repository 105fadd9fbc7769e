"""`stateside journal copy` and `backup`: a journal taken elsewhere, with somebody watching."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

import click

from stateside.journal.backup import back_up
from stateside.journal.contract import JournalError
from stateside.journal.copy_lmdb import LmdbSource
from stateside.journal.copy_model import Source, Target
from stateside.journal.copy_to_lmdb import LmdbTarget
from stateside.journal.copying import Compared, compare_only, copy

LINE_INTERVAL = 3.0  # seconds between lines where nobody watches a bar

quiet_option = click.option("--quiet", is_flag=True, help="No progress.")


@click.command("copy")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--verify-only", is_flag=True, help="Copy nothing: compare what is there.")
@click.option("--new-node", is_flag=True, help="A clone: for CRDTs it is another node, not the same one moved.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="If TO is a folder.")
@click.option("--number-of-shards", type=click.IntRange(1, 1 << 16), help="If TO is a folder.  [that of FROM]")
@click.option("--from-schema", default="stateside", show_default=True, help="Schema, if FROM is in Postgres.")
@click.option("--to-schema", default="stateside", show_default=True, help="Schema, if TO is in Postgres.")
@quiet_option
def copy_command(
    source: str,
    target: str,
    verify_only: bool,
    new_node: bool,
    quiet: bool,
    from_schema: str,
    to_schema: str,
    **lay: int,
) -> None:
    """Copy the journal FROM into TO, then compare both, entity by entity.

    FROM and TO are folders or URLs of Postgres (postgresql://user:password@host:port/database). TO has to be new or
    empty. A copy that was interrupted is run again and goes on where it was. No proxy may have the folder FROM open;
    of a running proxy's folder make a backup. Exit code 1 when something is not equal.
    """
    begun = _source(source, from_schema)
    with Progress(quiet) as watch:
        if verify_only:
            compared, done = asyncio.run(compare_only(begun, _source(target, to_schema), new_node, watch)), ""
        else:
            into = _target(target, to_schema, **lay)
            outcome = asyncio.run(copy(begun, into, new_node, watch))
            compared, done = outcome.compared, "copied before; " if outcome.was_finished else "copied; "
    tell(compared, done)


def tell(compared: Compared, done: str) -> None:
    for difference in compared.differences:
        click.echo(f"different  {_printable(difference)}")
    if compared.different:
        click.echo(f"{compared.entities} entities compared: {compared.different} differ")
        raise SystemExit(1)
    click.echo(f"{done}{compared.entities} entities with {compared.events} events compared: all equal")


@click.command("backup")
@click.argument("to", metavar="TO", type=click.Path(path_type=Path))
@click.option(
    "--path",
    type=click.Path(path_type=Path),
    default=Path("data/journal"),
    show_default=True,
    help="Directory of the journal.",
)
@quiet_option
def backup_command(to: Path, path: Path, quiet: bool) -> None:
    """Copy the journal to the new folder TO, while a proxy may have it open.

    All that was acknowledged before is in it. To restore it, start a proxy on it (--journal lmdb:TO).
    """
    with Progress(quiet) as watch:
        saved = back_up(path, to, watch)
    click.echo(f"{saved.entities} entities with {saved.events} events in {to}: {saved.size} bytes, all sound")


def _source(place: str, schema: str) -> Source:
    if is_postgres(place):
        from stateside.journal.copy_postgres import PostgresSource

        return PostgresSource(place, schema)
    return LmdbSource(folder_of(place))


def _target(place: str, schema: str, workers: int, number_of_shards: int | None) -> Target:
    if not is_postgres(place):
        return LmdbTarget(folder_of(place), workers, number_of_shards or 0)
    from stateside.journal.copy_to_postgres import PostgresTarget

    if workers > 1 or number_of_shards:
        raise JournalError("--workers and --number-of-shards lay out a folder; in Postgres workers share one journal")
    return PostgresTarget(place, schema)


def is_postgres(place: str) -> bool:
    return place.startswith(("postgres://", "postgresql://"))


def folder_of(place: str) -> Path:
    """`lmdb:` before it, as in the setting `journal`, is possible."""
    if "://" in place or place.startswith("memory:"):
        raise JournalError(f"{place.partition(':')[0]}: is neither a folder nor a URL of Postgres")
    return Path(place.removeprefix("lmdb:"))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


class Progress:
    """A bar on a terminal, otherwise a line now and then, both on stderr."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._what, self._total, self._done = "", 0, 0
        self._began = self._told = monotonic()
        self._begun_at = 0

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, what: str, total: int, done: int) -> None:
        self._what, self._total, self._done = what, total, done
        self._began = self._told = monotonic()
        self._begun_at = done
        if self._bar is not None:
            self._task = self._bar.add_task(what, total=total or None, completed=done)

    def advance(self, steps: int) -> None:
        self._done += steps
        if self._bar is not None:
            self._bar.advance(self._task, steps)
        elif not self._quiet and monotonic() - self._told >= LINE_INTERVAL:
            self._told = monotonic()
            pace = (self._done - self._begun_at) / (self._told - self._began)
            click.echo(f"{self._what}: {self._done} of about {self._total}, {pace:.0f} a second", err=True)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bar(*columns, console=Console(stderr=True), transient=True)

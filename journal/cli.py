"""The commands of `stateside journal`. Those that only read work while a proxy has the journal open.

Exit codes: 0 all well, 1 the journal is damaged or an import conflicts, 2 the command could not be done as asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from stateside.journal.anyvalue import split_any
from stateside.journal.cli_promote import promote_command
from stateside.journal.compact import compact_in_place, compact_to
from stateside.journal.contract import Durability, JournalError
from stateside.journal.format import Damaged, Record
from stateside.journal.lmdb import LmdbJournal
from stateside.journal.reader import EntityState, StoredJournal, View
from stateside.journal.transfer import Imported, any_fields, export_lines, import_lines
from stateside.journal.verify import Verdict, verify, work_of

PREVIEW = 80  # characters of a payload in a table

Command = Callable[..., Any]


class Failed(click.ClickException):
    """The command could not be done."""

    exit_code = 2


class Group(click.Group):
    """Turns what the journal refuses into a line on stderr and an exit code."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        assert cmd.callback is not None
        cmd.callback = _answering(cmd.callback)
        super().add_command(cmd, name)


def _answering(callback: Command) -> Command:
    def run(*args: Any, **given: Any) -> Any:
        try:
            return callback(*args, **given)
        except JournalError as error:
            raise Failed(str(error)) from error
        except BrokenPipeError:
            # Whoever read our output has seen enough; nothing may be flushed to it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None

    return run


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def journal() -> None:
    """Look into the journal, check it, copy it."""


path_option = click.option(
    "--path",
    type=click.Path(path_type=Path),
    default=Path("data/journal"),
    show_default=True,
    help="Directory of the journal.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")


@journal.command()
@path_option
@json_option
def stat(path: Path, as_json: bool) -> None:
    """What the journal holds and how large it is."""
    with viewing(path) as (stored, view):
        found = _statistics(stored, view)
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        click.echo(f"{name:<18} {value}")


def _statistics(stored: StoredJournal, view: View) -> dict[str, int | str]:
    info = stored.environment.info()
    entities = events = values = 0
    with progress("counting entities", None) as advance:
        for state in view.entities():
            entities += 1
            events += 0 if state.is_value else state.last_sequence
            values += state.is_value
            advance()
    return {
        "format": view.meta.format,
        "identity": view.meta.identity,
        "entities": entities,
        "events": events,
        "values": values,
        "appends": view.txn.stat(view.log)["entries"],
        "snapshots": view.txn.stat(view.snapshots)["entries"],
        "unindexed_appends": view.meta.end - view.meta.indexed,
        "file_bytes": (stored.path / "data.mdb").stat().st_size,
        "used_bytes": (info["last_pgno"] + 1) * stored.environment.stat()["psize"],
        "readers": info["num_readers"],
    }


@journal.command("list")
@path_option
@click.option("--prefix", default="", help="Only entities whose id begins so.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@json_option
def list_(path: Path, prefix: str, limit: int | None, as_json: bool) -> None:
    """Entities: kind, number of events or version of the value, sequence of the snapshot (- without), id."""
    with viewing(path) as (_, view):
        for count, state in enumerate(view.entities(prefix)):
            if count == limit:
                break
            click.echo(_entity_line(state, as_json))


def _entity_line(state: EntityState, as_json: bool) -> str:
    if as_json:
        damage = {"damage": state.damage} if state.damage else {}
        return json.dumps({"entity": state.entity} | _entity_fields(state) | damage)
    kind = "value" if state.is_value else "events"
    covered = "deleted" if state.is_deleted else state.snapshot_sequence or "-"
    damaged = f"  DAMAGED: {state.damage}" if state.damage else ""
    return f"{kind:<6} {state.last_sequence:>9} {covered:>9}  {_printable(state.entity)}{damaged}"


def _entity_fields(state: EntityState) -> dict[str, object]:
    if state.is_value:
        return {"kind": "value", "version": state.last_sequence, "deleted": state.is_deleted}
    return {"kind": "events", "events": state.last_sequence, "snapshot": state.snapshot_sequence}


@journal.command()
@click.argument("entity")
@path_option
@click.option("--from", "first", type=click.IntRange(min=1), default=1, show_default=True, help="First sequence.")
@click.option("--to", "last", type=click.IntRange(min=1), help="Last sequence.")
@click.option(
    "--payload",
    type=click.Choice(["auto", "hex", "text", "none"]),
    default="auto",
    show_default=True,
    help="How to show values.",
)
@json_option
def show(entity: str, path: Path, first: int, last: int | None, payload: str, as_json: bool) -> None:
    """Events of ENTITY: sequence, type URL, size in bytes, value. Values are whole in JSON, else cut. Of an entity that
    keeps a value: its version and itself."""
    with viewing(path) as (_, view):
        if not view.has(entity):
            raise Failed(f"there is no entity {entity!r} in {path}; `stateside journal list` shows which there are")
        try:
            if view.keeps_value(entity):
                click.echo(_value_line(view.value(entity), payload, as_json))
                return
            for sequence, event in _events(view, entity, first, last):
                click.echo(_event_line("sequence", sequence, event, payload, as_json))
        except Damaged as damaged:
            click.echo(f"Damaged: {entity}: {damaged.what}", err=True)
            raise SystemExit(1) from damaged


def _events(view: View, entity: str, first: int, last: int | None) -> Iterator[tuple[int, bytes]]:
    for record in view.records(entity, first):
        for sequence, event in enumerate(record.events, record.first_sequence):
            if last is not None and sequence > last:
                return
            if sequence >= first:
                yield sequence, event


def _value_line(record: Record, payload: str, as_json: bool) -> str:
    version = record.first_sequence
    if record.value is not None:
        return _event_line("version", version, record.value, payload, as_json)
    return json.dumps({"version": version, "deleted": True}) if as_json else f"{version:>9}  deleted"


def _event_line(number: str, sequence: int, event: bytes, payload: str, as_json: bool) -> str:
    if as_json:
        return json.dumps({number: sequence, "size": len(event)} | any_fields(event))
    type_url, value = split_any(event) or ("-", event)
    return f"{sequence:>9}  {_printable(type_url)}  {len(event)}  {_preview(value, payload)}".rstrip()


def _preview(value: bytes, payload: str) -> str:
    if payload == "none":
        return ""
    text = value.decode(errors="replace")
    is_text = payload == "text" or (payload == "auto" and text.isprintable() and "\ufffd" not in text)
    shown = _printable(text) if is_text else value.hex()
    return shown if len(shown) <= PREVIEW else shown[:PREVIEW] + "..."


def _printable(text: str) -> str:
    """Nothing stored may move the operator's cursor."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


@journal.command("verify")
@path_option
def verify_(path: Path) -> None:
    """Check every checksum, the sequences of every entity, and the index. Exit code 1 when something is damaged."""
    with viewing(path) as (_, view), progress("verifying", work_of(view)) as advance:
        verdict = verify(view, advance)
    _tell_verdict(verdict)
    if verdict.damaged:
        raise SystemExit(1)


def _tell_verdict(verdict: Verdict) -> None:
    for entity, problems in sorted(verdict.damaged.items()):
        for problem in problems:
            click.echo(f"damaged  {_printable(entity) or '(unknown entity)'}  {_printable(problem)}")
    outcome = f"{len(verdict.damaged)} damaged" if verdict.damaged else "all sound"
    click.echo(
        f"{len(verdict.last_sequences)} entities, {verdict.events} events in {verdict.appends} appends, "
        f"{verdict.snapshots} snapshots, {len(verdict.values)} values: {outcome}"
    )


@journal.command()
@click.argument("file", type=click.File("w", lazy=False))
@path_option
def export(file: IO[str], path: Path) -> None:
    """Write all events, snapshots and values to FILE (- for standard output) as JSON lines."""
    warnings = 0

    def warn(text: str) -> None:
        nonlocal warnings
        warnings += 1
        click.echo(f"Left out: {_printable(text)}", err=True)

    with viewing(path) as (_, view), progress("exporting", None) as advance:
        for line in export_lines(view, warn):
            file.write(line + "\n")
            advance()
    if warnings:
        raise SystemExit(1)


@journal.command("import")
@click.argument("file", type=click.File("r"))
@path_option
def import_(file: IO[str], path: Path) -> None:
    """Store the events, snapshots and values of FILE (- for standard input). What is stored already is skipped, so an
    import that was interrupted can be run again. No proxy may have the journal open."""
    with progress("importing", None) as advance:
        done = asyncio.run(_import(file, path, advance))
    click.echo(
        f"{done.events} events, {done.snapshots} snapshots and {done.values} values imported, "
        f"{done.known} were there already"
    )


async def _import(file: IO[str], path: Path, advance: Callable[[], object]) -> Imported:
    target = LmdbJournal(path, Durability.DURABLE)
    await target.open()
    try:
        return await import_lines(target, file, advance)
    except JournalError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(1) from error
    finally:
        await target.close()


@journal.command()
@click.argument("destination", required=False, type=click.Path(path_type=Path))
@click.option("--in-place", is_flag=True, help="Replace the journal by its compact copy.")
@path_option
def compact(destination: Path | None, in_place: bool, path: Path) -> None:
    """Copy the journal to the directory DESTINATION without free pages and superseded values. No proxy may have it
    open."""
    if (destination is None) != in_place:
        raise click.UsageError("say where to: DESTINATION, or --in-place")
    before, after = compact_in_place(path) if destination is None else compact_to(path, destination)
    click.echo(f"{before} bytes before, {after} bytes after")


journal.add_command(promote_command)


@contextmanager
def viewing(path: Path) -> Iterator[tuple[StoredJournal, View]]:
    with StoredJournal(path) as stored, stored.view() as view:
        yield stored, view


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[], object]]:
    """A bar on stderr when somebody is there to see it. Gives what to call after each step."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)

"""Journals: one contract (`contract`), several stores, chosen by URL."""

from __future__ import annotations

from collections.abc import Callable

from stateside.journal.contract import Durability, Journal, JournalError


def open_journal(
    url: str,
    durability: Durability = Durability.DURABLE,
    on_broken: Callable[[JournalError], None] | None = None,
    **settings: int | float | str,
) -> Journal:
    """Make the journal that `url` names, still to be opened: `memory:`, `lmdb:<directory>` or `postgresql://...`.

    `settings` are the fields of the store's settings, such as `map_size_max` in bytes (lmdb.LmdbSettings) or
    `max_bytes` (memory). Raises ValueError for a URL or setting that does not exist.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        from stateside.journal.memory import MemoryJournal

        return MemoryJournal(**_known(settings, {"max_bytes"}, url))  # type: ignore[arg-type]
    if scheme == "lmdb" and rest:
        from stateside.journal.lmdb import LmdbJournal, LmdbSettings

        known = _known(settings, set(LmdbSettings.__dataclass_fields__), url)
        return LmdbJournal(rest, durability, LmdbSettings(**known), on_broken)  # type: ignore[arg-type]
    if scheme in ("postgres", "postgresql"):
        from stateside.journal.postgres import PostgresJournal, PostgresSettings

        known = _known(settings, set(PostgresSettings.__dataclass_fields__), url)
        return PostgresJournal(url, durability, PostgresSettings(**known), on_broken)  # type: ignore[arg-type]
    raise ValueError(f"journal {url!r} is unknown: memory:, lmdb:<directory> or postgresql://... is possible")


def _known(settings: dict[str, int | float | str], names: set[str], url: str) -> dict[str, int | float | str]:
    if unknown := sorted(settings.keys() - names):
        raise ValueError(f"journal {url!r} has no setting {unknown[0]!r}: {', '.join(sorted(names))} are possible")
    return settings

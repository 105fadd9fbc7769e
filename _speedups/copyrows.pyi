"""Records of the LMDB journal as rows of Postgres."""

class Head:
    """What a batch does to one entity. `value` of a deleted value is None."""

    entity: bytes
    first_sequence: int
    last_sequence: int
    is_value: bool
    has_snapshot: bool
    """One of its appends brought a snapshot."""
    value: bytes | None

class CopyRows:
    """Rows (entity, sequence, log_offset, epoch, event) for COPY in the binary form; epochs are 0."""

    heads: dict[bytes, Head]
    events: int
    records: int
    bytes_in: int
    checksum: bytes
    """Of the last record."""
    next_offset: int
    size: int
    def __init__(self, first_offset: int) -> None:
        """first_offset: log_offset of the first event."""
    def add(self, offset: int, data: bytes) -> None:
        """The record at `offset` of the journal. Raises ValueError when it cannot be trusted."""
    def finish(self) -> bytes:
        """All rows, as COPY takes them."""

def event_at(offset: int, data: bytes, prefix: bytes, from_offset: int) -> tuple[bytes, int] | None:
    """Entity and sequence of the first event at or behind `from_offset` (of the log over all entities) in the record at
    `offset`; None if it has none, or the entity does not begin with `prefix` or is one of the proxy's own."""

"""What several processes answer to /metrics, as one answer: each family once, each series with its `worker`.

Only the text format 0.0.4 as our own processes write it is understood: `# HELP` and `# TYPE` before the samples of each
family, no timestamps, no exemplars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LABEL = "worker"
_COMMENTS = (b"# HELP ", b"# TYPE ")


class Merged:
    """One exposition. Families come in the order in which they are met first."""

    def __init__(self) -> None:
        self._families: dict[bytes, _Family] = {}

    def add(self, exposition: bytes, worker: str) -> None:
        """All of one process, whose series get the label `worker`."""
        label = f'{LABEL}="{worker}"'.encode()
        family = _Family()
        for line in exposition.splitlines():
            if line.startswith(_COMMENTS):
                family = self._family(line.split(b" ", 3)[2])
                family.comment(line)
            elif line and not line.startswith(b"#"):
                family.samples.append(_labelled(line, label))

    def add_family(self, sort: str, name: str, meaning: str, values: Mapping[str, float] | float) -> None:
        """One of our own. `values`: by the labels, as written between braces, or one without labels."""
        family = self._family(name.encode())
        family.comment(f"# HELP {name} {meaning}".encode())
        family.comment(f"# TYPE {name} {sort}".encode())
        for labels, value in values.items() if isinstance(values, Mapping) else [("", values)]:
            shown = f"{{{labels}}}" if labels else ""
            family.samples.append(f"{name}{shown} {float(value)!r}".encode())

    def render(self, names: Iterable[str] = ()) -> bytes:
        """The text; only the series called `names`, if any are given."""
        wanted = frozenset(name.encode() for name in names)
        lines: list[bytes] = []
        for family in self._families.values():
            samples = [each for each in family.samples if _name(each) in wanted] if wanted else family.samples
            if samples or not wanted:
                lines += family.comments.values()
                lines += samples
        return b"\n".join([*lines, b""])

    def _family(self, name: bytes) -> _Family:
        return self._families.setdefault(name, _Family())


class _Family:
    """`comments`: HELP and TYPE, those that came first."""

    __slots__ = ("comments", "samples")

    def __init__(self) -> None:
        self.comments: dict[bytes, bytes] = {}
        self.samples: list[bytes] = []

    def comment(self, line: bytes) -> None:
        self.comments.setdefault(line[: len(_COMMENTS[0])], line)


def _labelled(sample: bytes, label: bytes) -> bytes:
    """`name{a="b"} 1` or `name 1`, with one label more."""
    name = _name(sample)
    rest = sample[len(name) :]
    if rest.startswith(b"{"):
        return name + b"{" + label + (b"," if not rest.startswith(b"{}") else b"") + rest[1:]
    return name + b"{" + label + b"}" + rest


def _name(sample: bytes) -> bytes:
    """What stands before labels or value; in neither of these is a name's end looked for."""
    return sample.partition(b" ")[0].partition(b"{")[0]

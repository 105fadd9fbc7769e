"""`run(reload=True)`: the process starts again when a source file of the application changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from stateside.support.reload import changed, watched

ROOT = Path(__file__).parents[2]

MAIN = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
import answer
from examples.shopping_cart.entity import ShoppingCart
from stateside.support import Hooks, Stateside

class Says(Hooks):
    def started(self, address):
        print("started", answer.TEXT, flush=True)

Stateside(ShoppingCart, hooks=Says()).run("127.0.0.1", 0, reload=True)
"""


def test_a_changed_source_file_starts_the_process_again(tmp_path: Path) -> None:
    answer, main = tmp_path / "answer.py", tmp_path / "main.py"
    answer.write_text("TEXT = 'one'\n")
    main.write_text(MAIN.format(root=str(ROOT), here=str(tmp_path)))
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [sys.executable, str(main)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "started one\n"
        answer.write_text("TEXT = \n")
        assert "not reloaded" in process.stderr.readline()
        answer.write_text("TEXT = 'three'\n")
        assert process.stdout.readline() == "started three\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_watched_are_the_files_of_the_application_only() -> None:
    files = watched()
    assert Path(__file__).resolve() in files
    assert not any("site-packages" in file.parts for file in files)
    assert changed(files) == []
    assert changed({Path("no/such/file.py"): 1}) == [Path("no/such/file.py")]

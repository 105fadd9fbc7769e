"""The bench as a command: one short work, its files, and what is made from them without measuring again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def bench(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "stateside.bench", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one work."""
    folder = tmp_path_factory.mktemp("bench")
    said = bench("--quick", "--seconds", 0.3, "--only", "mixed", "--out", folder)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "1/1, 0:00 left" in said.stdout
    return folder


def test_a_run_writes_all_figures_and_the_machine_they_were_measured_on(out: Path) -> None:
    report = json.loads((out / "latest.json").read_text())
    (figures,) = report["figures"]["mixed"]
    expected = {"calls_per_s", "p50_us", "p90_us", "p99_us", "p999_us", "proxy_cpu_us", "user_function_cpu_us"}
    assert expected | {"load_cpu_us", "proxy_mb", "user_function_mb", "load_mb"} <= set(figures)
    assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["max_us"]
    assert report["run"]["only"] == ["mixed"]
    assert report["machine"]["cores"] >= 1
    assert [each["measurement"] for each in report["weather"]] == ["mixed"]
    assert [each.name for each in out.iterdir() if each.is_dir()] == []


def test_a_run_draws_a_page(out: Path) -> None:
    html = (out / "report.html").read_text()
    assert html.count("<svg") == 2
    assert "mixed 75/25" in html


def test_the_table_for_the_readme_is_printed_without_measuring(out: Path) -> None:
    said = bench("--readme", "--out", out)
    assert said.returncode == 0
    assert said.stdout.startswith("Medians of 1 rotated rounds on ")
    assert "| 75 % reads, 25 % durable writes" in said.stdout


def test_a_page_is_drawn_again_beside_an_earlier_run(out: Path) -> None:
    (out / "report.html").unlink()
    assert bench("--redraw", "--compare", out / "latest.json", "--out", out).returncode == 0
    assert "Against an earlier run" in (out / "report.html").read_text()


def test_a_file_that_holds_no_figures_is_refused(tmp_path: Path) -> None:
    said = bench("--readme", "--out", tmp_path)
    assert (said.returncode, said.stdout) == (2, "")
    assert "latest.json" in said.stderr


def test_impossible_options_are_refused() -> None:
    assert "--rounds is at least 1" in bench("--rounds", 0).stderr
    assert "invalid choice: 'nothing'" in bench("--only", "nothing").stderr

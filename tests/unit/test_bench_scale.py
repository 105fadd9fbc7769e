"""Tables, charts and places in the docs that the scale curves fill; stacks and names of the flame graph."""

import json
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import pytest

from stateside.bench.flame_draw import flame_graph, tree
from stateside.bench.flame_stacks import fold_perf, fold_raw, place_of, readable, simplified, split
from stateside.bench.scale_curves import CURVES, event
from stateside.bench.scale_page import CHARTS, COLUMNS, charts, filled, markdown, number, page, publish, short
from stateside.proto import Any as AnyMessage

ROOT = Path(__file__).parents[2]
EVENTS = {
    "0": {"replayed_us": 900.0, "covered_us": 800.0, "events_per_s": 0.0},
    "1000": {"replayed_us": 2500.0, "covered_us": 810.0, "events_per_s": 4e5},
    "1000000": {"replayed_us": 400_000.0, "covered_us": 900.0, "events_per_s": 2.5e6},
}


def result(**changes: Any) -> dict[str, Any]:
    machine = {"cores": 2, "cpu_model": "a <CPU>", "memory_mb": 24_000, "system": "Debian", "python": "3.11"}
    whole = {"begun": "2026-11-22T02:00:00", "quick": False, "machine": machine | {"commit": "abc"}, "noise": []}
    return whole | {"problems": [], "curves": {"events": EVENTS}} | changes


def test_a_table_has_a_row_for_each_point() -> None:
    assert markdown("events", EVENTS).splitlines() == [
        "| stored events | ms to the first answer | ms with a snapshot | events/s |",
        "|---:|---:|---:|---:|",
        "| 0 | 0.9 | 0.8 | 0 |",
        "| 1,000 | 2.5 | 0.81 | 400,000 |",
        "| 1,000,000 | 400 | 0.9 | 2,500,000 |",
    ]


def test_a_chart_leaves_out_the_point_at_nothing_and_has_a_mark_for_each_other() -> None:
    (drawn,) = charts("events", EVENTS).values()
    assert len(xml.fromstring(drawn).findall(".//{*}circle")) == 2 * 2
    assert charts("events", {"0": EVENTS["0"]}) == {}


def test_each_curve_has_columns_and_charts() -> None:
    assert set(COLUMNS) == set(CHARTS) == {curve.name for curve in CURVES}
    for curve in CURVES:
        assert COLUMNS[curve.name][0].first and set(curve.quick_values) <= set(curve.values)


def test_only_places_that_there_is_a_table_for_are_filled() -> None:
    text = "a\n<!-- figures: events -->\nold\n<!-- end of figures -->\nb\n"
    text += "<!-- figures: split -->\nkept\n<!-- end of figures -->\n"
    once = filled(text, {"events": "| new |\n"})
    assert "old" not in once and "| new |" in once and "kept" in once and once.startswith("a\n") and "\nb\n" in once
    assert filled(once, {"events": "| new |\n"}) == once


def test_publishing_writes_the_result_the_drawings_and_the_tables(tmp_path: Path) -> None:
    text = tmp_path / "page.md"
    text.write_text("".join(f"<!-- figures: {name} -->\n<!-- end of figures -->\n" for name in ("machine", "events")))
    publish(result(), tmp_path / "figures", text)
    assert json.loads((tmp_path / "figures" / "scale.json").read_text())["curves"] == {"events": EVENTS}
    assert "| 1,000 | 2.5 |" in text.read_text() and "on 2 cores of a <CPU>" in text.read_text()
    drawing = xml.parse(tmp_path / "figures" / "events-activation.svg").getroot()
    assert drawing[0].tag.endswith("style")


def test_the_page_says_what_was_not_measured_and_when_the_machine_was_busy() -> None:
    shown = page(result(problems=["events 10: took <too> long"], noise=["other processes used 50%"]))
    assert "took &lt;too&gt; long" in shown and "other processes used 50%" in shown and "<h2>Events</h2>" in shown


def test_the_docs_have_a_place_for_every_table() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    for name in ("machine", "split", *COLUMNS):
        assert text.count(f"<!-- figures: {name} -->") == 1
    for drawings in CHARTS.values():
        for name, *_ in drawings:
            assert f"figures/{name}.svg" in text


def test_numbers_have_three_digits_that_mean_something() -> None:
    assert [number(value) for value in (0.01234, 9.876, 1234.5)] == ["0.0123", "9.88", "1,234"]
    assert [short(value) for value in (0.1, 10, 1_000, 100_000, 1_000_000)] == ["0.1", "10", "1k", "100k", "1M"]


def test_an_event_of_the_curves_is_the_one_that_the_echo_expects() -> None:
    parsed = AnyMessage.FromString(event(300))
    assert (parsed.type_url, len(parsed.value)) == ("type.googleapis.com/bench.Written", 100)
    assert parsed.SerializeToString() == event(300)


PERF = """stateside
\t    7f0000000002 __pyx_f_9stateside_9_speedups_2h2_7Session_flush+0x12 (/x/_speedups/h2.cpython-311.so)
\t    7f0000000001 main (/usr/bin/python3.11)

stateside
\tffffffff8100 tcp_sendmsg ([kernel.kallsyms])
\t    7f0000000002 __pyx_f_9stateside_9_speedups_2h2_7Session_flush (/x/_speedups/h2.cpython-311-x86_64-linux-gnu.so)
\t    7f0000000001 main (/usr/bin/python3.11)

journal
\t    7f0000000009 [unknown] (/lib/x86_64-linux-gnu/libnghttp2.so.14.24.1)
"""
TRANSPORT, KERNEL = "transport (compiled)", "the kernel: sockets, wake-ups"


def test_stacks_of_perf_are_folded_from_the_root() -> None:
    stacks = fold_perf(PERF.splitlines(keepends=True))
    flush = f"h2.Session.flush|{TRANSPORT}"
    assert stacks == {
        ("stateside|thread", "Python functions|Python", flush): 1,
        ("stateside|thread", "Python functions|Python", flush, f"tcp_sendmsg|{KERNEL}"): 1,
        ("journal|thread", "[unknown]|nghttp2: frames, header compression"): 1,
    }


def test_stacks_begin_at_the_event_loop_and_the_interpreter_is_one_frame() -> None:
    eval_frame = "_PyEval_EvalFrameDefault|Python"
    frames = [
        "main|Python",
        "uv_run|uvloop",
        "read|uvloop",
        eval_frame,
        eval_frame,
        "scan|wire",
        eval_frame,
        "get|Python",
    ]
    shown = ["read|uvloop", "Python functions|Python", "scan|wire", "Python functions|Python", "get|Python"]
    assert simplified(frames) == shown
    assert simplified(["write|journal"]) == ["write|journal"]
    assert simplified(["main|Python", "uv_run|uvloop"]) == ["uv_run|uvloop"]


def test_stacks_of_py_spy_are_folded_too() -> None:
    stacks = fold_raw(["main (cli.py:3);run (/x/h2.cpython-311.so) 7", ""])
    assert stacks == {("main|other", f"run|{TRANSPORT}"): 7}


def test_the_split_counts_where_the_processor_was() -> None:
    shares = split(fold_perf(PERF.splitlines()))
    assert shares[TRANSPORT] == shares[KERNEL] == pytest.approx(1 / 3)
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("/x/_speedups/wire.cpython-311-x86_64-linux-gnu.so", "protobuf scanning (compiled)"),
        ("/x/_speedups/logwriter.cpython-311-x86_64-linux-gnu.so", "journal (compiled)"),
        ("/x/uvloop/loop.cpython-311-x86_64-linux-gnu.so", "uvloop"),
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", "the C library: memory, locks"),
        ("[vdso]", "the C library: memory, locks"),
        ("/usr/bin/python3.11", "Python"),
        ("/anything", "other"),
    ],
)
def test_a_file_belongs_to_a_part_of_the_program(file: str, place: str) -> None:
    assert place_of(file) == place


def test_names_of_cython_can_be_read() -> None:
    assert readable("__pyx_pw_9stateside_9_speedups_4wire_13CommandWriter_1write") == "wire.CommandWriter.write"
    assert readable("nghttp2_session_mem_send") == "nghttp2_session_mem_send"


def test_a_flame_graph_is_as_wide_as_its_samples() -> None:
    stacks = fold_raw(["main;read 3", "main;write 1"])
    assert tree(stacks).called["main|Python"].count == 4
    drawing = xml.fromstring(flame_graph("Test <1>", stacks))
    widths = {group.find("{*}title").text: group.find("{*}rect").get("width") for group in drawing.findall("{*}g")}  # type: ignore[union-attr]
    assert widths["read (Python): 75.0%"] == "899.5" and widths["write (Python): 25.0%"] == "299.5"

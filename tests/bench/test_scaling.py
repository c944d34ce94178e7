"""The same operations on another number of threads, and the figure that is drawn of a report."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree

import pytest

from pppml_fast import _native
from pppml_fast.bench import BenchPlan, run_bench
from pppml_fast.bench.ours import our_cases
from pppml_fast.bench.plot import plot
from pppml_fast.bench.rows import Report
from pppml_fast.bench.run import on_threads
from pppml_fast.errors import ConfigError


def tiny_report() -> Report:
    return run_bench(BenchPlan(size=3000, settings=("p31/collective",), repetitions=1, scaling=2))


def test_scaling_compares_our_own_rows_and_peers_only_on_equal_threads() -> None:
    report = tiny_report()
    scaled = {row.operation for row in report.rows if row.system == "pppml_fast" and row.threads == 2}
    assert scaled == {"encrypt", "open"}
    ratios = [ratio for ratio in report.ratios() if ratio.kind == "threads"]
    assert {(ratio.operation, ratio.against) for ratio in ratios} == {
        (operation, "1 thread, on 2") for operation in scaled
    }
    one = next(row for row in report.rows if row.operation == "encrypt" and row.threads == 1)
    peer = dataclasses.replace(one, system="peer", setting="its", ns_per_weight=10 * one.ns_per_weight)
    times = [r for r in dataclasses.replace(report, rows=(*report.rows, peer)).ratios() if r.kind == "time"]
    assert [round(ratio.value, 6) for ratio in times] == [10.0]


def test_a_case_on_threads_uses_them_and_gives_them_back() -> None:
    case = next(case for case in our_cases("p31/collective", 3000, 1) if case.operation == "open")
    seen: list[int] = []
    watched = dataclasses.replace(case, run=lambda _: seen.append(_native.thread_count()))
    before = _native.thread_count()
    on_threads(watched, 3).run(None)
    assert seen == [3] and _native.thread_count() == before


def test_scaling_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="scaling = -1"):
        BenchPlan(scaling=-1)


def test_the_figure_shows_every_one_thread_row_once() -> None:
    report = tiny_report()
    peer = dataclasses.replace(
        report.rows[0], system="peer", setting="its own", operation="open", ns_per_weight=123456.0
    )
    image = plot(dataclasses.replace(report, rows=(*report.rows, peer)))
    text = "".join(ElementTree.fromstring(image).itertext())
    assert text.count("p31/collective") == 2 and text.count("peer its own") == 1 and "123,456" in text
    assert plot(dataclasses.replace(report, rows=(*report.rows, peer))) == image

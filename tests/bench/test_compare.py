"""The gate: what fails it, what does not, and how instructions are read out of a profile."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pppml_fast.bench import compare as gate
from pppml_fast.bench.compare import compare, main, wire_bytes
from pppml_fast.bench.instructions import COUNTED_CASES, count_instructions, counted_cases, object_cost, why_not_counted
from pppml_fast.bench.machine import describe_machine
from pppml_fast.bench.workload import EXTRA_RUNS
from pppml_fast.errors import ConfigError, DataError

BASELINE = Path(__file__).parents[2] / "benchmarks" / "baseline.json"
OLD: dict[str, Any] = {
    "machine": {"compiler": "GCC 12"},
    "instructions": {"scalar": {"p31/collective:encrypt": 1000.0}},
    "wire_bytes": {"p31/collective": 4063316},
    "ratios": {"p31/collective encrypt on avx512 / tenseal best": 240.0},
}


def changed(**values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(OLD), **values}


@pytest.mark.parametrize(
    "new, failures",
    [
        (changed(), 0),
        (changed(instructions={"scalar": {"p31/collective:encrypt": 1029.0}}), 0),
        (changed(instructions={"scalar": {"p31/collective:encrypt": 1031.0}}), 1),
        (changed(instructions={"scalar": {"p31/collective:encrypt": 500.0}}), 0),
        (changed(instructions={"scalar": {}}), 1),
        (changed(instructions={}), 0),
        (changed(instructions={"scalar": {"p31/collective:encrypt": 9e9}}, machine={"compiler": "clang 19"}), 0),
        (changed(wire_bytes={"p31/collective": 4063317}), 1),
        (changed(wire_bytes={}), 1),
        (changed(ratios={"p31/collective encrypt on avx512 / tenseal best": 190.0}), 0),
        (changed(ratios={"p31/collective encrypt on avx512 / tenseal best": 170.0}), 1),
        (changed(ratios={}), 0),
    ],
)
def test_what_fails_the_gate(new: dict[str, Any], failures: int) -> None:
    findings = compare(OLD, new)
    assert sum(finding.failed for finding in findings) == failures
    assert findings


def test_a_foreign_baseline_is_refused() -> None:
    for foreign in ({}, {"machine": 1}, changed(ratios=[1])):
        with pytest.raises(DataError, match="bench-baseline"):
            compare(foreign, OLD)


def test_the_committed_baseline_is_whole_and_its_bytes_are_todays() -> None:
    baseline = json.loads(BASELINE.read_text())
    assert set(baseline) == {"machine", "instructions", "wire_bytes", "ratios"}
    assert baseline["wire_bytes"] == wire_bytes()
    assert "scalar" in baseline["instructions"]
    for backend, counts in baseline["instructions"].items():
        assert set(counts) == set(counted_cases(backend))
        assert all(count > 1 for count in counts.values())
    assert {case.partition(":")[2] for case in COUNTED_CASES} <= set(EXTRA_RUNS)


def test_the_program_tells_and_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    path = tmp_path / "baseline.json"
    current = changed()
    monkeypatch.setattr(gate, "collect", lambda report, progress: current)
    assert main([str(path)]) == 2 and "cannot read" in capsys.readouterr().err
    assert main([str(path), "--write"]) == 0 and json.loads(path.read_text()) == OLD
    assert main([str(path)]) == 0 and "WORSE" not in capsys.readouterr().out
    current = changed(wire_bytes={"p31/collective": 4063400})
    assert main([str(path)]) == 1
    told = capsys.readouterr().out
    assert "WORSE  bytes of 2^20 weights p31/collective: 4063316 -> 4063400" in told
    path.write_text("not json")
    assert main([str(path)]) == 2


def test_ratios_of_another_commit_or_of_a_busy_machine_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    seen: list[Any] = []

    def collect(report: Any, progress: Any) -> dict[str, Any]:
        seen.append(report)
        return changed()

    monkeypatch.setattr(gate, "collect", collect)
    path, report = tmp_path / "baseline.json", tmp_path / "bench.json"
    machine = describe_machine()
    for commit, load, kept in [
        ("other", 0.0, {}),
        (machine["commit"], 9.0, {}),
        (machine["commit"], 0.0, OLD["ratios"]),
    ]:
        values = {"rows": [], "setup": [], "machine": {**machine, "commit": commit, "load": [load] * 3}, "notes": []}
        report.write_text(json.dumps(values))
        assert main([str(path), "--write", "--report", str(report)]) == 0
        assert (seen[-1] is None) == (commit == "other")
        if commit != "other":
            assert json.loads(path.read_text())["ratios"] == kept
        assert ("ratios left out" in capsys.readouterr().err) == (commit == "other" or load > 1)


PROFILE = """# callgrind format
version: 1
positions: line
events: Ir

ob=(1) /usr/lib/libc.so.6
fn=(1) memcpy
0 1000
cob=(2) /somewhere/_native.so
cfn=(2) encrypt
calls=1 0
0 70000

ob=(2)
fn=(2)
5 40
+3 2
* 8
cob=(1)
cfn=(1)
calls=3 0
0 900
-1 50
ob=(1)
fn=(3)
0 7
totals: 1107
"""


def test_only_the_objects_own_instructions_count() -> None:
    assert object_cost(PROFILE, "_native.so") == 40 + 2 + 8 + 50
    assert object_cost(PROFILE, "libc.so.6") == 1000 + 7
    with pytest.raises(DataError, match="nothing was counted"):
        object_cost(PROFILE, "other.so")


def test_counting_needs_valgrind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="valgrind"):
        count_instructions("scalar")
    assert why_not_counted("avx2") == "valgrind is not on the path"


def test_it_says_why_a_backend_was_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert why_not_counted("avx512") == "valgrind does not know its instructions"
    assert why_not_counted("avx2") == "this build or this processor lacks it"
    new = changed(instructions={**OLD["instructions"], "avx2": {"p31/collective:encrypt": 50.0}})
    texts = [finding.text for finding in compare(OLD, new) if not finding.failed]
    assert "instructions of avx2 not compared: the baseline has none" in texts
    assert counted_cases("scalar") == COUNTED_CASES
    assert {case.partition("/")[0] for case in counted_cases("avx2")} == {"p31"}


def test_the_machine_is_described_without_names() -> None:
    machine = describe_machine()
    assert machine["cores"] >= 1 and machine["backends"][-1] == "scalar"
    assert machine["compiler"].startswith(("GCC: ", "clang version "))
    assert "/" not in machine["commit"] and "host" not in machine

"""A gate against regressions that noise cannot fool: instruction counts, bytes, and ratios within one run.

    python -m pppml_fast.bench.compare BASELINE [--report FILE] [--write]

Wall time is never compared with wall time of another day. Instructions may grow by 3 %, where the compiler is the
baseline's; bytes not at all; a ratio to a peer or to a memory loop, measured in one run, may fall by a quarter.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pppml_fast as pf
from pppml_fast.bench.instructions import count_instructions, counted_backends, why_not_counted
from pppml_fast.bench.machine import describe_machine
from pppml_fast.bench.ours import CLIP, PARTIES
from pppml_fast.bench.rows import Report
from pppml_fast.errors import DataError, PppmlError
from pppml_fast.params import KeyMode

__all__ = ["Finding", "collect", "compare", "main", "wire_bytes"]

INSTRUCTION_TOLERANCE = 0.03
RATIO_TOLERANCE = 0.25
# Ratios of a run on a busy machine are no baseline.
QUIET_LOAD = 0.5
_WIRE_WEIGHTS = 1 << 20


@dataclass(frozen=True)
class Finding:
    """One line of the comparison, and whether it fails the gate."""

    text: str
    failed: bool


def wire_bytes() -> dict[str, int]:
    """Bytes on the wire of 2^20 encrypted weights, headers included, by setting."""
    found = {}
    for name in pf.PRESETS:
        for keys in get_args(KeyMode):
            params = pf.CkksParams.preset(name, parties=PARTIES, clip=CLIP, keys=keys)
            found[f"{name}/{keys}"] = int(pf.Ciphertext.zeros(params, _WIRE_WEIGHTS).nbytes)
    return found


def collect(report: Report | None, progress: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Everything the gate compares, measured now; ratios are those of ``report``."""
    return {
        "machine": describe_machine(),
        "instructions": {backend: count_instructions(backend, progress=progress) for backend in counted_backends()},
        "wire_bytes": wire_bytes(),
        "ratios": {} if report is None else _ratios(report),
    }


def compare(baseline: Mapping[str, Any], current: Mapping[str, Any]) -> list[Finding]:
    """What changed since the baseline, best or worse, quantity by quantity. Raises DataError on a foreign baseline."""
    try:
        findings = _compare_instructions(baseline, current)
        findings += _compare_bytes(baseline["wire_bytes"], current["wire_bytes"])
        for name, old in baseline["ratios"].items():
            new = current["ratios"].get(name)
            if new is None:
                findings.append(Finding(f"ratio {name}: {old:.3g}, not compared: not measured", False))
            else:
                failed = new < old * (1 - RATIO_TOLERANCE)
                findings.append(Finding(f"ratio {name}: {old:.3g} -> {new:.3g}", failed))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not a baseline of this gate ({error!r}); write one with make bench-baseline") from None
    return findings


def _compare_instructions(baseline: Mapping[str, Any], current: Mapping[str, Any]) -> list[Finding]:
    old_compiler, new_compiler = baseline["machine"]["compiler"], current["machine"]["compiler"]
    if old_compiler != new_compiler:
        text = f"instructions not compared: the baseline was built by {old_compiler}, this by {new_compiler}"
        return [Finding(text, False)]
    findings = []
    for backend, cases in baseline["instructions"].items():
        counted = current["instructions"].get(backend)
        if counted is None:
            findings.append(Finding(f"instructions of {backend} not compared: {why_not_counted(backend)}", False))
            continue
        for case, old in cases.items():
            new = counted.get(case)
            if new is None:
                findings.append(Finding(f"instructions {backend} {case}: no longer counted", True))
                continue
            change = new / old - 1
            text = f"instructions per weight {backend} {case}: {old:.1f} -> {new:.1f} ({change:+.1%})"
            findings.append(Finding(text, change > INSTRUCTION_TOLERANCE))
    for backend in current["instructions"].keys() - baseline["instructions"].keys():
        findings.append(Finding(f"instructions of {backend} not compared: the baseline has none", False))
    return findings


def _compare_bytes(old: Mapping[str, int], new: Mapping[str, int]) -> list[Finding]:
    findings = []
    for setting, size in old.items():
        now = new.get(setting)
        text = f"bytes of 2^20 weights {setting}: {size} -> {now if now is not None else 'gone'}"
        findings.append(Finding(text, now is None or now > size))
    return findings


def _ratios(report: Report) -> dict[str, float]:
    """Ratios of times and bandwidths by name; the backend belongs to the name."""
    backends = {row.setting: row.backend for row in report.rows}
    return {
        f"{ratio.setting} {ratio.operation} on {backends[ratio.setting]} / {ratio.against}": ratio.value
        for ratio in report.ratios()
        if ratio.kind != "bytes"
    }


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except ValueError:
        raise DataError(f"{str(path)!r} is no JSON file; write it again") from None


def main(arguments: list[str] | None = None) -> int:
    """Run the gate, or write a new baseline: 0 when nothing got worse, 1 when something did, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m pppml_fast.bench.compare", description=__doc__.splitlines()[0])
    parser.add_argument("baseline", type=Path)
    parser.add_argument("--report", type=Path, help="what pppml bench --json wrote: its ratios are compared too")
    parser.add_argument("--write", action="store_true", help="measure and write the baseline instead")
    options = parser.parse_args(arguments)
    try:
        return _gate(options.baseline, options.report, options.write)
    except PppmlError as error:
        _tell(f"error: {error}")
        return 2


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")


def _gate(path: Path, report_path: Path | None, write: bool) -> int:
    report = None if report_path is None else Report.from_dict(_load(report_path))
    here = describe_machine()["commit"]
    if report is not None and report.machine["commit"] != here:
        _tell(f"ratios left out: {str(report_path)!r} is of commit {report.machine['commit']}, this is {here}")
        report = None
    baseline = {} if write else _load(path)
    current = collect(report, _tell)
    if write:
        if report is not None and report.machine["load"][0] > QUIET_LOAD:
            _tell(f"ratios left out: the load was {report.machine['load'][0]} when they were measured")
            current["ratios"] = {}
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_text(json.dumps(current, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
        return 0
    findings = compare(baseline, current)
    for finding in findings:
        sys.stdout.write(("WORSE  " if finding.failed else "ok     ") + finding.text + "\n")
    return 1 if any(finding.failed for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())

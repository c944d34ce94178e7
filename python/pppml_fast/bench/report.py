"""The table that people read: rows, ratios and provenance as Markdown, aligned so that a terminal shows it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pppml_fast.bench.rows import OURS, Ratio, Report, Row, SetupRow

__all__ = ["markdown"]

_ROW_HEAD = (
    "system",
    "setting",
    "operation",
    "backend",
    "threads",
    "ns per weight",
    "least … most",
    "bytes per weight",
    "weights",
    "largest error",
)
_SETUP_HEAD = ("system", "setting", "operation", "ms", "least … most")
_UNITS = {"time": "×", "bytes": "× smaller", "bandwidth": "", "threads": "×"}


def markdown(report: Report, command: str = "") -> str:
    """The whole report. ``command`` is shown as what produced it."""
    sections = ["# Benchmarks", _provenance(report.machine, command)]
    sections += [f"> {note}" for note in report.notes]
    sections += ["## Rows", _table(_ROW_HEAD, [_row_cells(row) for row in report.rows], left=4)]
    if report.setup:
        sections += ["## Set-up, once", _table(_SETUP_HEAD, [_setup_cells(row) for row in report.setup], left=3)]
    ratios = report.ratios()
    if ratios:
        sections += ["## Ratios, within this run", _ratio_table(ratios)]
    sections.append(_legend(report))
    return "\n\n".join(sections) + "\n"


def _row_cells(row: Row) -> tuple[str, ...]:
    return (
        row.system,
        row.setting,
        row.operation,
        row.backend,
        str(row.threads),
        _figure(row.ns_per_weight),
        f"{_figure(row.ns_least)} … {_figure(row.ns_most)}",
        "" if row.bytes_per_weight is None else f"{row.bytes_per_weight:.3f}",
        f"{row.weights:,}",
        "exact" if row.max_error == 0 else f"{row.max_error:.1e}",
    )


def _setup_cells(row: SetupRow) -> tuple[str, ...]:
    extremes = f"{_figure(row.ms_least)} … {_figure(row.ms_most)}"
    return row.system, row.setting, row.operation, _figure(row.ms), extremes


def _ratio_table(ratios: Sequence[Ratio]) -> str:
    """One line per setting and operation of ours, one column per peer and per plain memory loop."""
    cells: dict[tuple[str, str], dict[str, list[str]]] = {}
    columns: dict[str, None] = {}
    for ratio in ratios:
        column = f"{'bandwidth of' if ratio.kind == 'bandwidth' else 'against'} {ratio.against}"
        columns[column] = None
        line = cells.setdefault((ratio.setting, ratio.operation), {})
        line.setdefault(column, []).append(_figure(ratio.value) + _UNITS[ratio.kind])
    ordered = sorted(columns, key=lambda column: column.startswith("bandwidth"))
    rows = [(*key, *(", ".join(line.get(column, [])) for column in ordered)) for key, line in cells.items()]
    return _table(("setting", "operation", *ordered), rows, left=2)


def _figure(value: float) -> str:
    """Three significant figures without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table; the first ``left`` columns are flush left, the others right."""
    widths = [max(len(line[index]) for line in (head, *rows)) for index in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(aligned) + " |"

    rule = "|".join("-" * (width + 1) + ("-" if index < left else ":") for index, width in enumerate(widths))
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])


def _provenance(machine: Mapping[str, Any], command: str) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        f"- command: `{command}`" if command else "",
        f"- machine: {machine['cpu']}, {machine['cores']} cores, {' '.join(machine['flags'])}; {machine['system']}, "
        f"huge pages {machine['huge_pages']}, load {' '.join(map(str, machine['load']))}",
        f"- compiler: {machine['compiler']}; commit {machine['commit']}; {machine['date']}",
        f"- versions: {versions}",
    ]
    return "\n".join(line for line in lines if line)


def _legend(report: Report) -> str:
    notes = {(row.system, row.operation): row.note for row in report.rows if row.note}
    notes |= {(row.system, row.operation): row.note for row in report.setup if row.note}
    lines = ["- medians of interleaved repetitions, each after an untimed one; every answer was checked"]
    lines += [f"- {system} {operation}: {note}" for (system, operation), note in notes.items() if system == OURS]
    others: dict[tuple[str, str], None] = {(s, note): None for (s, _), note in notes.items() if s != OURS}
    lines += [f"- {system}: {note}" for system, note in others]
    return "\n".join(["What is counted:", "", *lines])

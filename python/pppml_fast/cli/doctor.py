"""`pppml doctor`: what this machine offers, and whether every backend computes what it should."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pppml_fast.doctor import Report

__all__ = ["doctor"]

_MARKS = {"ok": ("ok", "green"), "note": ("", "default"), "failed": ("FAILED", "bold red")}
# Where there is no terminal whose width counts.
_WIDTH = 160


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    self_tests: Annotated[
        bool, typer.Option("--self-test/--no-self-test", help="Hold every backend against the scalar one (1 s).")
    ] = True,
) -> None:
    """Examine processor, backends, parameter sets, memory, randomness, clock; exit with 1 where something is wrong."""
    from pppml_fast.doctor import run

    report = run(self_tests=self_tests)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        from rich.console import Console

        console = Console(highlight=False)
        _show(report, console if console.is_terminal else Console(highlight=False, width=_WIDTH))
    raise typer.Exit(0 if report.ok else 1)


def _show(report: Report, console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_header=False)
    for wraps in (False, False, False, True):
        table.add_column(overflow="fold", no_wrap=not wraps)
    section = ""
    for check in report.checks:
        if check.section != section and section:
            table.add_section()
        mark, style = _MARKS[check.status]
        value = Text(check.value)
        if check.remedy:
            value.append(f"\n{check.remedy}", style="bold red" if check.status == "failed" else "dim")
        table.add_row(
            Text("" if check.section == section else check.section, style="bold"),
            Text(mark, style=style),
            check.name,
            value,
        )
        section = check.section
    console.print(table)
    console.print(Text(report.verdict, style="green" if report.ok else "bold red"))

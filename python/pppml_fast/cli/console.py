"""What the program shows: live bars on a terminal, plain lines elsewhere, tables at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from pppml_fast.experiment.plots import METHOD_TITLES
from pppml_fast.experiment.privacy import privacy_statement
from pppml_fast.experiment.progress import Progress, RoundReport
from pppml_fast.experiment.report import cost_lines, identity_line
from pppml_fast.experiment.results import RunResult

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["LiveProgress", "PlainProgress", "make_console", "make_progress", "show_result"]


def make_console() -> Console:
    """A console on stdout; wide where it is no terminal, so that tables in a log do not wrap."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def make_progress(console: Console) -> Progress:
    """Live bars on a terminal, plain lines elsewhere."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


class PlainProgress(Progress):
    """One line per event."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def stage(self, text: str) -> None:
        super().stage(text)
        self._console.print(text)

    def resumed(self, seed: int, track: str, finished: int) -> None:
        super().resumed(seed, track, finished)
        self._console.print(f"{METHOD_TITLES[track]}, seed {seed}: goes on after round {finished}")

    def round_done(self, report: RoundReport) -> None:
        super().round_done(report)
        self._console.print(
            f"{METHOD_TITLES[report.track]}, seed {report.seed}: round {report.round}/{report.rounds} "
            f"loss {report.loss:.4f} training {report.train_s:.1f} s aggregation {1000 * report.ring_s:.0f} "
            "ms"
        )

    def evaluated(self, seed: int, method: str, party: str, before: float, after: float) -> None:
        super().evaluated(seed, method, party, before, after)
        self._console.print(f"{METHOD_TITLES[method]} at {party}: Dice {before:.3f} -> {after:.3f}")


class LiveProgress(Progress):
    """One bar per track with loss and times, results as they come."""

    def __init__(self, console: Console) -> None:
        from rich import progress

        self._console = console
        self._tasks: dict[tuple[int, str], TaskID] = {}
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[detail]}"),
            progress.TimeElapsedColumn(),
            console=console,
        )
        self._bars.start()

    def stage(self, text: str) -> None:
        super().stage(text)
        self._bars.print(text)

    def resumed(self, seed: int, track: str, finished: int) -> None:
        super().resumed(seed, track, finished)
        self._bars.print(f"{METHOD_TITLES[track]}, seed {seed}: goes on after round {finished}")

    def round_done(self, report: RoundReport) -> None:
        super().round_done(report)
        key = (report.seed, report.track)
        detail = f"loss {report.loss:.4f}, aggregation {1000 * report.ring_s:.0f} ms"
        if key not in self._tasks:
            title = f"{METHOD_TITLES[report.track]} (seed {report.seed})"
            self._tasks[key] = self._bars.add_task(title, total=report.rounds, detail=detail)
        self._bars.update(self._tasks[key], completed=report.round, detail=detail)

    def evaluated(self, seed: int, method: str, party: str, before: float, after: float) -> None:
        super().evaluated(seed, method, party, before, after)
        self._bars.print(f"{METHOD_TITLES[method]} at {party}: Dice {before:.3f} -> {after:.3f}")

    def close(self) -> None:
        self._bars.stop()


def show_result(console: Console, result: RunResult) -> None:
    """The final tables: Dice per hospital and method, and what encryption cost."""
    console.print(_dice_table(result))
    for name, value in cost_lines(result.aggregation):
        console.print(f"  {name}: {value}")
    console.print(identity_line(result.aggregation))
    console.print(privacy_statement(result.aggregation.get("privacy")))


def show_lines(console: Console, title: str, lines: list[tuple[str, Any]]) -> None:
    """A title and aligned pairs of a name and a value."""
    table = Table(title=title, box=box.SIMPLE, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(name, str(value))
    console.print(table)


def _dice_table(result: RunResult) -> Table:
    table = Table(title="Dice per case, before → after personalisation", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("method")
    table.add_column("k", justify="right")
    for party in result.parties:
        table.add_column(party.name, justify="right", no_wrap=True)
    for title in ("mean", "worst", "spread"):
        table.add_column(title, justify="right", no_wrap=True)
    for method in result.methods:
        k = method.steps
        cells = [f"{method.party(party.name, 0):.3f} → {method.party(party.name, k):.3f}" for party in result.parties]
        table.add_row(
            METHOD_TITLES[method.name],
            str(k),
            *cells,
            f"{method.mean(k):.3f}",
            f"{method.worst(k):.3f}",
            f"{method.spread(k):.3f}",
        )
    return table

"""`pppml party` and `pppml coordinator`: one node of a federation between machines."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pppml_fast.experiment.site_process import Stop

__all__ = ["EXIT_STOPPED", "coordinator", "party"]

EXIT_STOPPED = 143
"""128 + SIGTERM: stopped on request, before the end of the training; the same command goes on."""

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check everything, print what would be done, and stop.")]


def party(
    config: Annotated[Path, typer.Option(help="The site's configuration, site.toml.")],
    dry_run: DryRunOption = False,
) -> None:
    """Train on this site's own data with the others of a federation; ends with the site's personal model."""
    from pppml_fast.cli.console import make_console, show_lines
    from pppml_fast.experiment.site_config import load_site
    from pppml_fast.experiment.site_process import Stop, run_site_process
    from pppml_fast.experiment.site_setup import prepare_site, site_lines

    site = prepare_site(load_site(config))
    console = make_console()
    show_lines(console, "Site", site_lines(site))
    if dry_run:
        return
    stop = Stop()
    with _asked_by_signal(stop):
        summary = run_site_process(site, stop)
    if summary is None:
        raise typer.Exit(EXIT_STOPPED)
    _show(console, summary, site.config.folder.run)


def coordinator(
    config: Annotated[Path, typer.Option(help="The coordinator's configuration, coordinator.toml.")],
    dry_run: DryRunOption = False,
) -> None:
    """Relay the encrypted sums of a star; holds no key that opens anything."""
    from pppml_fast.cli.console import make_console, show_lines
    from pppml_fast.experiment.site_config import load_coordinator
    from pppml_fast.experiment.site_process import Stop, run_coordinator_process
    from pppml_fast.experiment.site_setup import coordinator_lines, prepare_coordinator

    prepared = prepare_coordinator(load_coordinator(config))
    show_lines(make_console(), "Coordinator", coordinator_lines(prepared))
    if dry_run:
        return
    stop = Stop()
    with _asked_by_signal(stop):
        run_coordinator_process(prepared, stop)
    if stop.asked:
        raise typer.Exit(EXIT_STOPPED)


@contextmanager
def _asked_by_signal(stop: Stop) -> Iterator[None]:
    """SIGTERM asks for a stop; a second one ends the process at once."""

    def on_signal(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stop.ask()

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(console: Console, summary: dict[str, Any], run: Path) -> None:
    from pppml_fast.experiment.privacy import privacy_statement

    for method, result in summary["methods"].items():
        means = {int(k): sum(cases.values()) / len(cases) for k, cases in result["dice"].items() if cases}
        told = ", ".join(f"{mean:.3f} after {k} steps" for k, mean in sorted(means.items()))
        console.print(f"{method}: Dice {told or 'not measured, there are no test cases'}")
    console.print(privacy_statement(summary.get("privacy")))
    model = summary["model"]
    console.print(f"shared model of round {model['round']}: {model['sha256']}")
    console.print(f"models: {run / 'models'}  summary: {run / 'summary.json'}")

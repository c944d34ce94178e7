"""`pppml bench`: what encryption costs on this machine, beside peers and plain memory loops in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["bench"]


def bench(
    against: Annotated[
        str, typer.Option(metavar="PEERS", help="Peers to run beside: tenseal, openfhe, both, or found.")
    ] = "",
    size: Annotated[int, typer.Option(min=1, help="Number of weights; peers get 250,000 at most.")] = 1 << 22,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the core and of the peers.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write the table as Markdown.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="SET/KEYS", help="What to measure, e.g. p31/collective or p62x3/collective. Repeatable."),
    ] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="Interleaved repetitions; medians are shown.")] = 5,
    scaling: Annotated[int, typer.Option(min=1, help="Also encrypt and open on this many threads, against one.")] = 1,
    plot_file: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the report as SVG.")] = None,
    stream: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also stream N weights from a file, encrypted and opened in pieces.")
    ] = 0,
) -> None:
    """Time encryption, addition and opening per weight; every answer is checked."""
    from pppml_fast.bench import BenchPlan, run_bench
    from pppml_fast.bench.ours import DEFAULT_SETTINGS
    from pppml_fast.bench.report import markdown
    from pppml_fast.experiment.files import write_json, write_text
    from pppml_fast.experiment.provenance import command_line

    settings = tuple(setting) if setting else DEFAULT_SETTINGS
    plan = BenchPlan(
        size=size,
        threads=threads,
        settings=settings,
        against=against,
        repetitions=repetitions,
        stream=stream,
        scaling=scaling,
    )
    report = run_bench(plan, lambda text: typer.echo(text, err=True))
    table = markdown(report, command_line())
    typer.echo(table, nl=False)
    if json_file is not None:
        write_json(json_file, report.to_dict())
    if markdown_file is not None:
        write_text(markdown_file, table)
    if plot_file is not None:
        from pppml_fast.bench.plot import plot

        write_text(plot_file, plot(report).decode())

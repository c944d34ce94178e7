"""`pppml demo` and `pppml run`: an experiment from the first line of its plan to the final table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pppml_fast.experiment.config import ExperimentConfig

__all__ = ["SetOption", "demo", "load_experiment", "run"]

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one key of the configuration, e.g. rounds=3. Repeatable."
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Where to train and encrypt: cpu, cuda, cuda:N (default: the configuration's).")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what the run would do and cost, and stop.")]


def demo(
    data: Annotated[
        Path | None,
        typer.Option(envvar="PPPML_DATA", help="Folder or file with real data; without it, synthetic hospitals."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run goes on there.")] = Path("runs/demo"),
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the run.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Number of rounds.")] = None,
    device: DeviceOption = None,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """One encrypted, personalised federation from nothing: five minutes on synthetic hospitals."""
    from pppml_fast.experiment.config_file import build_config, ready_table

    table = ready_table("demo") if data is None else _table_for(data)
    chosen = [f"seeds=[{seed}]"] if seed is not None else []
    chosen += [f"rounds={rounds}"] if rounds is not None else []
    chosen += [f"device={device}"] if device is not None else []
    _execute(build_config(table, [*chosen, *(overrides or [])]), out, dry_run)


def run(
    config: Annotated[Path, typer.Argument(help="TOML file, or the name of a ready one: demo, covid_ct_seg.")],
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: runs/NAME).")] = None,
    device: DeviceOption = None,
) -> None:
    """Run an experiment from a TOML file; the same command resumes it after an interruption."""
    chosen = [f"device={device}"] if device is not None else []
    experiment = load_experiment(config, [*chosen, *(overrides or [])])
    _execute(experiment, out or Path("runs") / experiment.name, dry_run)


def load_experiment(config: Path, overrides: Sequence[str]) -> ExperimentConfig:
    """The experiment of a TOML file, or the ready one of that name. Raises ConfigError."""
    from pppml_fast.experiment.config_file import READY_CONFIGS, load_config, ready_config

    if str(config) in READY_CONFIGS and not config.exists():
        return ready_config(str(config), overrides)
    return load_config(config, overrides)


def _table_for(data: Path) -> dict[str, Any]:
    """The ready configuration for real data, pointed at what a folder holds. Raises DataError."""
    from pppml_fast.experiment.config_file import ready_table
    from pppml_fast.imaging import find_data

    found = find_data(data)
    table = ready_table("covid_ct_seg")
    if found.mapping is not None:
        table["data"] = {"kind": "npz", "path": str(found.path), "mapping": found.mapping.to_dict()}
        if found.path.name != "covid_ct_seg.npz":
            table["title"] = f"Lesion segmentation on {found.path.name}"
    else:
        table["data"] = {"kind": "datalists", "path": str(found.path)}
        table["title"] = "Lesion segmentation on your datalists"
    return table


def _execute(config: ExperimentConfig, out: Path, dry_run: bool) -> None:
    from pppml_fast.cli.console import make_console, make_progress, show_lines, show_result
    from pppml_fast.experiment.plan import plan_lines
    from pppml_fast.experiment.runner import run_study
    from pppml_fast.experiment.study import prepare

    console = make_console()
    study = prepare(config)
    show_lines(console, "Plan", plan_lines(study))
    if dry_run:
        return
    result = run_study(study, out, make_progress(console))
    logging.getLogger("pppml_fast.cli").info("run finished in %s", out)
    show_result(console, result)
    console.print(f"report: {out / 'report.html'}  summary: {out / 'summary.json'}  models: {out / 'models'}")

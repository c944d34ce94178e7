"""`pppml phantoms`: synthetic hospitals as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["phantoms"]


def phantoms(
    out: Annotated[Path, typer.Option(help="New folder for the volumes and one datalist per hospital.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the patients.")] = 0,
    size: Annotated[int, typer.Option(min=32, max=512, help="Rows and columns of a slice.")] = 96,
    hospital: Annotated[list[str] | None, typer.Option(help="Only this hospital. Repeatable.")] = None,
    cases_train: Annotated[int | None, typer.Option(min=1, help="Training cases per hospital.")] = None,
    cases_test: Annotated[int | None, typer.Option(min=1, help="Test cases per hospital.")] = None,
) -> None:
    """Write synthetic hospitals as NIfTI files with datalists, to try predict and personalize."""
    from pppml_fast.experiment.config import PhantomData
    from pppml_fast.experiment.data import phantom_hospitals
    from pppml_fast.experiment.phantom_files import write_phantoms

    chosen = PhantomData(
        seed=seed,
        size=size,
        hospitals=tuple(hospital) if hospital else None,
        cases_train=cases_train,
        cases_test=cases_test,
    )
    for path in write_phantoms(phantom_hospitals(chosen), out, seed=seed, size=size):
        typer.echo(str(path))

"""`pppml personalize` and `pppml predict`: using the models that a run left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["personalize", "predict"]

DeviceOption = Annotated[str, typer.Option(help="Where to compute: cpu, cuda or cuda:N.")]

ModelOption = Annotated[Path, typer.Option(help="Model card (.toml) or the .safetensors beside it.")]


def personalize(
    model: ModelOption,
    data: Annotated[Path, typer.Option(help="The hospital's data: a datalist .json, or an .npz with --party.")],
    out: Annotated[Path, typer.Option(help="Card of the personal model to write, e.g. models/ours.toml.")],
    steps: Annotated[int, typer.Option(min=0, help="Number of SGD steps on the training cases.")] = 5,
    lr: Annotated[float | None, typer.Option(help="Step size (default: the one on the card).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the batches.")] = 0,
    party: Annotated[str | None, typer.Option(help="Which hospital of a file that holds several.")] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Fit a model to one hospital in k steps; the hospital need not have taken part in training."""
    from pppml_fast.experiment.use import personalize_model

    outcome = personalize_model(model, data, out, steps=steps, lr=lr, seed=seed, party=party, device=device)
    typer.echo(f"{outcome.party}: {steps} steps on {outcome.cases_train} training cases -> {outcome.card}")
    for case, (before, after) in outcome.dice.items():
        typer.echo(f"  test case {case}: Dice {before:.3f} -> {after:.3f}")
    if not outcome.dice:
        typer.echo("  no test cases: nothing was scored")


def predict(
    image: Annotated[Path, typer.Argument(metavar="IN", help="CT as .nii, .nii.gz or a folder of DICOM slices.")],
    model: ModelOption,
    out: Annotated[Path, typer.Option("-o", "--out", help="Mask to write, .nii or .nii.gz.")],
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Values shown black and white, where the CT is not in Hounsfield units."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Probability from which a voxel is lesion.")] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Segment one CT; the mask lies on exactly the grid of the CT."""
    from pppml_fast.experiment.use import predict_file

    outcome = predict_file(model, image, out, window=window, threshold=threshold, device=device)
    typer.echo(
        f"{out}: {outcome.voxels} lesion voxels of {outcome.total} ({outcome.millilitres:.1f} ml), "
        f"threshold {outcome.threshold:g}"
    )

"""Figures of a run as PNG bytes (matplotlib, no display)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.experiment.results import RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "METHOD_TITLES",
    "Panel",
    "aggregation_cost",
    "dice_by_hospital",
    "dice_by_steps",
    "overlays",
    "training_curves",
]

Panel = tuple[str, NDArray[Any], NDArray[Any], NDArray[Any]]

METHOD_TITLES: Mapping[str, str] = {
    "local": "local",
    "fedavg": "FedAvg",
    "fedavg_ft": "FedAvg + fine-tuning",
    "fedprox": "FedProx",
    "per_fedavg_fo": "Per-FedAvg (FO)",
    "per_fedavg_hf": "Per-FedAvg (HF)",
}
# Okabe and Ito's palette: distinguishable for colour-blind readers.
_COLOURS: Mapping[str, str] = {
    "local": "#999999",
    "fedavg": "#56B4E9",
    "fedavg_ft": "#0072B2",
    "fedprox": "#009E73",
    "per_fedavg_fo": "#E69F00",
    "per_fedavg_hf": "#D55E00",
}


def dice_by_hospital(result: RunResult) -> bytes:
    """Bars: Dice after personalisation per hospital and method; a tick marks the value before."""
    figure = _figure(8.0, 3.4)
    axes = figure.subplots()
    names = [party.name for party in result.parties]
    width = 0.8 / len(result.methods)
    for index, method in enumerate(result.methods):
        places = np.arange(len(names)) + (index - (len(result.methods) - 1) / 2) * width
        after = [method.party(name, method.steps) for name in names]
        before = [method.party(name, 0) for name in names]
        title = METHOD_TITLES[method.name]
        axes.bar(places, after, width * 0.92, color=_COLOURS[method.name], label=title)
        axes.hlines(before, places - width * 0.46, places + width * 0.46, color="black", linewidth=1.4)
    axes.set_xticks(np.arange(len(names)), names)
    axes.set_ylabel("Dice per case, mean")
    axes.set_ylim(0, 1)
    axes.set_title("After personalisation (black line: before)", fontsize=10)
    axes.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False)
    return _png(figure)


def dice_by_steps(result: RunResult) -> bytes:
    """Lines: mean and worst hospital against the number of personalisation steps."""
    figure = _figure(8.0, 3.0)
    mean_axes, worst_axes = figure.subplots(1, 2, sharey=True)
    for method in result.methods:
        steps = method.all_steps
        if len(steps) < 2:
            continue
        colour, title = _COLOURS[method.name], METHOD_TITLES[method.name]
        mean_axes.plot(range(len(steps)), [method.mean(k) for k in steps], "o-", color=colour, label=title)
        worst_axes.plot(range(len(steps)), [method.worst(k) for k in steps], "o-", color=colour)
    for axes, title in ((mean_axes, "mean over hospitals"), (worst_axes, "worst hospital")):
        every = next((method.all_steps for method in result.methods if len(method.all_steps) > 1), [0])
        axes.set_xticks(range(len(every)), [str(k) for k in every])
        axes.set_xlabel("personalisation steps k")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    mean_axes.set_ylabel("Dice")
    if mean_axes.get_lines():
        figure.legend(fontsize=7, ncols=3, loc="outside lower center", frameon=False)
    return _png(figure)


def training_curves(result: RunResult) -> bytes:
    """Lines: mean training loss per round and track (first seed)."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(8.0, 2.8)
    axes = figure.subplots()
    seed = result.rounds[0]["seed"] if result.rounds else 0
    for track in dict.fromkeys(str(record["track"]) for record in result.rounds):
        rows = [record for record in result.rounds if record["track"] == track and record["seed"] == seed]
        axes.plot(
            [record["round"] for record in rows],
            [record["loss"] for record in rows],
            color=_COLOURS[track],
            label=METHOD_TITLES[track],
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("round")
    axes.set_ylabel("training loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return _png(figure)


def aggregation_cost(aggregation: Mapping[str, Any]) -> bytes:
    """One horizontal bar: seconds of a round by what they were spent on."""
    figure = _figure(8.0, 1.5)
    axes = figure.subplots()
    start = 0.0
    parts = [
        ("training", float(aggregation["train_s"]), "#BBBBBB"),
        ("encrypted aggregation", float(aggregation["ring_s"]), "#D55E00"),
    ]
    for title, seconds, colour in parts:
        axes.barh([0], [seconds], left=start, color=colour, label=f"{title}: {seconds:.3g} s")
        start += seconds
    axes.set_yticks([])
    axes.set_xlabel("seconds per round, all hospitals one after another")
    axes.legend(fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return _png(figure)


def overlays(panels: Sequence[Panel]) -> bytes:
    """Example slices with the true outline (green) and the predicted one (orange).

    Each panel is (title, image, mask, prediction), 2-D arrays of one shape. For phantoms only: pictures of
    patients never enter a report.
    """
    figure = _figure(2.0 * len(panels), 2.3)
    places = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, image, mask, prediction) in zip(places, panels, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for outline, colour in ((mask, "#00C070"), (prediction, "#FF8C00")):
            if outline.any() and not outline.all():
                axes.contour(outline.astype(float), levels=[0.5], colors=colour, linewidths=0.9)
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()

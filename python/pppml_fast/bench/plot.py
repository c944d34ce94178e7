"""One figure of a report: what a weight costs to encrypt and to open, ours beside the peers'."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from pppml_fast.bench.rows import OURS, Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot"]

_OPERATIONS = {
    "encrypt": "float32 in memory to bytes on the wire",
    "open": "bytes of a sum on the wire to float32",
}
# Okabe and Ito's palette: distinguishable for colour-blind readers.
_OURS_COLOUR, _PEER_COLOUR = "#0072B2", "#D55E00"


def plot(report: Report) -> bytes:
    """An SVG image with a panel per operation, bars of median nanoseconds per weight on one thread, logarithmic."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    panels = {operation: _bars(report, operation) for operation in _OPERATIONS}
    figure = Figure(figsize=(10.5, 0.6 + 0.27 * max(len(bars) for bars in panels.values())), layout="constrained")
    FigureCanvasSVG(figure)
    for axes, (operation, bars) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        _draw(axes, bars)
        axes.set_title(f"{operation}: {_OPERATIONS[operation]}", fontsize=9)
    out = io.BytesIO()
    # The same report gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "pppml", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _bars(report: Report, operation: str) -> list[Row]:
    rows = [row for row in report.rows if row.operation == operation and row.threads == 1]
    return sorted(rows, key=lambda row: (row.system == OURS, row.ns_per_weight), reverse=True)


def _draw(axes: Axes, bars: list[Row]) -> None:
    names = [f"{row.system} {row.setting}" for row in bars]
    times = [row.ns_per_weight for row in bars]
    colours = [_OURS_COLOUR if row.system == OURS else _PEER_COLOUR for row in bars]
    places = range(len(bars), 0, -1)
    axes.barh(list(places), times, color=colours)
    for place, time in zip(places, times, strict=True):
        axes.text(time * 1.1, place, f"{time:,.3g}" if time < 1000 else f"{time:,.0f}", va="center", fontsize=7)
    axes.set_yticks(list(places), names, fontsize=7)
    axes.set_xscale("log")
    axes.set_xlim(min(times, default=1) / 2, max(times, default=1) * 4)
    axes.set_xlabel("ns per weight", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)

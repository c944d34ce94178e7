"""`pppml watch`: the ring or star, live, out of the logs of its sites."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pppml_fast.site.follow import LogFollower, SiteEvent

__all__ = ["watch"]

_POLL_S = 0.25
_WIDTH = 160


def watch(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="JSON logs of one site or of several.")],
    once: Annotated[bool, typer.Option("--once", help="Show what is there and stop.")] = False,
    lines: Annotated[bool, typer.Option("--lines", help="One line per event, also on a terminal.")] = False,
) -> None:
    """Follow the logs of sites and show who holds what: a live view on a terminal, lines elsewhere."""
    from rich.console import Console

    from pppml_fast.cli.live_view import Screen, event_line
    from pppml_fast.site.follow import LogFollower

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=_WIDTH)
    followers = [LogFollower(path) for path in logs]
    try:
        if once:
            found = _poll(followers)
            if lines:
                for site, event in found:
                    console.print(event_line(site, event), markup=False, soft_wrap=True)
            else:
                _show(found, console)
            return
        with Screen(console, lines=lines or None) as screen:
            while True:
                for site, event in _poll(followers):
                    screen.show(site, event)
                time.sleep(_POLL_S)
    except KeyboardInterrupt:
        # The usual way to leave a view.
        return
    finally:
        for follower in followers:
            follower.close()


def _poll(followers: list[LogFollower]) -> list[SiteEvent]:
    """What all sites logged since the last call, by time; what one site logged stays in its order."""
    rows = []
    for follower in followers:
        newest = float("-inf")
        for found in follower.poll():
            newest = max(newest, found.event.time)
            rows.append((newest, found))
    return [found for _, found in sorted(rows, key=lambda row: row[0])]


def _show(found: list[SiteEvent], console: Console) -> None:
    """The view as of the last event."""
    from pppml_fast.cli.live_view import draw
    from pppml_fast.site.live import LiveState, reduce

    state = LiveState()
    for site, event in found:
        state = reduce(state, site, event)
    console.print(draw(state, found[-1].event.time if found else 0))

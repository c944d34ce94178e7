"""Draws what is going on: the ring or star of a federation, as one site or several tell of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pppml_fast.site.events import Event, EventKind
from pppml_fast.site.live import LiveState, SiteView, reduce
from pppml_fast.site.text import printable, readable

__all__ = ["Screen", "draw", "event_line"]

_STYLES = {
    "streaming": "bold cyan",
    "closing": "bold blue",
    "opening": "bold magenta",
    "finished": "green",
    "abandoned": "yellow",
    "discarded": "yellow",
    "failed": "bold red",
    "stopped": "dim",
}
_BAR = 8
_LATEST = 6
_REFRESHES = 4
_TENTHS = 10


def draw(state: LiveState, now: float) -> RenderableType:
    """The whole view at a wall-clock time in seconds: head, ring, one row per party, refusals, what happened last."""
    parts: list[RenderableType] = [_head(state), _shape(state), _table(state, now)]
    refusals = [(refusal.time, site.name, refusal) for site in state.sites.values() for refusal in site.refusals]
    for _, name, refusal in sorted(refusals, key=lambda row: row[0])[-_LATEST:]:
        times = f" ({refusal.times} times)" if refusal.times > 1 else ""
        parts.append(_line(f"{_safe(name)}: {refusal.text}{times}", "yellow"))
    notes = [(note.time, site.name, note.text) for site in state.sites.values() for note in site.notes]
    for _, name, text in sorted(notes, key=lambda row: row[0])[-_LATEST:]:
        parts.append(_line(f"{_safe(name)}: {text}", "dim"))
    return Group(*parts)


def event_line(site: str, event: Event) -> str:
    """The event as one line for people, with the time of day in UTC."""
    at = time.strftime("%H:%M:%S", time.gmtime(min(max(event.time, 0), 1 << 40)))
    return f"{at} {_safe(site)} {readable(event)}"


class Screen:
    """A sink that shows events: a live view on a terminal, one line per event elsewhere. Use it as a context manager.

    ``clock`` gives seconds since the epoch. Without a terminal, of an attempt's progress every tenth is told.
    """

    def __init__(self, console: Console, *, lines: bool | None = None, clock: Callable[[], float] = time.time) -> None:
        self._console = console
        self._clock = clock
        self._lines = not console.is_terminal if lines is None else lines
        self._lock = threading.Lock()
        self.state = LiveState()
        self._told: dict[str, tuple[object, ...]] = {}
        self._live = (
            None
            if self._lines
            else Live(console=console, get_renderable=self._draw, refresh_per_second=_REFRESHES, transient=False)
        )

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def show(self, site: str, event: Event) -> None:
        """Take an event of a site."""
        with self._lock:
            self.state = reduce(self.state, site, event)
        if self._lines and self._worth_a_line(site, event):
            self._console.print(Text(event_line(site, event)), soft_wrap=True)

    def sink(self, site: str) -> Callable[[Event], None]:
        """What a site gives its `Events`."""
        return lambda event: self.show(site, event)

    def _draw(self) -> RenderableType:
        with self._lock:
            state = self.state
        return draw(state, self._clock())

    def _worth_a_line(self, site: str, event: Event) -> bool:
        if event.kind is not EventKind.PROGRESS:
            return True
        told = event.fields
        tenth = _TENTHS * told["chunks"] // max(told["of"], 1), _TENTHS * told.get("back", 0) // max(told["of"], 1)
        mark = (told["session"], told["round"], told["attempt"], *tenth)
        if self._told.get(site) == mark:
            return False
        self._told[site] = mark
        return True


def _line(text: str, style: str) -> Text:
    """Text that stays on one line: the log has the rest."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _head(state: LiveState) -> Text:
    sites = [site for site in state.sites.values() if site.running]
    if not sites:
        return Text("no site runs here; waiting for events", style="dim")
    newest = max(sites, key=lambda site: (site.round if site.round is not None else -1, site.time))
    of = f" of {newest.rounds}" if newest.rounds else ""
    round_ = "-" if newest.round is None else f"{newest.round + 1}{of}"
    words = [
        f"{newest.topology} {newest.protocol}",
        f"session {newest.session[:8] or '-'}",
        f"round {round_}",
        f"attempt {'-' if newest.attempt is None else newest.attempt}",
        f"lead {newest.lead or '-'}",
    ]
    return Text("  ·  ".join(map(_safe, words)), style="bold")


def _shape(state: LiveState) -> Text:
    """The ring in its order, or the star around its coordinator; who holds the sum is marked."""
    text = Text()
    star = bool(state.relay)
    if star:
        text.append(f"{_safe(state.relay)} ⇄ ", style="bold")
    for position, name in enumerate(state.members):
        site = state.sites.get(name)
        if position:
            text.append(", " if star else " → ", style="dim")
        mark = "●" if site and site.holds else "○"
        text.append(f"{mark} {_safe(name)}", style=_style(site))
    if not star and len(state.members) > 1:
        text.append(" → (first)", style="dim")
    return text


def _table(state: LiveState, now: float) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("party", "state", "round", "added", "whole sum", "MB/s in", "out", "links"):
        table.add_column(
            title, justify="right" if title in ("round", "MB/s in", "out") else "left", no_wrap=title != "links"
        )
    names = [*state.members, *([state.relay] if state.relay else [])]
    for name in [*names, *(name for name in state.sites if name not in names)]:
        site = state.sites.get(name)
        table.add_row(Text(_safe(name)), *(_cells(site, now) if site else _seen(state, name)))
    return table


def _cells(site: SiteView, now: float) -> Sequence[Text]:
    rates = [link.rates(now) for link in site.links.values()]
    links = Text(" ").join(
        Text(_safe(peer), style="green" if link.up else "red strike") for peer, link in sorted(site.links.items())
    )
    round_ = "-" if site.round is None else f"{site.round + 1}.{site.attempt or 0}"
    return [
        Text(_safe(site.doing), style=_style(site)),
        Text(round_),
        _bar(site.chunks, site.of),
        _bar(site.back, site.of),
        *(Text(f"{sum(rate[way] for rate in rates) / 1e6:.1f}") for way in (0, 1)),
        links,
    ]


def _seen(state: LiveState, name: str) -> Sequence[Text]:
    """What others know of a party that tells nothing here: whether their links to it stand, and how fast."""
    links = [site.links[name] for site in state.sites.values() if name in site.links]
    word = Text("link up", style="green") if any(link.up for link in links) else Text("no link", style="dim")
    return [word, *(Text("") for _ in range(6))]


def _bar(done: int, of: int) -> Text:
    if of <= 0:
        return Text("-", style="dim")
    filled = min(_BAR, _BAR * done // of)
    return Text("█" * filled + "░" * (_BAR - filled) + f" {done}/{of}")


def _style(site: SiteView | None) -> str:
    return _STYLES.get(site.doing, "") if site else "dim"


def _safe(text: str) -> str:
    """Names come from files that others may have written."""
    return printable(text, 80)

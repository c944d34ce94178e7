"""The live state: a pure function of events, for one site and for a whole ring."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pppml_fast.cli.live_view import draw
from pppml_fast.site import events
from pppml_fast.site.events import FIELDS, Event, EventKind
from pppml_fast.site.follow import parse_line
from pppml_fast.site.live import STALE_S, LiveState, reduce

SESSION = "5e" * 32
NAMES = ["north", "east", "south"]
ATTEMPT: dict[str, Any] = {"session": SESSION, "round": 2, "attempt": 1}


def started(**more: Any) -> Event:
    fields = {"version": "1", "protocol": "collective", "topology": "ring", "members": NAMES, **more}
    return Event(0, EventKind.STARTED, fields)


def progress(time: float, chunks: int, back: int, **sizes: int) -> Event:
    moved = {"bytes_in": {"south": sizes.get("into", 0)}, "bytes_out": {"east": sizes.get("out", 0)}}
    return Event(time, EventKind.PROGRESS, {**ATTEMPT, "chunks": chunks, "back": back, "of": 10, **moved})


def run(*events: Event, site: str = "north", state: LiveState | None = None) -> LiveState:
    state = state or LiveState()
    for event in events:
        state = reduce(state, site, event)
    return state


STREAMING = (
    started(rounds=5),
    Event(1, EventKind.LINK_UP, {"peer": "east"}),
    Event(1, EventKind.LINK_UP, {"peer": "south"}),
    Event(2, EventKind.SESSION_OPENED, {"session": SESSION, "present": NAMES, "lead": "north"}),
    Event(3, EventKind.TRAINING, {"round": 2, "salt": 0}),
    Event(4, EventKind.ATTEMPT_BEGAN, {**ATTEMPT, "live": NAMES, "parameters": "p31"}),
    Event(4, EventKind.STATE, {**ATTEMPT, "state": "streaming"}),
    progress(5, 2, 0, into=1000, out=2000),
    progress(6, 6, 3, into=3000, out=6000),
)


def test_one_site_in_the_middle_of_an_attempt() -> None:
    state = run(*STREAMING)
    site = state.sites["north"]
    assert (site.doing, site.round, site.attempt, site.chunks, site.back, site.of) == ("streaming", 2, 1, 6, 3, 10)
    assert site.holds and site.lead == "north" and site.rounds == 5 and site.session == SESSION
    assert site.links["south"].rates(6) == (2000, 0) and site.links["east"].rates(6) == (0, 4000)
    assert site.links["east"].rates(6 + STALE_S + 1) == (0, 0)
    assert state.members == ("north", "east", "south") and state.relay == ""


def test_states_follow_each_other() -> None:
    words = []
    state = run(*STREAMING)
    costs = {"members": NAMES, "root": "0" * 64, "transcript": "0" * 64, "model": "ab" * 32, "costs": {}}
    for event in (
        Event(7, EventKind.STATE, {**ATTEMPT, "state": "closing"}),
        Event(8, EventKind.STATE, {**ATTEMPT, "state": "opening"}),
        Event(9, EventKind.ROUND_FINISHED, {**ATTEMPT, **costs}),
        Event(10, EventKind.TRAINING, {"round": 3, "salt": 0}),
        Event(11, EventKind.ATTEMPT_BEGAN, {**ATTEMPT, "round": 3, "live": NAMES, "parameters": "p31"}),
        Event(12, EventKind.ABANDONED, {**ATTEMPT, "round": 3, "reason": "'south' is gone"}),
        Event(13, EventKind.STOPPED, {"reason": "asked to"}),
    ):
        state = run(event, state=state)
        words.append(state.sites["north"].doing)
    assert words == ["closing", "opening", "finished", "training", "preparing", "abandoned", "stopped"]
    site = state.sites["north"]
    assert (site.finished, site.model, site.of) == (3, "ab" * 32, 0)
    assert not any(link.up for link in site.links.values())
    assert site.notes[-1].text == 'stopped reason="asked to"'


def test_links_and_refusals() -> None:
    refused = Event(7, EventKind.REFUSED, {"peer": "east", "reason": "garbage"})
    state = run(
        *STREAMING,
        Event(7, EventKind.LINK_DOWN, {"peer": "south"}),
        refused,
        refused,
        Event(8, EventKind.SUPPRESSED, {"count": 40, "peer": "east", "reason": "garbage"}),
        Event(9, EventKind.LINK_REFUSED, {"peer": "192.0.2.1", "reason": "no\ncertificate"}),
    )
    site = state.sites["north"]
    assert not site.links["south"].up and site.links["south"].rates(7) == (0, 0)
    assert [(refusal.text, refusal.times) for refusal in site.refusals] == [
        ("refused peer=east reason=garbage", 42),
        ('refused peer=192.0.2.1 reason="no\\\\ncertificate"', 1),
    ]


def test_a_restart_begins_anew_and_keeps_what_was_reached() -> None:
    state = run(*STREAMING, Event(7, EventKind.CAUGHT_UP, {"round": 4, "peer": "east", "model": "cd" * 32}))
    again = run(started(), progress(1, 1, 0, out=100), state=state).sites["north"]
    assert (again.finished, again.model, again.state, again.session) == (4, "cd" * 32, "idle", "")
    assert again.links["east"].bytes_out == 100 and again.links["east"].rates(1) == (0, 0)


def test_several_sites_make_one_ring() -> None:
    state = run(*STREAMING)
    state = run(*STREAMING[:-2], site="east", state=state)
    star = run(started(topology="star", relay="hub"), site="hub", state=state)
    assert set(state.sites) == {"north", "east"} and not state.sites["east"].holds
    assert star.relay == "hub" and state.relay == ""


def test_nothing_is_changed_in_place() -> None:
    state = run(*STREAMING)
    shown = repr(state)
    run(progress(9, 10, 10, into=9000, out=9000), Event(10, EventKind.LINK_DOWN, {"peer": "east"}), state=state)
    assert repr(state) == shown
    with pytest.raises(TypeError):
        state.sites["x"] = state.sites["north"]  # type: ignore[index]


FIGURES = st.dictionaries(
    st.sampled_from(["east", "x\n"]), st.one_of(st.integers(0, 1 << 60), st.floats(0, 1e18)), max_size=3
)
NAMED = {
    **dict.fromkeys(events._NUMBERS, st.integers(0, (1 << 63) - 1)),
    **dict.fromkeys(events._NAMES, st.lists(st.text(max_size=3), max_size=3)),
    **dict.fromkeys(events._FIGURES, FIGURES),
}


@given(st.data())
def test_whatever_a_log_holds_is_skipped_or_shown(data: st.DataObject) -> None:
    """Any line that reads as an event changes the state without an error, can be drawn, and the bounds hold."""
    state, shown = LiveState(), 0
    for _ in range(8):
        kind = data.draw(st.sampled_from(EventKind))
        more = data.draw(st.sets(st.sampled_from(sorted(FIELDS[kind].optional)))) if FIELDS[kind].optional else set()
        names = sorted(FIELDS[kind].required | more)
        row = {name: data.draw(NAMED.get(name, st.text(max_size=5))) for name in names}
        line = json.dumps({"time": data.draw(st.floats(0, 1e9)), "site": "a\x1b", "kind": kind.value, **row})
        found = parse_line(line.encode())
        if found is not None:
            shown += 1
            state = reduce(state, found.site, found.event)
    assert shown == 8
    assert all(len(site.notes) <= 5 and len(site.refusals) <= 5 for site in state.sites.values())
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(draw(state, 0))
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert drawn.replace("\n", "").isprintable()

"""`pppml watch`: the whole ring out of its sites' logs, as a picture, as lines, and live."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pppml_fast.cli.live_view import Screen
from pppml_fast.site.events import Event, EventKind
from pppml_fast.site.log import JsonLog

NAMES = ["north", "east", "south"]
ATTEMPT: dict[str, Any] = {"session": "5e" * 32, "round": 1, "attempt": 0}


def story(site: str, chunks: int, back: int, relay: str = "") -> list[Event]:
    shape = {"topology": "star", "relay": relay} if relay else {"topology": "ring"}
    peer = NAMES[(NAMES.index(site) + 1) % 3] if site in NAMES else NAMES[0]
    told = {**ATTEMPT, "chunks": chunks, "back": back, "of": 40}
    return [
        Event(1, EventKind.STARTED, {"version": "1", "protocol": "collective", "members": NAMES, "rounds": 3, **shape}),
        Event(2, EventKind.LINK_UP, {"peer": peer}),
        Event(3, EventKind.SESSION_OPENED, {"session": "5e" * 32, "present": NAMES, "lead": "north"}),
        Event(4, EventKind.ATTEMPT_BEGAN, {**ATTEMPT, "live": NAMES, "parameters": "p31"}),
        Event(5, EventKind.STATE, {**ATTEMPT, "state": "streaming"}),
        Event(6, EventKind.PROGRESS, {**told, "chunks": 0, "back": 0, "bytes_in": {peer: 0}, "bytes_out": {peer: 0}}),
        Event(8, EventKind.PROGRESS, {**told, "bytes_in": {peer: 2e6}, "bytes_out": {peer: 5e6}}),
        Event(8, EventKind.REFUSED, {"peer": peer, "reason": "sequence \x1b[31m4"}),
    ]


def write(folder: Path, site: str, events: list[Event]) -> Path:
    path = folder / f"{site}.jsonl"
    log = JsonLog(path, site)
    for event in events:
        log(event)
    log.close()
    return path


@pytest.fixture
def logs(tmp_path: Path) -> list[Path]:
    return [write(tmp_path, "north", story("north", 30, 10)), write(tmp_path, "east", story("east", 0, 0))]


def test_the_ring_as_a_picture(pppml: Any, logs: list[Path]) -> None:
    shown = pppml("watch", "--once", *logs)
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert "ring collective" in lines[0] and "session 5e5e5e5e" in lines[0] and "round 2 of 3" in lines[0]
    assert lines[0].endswith("lead north")
    assert lines[1].strip() == "● north → ○ east → ○ south → (first)"
    (north,) = [line for line in lines if line.strip().startswith("north ")]
    assert "streaming" in north and "30/40" in north and "10/40" in north and "1.0" in north and "2.5" in north
    (south,) = [line for line in lines if line.strip().startswith("south ")]
    assert "link up" in south
    assert r"north: refused peer=east" in shown.out and "\x1b" not in shown.out


def test_a_star_as_a_picture(pppml: Any, tmp_path: Path) -> None:
    log = write(tmp_path, "hub", story("hub", 3, 0, relay="hub"))
    shown = pppml("watch", "--once", log)
    assert "hub ⇄ ○ north, ○ east, ○ south" in shown.out and "star collective" in shown.out
    rows = {line.split()[0]: line for line in shown.out.splitlines() if line.split()}
    assert "link up" in rows["north"] and "no link" in rows["east"] and "3/40" in rows["hub"]


def test_lines(pppml: Any, logs: list[Path]) -> None:
    shown = pppml("watch", "--once", "--lines", *logs)
    lines = shown.out.splitlines()
    assert len(lines) == 16 and lines[0].startswith("00:00:01 north started version=1")
    assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)


def test_logs_that_are_not_there(pppml: Any, tmp_path: Path) -> None:
    waiting = pppml("watch", "--once", tmp_path / "later.jsonl")
    assert waiting.code == 0 and "waiting for events" in waiting.out
    folder = pppml("watch", "--once", tmp_path)
    assert folder.code == 2 and folder.err.startswith("pppml: error: ") and folder.err.count("\n") == 1
    (tmp_path / "other.txt").write_text("nothing of the kind\n" * 3)
    assert "waiting for events" in pppml("watch", "--once", tmp_path / "other.txt").out


def test_a_screen_without_a_terminal_tells_tenths() -> None:
    told = io.StringIO()
    with Screen(Console(file=told, width=200)) as screen:
        sink = screen.sink("north")
        for event in story("north", 0, 0)[:5]:
            sink(event)
        for chunks in range(401):
            moved = {**ATTEMPT, "chunks": chunks, "of": 400, "bytes_in": {}, "bytes_out": {}}
            sink(Event(9 + chunks / 100, EventKind.PROGRESS, moved))
    assert told.getvalue().count(" progress ") == 11
    assert screen.state.sites["north"].chunks == 400


def test_a_screen_on_a_terminal_draws() -> None:
    told = io.StringIO()
    console = Console(file=told, width=120, force_terminal=True, color_system=None)
    with Screen(console, clock=lambda: 8.0) as screen:
        for event in story("north", 30, 10):
            screen.show("north", event)
    assert "● north" in told.getvalue() and "30/40" in told.getvalue()


def test_following_ends_with_an_interrupt(logs: list[Path]) -> None:
    """What is logged while it runs is shown; Ctrl-C leaves without a word."""
    command = [sys.executable, "-m", "pppml_fast.cli", "watch", str(logs[0])]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # What a shell runs in the background ignores interrupts, and hands that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, before)
    try:
        assert running.stdout is not None and running.stderr is not None
        for _ in range(8):
            assert " north " in running.stdout.readline()
        later = {"time": 9, "site": "north", "kind": "stopped", "reason": "asked to"}
        with open(logs[0], "a") as file:
            file.write(json.dumps(later) + "\n")
        assert running.stdout.readline() == '00:00:09 north stopped reason="asked to"\n'
        running.send_signal(signal.SIGINT)
        assert running.wait(300) == 0
        assert running.stderr.read() == ""
    finally:
        running.kill()
        running.communicate()

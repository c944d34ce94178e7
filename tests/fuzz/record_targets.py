"""Fuzz targets of what a site reads: transcripts of other parties, and logs that anybody may have written."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from json_edits import edited

from pppml_fast.aggregation.identity import Identity
from pppml_fast.site.events import FIELDS, Event, EventKind
from pppml_fast.site.follow import parse_line
from pppml_fast.site.live import LiveState, reduce
from pppml_fast.site.text import json_line, readable
from pppml_fast.site.transcript import TranscriptFile, TranscriptLine
from pppml_fast.site.transcript_check import compare, parse_transcript

IDENTITY = Identity("north", Ed25519PrivateKey.from_private_bytes(sha256(b"north").digest()))
ATTEMPT = {"session": "5e" * 32, "round": 0, "attempt": 0}
SAMPLES = {"bytes_in": {"east": 5}, "bytes_out": {"east": 1.5}, "costs": {"add_s": 0.5}, "live": ["north"]}
NUMBERS = ("round", "attempt", "chunks", "of", "back", "rounds", "salt", "count")


@functools.cache
def _transcript() -> bytes:
    with TemporaryDirectory() as folder:
        file = TranscriptFile(Path(folder) / "seed", IDENTITY)
        for attempt in range(3):
            file(Event(1.0, EventKind.ABANDONED, {**ATTEMPT, "attempt": attempt, "reason": "x"}))
        file.close()
        return (Path(folder) / "seed").read_bytes()


def transcript_seeds() -> list[bytes]:
    """A chain of three lines, one line, and edits of one line."""
    whole = _transcript()
    return [whole, whole.split(b"\n")[0], b"", *(bytes([0, where, what]) for where in range(4) for what in range(4))]


def transcript(data: bytes) -> None:
    """A file is read without an error; a line that passes has one form; after a byte 0 follow edits of a valid line."""
    if data[:1] == b"\0":
        data = edited(json.loads(_transcript().split(b"\n")[0]), data[1:]) + b"\n"
    found = parse_transcript(data, "input", {"north": IDENTITY.public})
    for number, line in enumerate(found.lines):
        assert data.split(b"\n")[number] == line.to_bytes() == TranscriptLine.parse(line.to_bytes()).to_bytes()
    comparison = compare([found, parse_transcript(data, "again")])
    assert bool(found.fault) <= bool(comparison.faults)
    assert comparison.summary.isascii()


@functools.cache
def log_line_seeds() -> list[bytes]:
    """A line of every kind, and edits of one."""
    lines = []
    for kind, fields in FIELDS.items():
        names = sorted(fields.required | fields.optional)
        row = {name: SAMPLES.get(name, 3 if name in NUMBERS else "text") for name in names}
        row.update({name: ["north"] for name in ("members", "present", "digests") if name in row})
        lines.append(json_line(Event(1.0, kind, row), "north"))
    return [*lines, *(bytes([0, where, what]) for where in range(4) for what in range(4))]


def log_line(data: bytes) -> None:
    """Whatever reads as an event can be reduced, shown, and written as one line that reads as an event again."""
    if data[:1] == b"\0":
        seeds = log_line_seeds()
        data = edited(json.loads(seeds[data[1:2].ljust(1, b"\0")[0] % (len(seeds) - 16)]), data[2:])
    found = parse_line(data)
    if found is None:
        return
    state = reduce(LiveState(), found.site, found.event)
    for later in (replace(found.event, time=found.event.time + 1), found.event):
        state = reduce(state, found.site, later)
    assert readable(found.event).isprintable()
    line = json_line(found.event, found.site)
    assert line.count(b"\n") == 1 and line.isascii()
    assert parse_line(line) is not None


__all__ = ["log_line", "log_line_seeds", "transcript", "transcript_seeds"]

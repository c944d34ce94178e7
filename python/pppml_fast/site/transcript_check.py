"""Compares the parties' transcripts: each a whole, signed chain, and all of them telling of the same sums."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pppml_fast.errors import DataError, PppmlError
from pppml_fast.site.transcript import LONGEST_LINE, START, TranscriptLine

__all__ = ["Comparison", "Row", "Transcript", "compare", "parse_transcript", "read_transcript"]

_LARGEST_FILE = 1 << 28
COMPARED = ("planned", "live", "root", "transcript", "model")
"""What parties of one attempt must state alike, in the order in which differences are named."""


@dataclass(frozen=True)
class Transcript:
    """The lines of one file that hold together, and what is wrong with the next, in words (empty: nothing)."""

    path: str
    lines: tuple[TranscriptLine, ...]
    fault: str = ""
    signed: bool = False

    @property
    def party(self) -> str:
        """Whose it says it is; empty where no line could be read."""
        return self.lines[0].party if self.lines else ""


@dataclass(frozen=True)
class Row:
    """One attempt as its parties told of it: outcome by party, and those of whom no line is there."""

    session: str
    round: int
    attempt: int
    live: tuple[str, ...]
    root: str
    model: str
    outcomes: Mapping[str, str]
    missing: tuple[str, ...]
    differs: str = ""


@dataclass(frozen=True)
class Comparison:
    """All attempts in order, and every difference or fault, first things first."""

    parties: tuple[str, ...]
    rows: tuple[Row, ...]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def rounds(self) -> int:
        """Number of rounds that at least one party finished."""
        return len({row.round for row in self.rows if "finished" in row.outcomes.values()})

    @property
    def summary(self) -> str:
        """The last line of the command: rounds, parties, and the number of faults and differences."""
        return f"rounds={self.rounds} parties={len(self.parties)} differing={len(self.faults)}"


def read_transcript(path: str | os.PathLike[str], keys: Mapping[str, bytes] | None = None) -> Transcript:
    """Read a file and check its chain; with ``keys`` (32-byte Ed25519 keys by name) its signatures too.

    Reading stops at the first line that is altered, moved, foreign or cut short. Raises OSError where there is no such
    file, DataError where it is too large to be one.
    """
    size = Path(path).stat().st_size
    if size > _LARGEST_FILE:
        raise DataError(f"{path} has {size} bytes, more than the {_LARGEST_FILE} of any transcript; give a transcript")
    return parse_transcript(Path(path).read_bytes(), os.fspath(path), keys)


def parse_transcript(data: bytes, name: str, keys: Mapping[str, bytes] | None = None) -> Transcript:
    """The same for the bytes of a file of this ``name``."""
    lines: list[TranscriptLine] = []
    *whole, rest = data.split(b"\n")
    for number, text in enumerate(whole, start=1):
        try:
            line = _next_line(text, lines, keys)
        except PppmlError as error:
            return Transcript(name, tuple(lines), f"{name}, line {number}: {error}", keys is not None)
        lines.append(line)
    cut = f"{name}, line {len(lines) + 1}: the line is cut short; its party's next start mends it"
    return Transcript(name, tuple(lines), cut if rest else "", keys is not None)


def _next_line(text: bytes, before: Sequence[TranscriptLine], keys: Mapping[str, bytes] | None) -> TranscriptLine:
    if len(text) > LONGEST_LINE:
        raise DataError(f"a line of {len(text)} bytes exceeds the limit of {LONGEST_LINE}")
    line = TranscriptLine.parse(text)
    last = before[-1] if before else None
    if last is not None and line.party != last.party:
        raise DataError(f"it is a line of {line.party!r} in the transcript of {last.party!r}")
    if keys is not None:
        if line.party not in keys:
            raise DataError(f"{line.party!r} is not in the federation; its parties: {', '.join(keys)}")
        line.check_signature(keys[line.party])
    if line.number != len(before):
        raise DataError(f"it has number {line.number}, expected {len(before)}: lines are missing or out of order")
    if line.previous != (START if last is None else last.digest):
        raise DataError("it does not follow the line before: that one was altered, removed or moved")
    return line


def compare(transcripts: Sequence[Transcript], members: Sequence[str] = ()) -> Comparison:
    """Compare transcripts of several parties, or of one party from several places.

    A party may lack an attempt (it was away), or have abandoned what others finished; what several state must agree.
    ``members``: all parties of the federation, so that those are named of whom no file was given.
    """
    faults = [transcript.fault for transcript in transcripts if transcript.fault]
    lines: dict[str, list[TranscriptLine]] = {}
    for transcript in transcripts:
        if transcript.party:
            known = lines.setdefault(transcript.party, [])
            faults += _forks(transcript, known)
            known += transcript.lines[len(known) :]
    attempts: dict[tuple[str, int, int], list[TranscriptLine]] = {}
    for line in (line for party in sorted(lines) for line in lines[party]):
        attempts.setdefault(line.key, []).append(line)
    rows = [_row(stated) for stated in attempts.values()]
    # By the earliest line: sessions follow each other in time, attempts in a session by number.
    began = {key: min(line.time for line in stated) for key, stated in attempts.items()}
    rows.sort(key=lambda row: (row.round, began[row.session, row.round, row.attempt], row.session, row.attempt))
    faults += [row.differs for row in rows if row.differs]
    notes = [f"no transcript of {name!r} was given" for name in members if name not in lines]
    return Comparison(tuple(sorted(lines)), tuple(rows), tuple(faults), (*notes, *_twice(rows)))


def _forks(transcript: Transcript, known: Sequence[TranscriptLine]) -> list[str]:
    """What two files of one party state differently under one number."""
    for one, other in zip(known, transcript.lines, strict=False):
        if one.to_bytes() != other.to_bytes():
            return [f"{transcript.party!r} signed two different lines {one.number}; one is in {transcript.path}"]
    return []


def _row(stated: Sequence[TranscriptLine]) -> Row:
    differs = ""
    for name in COMPARED:
        values: dict[str | tuple[str, ...], TranscriptLine] = {}
        for line in stated:
            if value := getattr(line, name):
                values.setdefault(value, line)
        if len(values) > 1 and not differs:
            one, other = list(values.values())[:2]
            differs = (
                f"round {one.round}, attempt {one.attempt}, session {one.session[:16]}: {name} differs: "
                f"{one.party!r} has {_short(getattr(one, name))}, {other.party!r} has {_short(getattr(other, name))}"
            )
    outcomes: dict[str, str] = {}
    for line in stated:
        # What an abandoned attempt's party states last counts least: a finished one stays finished.
        if outcomes.get(line.party) != "finished":
            outcomes[line.party] = line.outcome
    first = stated[0]
    live = next((line.live for line in stated if line.live), ())
    root, model = (next((value for line in stated if (value := getattr(line, n))), "") for n in ("root", "model"))
    expected = live or next((line.planned for line in stated if line.planned), ())
    missing = tuple(name for name in expected if name not in outcomes)
    return Row(*first.key, expected, root, model, outcomes, missing, differs)


def _twice(rows: Sequence[Row]) -> list[str]:
    """Rounds that were finished in more than one attempt: some parties stepped back, which they may."""
    models: dict[int, set[str]] = {}
    for row in rows:
        if "finished" in row.outcomes.values():
            models.setdefault(row.round, set()).add(row.model)
    return [
        f"round {number} was finished {len(found)} times with different models: who finished the others stepped back"
        for number, found in sorted(models.items())
        if len(found) > 1
    ]


def _short(value: str | tuple[str, ...]) -> str:
    return value[:16] if isinstance(value, str) else "{" + ", ".join(value) + "}"

"""Transcripts: whole, signed chains, and parties that tell of the same sums; every alteration is named."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pppml_fast.aggregation.identity import Identity
from pppml_fast.errors import DataError, ProtocolError
from pppml_fast.site import transcript as transcript_module
from pppml_fast.site.events import Event, EventKind
from pppml_fast.site.transcript import TranscriptFile, TranscriptLine
from pppml_fast.site.transcript_check import compare, read_transcript

NAMES = ("north", "east", "south")
IDENTITIES = {name: Identity.generate(name) for name in (*NAMES, "stranger")}
KEYS = {name: IDENTITIES[name].public for name in NAMES}
SESSION = "5e" * 32


def began(round_: int, attempt: int = 0, session: str = SESSION) -> Event:
    fields = {"session": session, "round": round_, "attempt": attempt, "live": list(NAMES), "parameters": "p31"}
    return Event(100.0 + round_, EventKind.ATTEMPT_BEGAN, fields)


def finished(round_: int, attempt: int = 0, session: str = SESSION, **changes: Any) -> Event:
    fields = {
        "session": session,
        "round": round_,
        "attempt": attempt,
        "members": list(NAMES),
        "root": f"{round_:064x}",
        "transcript": f"{round_ + 1000:064x}",
        "model": f"{round_ + 2000:064x}",
        "costs": {},
    }
    return Event(101.0 + round_, EventKind.ROUND_FINISHED, {**fields, **changes})


def abandoned(round_: int, attempt: int = 0, **more: Any) -> Event:
    fields = {"session": SESSION, "round": round_, "attempt": attempt, "reason": "'south' is gone"}
    return Event(101.0 + round_, EventKind.ABANDONED, {**fields, **more})


def write(folder: Path, name: str, events: list[Event], identity: Identity | None = None) -> Path:
    path = folder / f"{name}.transcript"
    file = TranscriptFile(path, identity or IDENTITIES[name])
    for event in events:
        file(event)
    file.close()
    return path


def story(rounds: int = 3) -> list[Event]:
    return [event for round_ in range(rounds) for event in (began(round_), finished(round_))]


def check(*paths: Path) -> Any:
    return compare([read_transcript(path, KEYS) for path in paths], NAMES)


def test_parties_that_agree(tmp_path: Path) -> None:
    found = check(*(write(tmp_path, name, story()) for name in NAMES))
    assert found.summary == "rounds=3 parties=3 differing=0" and found.notes == ()
    assert [(row.round, row.outcomes, row.missing) for row in found.rows] == [
        (round_, dict.fromkeys(sorted(NAMES), "finished"), ()) for round_ in range(3)
    ]


def test_a_line_holds_hashes_alone_and_is_private_and_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(transcript_module.os, "fsync", synced.append)
    path = write(tmp_path, "north", [*story(1), abandoned(1), Event(0, EventKind.FAILED, {"reason": "the disk"})])
    assert len(synced) == 3  # the folder once, then each line
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["outcome"] for line in lines] == ["finished", "abandoned"]
    assert set(lines[0]) == {
        *("party", "number", "time", "session", "round", "attempt", "outcome", "planned", "live", "root", "transcript"),
        *("model", "previous", "signature", "version"),
    }
    assert "gone" not in path.read_text()


def test_a_party_that_was_away_or_abandoned_differs_from_nobody(tmp_path: Path) -> None:
    """South is gone before it contributed: the sum's live set is smaller than whom the attempt began with."""
    pair = {"members": ["north", "east"]}
    north = write(tmp_path, "north", [began(0), finished(0, **pair), began(1), finished(1)])
    east = write(tmp_path, "east", [began(0), finished(0, **pair), began(1), abandoned(1), finished(1, 1)])
    south = write(tmp_path, "south", [began(0), abandoned(0)])
    found = check(north, east, south)
    assert found.summary == "rounds=2 parties=3 differing=0"
    assert [(row.round, row.attempt, row.missing) for row in found.rows] == [
        (0, 0, ()),
        (1, 0, ("south",)),
        (1, 1, ("north", "south")),
    ]
    assert found.rows[0].outcomes == {"east": "finished", "north": "finished", "south": "abandoned"}
    assert check(north, east).notes == ("no transcript of 'south' was given",)


def edit(number: int, **changes: Any) -> Callable[[list[bytes]], list[bytes]]:
    def altered(lines: list[bytes]) -> list[bytes]:
        row = {**json.loads(lines[number]), **changes}
        lines[number] = json.dumps(row, sort_keys=True, separators=(",", ":")).encode()
        return lines

    return altered


TAMPERED: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "altered": (edit(1, root="ab" * 32), "line 2: the transcript signature of 'north' is not valid"),
    "renamed": (edit(0, party="east"), "line 1: the transcript signature of 'east' is not valid"),
    "removed": (lambda lines: [lines[0], lines[2]], "line 2: it has number 2, expected 1"),
    "first removed": (lambda lines: lines[1:], "line 1: it has number 1, expected 0"),
    "reordered": (lambda lines: [lines[1], lines[0], lines[2]], "line 1: it has number 1, expected 0"),
    "doubled": (lambda lines: [lines[0], *lines], "line 2: it has number 0, expected 1"),
    "spaced": (lambda lines: [lines[0].replace(b":", b": "), *lines[1:]], "line 1: the line is not in canonical form"),
    "garbage": (lambda lines: [lines[0], b"\xff\x00", lines[1]], "line 2: no line of a transcript"),
    "empty": (lambda lines: [lines[0], b"", lines[1]], "line 2: no line of a transcript"),
    "nested": (lambda lines: [b"[" * 100_000], "line 1: no line of a transcript"),
    "negative": (edit(0, round=-1), "line 1: no line of a transcript: ValueError: round is -1"),
    "more": (edit(0, more=1), "line 1: no line of a transcript"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_named(tmp_path: Path, name: str) -> None:
    tamper, words = TAMPERED[name]
    path = write(tmp_path, "north", story())
    path.write_bytes(b"\n".join(tamper(path.read_bytes().splitlines())) + b"\n")
    found = check(path, write(tmp_path, "east", story()))
    assert len(found.faults) == 1 and words in found.faults[0] and str(path) in found.faults[0]
    assert found.summary.endswith("differing=1")


def test_a_chain_that_is_signed_anew_is_broken(tmp_path: Path) -> None:
    """Even the party itself cannot take a line out of the middle: numbers or predecessors tell."""
    path = write(tmp_path, "north", story())
    lines = [TranscriptLine.parse(line) for line in path.read_bytes().splitlines()]
    forged = [lines[0], replace(lines[2], number=1).signed(IDENTITIES["north"])]
    path.write_bytes(b"".join(line.to_bytes() + b"\n" for line in forged))
    assert "line 2: it does not follow the line before" in check(path).faults[0]


def test_without_keys_the_chain_alone_is_checked(tmp_path: Path) -> None:
    path = write(tmp_path, "north", story())
    path.write_bytes(b"\n".join(edit(1, root="ab" * 32)(path.read_bytes().splitlines())) + b"\n")
    assert "line 3: it does not follow" in read_transcript(path).fault


def test_foreign_signatures_and_parties(tmp_path: Path) -> None:
    impostor = Identity.generate("north")
    found = check(write(tmp_path, "north", story(), impostor))
    assert "the transcript signature of 'north' is not valid" in found.faults[0] and found.parties == ()
    outside = write(tmp_path, "stranger", [abandoned(0)])
    assert "'stranger' is not in the federation" in check(outside).faults[0]
    mixed = tmp_path / "mixed"
    mixed.write_bytes((write(tmp_path, "east", story())).read_bytes() + outside.read_bytes())
    assert "line 4: it is a line of 'stranger' in the transcript of 'east'" in check(mixed).faults[0]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"members": ["north", "east"]}, "live"),
        ({"root": "0f" * 32}, "root"),
        ({"transcript": "0f" * 32}, "transcript"),
        ({"model": "0f" * 32}, "model"),
    ],
)
def test_equivocation_between_two_parties(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    north = write(tmp_path, "north", story())
    east = write(tmp_path, "east", [*story(1), began(1), finished(1, **change), *story(3)[4:]])
    found = check(north, east, write(tmp_path, "south", story()))
    assert found.summary == "rounds=3 parties=3 differing=1"
    assert found.faults[0].startswith(f"round 1, attempt 0, session 5e5e5e5e5e5e5e5e: {word} differs: 'east' has ")
    assert [bool(row.differs) for row in found.rows] == [False, True, False]


def test_different_plans_of_one_attempt(tmp_path: Path) -> None:
    other = began(0)
    other.fields["live"] = ["north", "south"]
    found = check(write(tmp_path, "north", [began(0), abandoned(0)]), write(tmp_path, "east", [other, abandoned(0)]))
    assert "planned differs" in found.faults[0]


def test_a_party_that_shows_two_histories(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    one = write(tmp_path, "north", story())
    shorter = tmp_path / "shorter"
    shorter.write_bytes(b"".join(one.read_bytes().splitlines(keepends=True)[:2]))
    assert check(one, shorter).faults == () and check(shorter, one).rounds == 3
    other = write(tmp_path / "copy", "north", [*story(2), began(2), abandoned(2)])
    assert check(one, other).faults == (f"'north' signed two different lines 2; one is in {other}",)


def test_a_round_finished_twice_is_noted(tmp_path: Path) -> None:
    """North finished alone, the others took the round up again without it: north steps back, nothing is wrong."""
    north = write(tmp_path, "north", [began(0), finished(0)])
    east = write(tmp_path, "east", [began(0, session="77" * 32), finished(0, session="77" * 32, model="0f" * 32)])
    found = check(north, east)
    assert found.faults == () and any("round 0 was finished 2 times" in note for note in found.notes)


def test_the_chain_goes_on_after_a_restart_and_a_torn_line(tmp_path: Path) -> None:
    path = write(tmp_path, "north", story(2))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:200])
    assert "cut short" in check(path).faults[0]
    write(tmp_path, "north", [began(2), finished(2)])
    found = check(path)
    assert found.summary == "rounds=3 parties=1 differing=0"
    path.write_bytes(whole[:100])
    write(tmp_path, "north", story(1))
    assert check(path).summary == "rounds=1 parties=1 differing=0"


def test_every_cut_of_the_file_is_mended(tmp_path: Path) -> None:
    path = write(tmp_path, "north", story(2))
    whole = path.read_bytes()
    for size in range(0, len(whole) + 1, 37):
        path.write_bytes(whole[:size])
        write(tmp_path, "north", [abandoned(7)])
        found = check(path)
        assert found.faults == () and len(found.rows) == whole[:size].count(b"\n") + 1


def test_files_that_are_not_this_partys(tmp_path: Path) -> None:
    path = write(tmp_path, "north", story())
    with pytest.raises(DataError, match="not this party's"):
        TranscriptFile(path, IDENTITIES["east"])
    key = IDENTITIES["north"]
    with pytest.raises(DataError, match="transcript of 'north', this is 'other'"):
        TranscriptFile(path, Identity("other", key._private_key))
    path.write_bytes(b"something else\n")
    with pytest.raises(DataError, match="move the file away"):
        TranscriptFile(path, key)
    assert path.read_bytes() == b"something else\n"
    held = TranscriptFile(tmp_path / "held", key)
    with pytest.raises(ProtocolError, match="in use"):
        TranscriptFile(tmp_path / "held", key)
    held.close()
    with pytest.raises(DataError, match="closed"):
        held(abandoned(0))


def test_a_full_disk_leaves_a_whole_chain_and_the_line_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "north.transcript"
    file = TranscriptFile(path, IDENTITIES["north"])
    file(finished(0))
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 300:
            raise OSError(28, "No space left on device")
        return real(descriptor, bytes(data)[:300])

    monkeypatch.setattr(transcript_module.os, "write", full)
    before = path.read_bytes()
    for event in (finished(1), Event(0, EventKind.LINK_UP, {"peer": "east"})):
        with pytest.raises(OSError, match="space"):
            file(event)
        assert path.read_bytes() == before
    monkeypatch.setattr(transcript_module.os, "write", real)
    file(finished(2))
    file.close()
    assert check(path).summary == "rounds=3 parties=1 differing=0"


def test_a_mistaken_event_stops_no_later_one(tmp_path: Path) -> None:
    file = TranscriptFile(tmp_path / "t", IDENTITIES["north"])
    for mistaken in (finished(0, root="short"), finished(0, members=["east"]), finished(0, session="")):
        with pytest.raises(ValueError):
            file(mistaken)
    file(finished(1))
    file.close()
    assert len(read_transcript(tmp_path / "t", KEYS).lines) == 1


@given(st.binary(max_size=300), st.integers(0, 3000), st.integers(0, 200))
def test_no_bytes_are_a_line_but_those_that_were_signed(junk: bytes, at: int, cut: int) -> None:
    line = TranscriptLine("north", 0, 1, SESSION, 0, 0, "abandoned", NAMES[:0]).signed(IDENTITIES["north"])
    whole = line.to_bytes()
    assert TranscriptLine.parse(whole) == line
    edited = whole[:at] + junk + whole[at + cut :]
    if edited == whole:
        return
    with pytest.raises((DataError, ProtocolError)):
        TranscriptLine.parse(edited).check_signature(KEYS["north"])

"""`pppml transcript verify`: a table, one last line, and 1 with the first difference named."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pppml_fast import CkksParams
from pppml_fast.aggregation.identity import Identity
from pppml_fast.aggregation.roster import Member, Roster
from pppml_fast.site.events import Event, EventKind
from pppml_fast.site.transcript import TranscriptFile

NAMES = ("north", "east", "south")
IDENTITIES = {name: Identity.generate(name) for name in NAMES}


def write(folder: Path, name: str, rounds: int, root: str = "0a" * 32) -> Path:
    path = folder / name
    file = TranscriptFile(path, IDENTITIES[name])
    for round_ in range(rounds):
        told = {"session": "5e" * 32, "round": round_, "attempt": 0, "members": list(NAMES), "costs": {}}
        file(Event(9, EventKind.ROUND_FINISHED, {**told, "root": root, "transcript": "0b" * 32, "model": "0c" * 32}))
    file.close()
    return path


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    params = CkksParams.preset("p31", parties=3, clip=1.0, keys="collective").to_dict()
    members = tuple(Member(name, IDENTITIES[name].public.hex()) for name in NAMES)
    roster = Roster(members, params, params, "00" * 32)
    path = tmp_path / "federation.json"
    path.write_text(json.dumps({"format": "x", "roster": asdict(roster), "layout": []}, indent=2))
    return path


def test_parties_that_agree(pppml: Any, tmp_path: Path, federation: Path) -> None:
    files = [write(tmp_path, "north", 3), write(tmp_path, "east", 2)]
    shown = pppml("transcript", "verify", *files, "--federation", federation)
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[-1] == "rounds=3 parties=2 differing=0"
    assert "no transcript of 'south' was given" in shown.out and "not checked" not in shown.out
    (last,) = [line.split() for line in lines if line.split()[:1] == ["2"]]
    assert last == ["2", "0", "5e5e5e5e", "-", "finished", "0a0a0a0a", "0c0c0c0c", "east,", "south", "same"]


def test_a_difference_is_named(pppml: Any, tmp_path: Path, federation: Path) -> None:
    files = [write(tmp_path, "north", 2), write(tmp_path, "east", 2, root="ff" * 32)]
    shown = pppml("transcript", "verify", *files, "--federation", federation)
    assert shown.code == 1
    first, last = shown.out.splitlines()[-2:]
    assert first.startswith("first difference: round 0, attempt 0, session 5e5e5e5e5e5e5e5e: root differs")
    assert last == "rounds=2 parties=2 differing=2" and "differs" in shown.out


def test_keys_given_by_hand(pppml: Any, tmp_path: Path) -> None:
    file = write(tmp_path, "north", 1)
    unchecked = pppml("transcript", "verify", file)
    assert unchecked.code == 0 and "signatures were not checked" in unchecked.out
    right = pppml("transcript", "verify", file, "--key", f"north={IDENTITIES['north'].public.hex()}")
    assert right.code == 0 and "not checked" not in right.out
    wrong = pppml("transcript", "verify", file, "--key", f"north={IDENTITIES['east'].public.hex()}")
    assert wrong.code == 1 and "the transcript signature of 'north' is not valid" in wrong.out


def test_bad_input(pppml: Any, tmp_path: Path, federation: Path) -> None:
    file = write(tmp_path, "north", 1)
    (tmp_path / "broken.json").write_text('{"roster": {"members": 3}}')
    for arguments, words in (
        (["nothing.there"], "nothing.there"),
        ([file, "--key", "north=12"], "is not NAME=HEX"),
        ([file, "--federation", tmp_path / "none.json"], "none.json"),
        ([file, "--federation", file], "is no federation file"),
        ([file, "--federation", tmp_path / "broken.json"], "the roster cannot be read"),
    ):
        refused = pppml("transcript", "verify", *arguments)
        assert refused.code == 2 and refused.err.count("\n") == 1 and words in refused.err, refused
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(256)) * 20)
    refused = pppml("transcript", "verify", binary, "--federation", federation)
    assert refused.code == 1 and "no line of a transcript" in refused.out

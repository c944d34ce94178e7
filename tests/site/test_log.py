"""Logs: one private line per event, bounded bytes, refusals once, nothing forged by what a peer says."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pppml_fast.errors import DataError
from pppml_fast.site import log as log_module
from pppml_fast.site.events import FIELDS, Event, EventKind
from pppml_fast.site.follow import LogFollower, parse_line
from pppml_fast.site.log import JsonLog, ReadableLog, level
from pppml_fast.site.quiet import Budget, Quiet, source
from pppml_fast.site.text import json_line, plain, printable, readable

NASTY = 'x\n{"kind":"round_finished"}\r\x1b[2J\u202e\u2028\x00"'


def refused(time: float, peer: str = "east", reason: str = "garbage") -> Event:
    return Event(time, EventKind.REFUSED, {"peer": peer, "reason": reason})


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_one_line_per_event_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "site.jsonl"
    log = JsonLog(path, "north")
    log(Event(1.25, EventKind.LINK_UP, {"peer": "east"}))
    log(Event(2.5, EventKind.TRAINING, {"round": 3, "salt": 0}))
    log.close()
    assert rows(path) == [
        {"time": 1.25, "site": "north", "kind": "link_up", "peer": "east"},
        {"time": 2.5, "site": "north", "kind": "training", "round": 3, "salt": 0},
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    JsonLog(path, "north").close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(rows(path)) == 2


def test_what_is_no_place_for_a_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="no plain file"):
        JsonLog(tmp_path / "pipe", "north")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        JsonLog(tmp_path / "link", "north")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(DataError, match="keep=0"):
        JsonLog(tmp_path / "log", "north", keep=0)


def test_rotation_keeps_every_event_of_the_last_files(tmp_path: Path) -> None:
    path = tmp_path / "site.jsonl"
    log = JsonLog(path, "north", max_bytes=4096, keep=3)
    follower = LogFollower(path)
    followed: list[int] = []
    for number in range(300):
        log(Event(number, EventKind.TRAINING, {"round": number, "salt": 0}))
        if number % 10 == 0:
            followed += [found.event.fields["round"] for found in follower.poll()]
    log.close()
    followed += [found.event.fields["round"] for found in follower.poll()]
    assert followed == list(range(300))
    names = sorted(found.name for found in tmp_path.iterdir())
    assert names == ["site.jsonl", "site.jsonl.1", "site.jsonl.2", "site.jsonl.3"]
    assert all(
        found.stat().st_size <= 4096 and stat.S_IMODE(found.stat().st_mode) == 0o600 for found in tmp_path.iterdir()
    )
    kept = [found.event.fields["round"] for found in LogFollower(path).poll()]
    assert kept == list(range(300))[-len(kept) :] and len(kept) > 100


def test_the_same_refusal_is_written_once_until_something_else_of_that_peer(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JsonLog(path, "north")
    for time in range(1000):
        log(refused(time))
    log(refused(1000, "west"))
    log(refused(1001))
    log(Event(1002, EventKind.LINK_DOWN, {"peer": "east"}))
    log(refused(1003))
    log(refused(1004))
    log.close()
    told = [(row["kind"], row["peer"], row.get("count")) for row in rows(path)]
    assert told == [
        ("refused", "east", None),
        ("refused", "west", None),
        ("suppressed", "east", 1000),
        ("link_down", "east", None),
        ("refused", "east", None),
        ("suppressed", "east", 1),
    ]
    assert all(row["reason"] == "garbage" for row in rows(path) if row["kind"] == "suppressed")


def test_an_address_is_one_peer_whatever_its_port() -> None:
    quiet = Quiet(lambda _: 1, 1 << 20)
    heard = [
        quiet.hear(Event(port, EventKind.LINK_REFUSED, {"peer": f"192.0.2.7:{port}", "reason": "no certificate"}))
        for port in range(40000, 40100)
    ]
    assert [len(passed) for passed in heard] == [1] + [0] * 99
    assert source(Event(0, EventKind.LINK_REFUSED, {"peer": "[2001:db8::1]:50051"})) == "[2001:db8::1]"


@pytest.mark.parametrize("repeats", [False, True])
def test_garbage_at_line_rate_fills_no_disk_and_hides_nothing(tmp_path: Path, repeats: bool) -> None:
    """Two peers, ever other reasons and names, for ten minutes: bounded bytes, and the site's own events are there."""
    path = tmp_path / "log"
    per_minute = 32768
    log = JsonLog(path, "north", bytes_per_minute=per_minute, max_bytes=1 << 26)
    count = 40_000
    for number in range(count):
        time = 600 * number / count
        log(refused(time, f"peer {number}" if repeats else f"peer {number % 2}", f"sequence {number}" + 300 * "x"))
        if number % 4000 == 0:
            log(Event(time, EventKind.TRAINING, {"round": number // 4000, "salt": 0}))
    log.close()
    written = rows(path)
    assert path.stat().st_size <= 11 * per_minute
    assert [row["round"] for row in written if row["kind"] == "training"] == list(range(10))
    told = sum(row.get("count", 1) for row in written if row["kind"] in ("refused", "suppressed"))
    assert told == count


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 500)), max_size=200), st.floats(-5, 5))
def test_no_more_than_the_budget(steps: list[tuple[float, int]], jump: float) -> None:
    budget, time, taken = Budget(1000), 100.0, 0
    for wait, size in steps:
        time += wait
        taken += size if budget.take(time, size) else 0
    assert taken <= 1000 + 1000 * (time - 100) / 60 + 1e-6
    assert not budget.take(time + min(jump, 0), 1001)


def test_the_memory_for_peers_is_bounded() -> None:
    quiet = Quiet(lambda _: 1, 1 << 30)
    for number in range(5000):
        quiet.hear(refused(number, f"peer {number}"))
        quiet.hear(refused(number, f"peer {number}"))
    assert len(quiet._last) == 256
    assert sum(event.fields["count"] for event in quiet.end(0)) == 256


def test_progress_is_thinned_and_its_end_is_there() -> None:
    quiet = Quiet(lambda _: 1, 1 << 20)
    told = {"session": "ab", "round": 0, "attempt": 0, "of": 1000, "bytes_in": {}, "bytes_out": {}}
    passed = [
        event.fields["chunks"]
        for number in range(1001)
        for event in quiet.hear(Event(number / 1000, EventKind.PROGRESS, {**told, "chunks": number}))
    ]
    assert passed == [0, 500, 1000]


@given(st.text(), st.text())
def test_whatever_a_peer_says_is_one_line_of_plain_text(peer: str, reason: str) -> None:
    event = Event(0, EventKind.REFUSED, {"peer": peer, "reason": reason})
    line = json_line(event, "north")
    assert line.count(b"\n") == 1 and line.endswith(b"\n") and line[:-1].decode("ascii").isprintable()
    found = parse_line(line)
    assert found is not None and found.event.fields["peer"] == printable(peer)
    text = readable(event)
    assert text.isprintable() and text.startswith("refused peer=")


def test_nothing_can_be_forged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = JsonLog(tmp_path / "log", "north")
    log(refused(0, NASTY, NASTY + "A" * 100_000))
    log.close()
    (row,) = rows(tmp_path / "log")
    assert row["kind"] == "refused" and len(row["reason"]) < 1000
    with caplog.at_level(logging.INFO, "pppml.site"):
        ReadableLog()(refused(0, NASTY, 'sum" peer=north kind=drift'))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert message.isprintable() and message.count(" peer=") == 2 and 'reason="sum\\" peer=north kind=drift"' in message


def test_a_field_cannot_take_the_place_of_the_head() -> None:
    row = json.loads(json_line(Event(1, EventKind.LINK_UP, {"peer": "a", "site": "b", "kind": "drift"}), "north"))
    assert (row["site"], row["kind"], row["time"]) == ("north", "link_up", 1)


def test_vectors_bytes_and_objects_are_never_written() -> None:
    value = {"a": np.ones(3), "b": b"secret", "c": [1.5] * 5000, "d": object(), "e": float("nan")}
    shown = plain(value)
    assert (shown["a"], shown["b"], shown["d"], shown["e"]) == ("<ndarray>", "<bytes>", "<object>", "nan")
    assert len(shown["c"]) == 1024


def test_levels_and_the_readable_line(caplog: pytest.LogCaptureFixture) -> None:
    assert level(EventKind.EVIDENCE) == logging.CRITICAL and level(EventKind.LINK_UP) == logging.INFO
    assert {level(kind) for kind in FIELDS} == {10, 20, 30, 40, 50}
    fields = {"session": "ab" * 32, "present": ["north", "the east"], "lead": "north"}
    log = ReadableLog(logging.getLogger("pppml.site"))
    with caplog.at_level(logging.INFO, "pppml.site"):
        log(Event(0, EventKind.SESSION_OPENED, fields))
        log(Event(0, EventKind.STATE, {"session": "ab", "round": 0, "attempt": 0, "state": "closing"}))
        log(refused(0))
        log(refused(0))
        log.close()
    assert [record.getMessage() for record in caplog.records] == [
        'session_opened session=abababababababab present=north,"the east" lead=north',
        "refused peer=east reason=garbage",
        "suppressed count=1 peer=east reason=garbage",
    ]


def test_what_the_level_hides_still_ends_a_repetition(caplog: pytest.LogCaptureFixture) -> None:
    log = ReadableLog()
    with caplog.at_level(logging.WARNING, "pppml.site"):
        for event in (refused(0), refused(1), Event(2, EventKind.LINK_UP, {"peer": "east"}), refused(3)):
            log(event)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["refused", "suppressed", "refused"]


def test_after_a_full_disk_the_next_line_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    log = JsonLog(path, "north")
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[:10])

    monkeypatch.setattr(log_module.os, "write", full)
    with pytest.raises(OSError, match="make room"):
        log(Event(0, EventKind.LINK_UP, {"peer": "east"}))
    monkeypatch.setattr(log_module.os, "write", write)
    log(Event(1, EventKind.LINK_UP, {"peer": "east"}))
    log.close()
    with open(path, "ab") as file:
        file.write(b'{"half a li')
    JsonLog(path, "north")(Event(2, EventKind.LINK_UP, {"peer": "west"}))
    follower = LogFollower(path)
    assert [found.event.time for found in follower.poll()] == [1, 2]
    assert follower.skipped == 2


def test_following_waits_for_whole_lines_and_for_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    follower = LogFollower(path)
    assert follower.poll() == []
    line = json_line(Event(1, EventKind.LINK_UP, {"peer": "east"}), "north")
    with open(path, "ab", buffering=0) as file:
        file.write(line[:20])
        assert follower.poll() == []
        file.write(line[20:] + b"no json\n" + b'{"time":1,"site":"n","kind":"link_up"}\n' + b"[" * 5000 + b"\n")
        (found,) = follower.poll()
    assert (found.site, found.event.kind, found.event.fields) == ("north", EventKind.LINK_UP, {"peer": "east"})
    assert follower.skipped == 3
    path.write_bytes(b"")
    assert follower.poll() == []
    path.write_bytes(line)
    assert len(follower.poll()) == 1
    follower.close()

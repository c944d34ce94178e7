"""All sinks of a site at once: they hear one story, and are closed with the site."""

from __future__ import annotations

import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pppml_fast.aggregation.attempt_state import Meter
from pppml_fast.aggregation.identity import Identity
from pppml_fast.errors import DataError
from pppml_fast.site.events import Event, EventKind
from pppml_fast.site.follow import LogFollower
from pppml_fast.site.observe import observed
from pppml_fast.site.transcript import TranscriptFile
from pppml_fast.site.transcript_check import read_transcript

ATTEMPT: dict[str, Any] = {"session": "5e" * 32, "round": 0, "attempt": 0}


def test_one_story_in_all_of_them(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    identity = Identity.generate("north")
    heard: list[Event] = []
    log, transcript = tmp_path / "log", tmp_path / "transcript"
    with observed(
        identity, log=log, transcript=transcript, metrics=("127.0.0.1", 0), sinks=[heard.append], clock=lambda: 3.0
    ) as events:
        events.emit(EventKind.ATTEMPT_BEGAN, **ATTEMPT, live=("north", "east"), parameters="p31")
        events.emit(EventKind.REFUSED, peer="east", reason="garbage")
        events.emit(EventKind.REFUSED, peer="east", reason="garbage")
        hashes = {"root": "0a" * 32, "transcript": "0b" * 32, "model": "0c" * 32}
        events.emit(EventKind.ROUND_FINISHED, **ATTEMPT, members=("north", "east"), costs=asdict(Meter()), **hashes)
    kinds = [found.event.kind.value for found in LogFollower(log).poll()]
    assert kinds == ["attempt_began", "refused", "round_finished", "suppressed"]
    (line,) = read_transcript(transcript, {"north": identity.public}).lines
    assert (line.planned, line.live, line.outcome, line.time) == (("east", "north"),) * 2 + ("finished", 3)
    assert len(heard) == 4


def test_what_was_opened_is_closed_when_another_cannot_be(tmp_path: Path) -> None:
    identity = Identity.generate("north")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        pytest.importorskip("prometheus_client")
        with (
            pytest.raises(OSError),
            observed(identity, transcript=tmp_path / "t", metrics=("127.0.0.1", taken.getsockname()[1])),
        ):
            raise AssertionError("must not come here")
    TranscriptFile(tmp_path / "t", identity).close()
    (tmp_path / "folder").mkdir()
    with pytest.raises((DataError, OSError)), observed(identity, transcript=tmp_path / "t", log=tmp_path / "folder"):
        raise AssertionError("must not come here")
    TranscriptFile(tmp_path / "t", identity).close()

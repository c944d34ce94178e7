"""Events: every kind has its fields, mistakes are found in tests and cost nothing at a hospital."""

from __future__ import annotations

import logging
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from pppml_fast.site.events import FIELDS, Event, EventKind, Events, mistakes
from pppml_fast.site.log import level

REFUSED: dict[str, Any] = {"peer": "east", "reason": "sequence 4, expected 3"}


def test_every_kind_has_its_fields() -> None:
    assert set(FIELDS) == set(EventKind)
    assert all(not fields.required & fields.optional for fields in FIELDS.values())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (REFUSED, ""),
        ({**REFUSED, "round": 3}, ""),
        ({"peer": "east"}, "refused lacks reason"),
        ({**REFUSED, "why": "x"}, "refused does not know why"),
        ({**REFUSED, "peer": b"east"}, "wrong type for peer"),
        ({**REFUSED, "round": -1}, "wrong type for round"),
        ({**REFUSED, "round": 1 << 63}, "wrong type for round"),
        ({**REFUSED, "round": "3"}, "wrong type for round"),
    ],
)
def test_mistakes(fields: dict[str, Any], words: str) -> None:
    found = mistakes(EventKind.REFUSED, fields)
    assert (words in found) and bool(found) is bool(words)


def test_mistaken_lists_and_figures() -> None:
    began = {"session": "ab", "round": 0, "attempt": 0, "live": ["a", 1], "parameters": "p31"}
    assert "live" in mistakes(EventKind.ATTEMPT_BEGAN, began)
    progress = {"session": "ab", "round": 0, "attempt": 0, "chunks": 1, "of": 2, "bytes_in": {"a": 1}, "bytes_out": {}}
    assert mistakes(EventKind.PROGRESS, progress) == ""
    assert "bytes_in" in mistakes(EventKind.PROGRESS, {**progress, "bytes_in": {"a": [0.5] * 9}})
    assert "bytes_out" in mistakes(EventKind.PROGRESS, {**progress, "bytes_out": {"a": float("nan")}})


def test_the_suite_is_strict() -> None:
    assert os.environ["PPPML_STRICT_EVENTS"] == "1"
    with pytest.raises(ValueError, match="link_up lacks peer; link_up does not know pear"):
        Events(lambda: 0.0).emit(EventKind.LINK_UP, pear="east")


def test_a_mistake_or_a_failing_sink_stops_nothing_in_production(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise KeyError("peer")

    events = Events(lambda: 7.0, [broken, heard.append], strict=False)
    with caplog.at_level(logging.ERROR, "pppml.site"):
        for _ in range(3):
            events.emit(EventKind.LINK_UP, pear="east")
    assert [event.time for event in heard] == [7.0] * 3
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and "link_up lacks peer" in told[0] and "KeyError" in told[1]


def test_a_full_disk_is_contained_and_a_mistaken_sink_is_not() -> None:
    def full(event: Event) -> None:
        raise OSError(28, "No space left on device")

    def wrong(event: Event) -> None:
        raise KeyError("peer")

    heard: list[Event] = []
    Events(lambda: 0.0, [full, heard.append], strict=True).emit(EventKind.LINK_UP, peer="east")
    assert len(heard) == 1
    with pytest.raises(KeyError):
        Events(lambda: 0.0, [wrong], strict=True).emit(EventKind.LINK_UP, peer="east")


def test_sinks_hear_every_event_in_one_order() -> None:
    one: list[str] = []
    other: list[str] = []
    events = Events(lambda: 0.0, [lambda event: one.append(event.fields["peer"])])
    events.add(lambda event: other.append(event.fields["peer"]))
    threads = [
        threading.Thread(target=lambda k=k: [events.emit(EventKind.LINK_UP, peer=f"{k}.{i}") for i in range(200)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(one) == 800 and one == other


def test_the_documents_table_is_complete() -> None:
    text = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text().split("## Metrics")[0]
    found = {}
    for kind, word, fields in re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|$", text, re.MULTILINE):
        bare = re.sub(r"\([^)]*\)|:.*", "", fields)
        optional = frozenset(re.findall(r"\[(\w+)\]", bare))
        found[kind] = word, frozenset(re.findall(r"\w+", bare)) - optional, optional
    assert found == {
        kind.value: (logging.getLevelName(level(kind)).lower(), *fields) for kind, fields in FIELDS.items()
    }

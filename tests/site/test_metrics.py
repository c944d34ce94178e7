"""Metrics: what Prometheus reads after a story, over HTTP, with labels from the roster alone."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import REGISTRY
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from pppml_fast.site.events import Event, EventKind, Events
from pppml_fast.site.metrics import Metrics

ATTEMPT: dict[str, Any] = {"session": "ab" * 32, "round": 4, "attempt": 0}
STARTED: dict[str, Any] = {
    "version": "0.5.0",
    "protocol": "collective",
    "topology": "star",
    "members": ["north", "east", "south"],
    "relay": "hub",
}
FINISHED: dict[str, Any] = {
    **ATTEMPT,
    "members": ["north", "east", "south"],
    "root": "0a" * 32,
    "transcript": "0b" * 32,
    "model": "0c" * 32,
    "costs": {"encrypt_s": 0.5, "add_s": 0.25, "open_s": 0.125, "clipped": 7, "bytes_ring": 10},
}


def story(events: Events) -> None:
    events.emit(EventKind.STARTED, **STARTED)
    events.emit(EventKind.LINK_UP, peer="hub")
    events.emit(EventKind.LINK_UP, peer="east")
    events.emit(EventKind.LINK_DOWN, peer="east")
    events.emit(EventKind.ATTEMPT_BEGAN, **ATTEMPT, live=["north"], parameters="p31")
    for sent in (100, 250):
        events.emit(
            EventKind.PROGRESS, **ATTEMPT, chunks=3, back=1, of=9, bytes_in={"hub": 40}, bytes_out={"hub": sent}
        )
    events.emit(EventKind.REFUSED, peer="hub", reason="x")
    events.emit(EventKind.REFUSED, peer="hub", reason="x")
    for number in range(50):
        events.emit(EventKind.LINK_REFUSED, peer=f"192.0.2.{number}", reason="no certificate")
    events.emit(EventKind.REFUSED_BY, peer="east")
    events.emit(EventKind.ROUND_FINISHED, **FINISHED)
    events.emit(EventKind.ATTEMPT_BEGAN, **{**ATTEMPT, "round": 5}, live=["north"], parameters="p31")
    events.emit(EventKind.STATE, **{**ATTEMPT, "round": 5}, state="closing")
    events.emit(EventKind.DRIFT, round=5, peer="south")


def scrape(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_is_scraped_after_a_story() -> None:
    metrics = Metrics()
    server = metrics.serve("127.0.0.1", 0)
    try:
        before = scrape(server.port)
        story(Events(lambda: 1234.5, [metrics]))
        found = scrape(server.port)
    finally:
        server.close()
    assert before["pppml_rounds_finished_total", ()] == 0 and before["pppml_drifts_total", ()] == 0
    expected = {
        ("pppml_rounds_finished_total", ()): 1,
        ("pppml_attempts_total", ()): 2,
        ("pppml_attempts_abandoned_total", ()): 0,
        ("pppml_attempts_discarded_total", ()): 0,
        ("pppml_drifts_total", ()): 1,
        ("pppml_messages_refused_total", (("peer", "hub"),)): 2,
        ("pppml_messages_refused_total", (("peer", "unknown"),)): 0,
        ("pppml_links_refused_total", (("peer", "unknown"),)): 50,
        ("pppml_refusals_received_total", (("peer", "east"),)): 1,
        ("pppml_received_bytes_total", (("peer", "hub"),)): 40,
        ("pppml_sent_bytes_total", (("peer", "hub"),)): 250,
        ("pppml_crypto_seconds_total", (("step", "encrypt"),)): 0.5,
        ("pppml_crypto_seconds_total", (("step", "add"),)): 0.25,
        ("pppml_crypto_seconds_total", (("step", "open"),)): 0.125,
        ("pppml_clipped_values_total", ()): 7,
        ("pppml_link_up", (("peer", "hub"),)): 1,
        ("pppml_link_up", (("peer", "east"),)): 0,
        ("pppml_attempt_state", (("state", "closing"),)): 1,
        ("pppml_attempt_state", (("state", "finished"),)): 0,
        ("pppml_attempt_chunks", ()): 0,
        ("pppml_round", ()): 5,
        ("pppml_last_round_timestamp_seconds", ()): 1234.5,
        ("pppml_build_info", (("protocol", "collective"), ("topology", "star"), ("version", "0.5.0"))): 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert {dict(labels).get("peer") for _, labels in found} <= {None, "north", "east", "south", "hub", "unknown"}
    with pytest.raises(urllib.error.URLError):
        scrape(server.port)


def test_names_follow_the_conventions() -> None:
    metrics = Metrics()
    story(Events(lambda: 1.0, [metrics]))
    text = openmetrics(metrics.registry).decode()
    assert text.endswith("# EOF\n") and "_created" not in text
    for family in metrics.collect():
        assert family.name.startswith("pppml_") and family.documentation.endswith(".")
        for unit in ("_ms", "_mb", "_kb", "_minutes"):
            assert not family.name.endswith(unit)


def test_a_registry_of_its_own() -> None:
    one, other = Metrics(), Metrics()
    one(Event(0, EventKind.DRIFT, {"round": 1, "peer": "east"}))
    assert other.registry.get_sample_value("pppml_drifts_total") == 0
    assert one.registry.get_sample_value("pppml_drifts_total") == 1
    assert REGISTRY.get_sample_value("pppml_drifts_total") is None


def test_totals_never_fall_and_hostile_names_are_no_series() -> None:
    metrics = Metrics()
    metrics(Event(0, EventKind.STARTED, STARTED))
    for size in (100, 40, 100):
        told = {**ATTEMPT, "chunks": 1, "of": 2, "bytes_in": {"east": size, 'x"} 1\n': 5}, "bytes_out": {}}
        metrics(Event(0, EventKind.PROGRESS, told))
    value = metrics.registry.get_sample_value
    assert value("pppml_received_bytes_total", {"peer": "east"}) == 100
    assert value("pppml_received_bytes_total", {"peer": "unknown"}) == 5


def test_scraping_beside_events() -> None:
    metrics = Metrics()
    events = Events(lambda: 1.0, [metrics])
    stop = threading.Event()

    def scrape_on() -> None:
        while not stop.is_set():
            openmetrics(metrics.registry)

    thread = threading.Thread(target=scrape_on)
    thread.start()
    for _ in range(20):
        story(events)
    stop.set()
    thread.join()
    assert metrics.registry.get_sample_value("pppml_rounds_finished_total") == 20


def test_the_documents_table_is_complete() -> None:
    metrics = Metrics()
    story(Events(lambda: 1.0, [metrics]))
    table = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text().split("## Metrics")[1].split("## The")[0]
    named = set(re.findall(r"`(pppml_\w+)`", table))
    assert named == {
        family.name + {"counter": "_total", "info": "_info"}.get(family.type, "") for family in metrics.collect()
    }
    used = set(re.findall(r"pppml_\w+", "".join(re.findall(r"```yaml.*?```", table, re.DOTALL))))
    assert {name for name in used if name != "pppml"} <= named

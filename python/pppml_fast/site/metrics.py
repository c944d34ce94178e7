"""Prometheus metrics of a site, from its events alone; an HTTP endpoint where one is asked for (extra ``metrics``)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pppml_fast.aggregation.attempt_state import State
from pppml_fast.site.events import Event, EventKind
from pppml_fast.site.text import printable

__all__ = ["Metrics", "MetricsServer"]

UNKNOWN = "unknown"
"""Label of every peer that is not in the roster: a stranger's name must not become a time series."""
_BUILD = ("version", "protocol", "topology")
_COSTS = {"encrypt_s": "encrypt", "add_s": "add", "open_s": "open"}

_COUNTED = {
    EventKind.ROUND_FINISHED: ("pppml_rounds_finished", "Rounds whose sum was opened and applied here."),
    EventKind.ATTEMPT_BEGAN: ("pppml_attempts", "Attempts begun."),
    EventKind.ABANDONED: ("pppml_attempts_abandoned", "Attempts abandoned before the share was released."),
    EventKind.DISCARDED: ("pppml_attempts_discarded", "Attempts that ended without a sum after the update was spent."),
    EventKind.SESSION_OPENED: ("pppml_sessions_opened", "Sessions opened."),
    EventKind.SESSION_FAILED: ("pppml_sessions_failed", "Sessions that did not open."),
    EventKind.SPENT: ("pppml_updates_spent", "Own updates discarded because their share had been released."),
    EventKind.CAUGHT_UP: ("pppml_models_adopted", "Models taken from another site after missed rounds."),
    EventKind.STEPPED_BACK: ("pppml_steps_back", "Newest states given up because others had not finished the round."),
    EventKind.ROLLED_BACK: ("pppml_rollbacks_detected", "Times a peer had seen more of this site than its disk holds."),
    EventKind.DRIFT: ("pppml_drifts", "Rounds after which a peer had another model."),
    EventKind.EVIDENCE: ("pppml_equivocations", "Pairs of contradicting statements signed by one party."),
    EventKind.FAILED: ("pppml_failures", "Openings that failed their checks, and failures of the site itself."),
}
_REFUSED = {
    EventKind.REFUSED: ("pppml_messages_refused", "Messages refused here, by sender."),
    EventKind.REFUSED_BY: ("pppml_refusals_received", "Messages of this site that a peer refused, by peer."),
    EventKind.LINK_REFUSED: ("pppml_links_refused", "Connections refused here, by what called itself a peer."),
}


class Metrics(Collector):
    """A sink that keeps the figures, and a collector of its own registry. No globals; safe from any thread.

    Peers are labelled by the names of the roster (from the event ``started``); all others count as ``unknown``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[EventKind] = Counter()
        self._refused: Counter[tuple[EventKind, str]] = Counter()
        self._bytes: dict[str, dict[str, float]] = {"bytes_in": {}, "bytes_out": {}}
        self._seconds: Counter[str] = Counter()
        self._clipped = 0.0
        self._links: dict[str, bool] = {}
        self._state = State.IDLE.value
        self._gauges: dict[str, float] = {}
        self._build: dict[str, str] = {}
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._counts[event.kind] += 1
            if event.kind in _REFUSED:
                self._refused[event.kind, self._label(event.fields.get("peer"))] += 1
            hear = getattr(self, f"_hear_{event.kind.value}", None)
            if hear is not None:
                hear(event)

    def serve(self, host: str, port: int) -> MetricsServer:
        """Answer HTTP at ``host:port`` (0: any free port) until closed. Raises OSError where it cannot listen.

        Whoever reaches the port reads names of peers, sizes and times: give a loopback address, or one that only the
        monitoring reaches.
        """
        server, thread = start_http_server(port, addr=host, registry=self.registry)
        return MetricsServer(server, thread)

    def collect(self) -> Iterable[Metric]:
        """All metrics as they stand."""
        with self._lock:
            return [*self._events(), *self._by_peer(), *self._costs(), *self._now()]

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering need not collect."""
        return []

    def _label(self, peer: Any) -> str:
        return peer if peer in self._links else UNKNOWN

    def _hear_started(self, event: Event) -> None:
        self._build = {name: printable(str(event.fields.get(name, ""))) for name in _BUILD}
        names = [*event.fields.get("members", ()), event.fields.get("relay")]
        self._links = dict.fromkeys((name for name in names if name), False)

    def _hear_link_up(self, event: Event) -> None:
        if event.fields.get("peer") in self._links:
            self._links[event.fields["peer"]] = True

    def _hear_link_down(self, event: Event) -> None:
        if event.fields.get("peer") in self._links:
            self._links[event.fields["peer"]] = False

    def _hear_attempt_began(self, event: Event) -> None:
        self._gauges.update({"chunks": 0, "back": 0, "of": 0, "round": event.fields.get("round", 0)})

    def _hear_state(self, event: Event) -> None:
        self._state = str(event.fields.get("state"))

    def _hear_progress(self, event: Event) -> None:
        self._gauges.update({name: event.fields.get(name, 0) for name in ("chunks", "back", "of")})
        for way, total in self._bytes.items():
            # Totals since the start: a peer's figure only ever grows.
            for peer, size in event.fields.get(way, {}).items():
                total[self._label(peer)] = max(size, total.get(self._label(peer), 0))

    def _hear_abandoned(self, event: Event) -> None:
        self._state = State.ABANDONED.value
        self._spend(event.fields.get("costs", {}))

    def _hear_discarded(self, event: Event) -> None:
        self._state = State.DISCARDED.value
        self._spend(event.fields.get("costs", {}))

    def _hear_failed(self, event: Event) -> None:
        self._state = State.FAILED.value
        self._spend(event.fields.get("costs", {}))

    def _hear_round_finished(self, event: Event) -> None:
        self._state = State.FINISHED.value
        self._spend(event.fields.get("costs", {}))
        self._gauges["finished"] = event.time
        self._gauges["round"] = event.fields.get("round", 0)

    def _spend(self, costs: Mapping[str, Any]) -> None:
        for name, step in _COSTS.items():
            self._seconds[step] += costs.get(name, 0.0)
        self._clipped += costs.get("clipped", 0)

    def _events(self) -> Iterator[Metric]:
        for kind, (name, text) in _COUNTED.items():
            yield CounterMetricFamily(name, text, value=self._counts[kind])

    def _by_peer(self) -> Iterator[Metric]:
        for kind, (name, text) in _REFUSED.items():
            counter = CounterMetricFamily(name, text, labels=["peer"])
            for peer in [*self._links, UNKNOWN]:
                counter.add_metric([peer], self._refused[kind, peer])
            yield counter
        for way, name in (("bytes_in", "received"), ("bytes_out", "sent")):
            counter = CounterMetricFamily(f"pppml_{name}_bytes", f"Bytes {name}, by peer.", labels=["peer"])
            for peer, size in self._bytes[way].items():
                counter.add_metric([peer], size)
            yield counter
        links = GaugeMetricFamily("pppml_link_up", "1 while a link to the peer stands.", labels=["peer"])
        for peer, up in self._links.items():
            links.add_metric([peer], up)
        yield links

    def _costs(self) -> Iterator[Metric]:
        counter = CounterMetricFamily("pppml_crypto_seconds", "Seconds of cryptography, by step.", labels=["step"])
        for step in _COSTS.values():
            counter.add_metric([step], self._seconds[step])
        yield counter
        yield CounterMetricFamily("pppml_clipped_values", "Own values cut to the clip range.", value=self._clipped)

    def _now(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("pppml_attempt_state", "1 at the state of the newest attempt.", labels=["state"])
        for state in State:
            states.add_metric([state.value], self._state == state.value)
        yield states
        for key, name, text in (
            ("round", "pppml_round", "Round of the newest attempt."),
            ("chunks", "pppml_attempt_chunks", "Chunks this site added to and sent on in the newest attempt."),
            ("back", "pppml_attempt_chunks_back", "Chunks of the whole sum that are here in the newest attempt."),
            ("of", "pppml_attempt_chunks_expected", "Chunks of the newest attempt."),
            (
                "finished",
                "pppml_last_round_timestamp_seconds",
                "When the last round finished; 0: none since the start.",
            ),
        ):
            yield GaugeMetricFamily(name, text, value=self._gauges.get(key, 0))
        if self._build:
            yield InfoMetricFamily("pppml_build", "What runs here.", value=self._build)


class MetricsServer:
    """The endpoint while it answers."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop answering and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

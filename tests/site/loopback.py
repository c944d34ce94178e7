"""Members and a coordinator on loopback with real TLS, each under a `Runtime` of its own; what it carries is kept."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from light_site import LightApplication, Vector, light_update
from spy import Recording

sys.path.insert(0, str(Path(__file__).parents[1] / "transport"))

from certificates import Authority, Credentials

from pppml_fast import CkksParams, Layout
from pppml_fast.aggregation import AttemptLedger, Identity, MemoryStore, Policy, Roster, SessionOptions, Terms
from pppml_fast.aggregation import Member as RosterMember
from pppml_fast.site.coordinator import Coordinator
from pppml_fast.site.events import Event, EventKind, Events
from pppml_fast.site.lead import Timing
from pppml_fast.site.member import Member
from pppml_fast.site.runtime import Runtime
from pppml_fast.transport.grpc_links import GrpcLinks

RELAY = "relay"
SIZE = 9000
TIMING = Timing(patience=20.0, handshake=20.0, linger=1.0, heartbeat=0.5, retry=0.1)
WAIT_S = 300.0


class Tap:
    """A wire that keeps what it carries, both ways, between connections to ``port`` here and one to another."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.carried: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, name="tap", daemon=True).start()

    def stop(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listening.accept()
            except OSError:
                return
            try:
                other = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                one.close()  # nobody is there yet
                continue
            for pair in ((one, other), (other, one)):
                threading.Thread(target=self._copy, args=pair, name="tap", daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                self.carried.append(data)
                target.sendall(data)
        except OSError:
            pass
        target.close()


class Star:
    """``parties`` members and a coordinator, which listens alone; `run` drives them to the end of the training."""

    def __init__(
        self, folder: Path, parties: int, rounds: int = 1, tapped: bool = False, window: int = 16 << 20
    ) -> None:
        self.names = tuple(f"site{index}" for index in range(parties))
        self.identities = {name: Identity.generate(name) for name in (*self.names, RELAY)}
        self.params = CkksParams.preset("p31", parties=parties, clip=1.0, keys="collective", weights="public")
        sums = CkksParams.preset("p31", parties=parties, clip=1.0, keys="collective", weights="free").to_dict()
        self.layout = Layout.from_arrays({"w": np.zeros(SIZE, np.float32)})
        options = SessionOptions(topology="star", chunk_blocks=1)
        members = tuple(RosterMember(n, self.identities[n].public.hex(), 1 / parties) for n in self.names)
        relay = RosterMember(RELAY, self.identities[RELAY].public.hex())
        self.roster = Roster(members, self.params.to_dict(), sums, self.layout.fingerprint.hex(), options, relay)
        self.terms = Terms(self.params.to_dict(), sums, self.layout, options)
        self.authority = Authority()
        self._window = window
        self.events: list[tuple[str, Event]] = []
        self.counts: Counter[tuple[str, EventKind]] = Counter()
        self.refused: list[tuple[str, str]] = []
        self.applications: dict[str, LightApplication] = {}
        self.runtimes: dict[str, Runtime] = {}
        self.links: dict[str, GrpcLinks] = {}
        self.errors: list[BaseException] = []
        self._threads: dict[str, threading.Thread] = {}
        self.recording = Recording(self._links(RELAY, {}))
        hub = Coordinator(self.identities[RELAY], self.roster, self.layout, Policy(), self._events(RELAY), TIMING)
        self.hub = hub
        self._start(RELAY, Runtime(hub, self.recording))
        deadline = time.monotonic() + WAIT_S
        while not self.recording.links.port and time.monotonic() < deadline:
            time.sleep(0.01)
        self.port = self.recording.links.port
        self.tap = Tap(self.port) if tapped else None
        for name in self.names:
            self._start_member(name, folder / name, rounds)

    def credentials(self, name: str) -> Credentials:
        """Key and certificate of a node of this federation."""
        return self.authority.issue(name, public=self.identities[name].public)

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Wait for the end of every node, or for ``until``."""
        deadline = time.monotonic() + WAIT_S
        while any(thread.is_alive() for thread in self._threads.values()) and not until() and not self.errors:
            assert time.monotonic() < deadline, [str(event) for event in self.events[-20:]]
            time.sleep(0.02)
        if self.errors:
            raise self.errors[0]

    def stop(self) -> None:
        for runtime in self.runtimes.values():
            runtime.stop()
        for thread in self._threads.values():
            thread.join(WAIT_S)
        if self.tap is not None:
            self.tap.stop()

    def kinds(self, kind: EventKind, name: str = "") -> list[Event]:
        return [event for who, event in self.events if event.kind is kind and name in ("", who)]

    def update(self, name: str, round_: int = 0) -> Vector:
        """What a member handed in."""
        (salt,) = {salt for number, salt in self.applications[name].trained if number == round_}
        return light_update(name, round_, salt, SIZE)

    def _links(self, name: str, addresses: dict[str, str], **kw: Any) -> GrpcLinks:
        peers = self.names if name == RELAY else (RELAY,)
        pem = self.credentials(name)
        return GrpcLinks(
            name,
            os.urandom(16),
            {peer: self.identities[peer].public for peer in peers},
            key=pem.key,
            certificate=pem.certificate,
            authorities=pem.authorities,
            listen="127.0.0.1:0" if name == RELAY else None,
            addresses=addresses,
            grace_s=5.0,
            on_refused=lambda peer, reason: self.refused.append((peer, reason)),
            **kw,
        )

    def _events(self, name: str) -> Events:
        def hear(event: Event) -> None:
            self.counts[name, event.kind] += 1
            if self.counts[name, event.kind] <= 1000:
                self.events.append((name, event))

        return Events(time.time, [hear])

    def _start_member(self, name: str, folder: Path, rounds: int) -> None:
        application = LightApplication(name, folder, SIZE, rounds, sync=False)
        node = Member(
            self.identities[name],
            self.roster,
            Policy(),
            self.terms,
            AttemptLedger(MemoryStore()),
            application,
            self._events(name),
            TIMING,
        )
        port = self.tap.port if self.tap is not None else self.port
        links = self.links[name] = self._links(name, {RELAY: f"127.0.0.1:{port}"}, window=self._window)
        runtime = Runtime(node, links)

        def begin(round_: int, salt: int) -> None:
            update = light_update(name, round_, salt, SIZE)
            runtime.post(lambda: node.ready(round_, salt, update))

        application.begin = begin
        self.applications[name] = application
        self._start(name, runtime)

    def _start(self, name: str, runtime: Runtime) -> None:
        def drive() -> None:
            try:
                runtime.run()
            except BaseException as error:
                self.errors.append(error)

        self.runtimes[name] = runtime
        thread = self._threads[name] = threading.Thread(target=drive, name=f"node {name}", daemon=True)
        thread.start()

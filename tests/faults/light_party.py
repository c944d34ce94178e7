"""One site, or the coordinator, of a federation under faults, as a process: `light_party.py CONFIG.json`.

Everything is the real thing but the training: member, runtime, TLS, journal, spool. It tells what it does on standard
output, one JSON object per line, which outlives it and the state of its disk; it takes orders on standard input, one
JSON object per line: {"arm": {a Rule}}, {"calm": 1}, {"finish": rounds}, {"lie": a name of `lying_relay`},
{"stop": 1}. It dies with its standard input.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import paths  # noqa: F401  (before the modules it makes importable)
from faulty_links import Faults, FaultyLinks, Rule
from light_site import LightApplication, Vector, light_update
from lying_relay import Lies, LyingCoordinator
from spy import Spy

from pppml_fast.aggregation.attempts import AttemptId, AttemptLedger, Outgoing
from pppml_fast.aggregation.base import Policy
from pppml_fast.aggregation.journal import FileStore
from pppml_fast.aggregation.standing import StateId
from pppml_fast.site.events import Event, EventKind, Events
from pppml_fast.site.federation_file import FederationFile
from pppml_fast.site.keys import SiteKeys
from pppml_fast.site.lead import Timing
from pppml_fast.site.member import Member
from pppml_fast.site.node import SiteNode
from pppml_fast.site.runtime import Runtime
from pppml_fast.transport.base import Links
from pppml_fast.transport.grpc_links import GrpcLinks

TIMING = Timing(patience=1.5, handshake=5.0, training=20.0, linger=4.0, heartbeat=0.3, retry=0.1)
GRACE_S, KEEPALIVE_S, LINGER_S = 1.0, 2.0, 1.0
DISK_FULL = 3
"""Exit status of a process that could not write to its disk."""
_TOLD = frozenset({EventKind.ABANDONED, EventKind.SPENT, EventKind.ROUND_FINISHED, EventKind.SESSION_OPENED,
                   EventKind.SESSION_FAILED, EventKind.ATTEMPT_BEGAN, EventKind.ROLLED_BACK, EventKind.DRIFT,
                   EventKind.EVIDENCE, EventKind.FAILED, EventKind.DISCARDED, EventKind.CAUGHT_UP,
                   EventKind.STEPPED_BACK, EventKind.REFUSED, EventKind.LINK_DOWN, EventKind.LINK_UP,
                   EventKind.LINK_REFUSED, EventKind.STATE})  # fmt: skip


class Audit:
    """Lines to a pipe: each is whole, and beyond the reach of this process's end and of its disk."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, what: str, **fields: Any) -> None:
        fields = {name: value[:500] if isinstance(value, str) else value for name, value in fields.items()}
        line = json.dumps({"what": what, "at": round(time.time(), 3), **fields}, default=str)
        os.write(self._descriptor, line.encode() + b"\n")  # of up to 4096 bytes: at once or not at all

    def hear(self, event: Event) -> None:
        """An `EventSink`."""
        if event.kind in _TOLD:
            fields = {name: value for name, value in event.fields.items() if name != "costs"}
            self(event.kind.value, **fields)


class AuditedLedger(AttemptLedger):
    """Tells which update goes into which attempt, whose share is released with whom, and what is opened."""

    def __init__(self, store: FileStore, name: str, audit: Audit) -> None:
        super().__init__(store)
        self._name, self._audit = name, audit
        self.salt = 0
        self.opened: AttemptId | None = None
        self.live: list[str] = []

    def begin(self, attempt: AttemptId, update: bytes) -> None:
        super().begin(attempt, update)
        self._audit("contributed", **_about(attempt), salt=self.salt)

    def release(self, attempt: AttemptId, signers: Any = ()) -> list[Outgoing]:
        frames = super().release(attempt, signers)
        self.live = sorted({*signers, self._name})
        self._audit("released", **_about(attempt), live=self.live)
        return frames

    def abandon(self, attempt: AttemptId) -> None:
        super().abandon(attempt)
        self._audit("gave_up", **_about(attempt)) if hasattr(self, "_audit") else None

    def finish(self, attempt: AttemptId) -> None:
        super().finish(attempt)
        self.opened = attempt


class AuditedApplication(LightApplication):
    """Tells of every sum before it goes into the model, and of every model."""

    def __init__(self, name: str, folder: Path, size: int, ledger: AuditedLedger, audit: Audit, faults: Faults) -> None:
        self._ledger, self._audit, self._faults = ledger, audit, faults
        super().__init__(name, folder, size, 1 << 30)
        for state in self.states:
            self.model(state)  # raises where it is damaged
        self.tell()

    def tell(self) -> None:
        newest = self.states[0]
        self._audit("model", round=newest.round, hash=newest.hash.hex(), kept=[s.hash.hex() for s in self.states])

    def commit(self, round: int, mean: Vector) -> StateId:
        opened = self._ledger.opened
        assert opened is not None
        assert opened.round == round
        self._audit("accepted", **_about(opened), live=self._ledger.live, mean=sha256(mean.tobytes()).hexdigest())
        state = super().commit(round, mean)
        self._audit("committed", **_about(opened), hash=state.hash.hex())
        self.tell()
        return state

    def adopt(self, state: StateId, data: bytes) -> None:
        self._audit("changing", round=state.round)
        super().adopt(state, data)
        self.tell()

    def step_back(self, state: StateId) -> None:
        self._audit("changing", round=state.round)
        super().step_back(state)
        self.tell()

    def _write(self, path: Path, data: bytes) -> None:
        self._faults.around_write("MODEL", path, lambda: super(AuditedApplication, self)._write(path, data))


class FaultyStore(FileStore):
    """A journal whose writes can go wrong."""

    faults: Faults | None = None

    def append(self, record: bytes) -> None:
        if self.faults is None:
            super().append(record)
        else:
            self.faults.around_write("JOURNAL", self._path, lambda: super(FaultyStore, self).append(record))


def _about(attempt: AttemptId) -> dict[str, Any]:
    return {"session": attempt.session.hex(), "round": attempt.round, "attempt": attempt.attempt}


class Party:
    """The process: what its configuration says, and the orders it takes."""

    def __init__(self, config: dict[str, Any], audit: Audit) -> None:
        self._config, self._audit = config, audit
        self._faults = Faults(audit, config["seed"])
        self._keys = SiteKeys.load(Path(config["keys"]), need_certificate=True)
        self._federation = FederationFile.load(Path(config["federation"]))
        self._events = Events(time.time, [audit.hear])
        self._application: AuditedApplication | None = None
        self._random = np.random.default_rng(config["seed"])
        self._lies = Lies(audit)
        self._spy = Spy() if "record" in config else None
        relay = self._federation.roster.relay
        self._node = self._coordinator() if relay is not None and relay.name == self._keys.name else self._member()
        links: Links = FaultyLinks(self._links(), self._faults, self._federation.roster.index(self._keys.name))
        self._runtime = Runtime(self._node, links if self._spy is None else self._spy.on(links))

    def run(self) -> None:
        threading.Thread(target=self._obey, daemon=True).start()
        self._audit("started", pid=os.getpid())
        self._runtime.run()
        if self._spy is not None:
            self._spy.save(Path(self._config["record"]), self._keys.name)

    def _coordinator(self) -> SiteNode:
        federation = self._federation
        return LyingCoordinator(
            self._lies, self._keys.identity, federation.roster, federation.layout, Policy(), self._events, self._timing
        )

    def _member(self) -> SiteNode:
        disk, name, federation = Path(self._config["disk"]), self._keys.name, self._federation
        (disk / "spool").mkdir(parents=True, exist_ok=True)
        store = FaultyStore(disk / "journal")
        ledger = AuditedLedger(store, name, self._audit)
        store.faults = self._faults
        size = federation.layout.size
        self._application = AuditedApplication(name, disk / "models", size, ledger, self._audit, self._faults)
        self._application.begin = lambda round_, salt: self._train(ledger, round_, salt)
        return Member(
            self._keys.identity, federation.roster, Policy(), federation.terms, ledger, self._application,
            self._events, self._timing, time.perf_counter, disk / "spool",
        )  # fmt: skip

    def _train(self, ledger: AuditedLedger, round_: int, salt: int) -> None:
        name, size = self._keys.name, self._federation.layout.size
        pause = float(self._random.uniform(0.05, 0.3))

        def hand_in(values: Vector) -> None:
            assert isinstance(self._node, Member)
            ledger.salt = salt
            self._node.ready(round_, salt, values)

        def train() -> None:
            time.sleep(pause)
            values = light_update(name, round_, salt, size)
            self._runtime.post(lambda: hand_in(values))

        threading.Thread(target=train, daemon=True).start()

    def _links(self) -> GrpcLinks:
        config, keys = self._config, self._keys
        return GrpcLinks(
            keys.name, os.urandom(16), self._federation.peers(keys.name),
            key=keys.tls_key, certificate=keys.certificate, authorities=keys.authorities,
            listen=config["listen"], addresses=config["addresses"],
            grace_s=config.get("grace_s", GRACE_S), keepalive_s=config.get("keepalive_s", KEEPALIVE_S),
            linger_s=LINGER_S,
            on_refused=lambda peer, reason: self._events.emit(EventKind.LINK_REFUSED, peer=peer, reason=reason),
        )  # fmt: skip

    @property
    def _timing(self) -> Timing:
        return replace(TIMING, **self._config.get("timing", {}))

    def _obey(self) -> None:
        for line in sys.stdin:
            order = json.loads(line)
            if "arm" in order:
                self._faults.arm(Rule(**order["arm"]))
            elif "calm" in order:
                self._faults.calm()
            elif "finish" in order and self._application is not None:
                self._application.rounds = order["finish"]
            elif "lie" in order:
                self._lies.now = order["lie"]
            elif "stop" in order:
                self._runtime.stop()
        os._exit(4)


def main() -> int:
    audit = Audit(sys.stdout.fileno())
    config = json.loads(Path(sys.argv[1]).read_text())
    if "files" in config:
        resource.setrlimit(resource.RLIMIT_NOFILE, (config["files"], config["files"]))
    try:
        party = Party(config, audit)
        party.run()
    except OSError as error:
        audit("died", error=repr(error))
        return DISK_FULL
    except BaseException as error:
        audit("died", error=repr(error))
        raise
    audit("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What goes wrong in a round, drawn from a seed; where it goes wrong in the processes is `faulty_links`."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from faulty_links import MUTATIONS, Rule
from light_party import DISK_FULL
from proxy import Proxy
from real_federation import RELAY, Backups, Process, RealFederation

__all__ = ["Injector"]

KINDS = {
    "DEAL": 4, "CHUNK": 26, "RETURN": 26, "STATEMENT": 4, "SHARE": 4, "MODEL_HASH": 4, "TAG": 3, "STATUS": 12,
    "PLAN": 2,
}  # fmt: skip
"""Message types of a round, and how many of each it may see: the fault strikes at one of the first so many."""
OPENING_KINDS = {
    "ROSTER": 2, "HELLO": 3, "ENCAPSULATION": 3, "READY": 3, "ABANDON": 1, "STATE_REQUEST": 1, "STATE": 1,
}  # fmt: skip
"""Those of a session's opening, and of what led to it: another node is started anew so that there is one."""
WEIGHTS = {
    "kill": 6, "kill_write": 3, "stop": 3, "delay": 2, "duplicate": 2, "reorder": 2, "truncate": 2, "flip": 2,
    "replay": 2, "cut": 2, "cut_stream": 3, "partition": 3, "isolate": 2, "disk_full": 3, "rollback": 3, "restart": 2,
    "power_cut": 1,
}  # fmt: skip
_RETURNS = (0.0, 0.0, 0.3, 1.0, 2.5, 4.0)
"""Seconds until a dead process is started again: some below the others' patience, some above."""


class Injector:
    """Draws and commits faults; `poll` starts what died and wakes what was stopped, `heal` ends all of it."""

    def __init__(self, federation: RealFederation, seed: int) -> None:
        self.federation, self.seed = federation, seed
        self.random = random.Random(seed)  # of the plan of a step
        self._chance = random.Random(seed)  # of what depends on when things happen
        self._step = 0
        self.counts: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self._backups = Backups()
        self._old_disks: dict[str, Path] = {}
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._dead: set[str] = set()
        self._seen: Counter[str] = Counter()
        self.armed: list[str] = []

    def strike(self) -> list[str]:
        """Draw one to three faults, and let them happen or wait for their message. Their descriptions."""
        self._step += 1
        self.random = random.Random(f"{self.seed}/{self._step}")
        for node in self.federation.nodes.values():
            if node.name != RELAY and self.random.random() < 0.3:
                self._backups.take(node)
        many = self.random.choices((1, 2, 3), (6, 3, 1))[0]
        kinds = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=many)
        self.armed = [getattr(self, f"_{kind}", lambda kind=kind: self._mutate(kind))() for kind in kinds]
        return self.armed

    def poll(self) -> None:
        """Notice what happened in the processes, and do what is due."""
        for name, node in self.federation.nodes.items():
            for line in node.faults[self._seen[name] :]:
                self._seen[name] += 1
                self.counts[line["kind"]] += 1
                if line["kind"] == "stop":
                    self._later(line["seconds"], lambda node=node: node.signal(signal.SIGCONT))
                elif line["kind"] == "disk_full":
                    self._later(self._chance.uniform(0.5, 3), node.room_on_disk)
            if not node.alive and name not in self._dead:
                self._bury(node)
        now = time.monotonic()
        for entry in [entry for entry in self._due if entry[0] <= now]:
            self._due.remove(entry)
            entry[1]()

    def heal(self) -> None:
        """Nothing more goes wrong, everything works again."""
        for proxy in self.federation.proxies.values():
            proxy.refuse(False)
        for node in self.federation.nodes.values():
            node.order(calm=1)
            node.signal(signal.SIGCONT)
            node.room_on_disk()
        self.poll()
        self._old_disks.clear()
        due, self._due = self._due, []
        for _, action in due:
            action()
        self.poll()

    @property
    def quiet(self) -> bool:
        """Whether every process runs, and nothing is due."""
        return not self._due and not self._dead

    # --- deaths -------------------------------------------------------------------------------------------

    def _bury(self, node: Process) -> None:
        node.reap()
        if not _explained(node):
            self.unexpected.append(f"{node.name} ended by itself with status {node.status}: {node.lines[-1:]}")
        self._dead.add(node.name)
        copy = self._old_disks.pop(node.name, None)
        if copy is not None:
            self.counts["rollback"] += 1
            Backups.restore(node, copy)
        self._later(self._chance.choice(_RETURNS), lambda: self._start(node))

    def _start(self, node: Process) -> None:
        if node.name in self._dead:
            self._dead.discard(node.name)
            self.counts["start"] += 1
            node.start()

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, action))

    # --- faults -------------------------------------------------------------------------------------------

    def _node(self, relay: bool = True) -> Process:
        names = self.federation.everyone if relay else self.federation.names
        return self.federation.nodes[self.random.choice(names)]

    def _at(self, node: Process, action: str, seconds: float = 0.0, where: str = "", limit: int = 0) -> str:
        kinds = OPENING_KINDS if self.random.random() < 0.25 else KINDS
        kind = self.random.choice([kind for kind in kinds if kind != "TAG" or self.federation.topology == "star"])
        where = where or self.random.choice(("send", "send", "receive"))
        rule = Rule(action, kind, where, self.random.randint(1, kinds[kind]), round(seconds, 2), limit)
        node.arm(rule)
        if kinds is OPENING_KINDS:
            others = [other for name, other in self.federation.nodes.items() if name != node.name]
            self.random.choice(others).signal(signal.SIGKILL)
            self.counts["kill"] += 1
        return f"{action} {node.name} at {where} {rule.count} of {kind} {rule.seconds:g}s {limit}"

    def _kill(self) -> str:
        return self._at(self._node(), self.random.choice(("kill_before", "kill_after")))

    def _kill_write(self) -> str:
        node, kind = self._node(relay=False), self.random.choice(("JOURNAL", "MODEL"))
        rule = Rule(self.random.choice(("kill_before", "kill_after")), kind, "write", self.random.randint(1, 6))
        node.arm(rule)
        return f"{rule.action} {node.name} at write {rule.count} of {kind}"

    def _disk_full(self) -> str:
        node, kind = self._node(relay=False), self.random.choice(("JOURNAL", "MODEL", ""))
        if not kind:
            limit = self.random.choice((0, 1000, 100_000))
            return self._at(node, "disk_full", limit=limit)
        rule = Rule("disk_full", kind, "write", self.random.randint(1, 6), limit=self.random.choice((0, 100, 300_000)))
        node.arm(rule)
        return f"disk_full {node.name} at write {rule.count} of {kind}, {rule.limit} bytes left"

    def _stop(self) -> str:
        return self._at(self._node(), "stop", self.random.choice((0.2, 1.0, 3.0, 7.0)))

    def _mutate(self, kind: str) -> str:
        assert kind in MUTATIONS
        return self._at(self._node(), kind, self.random.choice((0.1, 0.5, 2.0, 4.0)), "send")

    def _cut(self) -> str:
        pair, proxy = self.random.choice(sorted(self.federation.proxies.items(), key=lambda item: sorted(item[0])))
        self.counts["cut"] += 1
        proxy.cut()
        return f"cut {sorted(pair)}"

    def _cut_stream(self) -> str:
        pair, proxy = self.random.choice(sorted(self.federation.proxies.items(), key=lambda item: sorted(item[0])))
        count = self.random.randint(1, 1_500_000)
        self.counts["cut_stream"] += 1
        proxy.cut_after(count)
        return f"cut {sorted(pair)} after {count} bytes"

    def _partition(self) -> str:
        pair, proxy = self.random.choice(sorted(self.federation.proxies.items(), key=lambda item: sorted(item[0])))
        seconds = self.random.choice((0.3, 1.5, 4.0))
        self.counts["partition"] += 1
        self._later(self.random.uniform(0, 1), lambda: self._refuse([proxy], seconds))
        return f"partition {sorted(pair)} {seconds} s"

    def _isolate(self) -> str:
        node, seconds = self._node(), self.random.choice((0.3, 1.5, 4.0))
        proxies = [proxy for pair, proxy in self.federation.proxies.items() if node.name in pair]
        self.counts["isolate"] += 1
        self._later(self.random.uniform(0, 1), lambda: self._refuse(proxies, seconds))
        return f"isolate {node.name} {seconds} s"

    def _refuse(self, proxies: list[Proxy], seconds: float) -> None:
        for proxy in proxies:
            proxy.refuse()
        self._later(seconds, lambda: [proxy.refuse(False) for proxy in proxies])

    def _rollback(self) -> str:
        node = self._node(relay=False)
        copy = self._backups.any_of(node, self.random)
        if copy is None:
            self._backups.take(node)
            copy = self._backups.any_of(node, self.random)
            assert copy is not None
        self._old_disks[node.name] = copy
        if self.random.random() < 0.5:
            return f"{self._at(node, 'kill_before')}, then {copy.name}"
        node.signal(signal.SIGKILL)
        self.counts["kill"] += 1
        return f"kill {node.name}, then {copy.name}"

    def _restart(self) -> str:
        node = self._node()
        self.counts["restart"] += 1
        node.order(stop=1)
        return f"restart {node.name}"

    def _power_cut(self) -> str:
        self.counts["power_cut"] += 1
        for node in self.federation.nodes.values():
            node.signal(signal.SIGKILL)
        return "kill everyone"


def _explained(node: Process) -> bool:
    """Whether a process ended as it was made to."""
    if node.status == DISK_FULL:
        return any(line["kind"] == "disk_full" for line in node.faults[node.faults_before :])
    return node.status in (-signal.SIGKILL, 0)

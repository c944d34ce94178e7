"""A federation of members and, in a star, a coordinator, under a virtual clock: real bytes, links that fail, nodes that
crash and come back with the disk they had, or an older one. Deterministic in its seed, keys and randomness aside."""

from __future__ import annotations

import copy
import random
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from light_site import LightApplication, Vector, light_update

from pppml_fast import CkksParams, Layout, quantize
from pppml_fast.aggregation import (
    AttemptLedger,
    Identity,
    MemoryStore,
    Policy,
    Roster,
    SessionOptions,
    Terms,
)
from pppml_fast.aggregation import Member as RosterMember
from pppml_fast.aggregation.messages import MessageType, parse_header
from pppml_fast.quantize import dequantize
from pppml_fast.site.coordinator import Coordinator
from pppml_fast.site.events import Event, EventKind, Events
from pppml_fast.site.lead import Timing
from pppml_fast.site.member import Member
from pppml_fast.site.node import SiteNode

RELAY = "relay"
SIZE = 6000
Tamper = Callable[[str, str, bytes], list[bytes]]


@dataclass(frozen=True)
class Accepted:
    """A sum as one member accepted it."""

    member: str
    session: str
    round: int
    attempt: int
    live: tuple[str, ...]
    transcript: str
    mean: bytes


class Simulation:
    """``parties`` members that train ``rounds`` rounds; drive it with `run`, and break it with the other methods."""

    TIMING = Timing(patience=4.0, handshake=4.0, linger=12.0, heartbeat=1.0, retry=0.25)

    def __init__(
        self,
        folder: Path,
        parties: int = 3,
        topology: str = "ring",
        rounds: int = 3,
        seed: int = 0,
        policy: Policy | None = None,
    ) -> None:
        self.folder, self.rounds, self.random = folder, rounds, random.Random(seed)
        self.policy = policy or Policy()
        self.names = tuple(f"site{index}" for index in range(parties))
        self.identities = {name: Identity.generate(name) for name in (*self.names, RELAY)}
        self.params = CkksParams.preset("p31", parties=parties, clip=1.0, keys="collective", weights="public")
        sums = CkksParams.preset("p31", parties=parties, clip=1.0, keys="collective", weights="free").to_dict()
        self.layout = Layout.from_arrays({"w": np.zeros(SIZE, np.float32)})
        options = SessionOptions(topology=topology, chunk_blocks=1)
        members = tuple(RosterMember(n, self.identities[n].public.hex(), 1 / parties) for n in self.names)
        relay = RosterMember(RELAY, self.identities[RELAY].public.hex()) if topology == "star" else None
        fingerprint = self.layout.fingerprint.hex()
        self.roster = Roster(members, self.params.to_dict(), sums, fingerprint, options, relay)
        self.terms = Terms(self.params.to_dict(), sums, self.layout, options)
        self.stores = {name: MemoryStore() for name in self.names}
        self.nodes: dict[str, SiteNode] = {}
        self.applications: dict[str, LightApplication] = {}
        self.events: list[tuple[str, Event]] = []
        self.accepted: list[Accepted] = []
        self.contributed: dict[tuple[str, str, int, int], int] = {}
        self.shares: dict[tuple[Any, ...], set[bytes]] = {}
        self.now = 0.0
        self.tamper: Tamper | None = None
        self.training = (0.2, 1.5)
        self._cut: set[frozenset[str]] = set()
        self._queues: dict[tuple[str, str], deque[bytes]] = {}
        self._due: list[tuple[float, str, int, int, SiteNode]] = []
        for name in (*self.names, *([RELAY] if relay else [])):
            self.start(name)

    # --- faults -------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a node from its disk."""
        events = Events(lambda: self.now, [lambda event: self._hear(name, event)])
        policy = self.policy
        if name == RELAY:
            node: SiteNode = Coordinator(self.identities[name], self.roster, self.layout, policy, events, self.TIMING)
        else:
            application = LightApplication(name, self._disk(name), SIZE, self.rounds, sync=False)
            ledger = AttemptLedger(self.stores[name])
            node = Member(
                self.identities[name], self.roster, policy, self.terms, ledger, application, events, self.TIMING
            )
            application.begin = lambda round_, salt: self._train(name, round_, salt)
            self.applications[name] = application
        self.nodes[name] = node
        for other in list(self.nodes):
            self._link(name, other)

    def crash(self, name: str) -> None:
        """A node is gone, with all that it had in memory and on the way."""
        del self.nodes[name]
        for other in self.nodes:
            self._unlink(name, other)

    def cut(self, one: str, other: str) -> None:
        """The link between two nodes breaks."""
        if frozenset((one, other)) not in self._cut:
            self._cut.add(frozenset((one, other)))
            self._unlink(one, other)

    def mend(self) -> None:
        """All links work again, all nodes run."""
        cut, self._cut = self._cut, set()
        for pair in sorted(tuple(sorted(pair)) for pair in cut):
            self._link(*pair)
        for name in (*self.names, *([RELAY] if self.roster.relay else [])):
            if name not in self.nodes:
                self.start(name)

    def backup(self, name: str) -> tuple[list[bytes], Path]:
        """A copy of a member's disk."""
        copied = self.folder / f"{name}-backup-{self.random.random()}"
        shutil.copytree(self._disk(name), copied)
        return copy.copy(self.stores[name].records()), copied

    def restore(self, name: str, backup: tuple[list[bytes], Path]) -> None:
        """Put an older disk in place of a crashed member's."""
        key = self.stores[name].key
        self.stores[name] = MemoryStore()
        self.stores[name].key = key
        self.stores[name].replace(backup[0])
        shutil.rmtree(self._disk(name))
        shutil.copytree(backup[1], self._disk(name))

    # --- time ---------------------------------------------------------------------------------------------

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass, message by message; whether ``until`` came true."""
        end = self.now + seconds
        while self.now < end:
            if until():
                return True
            if not self._step():
                self.now += 0.125
                for name in list(self.nodes):
                    self._drive(name, lambda node: None)
        return until()

    def finished(self) -> bool:
        """Whether every node has ended."""
        return all(node.ended for node in self.nodes.values())

    def kinds(self, kind: EventKind, name: str = "") -> list[Event]:
        """Events of a kind, of one node or all."""
        return [event for who, event in self.events if event.kind is kind and name in ("", who)]

    # --- what must hold -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert every invariant of protocol.md that can be seen from outside."""
        by_attempt: dict[tuple[str, int, int], set[tuple[tuple[str, ...], str, bytes]]] = {}
        opened: dict[tuple[str, int, int], set[tuple[str, int]]] = {}
        for sum_ in self.accepted:
            where = (sum_.session, sum_.round, sum_.attempt)
            by_attempt.setdefault(where, set()).add((sum_.live, sum_.transcript, sum_.mean))
            salts = {name: self.contributed[(name, *where)] for name in sum_.live}
            assert sum_.mean == self.expected(sum_.round, salts).tobytes(), f"a wrong sum: {where}"
            for name, salt in salts.items():
                opened.setdefault((name, sum_.round, salt), set()).add((sum_.session, sum_.attempt))
        assert all(len(sums) == 1 for sums in by_attempt.values()), "two sums of one attempt"
        assert all(len(where) == 1 for where in opened.values()), "one update in two live sets"
        assert all(len(data) == 1 for data in self.shares.values()), "two shares of one attempt"

    def expected(self, round_: int, salts: dict[str, int]) -> Vector:
        """The weighted mean of a live set, computed openly."""
        total = np.zeros(SIZE, np.int64)
        for name, salt in salts.items():
            total += quantize(self.params, light_update(name, round_, salt, SIZE), self.roster.weights[name])
        if len(salts) == len(self.names):
            return np.asarray(dequantize(self.params, total), np.float32)
        divisor = sum(self.roster.weights[name] for name in salts)
        return (np.asarray(dequantize(self.params, total, np.float64)) / divisor).astype(np.float32)

    # --- inside -------------------------------------------------------------------------------------------

    def _disk(self, name: str) -> Path:
        return self.folder / name

    def _neighbours(self, name: str, other: str) -> bool:
        return other != name and (self.roster.relay is None or RELAY in (name, other))

    def _link(self, name: str, other: str) -> None:
        if not self._neighbours(name, other) or frozenset((name, other)) in self._cut:
            return
        if name in self.nodes and other in self.nodes:
            for one, two in ((name, other), (other, name)):
                self._queues[(one, two)] = deque()
            for one, two in ((name, other), (other, name)):
                self._drive(one, lambda node, two=two: node.up(two))

    def _unlink(self, name: str, other: str) -> None:
        for one, two in ((name, other), (other, name)):
            if self._queues.pop((one, two), None) is not None and one in self.nodes:
                self._drive(one, lambda node, two=two: node.down(two))

    def _drive(self, name: str, action: Callable[[Any], None]) -> None:
        node = self.nodes[name]
        node.tick(self.now)
        action(node)
        node.tick(self.now)
        self._collect(name)
        while node.do_deferred():
            node.tick(self.now)
            self._collect(name)

    def _collect(self, name: str) -> None:
        node = self.nodes.get(name)
        if node is None:
            return
        for message in node.outgoing():
            self._send(name, message.hop, message.data)
        for sender, hop in list(self._queues):
            while sender == name and len(self._queues[(sender, hop)]) < 4:
                bulk = node.pull(hop)
                if bulk is None:
                    break
                self._send(name, bulk.hop, bulk.data)

    def _send(self, sender: str, hop: str, data: bytes) -> None:
        header, _ = parse_header(data)
        if header.type is MessageType.SHARE and sender != RELAY:
            key = (header.session, header.round, header.attempt, header.sender, header.receiver)
            self.shares.setdefault(key, set()).add(data)
        if (sender, hop) in self._queues:
            self._queues[(sender, hop)].append(data)

    def _step(self) -> bool:
        """Deliver one message of a link chosen at random, or a finished training; False when there is nothing."""
        for entry in [entry for entry in self._due if entry[0] <= self.now]:
            self._due.remove(entry)
            _, name, round_, salt, node = entry
            if self.nodes.get(name) is node:
                self._contribute(name, round_, salt)
            return True
        busy = [pair for pair, queue in self._queues.items() if queue]
        if not busy:
            return False
        sender, hop = self.random.choice(busy)
        data = self._queues[(sender, hop)].popleft()
        arriving = [data] if self.tamper is None else self.tamper(sender, hop, data)
        for item in arriving:
            if hop in self.nodes:
                self._drive(hop, lambda node, item=item: node.receive(sender, item))
        self._collect(sender)
        return True

    def _train(self, name: str, round_: int, salt: int) -> None:
        delay = self.random.uniform(*self.training)
        self._due.append((self.now + delay, name, round_, salt, self.nodes[name]))

    def _contribute(self, name: str, round_: int, salt: int) -> None:
        node = self.nodes[name]
        assert isinstance(node, Member)
        machine = node._machine
        if machine is not None and machine._attempt is not None:
            id_ = machine._attempt.id
            if id_.round == round_ and not node._contributed and node._draws.is_current(round_, salt):
                self.contributed[(name, id_.session.hex(), id_.round, id_.attempt)] = salt
        update = light_update(name, round_, salt, SIZE)
        self._drive(name, lambda node: node.ready(round_, salt, update))

    def _hear(self, name: str, event: Event) -> None:
        self.events.append((name, event))
        if event.kind is EventKind.ROUND_FINISHED:
            node = self.nodes[name]
            assert isinstance(node, Member)
            machine = node._machine
            assert machine is not None
            assert machine.outcome is not None
            fields = event.fields
            self.accepted.append(
                Accepted(
                    name,
                    fields["session"],
                    fields["round"],
                    fields["attempt"],
                    tuple(fields["members"]),
                    fields["transcript"],
                    machine.outcome.mean.tobytes(),
                )
            )


class Chaos:
    """Breaks a simulation at random messages: crashes, cut links, disks rolled back, and returns."""

    def __init__(self, sim: Simulation, seed: int, rate: float = 0.02, rollback: bool = True) -> None:
        self.sim, self.rate, self.rollback = sim, rate, rollback
        self.random = random.Random(seed)
        self.counts: dict[str, int] = {}
        self._backups: dict[str, tuple[list[bytes], Path]] = {}
        self._wanted: list[tuple[float, Callable[[], None]]] = []
        sim.tamper = self._see

    def run(self, seconds: float) -> None:
        """Let time pass with faults; then nothing more is broken and everything works again."""
        end = self.sim.now + seconds
        while self.sim.now < end and not self.sim.finished():
            self.sim.run(0.25, lambda: bool(self._due()))
            for action in self._due():
                self._wanted = [entry for entry in self._wanted if entry[1] is not action]
                action()
        self.sim.tamper = None
        self._wanted.clear()
        self.sim.mend()

    def _due(self) -> list[Callable[[], None]]:
        return [action for at, action in self._wanted if at <= self.sim.now]

    def _see(self, sender: str, hop: str, data: bytes) -> list[bytes]:
        if self.random.random() < self.rate:
            self._wanted.append((self.sim.now, self.random.choice(self._choices())))
        return [data]

    def _choices(self) -> list[Callable[[], None]]:
        sim, name = self.sim, self.random.choice(sorted(self.sim.nodes))
        other = self.random.choice([n for n in (*sim.names, RELAY) if n != name])
        choices = [lambda: self._crash(name), lambda: self._cut(name, other)]
        if self.rollback and name != RELAY:
            choices += [lambda: self._backup(name), lambda: self._roll_back(name)]
        return choices

    def _count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def _later(self, action: Callable[[], None]) -> None:
        self._wanted.append((self.sim.now + self.random.uniform(0, 6), action))

    def _crash(self, name: str) -> None:
        if name in self.sim.nodes and not self.sim.nodes[name].ended:
            self._count("crash")
            self.sim.crash(name)
            self._later(lambda: None if name in self.sim.nodes else self.sim.start(name))

    def _cut(self, name: str, other: str) -> None:
        if (name, other) in self.sim._queues:
            self._count("cut")
            self.sim.cut(name, other)
            self._later(lambda: self._join(name, other))

    def _join(self, name: str, other: str) -> None:
        pair = frozenset((name, other))
        if pair in self.sim._cut:
            self.sim._cut.discard(pair)
            self.sim._link(name, other)

    def _backup(self, name: str) -> None:
        if name in self.sim.names:
            self._backups[name] = self.sim.backup(name)

    def _roll_back(self, name: str) -> None:
        if name in self.sim.nodes and name in self._backups and not self.sim.nodes[name].ended:
            self._count("rollback")
            self.sim.crash(name)
            self.sim.restore(name, self._backups[name])
            self._later(lambda: None if name in self.sim.nodes else self.sim.start(name))

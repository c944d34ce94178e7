"""A federation of real processes on loopback: keys, disks, a TCP proxy for every pair, and what everyone told."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from fault_checks import Checks
from faulty_links import Rule
from proxy import Proxy

from pppml_fast import CkksParams, Layout
from pppml_fast.aggregation import Roster, SessionOptions
from pppml_fast.site.authority import TrialAuthority
from pppml_fast.site.federation_file import FederationFile
from pppml_fast.site.keys import SiteKeys

__all__ = ["RELAY", "Backups", "Process", "RealFederation"]

RELAY = "relay"
_PROGRAM = Path(__file__).with_name("light_party.py")
_PORTS = range(18000, 32000)
_ports = itertools.islice(itertools.cycle(_PORTS), random.SystemRandom().choice(_PORTS), None)
_port_lock = threading.Lock()


def _free_port() -> int:
    """A port that nothing listens on and no outgoing connection is given."""
    with _port_lock:
        for port in _ports:
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise AssertionError("the ports go round")


class Process:
    """A node's process, started again and again on one disk; ``lines`` is all that it told, over all its lives."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any]) -> None:
        self.name, self.folder, self.config = name, folder, config
        self.disk = folder / "disk"
        self.lines: list[dict[str, Any]] = []
        self.round = 0
        self.models: list[str] = []
        self.faults: list[dict[str, Any]] = []
        self.starts = 0
        self.lost: list[str] = []
        self.rolled_back = False
        self._changing: int | None = None  # rounds of the model that is about to take the place of the one told last
        self._returned = False
        self.faults_before = 0
        self.stopped = False
        self.ended = False
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._audit = open(folder / "audit.jsonl", "ab", buffering=0)  # noqa: SIM115

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def heard_out(self) -> bool:
        """Whether the process has ended and all that it told was read."""
        return not self.alive and (self._reader is None or not self._reader.is_alive())

    @property
    def status(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        assert not self.alive
        self.starts += 1
        self.stopped = self.ended = False
        self._returned = False
        self.faults_before = len(self.faults)
        path = self.folder / "config.json"
        path.write_text(json.dumps({**self.config, "seed": self.config["seed"] + self.starts}))
        with open(self.folder / "errors.txt", "ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PPPML_STRICT_EVENTS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def order(self, **order: Any) -> None:
        """Tell the process something, if it can hear it."""
        if self.alive and self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(json.dumps(order).encode() + b"\n")
                self._process.stdin.flush()

    def arm(self, rule: Rule) -> None:
        self.order(arm=asdict(rule))

    def signal(self, number: int) -> None:
        if self.alive:
            self.stopped = number == signal.SIGSTOP
            os.kill(self.pid, number)

    def room_on_disk(self) -> None:
        """The disk is not full any more."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def reap(self, timeout: float = 10.0) -> bool:
        """Wait for the end and for everything the process told; False when it does not end."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        if self._reader is not None:
            self._reader.join(timeout)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        return True

    def close(self) -> None:
        if self.alive and self._process is not None:
            self._process.kill()
        self.reap()
        self._audit.close()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for data in process.stdout:
            self._audit.write(data)
            line = json.loads(data)
            if line["what"] == "model":
                self._take_model(int(line["round"]), list(line["kept"]))
            elif line["what"] == "changing":
                self._changing = int(line["round"])
            elif line["what"] == "fault":
                self.faults.append(line)
                self.stopped = line["kind"] == "stop"
            elif line["what"] == "ended":
                self.ended = True
            self.lines.append(line)
        process.stdout.close()

    def _take_model(self, round_: int, kept: list[str]) -> None:
        """A party comes back with the model it had, or the one it was about to write, unless its disk is older."""
        known = not self.models or round_ > self.round or round_ == self._changing
        expected = self.rolled_back or self._returned or known
        if not expected and (round_, kept[0]) != (self.round, self.models[0]):
            self.lost.append(f"{self.name} comes back with the model of {round_} rounds; it had one of {self.round}")
        self._returned, self.rolled_back, self._changing = True, False, None
        self.round, self.models = round_, kept


class RealFederation:
    """``parties`` members, in a star a coordinator, one proxy per pair, and the rules they are held to."""

    def __init__(self, folder: Path, parties: int, topology: str, size: int, seed: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.topology, self.seed = folder, topology, seed
        self.names = tuple(f"site{index}" for index in range(parties))
        self.everyone = (*self.names, RELAY) if topology == "star" else self.names
        self.authority = TrialAuthority.create(folder / "authority")
        self.keys = self._make_keys()
        self.federation = self._make_file(size)
        self.proxies: dict[frozenset[str], Proxy] = {}
        self.nodes = {name: self._make_node(name) for name in self.everyone}
        self._link_all()
        self.checks = Checks(self.federation.params, self.federation.roster.weights, size)
        self._taken = dict.fromkeys(self.everyone, 0)

    @property
    def members(self) -> list[Process]:
        return [self.nodes[name] for name in self.names]

    def start(self) -> None:
        for proxy in self.proxies.values():
            proxy.start()
        for node in self.nodes.values():
            node.start()

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()
        for proxy in self.proxies.values():
            proxy.stop()

    def judge(self) -> None:
        """Let the checks take what was told since: first what went into sums, then what came out.

        While processes run, one's lines may have been read and those of another that led to them not.
        """
        over = all(node.heard_out for node in self.nodes.values())
        fresh = []
        for name, node in self.nodes.items():
            upto = len(node.lines)
            fresh += [(name, line) for line in node.lines[self._taken[name] : upto]]
            self._taken[name] = upto
        order = {"contributed": 0, "attempt_began": 1}
        for name, line in sorted(fresh, key=lambda pair: order.get(pair[1]["what"], 2)):
            if name != RELAY:
                self.checks.take(name, line)
        if over:
            self.checks.settle()

    def _make_keys(self) -> dict[str, SiteKeys]:
        authority = self.authority
        keys = {}
        self.ports = {name: _free_port() for name in self.everyone}
        for name in self.everyone:
            made = SiteKeys.create(self.folder / name / "keys", name, f"127.0.0.1:{self.ports[name]}")
            keys[name] = SiteKeys.install(made.folder, authority.issue(made.request), authority.certificate)
        return keys

    def _make_file(self, size: int) -> FederationFile:
        parties = len(self.names)
        params = CkksParams.preset("p31", parties=parties, clip=1.0, keys="collective", weights="public")
        sums = CkksParams.preset("p31", parties=parties, clip=1.0, keys="collective", weights="free")
        layout = Layout.from_arrays({"w": np.zeros(size, np.float32)})
        members = tuple(self.keys[name].card.member for name in self.names)
        members = tuple(type(member)(member.name, member.identity, 1 / parties) for member in members)
        roster = Roster(
            members,
            params.to_dict(),
            sums.to_dict(),
            layout.fingerprint.hex(),
            SessionOptions(topology=self.topology, chunk_blocks=4),
            self.keys[RELAY].card.member if self.topology == "star" else None,
        )
        listening = (RELAY,) if self.topology == "star" else self.names
        federation = FederationFile(roster, layout, {name: f"127.0.0.1:{self.ports[name]}" for name in listening})
        for keys in self.keys.values():
            federation = federation.signed_by(keys.identity)
        federation.save(self.folder / "federation.json")
        return federation

    def _make_node(self, name: str) -> Process:
        listens = self.topology == "ring" or name == RELAY
        config = {
            "keys": str(self.folder / name / "keys"),
            "federation": str(self.folder / "federation.json"),
            "disk": str(self.folder / name / "disk"),
            "listen": f"127.0.0.1:{self.ports[name]}" if listens else None,
            "addresses": {},
            "seed": self.seed * 1000 + self.everyone.index(name) * 100_000_007,
        }
        return Process(name, self.folder / name, config)

    def _link_all(self) -> None:
        """Whoever dials a peer reaches it through the pair's proxy."""
        if self.topology == "star":
            pairs = [(name, RELAY) for name in self.names]
        else:
            pairs = [(later, name) for name in self.names for later in self.names if later > name]
        for dialling, listening in pairs:
            proxy = Proxy(("127.0.0.1", self.ports[listening]), ("127.0.0.1", _free_port()))
            self.proxies[frozenset((dialling, listening))] = proxy
            self.nodes[dialling].config["addresses"][listening] = f"127.0.0.1:{proxy.port}"
        if self.topology == "ring":
            for name in self.names:  # an address that is known, and not dialled
                others = {other: f"127.0.0.1:{self.ports[other]}" for other in self.names if other != name}
                self.nodes[name].config["addresses"] = {**others, **self.nodes[name].config["addresses"]}


def _await_stop(pid: int) -> None:
    """Return once no thread of a process that was sent SIGSTOP does anything, not even end a write it had begun."""
    while True:
        with contextlib.suppress(OSError):  # a thread ended while it was looked at
            stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
            if all(stat.rpartition(")")[2].split()[0] in "TtZX" for stat in stats):
                return
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.002)


class Backups:
    """Older copies of disks. A running process is stopped while its disk is copied, as a snapshot would."""

    def __init__(self, keep: int = 3) -> None:
        self._keep = keep
        self._copies: dict[str, list[tuple[int, Path]]] = {}

    def take(self, node: Process) -> None:
        running = node.alive and not node.stopped
        if running:
            os.kill(node.pid, signal.SIGSTOP)
            _await_stop(node.pid)
        copies = self._copies.setdefault(node.name, [])
        target = node.folder / f"backup-{len(copies)}-{time.monotonic_ns()}"
        shutil.copytree(node.disk, target)
        if running:
            os.kill(node.pid, signal.SIGCONT)
        copies.append((node.round, target))
        if len(copies) > self._keep:
            shutil.rmtree(copies.pop(0)[1])

    def any_of(self, node: Process, draw: random.Random) -> Path | None:
        copies = self._copies.get(node.name, [])
        return draw.choice(copies)[1] if copies else None

    @staticmethod
    def restore(node: Process, copy: Path) -> None:
        """Put an older disk in place of a dead process's."""
        shutil.rmtree(node.disk)
        shutil.copytree(copy, node.disk)
        node.rolled_back = True

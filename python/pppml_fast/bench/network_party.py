"""One party of a network benchmark, in a process of its own: `python -m pppml_fast.bench.network_party SPEC`.

It is a site's process as it is in earnest: `Member`, `Runtime` and `GrpcLinks` with TLS, a journal that is synced, a
spool file, and the mean written over the update. In place of training it fills its vector and waits for a line on
standard input: a round is what happens from there until the mean is here. A line of JSON per round on standard output
tells what it took.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast import CkksParams, dequantize, quantize, set_num_threads
from pppml_fast.aggregation.attempts import AttemptLedger
from pppml_fast.aggregation.base import Policy
from pppml_fast.aggregation.journal import FileStore
from pppml_fast.aggregation.plain import FloatParty
from pppml_fast.aggregation.roster import Roster, Terms
from pppml_fast.aggregation.standing import StateId
from pppml_fast.bench.network_split import Split
from pppml_fast.errors import DataError
from pppml_fast.layout import Layout, TensorSpec
from pppml_fast.site.events import Event, EventKind, Events
from pppml_fast.site.keys import SiteKeys
from pppml_fast.site.lead import Timing
from pppml_fast.site.member import Member
from pppml_fast.site.runtime import Runtime
from pppml_fast.transport.grpc_links import GrpcLinks

__all__ = ["Spec", "expected_mean", "layout_of", "run", "tile_of"]

_TILE = 1 << 17
_TROUBLE = frozenset(
    {
        EventKind.REFUSED,
        EventKind.ABANDONED,
        EventKind.DISCARDED,
        EventKind.FAILED,
        EventKind.LINK_REFUSED,
        EventKind.SESSION_FAILED,
    }
)


@dataclass(frozen=True)
class Spec:
    """What a party is told. ``encrypted`` False: the same ring with plain float32 bytes; ``threads``: native ones."""

    name: str
    folder: str
    roster: str
    addresses: Mapping[str, str]
    weights: int
    rounds: int
    encrypted: bool
    device: str
    threads: int

    def write(self, path: Path) -> None:
        """To a file that `read` takes."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Spec:
        """The spec in a file."""
        return cls(**json.loads(path.read_text()))


def layout_of(weights: int) -> Layout:
    """The model's layout: one tensor."""
    return Layout((TensorSpec("weights", (weights,), "float32"),))


def tile_of(party: str, round_: int, weights: int) -> NDArray[np.float32]:
    """What a party's vector of a round repeats: known to all, so that every number of the mean can be checked."""
    seed = int.from_bytes(hashlib.sha256(f"{party} {round_}".encode()).digest()[:8], "little")
    return np.random.default_rng(seed).uniform(-1, 1, min(_TILE, weights)).astype(np.float32)


def expected_mean(roster: Roster, round_: int, weights: int, encrypted: bool) -> NDArray[np.float32]:
    """The tile that the mean repeats, to the last bit."""
    tiles = [(tile_of(member.name, round_, weights), member.weight) for member in roster.members]
    if encrypted:
        params = CkksParams.from_dict(dict(roster.parameters))
        integers = np.sum([quantize(params, tile, weight) for tile, weight in tiles], axis=0)
        return np.asarray(dequantize(params, integers), np.float32)
    mean = np.zeros(min(_TILE, weights), np.float32)
    for tile, weight in tiles:
        mean = tile * np.float32(weight) + mean
    return mean


class _Vector:
    """`Application` whose update is a tile again and again; it holds no model but the count of its rounds."""

    def __init__(self, spec: Spec, roster: Roster, split: Split) -> None:
        self._spec, self._roster, self._split = spec, roster, split
        self._values = np.empty(spec.weights, np.float32)
        self._states = [StateId(0, hashlib.sha256(b"round 0").digest())]
        self._began: dict[str, Any] = {}
        self.hand_in: Callable[[int, int, NDArray[np.float32]], None] = lambda round_, salt, values: None

    @property
    def states(self) -> tuple[StateId, ...]:
        return tuple(self._states)

    def train(self, round: int, salt: int) -> None:
        threading.Thread(target=self._train, args=(round, salt), daemon=True).start()

    def _train(self, round_: int, salt: int) -> None:
        tile = tile_of(self._spec.name, round_, self._spec.weights)
        for at in range(0, self._values.size, _TILE):
            part = self._values[at : at + _TILE]
            part[:] = tile[: part.size]
        _say({"waiting": round_})
        sys.stdin.readline()
        self._began = self._figures()
        self.hand_in(round_, salt, self._values)

    def commit(self, round: int, mean: NDArray[np.float32]) -> StateId:
        ended = self._figures()
        expected, wrong = expected_mean(self._roster, round, self._spec.weights, self._spec.encrypted), 0
        for at in range(0, mean.size, _TILE):
            part = mean[at : at + _TILE]
            wrong += int(np.count_nonzero(part != expected[: part.size]))
        state = StateId(round + 1, hashlib.sha256(b"round %d" % (round + 1) + mean[:_TILE].tobytes()).digest())
        self._states = [state, self._states[0]]
        spent = {key: ended[key] - self._began[key] for key in ended if key not in ("at", "split")}
        split = {key: ended["split"][key] - self._began["split"].get(key, 0.0) for key in ended["split"]}
        _say(
            {
                "finished": round,
                "began": self._began["at"],
                "ended": ended["at"],
                "exact": wrong == 0,
                "wrong": wrong,
                **spent,
                "split": split,
                "highest": _memory("VmHWM"),
            }
        )
        return state

    def export(self, state: StateId) -> bytes:
        """The hash alone: rounds do not build upon each other here."""
        if state not in self._states:
            raise DataError(f"no model of round {state.round} with hash {state.hash.hex()[:16]} is kept here")
        return state.hash

    def adopt(self, state: StateId, data: bytes) -> None:
        if data != state.hash:
            raise DataError(f"the model of round {state.round} that came is not the one agreed on; ask another party")
        self._states = [state]

    def step_back(self, state: StateId) -> None:
        if state not in self._states:
            raise DataError(f"the model of round {state.round} is not kept here; nothing was changed")
        self._states = self._states[self._states.index(state) :]

    def finished(self) -> bool:
        return self._states[0].round >= self._spec.rounds

    def describe(self) -> dict[str, Any]:
        return {"name": self._spec.name, "rounds": self._spec.rounds, "size": self._spec.weights}

    def _figures(self) -> dict[str, Any]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        sent, received = _traffic(self._spec.device)
        return {
            "at": time.monotonic(),
            "user_s": used.ru_utime,
            "system_s": used.ru_stime,
            "sent": sent,
            "received": received,
            "split": self._split.read(),
        }


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _memory(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def _traffic(device: str) -> tuple[int, int]:
    """Bytes that the device sent and received, in this process's namespace."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == device:
            return int(figures.split()[8]), int(figures.split()[0])
    raise OSError(f"there is no network device {device!r} here")


def _trouble(event: Event) -> None:
    if event.kind in _TROUBLE:
        sys.stderr.write(f"{event.kind.value} {event.fields}\n")


def run(spec: Spec) -> None:
    """Be the party until its last round."""
    set_num_threads(spec.threads)
    folder, events, split = Path(spec.folder), Events(time.time, [_trouble], strict=True), Split()
    keys = SiteKeys.load(folder / "keys", need_certificate=True)
    roster = Roster.parse(spec.roster.encode())
    ledger, application = AttemptLedger(FileStore(folder / "journal")), _Vector(spec, roster, split)
    terms = Terms(roster.parameters, roster.sum_parameters, layout_of(spec.weights), roster.options)
    pinned = {member.name: member.public for member in roster.everyone}
    timing, policy, spool = Timing(linger=1.0), Policy(pinned=pinned), folder / "spool"
    spool.mkdir()
    member = Member(
        keys.identity, roster, policy, terms, ledger, application, events, timing, time.thread_time, spool=spool
    )
    if not spec.encrypted:
        member._new_machine = lambda session: FloatParty(session, ledger, policy, time.thread_time, spool=spool)
    links = GrpcLinks(
        spec.name,
        os.urandom(16),
        {name: public for name, public in pinned.items() if name != spec.name},
        key=keys.tls_key,
        certificate=keys.certificate,
        authorities=keys.authorities,
        listen=spec.addresses[spec.name],
        addresses={name: address for name, address in spec.addresses.items() if name != spec.name},
    )
    runtime = Runtime(member, links)
    application.hand_in = lambda round_, salt, values: runtime.post(
        lambda: member.ready(round_, salt, values, out=values)
    )
    split.watch(threading.get_ident())
    runtime.run()


if __name__ == "__main__":
    run(Spec.read(Path(sys.argv[1])))

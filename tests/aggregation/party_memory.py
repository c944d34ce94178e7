"""One party of a federation in a process of its own: what its memory reaches while it sums ``weights`` values.

    python party_memory.py [--weights 2e7] [--party north|east|south] [--protocol collective|plain]
                           [--topology ring|star] [--pads]

The party is forked off before anything is large; the others, and the network, stay in the parent. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pppml_fast import CkksParams
from pppml_fast.aggregation import PartyMachine, State, open_federation
from pppml_fast.transport import Outgoing

NAMES = ("north", "east", "south")


class Remote:
    """The machine at the other end of a pipe, as a node of the network here."""

    def __init__(self, pipe: multiprocessing.connection.Connection) -> None:
        self._pipe = pipe

    def call(self, method: str, argument: Any) -> Any:
        self._pipe.send((method, argument))
        return self._pipe.recv()

    def receive(self, data: bytes) -> list[Outgoing]:
        return self.call("receive", data)

    def lost(self, name: str) -> list[Outgoing]:
        return self.call("lost", name)

    def pull(self, hop: str) -> Outgoing | None:
        return self.call("pull", hop)


def memory(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def values(name: str, weights: int) -> np.ndarray:
    """The same values anywhere, made in place."""
    made = np.empty(weights, np.float32)
    generator = np.random.default_rng(NAMES.index(name))
    for at in range(0, weights, 1 << 16):
        generator.standard_normal(out=made[at : at + (1 << 16)], dtype=np.float32)
    made *= np.float32(0.1)
    return made


def serve(pipe: multiprocessing.connection.Connection, machine: PartyMachine, params: CkksParams, options: Any) -> None:
    """The party's process: one call after the other, then what it took."""
    vector = values(machine.name, options.weights)
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts from here
    cpu, before = time.process_time(), memory("VmRSS")
    while True:
        method, argument = pipe.recv()
        if method == "begin":
            answer: Any = machine.begin(0, 0, NAMES, params)
            if options.pads:
                machine.prepare(options.weights)
        elif method == "contribute":
            answer = machine.contribute(vector, 1 / 3, out=vector)
        elif method == "end":
            break
        else:
            answer = getattr(machine, method)(argument)
        pipe.send(answer)
    outcome = machine.outcome
    report = {
        "state": machine.state.value,
        "transcript": "" if outcome is None else outcome.transcript.hex(),
        "first": [float(x) for x in vector[:3]],
        "highest": memory("VmHWM"),
        "before": before,
        "cpu_ns_per_weight": (time.process_time() - cpu) / options.weights * 1e9,
    }
    pipe.send(report)


def measure(options: Any) -> dict[str, Any]:
    params = CkksParams.preset("p31", parties=3, clip=1.0, keys="collective", weights="public")
    here, there = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        fed = open_federation(NAMES, params=params, protocol=options.protocol, topology=options.topology)
        for machine in fed.members.values():
            machine._spool = Path(folder)
        if os.fork() == 0:
            here.close()
            serve(there, fed.members[options.party], params, options)
            os._exit(0)
        remote = Remote(here)
        fed.network.nodes = {**fed.network.nodes, options.party: remote}
        others = [name for name in NAMES if name != options.party]
        vectors = {name: values(name, options.weights) for name in others}
        if fed.relay is not None:
            fed.network.post("relay", fed.relay.begin(0, 0, NAMES, params))
        fed.network.post(options.party, remote.call("begin", None))
        for name in others:
            fed.network.post(name, fed.members[name].begin(0, 0, NAMES, params))
        fed.network.run()
        if options.pads:
            time.sleep(2)
        fed.network.post(options.party, remote.call("contribute", None))
        for name in others:
            fed.network.post(name, fed.members[name].contribute(vectors[name], 1 / 3, out=vectors[name]))
        fed.network.run()
        here.send(("end", None))
        report: dict[str, Any] = here.recv()
        os.wait()
    outcomes = [fed.members[name].outcome for name in others]
    report["agreed"] = all(
        outcome is not None and outcome.transcript.hex() == report["transcript"] for outcome in outcomes
    )
    report["same"] = report["first"] == [float(x) for x in vectors[others[0]][:3]]
    report["beyond_model"] = report["highest"] - 4 * options.weights
    assert report["state"] == State.FINISHED.value, report
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=lambda text: int(float(text)), default=20_000_000)
    parser.add_argument("--party", choices=NAMES, default="north")
    parser.add_argument("--protocol", choices=("collective", "plain"), default="collective")
    parser.add_argument("--topology", choices=("ring", "star"), default="ring")
    parser.add_argument("--pads", action="store_true", help="make pads ahead")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()

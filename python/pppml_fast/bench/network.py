"""The encrypted ring against one of plain float32 bytes, over networks: `python -m pppml_fast.bench.network`.

Every party is a process with TLS (`network_party`). Two federations of the same parties stand at once and take turns,
round by round, so that each ratio is of neighbours in time; the first pair of rounds is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from pppml_fast import CkksParams, ConfigError
from pppml_fast.aggregation.parameters import sum_parameters
from pppml_fast.aggregation.roster import Member, Roster, SessionOptions
from pppml_fast.bench.machine import describe_machine
from pppml_fast.bench.network_lab import Lab, namespaces_refused
from pppml_fast.bench.network_party import Spec, layout_of
from pppml_fast.bench.network_report import Result, Run, Shape, markdown, to_json, verdicts
from pppml_fast.site.authority import TrialAuthority
from pppml_fast.site.keys import SiteKeys

__all__ = ["main", "measure"]

_NAMES = ("north", "east", "south", "west", "centre", "coast", "hills", "plain", "lake", "delta")
_PRESET = "p31"
_PORT = 47800


class Party:
    """A party's process and the lines it writes."""

    def __init__(self, lab: Lab, spec: Spec) -> None:
        path = Path(spec.folder) / "spec.json"
        spec.write(path)
        command = lab.command(spec.name, [sys.executable, "-m", "pppml_fast.bench.network_party", str(path)])
        # One native thread of every library: the parties share the cores.
        environment = {**os.environ, "OMP_NUM_THREADS": str(spec.threads), "OPENBLAS_NUM_THREADS": str(spec.threads)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.name = spec.name

    def hear(self, key: str) -> dict[str, Any]:
        """The next line, which must have ``key``. Raises ConfigError when the process is gone."""
        line = _pipe(self._process.stdout).readline()
        found: dict[str, Any] = json.loads(line) if line else {}
        if key not in found:
            raise ConfigError(f"party {self.name} ended before it told {key!r}: exit status {self._process.wait()}")
        return found

    def go(self) -> None:
        """Begin the round it waits for."""
        pipe = _pipe(self._process.stdin)
        pipe.write("go\n")
        pipe.flush()

    def end(self, kill: bool) -> None:
        """Wait for its end, or make it."""
        if kill:
            self._process.kill()
        self._process.wait(60)


class Federation:
    """The processes of all parties of one ring, from `rounds` of it to the next."""

    def __init__(self, shape: Shape, lab: Lab, folder: Path, encrypted: bool, rounds: int) -> None:
        self.encrypted, self._rounds = encrypted, rounds
        addresses = lab.addresses(_PORT + len(shape.parties) * encrypted)
        authority, keys = TrialAuthority.create(folder / "authority"), {}
        for name in shape.parties:
            keys[name] = SiteKeys.create(folder / name / "keys", name)
            SiteKeys.install(folder / name / "keys", authority.issue(keys[name].request), authority.certificate)
        params = params_of(shape)
        layout, count = layout_of(shape.weights), len(shape.parties)
        members = tuple(Member(name, keys[name].identity.public.hex(), 1.0 / count) for name in shape.parties)
        roster = Roster(
            members=members,
            parameters=params.to_dict(),
            sum_parameters=sum_parameters(params).to_dict(),
            layout=layout.fingerprint.hex(),
            options=SessionOptions("collective", "ring", chunk_blocks=shape.chunk_blocks),
        )
        canonical = roster.canonical_bytes().decode()
        self._parties = [
            Party(
                lab,
                Spec(
                    name,
                    str(folder / name),
                    canonical,
                    addresses,
                    shape.weights,
                    rounds,
                    encrypted,
                    lab.device,
                    shape.threads,
                ),
            )
            for name in shape.parties
        ]

    def round(self) -> Run:
        """One round of all parties."""
        for party in self._parties:
            party.hear("waiting")
        for party in self._parties:
            party.go()
        run = Run.of(self.encrypted, {party.name: party.hear("finished") for party in self._parties})
        kind = "encrypted" if self.encrypted else "plain    "
        print(f"  {kind} {run.seconds:6.2f} s, {run.cpu():6.2f} CPU s", file=sys.stderr, flush=True)
        return run

    def end(self, kill: bool) -> None:
        """Wait for all processes, or kill them."""
        for party in self._parties:
            party.end(kill)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def params_of(shape: Shape) -> CkksParams:
    """The parameters of the encrypted ring, whose blocks are the plain one's too."""
    count = len(shape.parties)
    return CkksParams.preset(_PRESET, parties=count, clip=1.0, keys="collective", weights="public")


def measure(shape: Shape, pairs: int) -> Result:
    """``pairs`` pairs of rounds after one that does not count. Raises ConfigError when a party or the network fails."""
    rounds, kill = pairs + 1, True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pppml-network-")))
        lab = stack.enter_context(Lab(shape.parties, shape.mbit, shape.isolated))
        federations: list[Federation] = []
        try:
            for encrypted in (False, True):
                place = folder / ("encrypted" if encrypted else "plain")
                place.mkdir()
                federations.append(Federation(shape, lab, place, encrypted, rounds))
            found = [_pair(federations, first) for first in range(rounds)]
            kill = False
        finally:
            for federation in federations:
                federation.end(kill)
    return Result(shape, params_of(shape), found[1:])


def _pair(federations: Sequence[Federation], number: int) -> tuple[Run, Run]:
    """A round of either, the plain one first in every other pair: whoever is second finds other caches."""
    order = federations if number % 2 else list(reversed(federations))
    runs = {run.encrypted: run for run in (federation.round() for federation in order)}
    return runs[False], runs[True]


def shapes(options: argparse.Namespace, isolated: bool) -> list[Shape]:
    """What is to be measured, in order."""
    made = []
    for link in options.links:
        mbit = None if link == "loopback" else float(options.mbit)
        if mbit is not None and not isolated:
            continue
        for count in options.parties:
            made.append(Shape(_NAMES[:count], mbit, options.weights, options.chunk_blocks, options.threads, isolated))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 where all ran, whatever the aims."""
    options = _parser().parse_args(arguments)
    refused = "" if options.no_namespaces else namespaces_refused()
    isolated = not options.no_namespaces and not refused
    if refused and "shaped" in options.links:
        print(f"no shaped links: network namespaces are not permitted here ({refused}); loopback alone is measured")
    results = []
    for shape in shapes(options, isolated):
        print(f"{shape.describe()}: {options.runs} pairs of rounds ...", file=sys.stderr, flush=True)
        results.append(measure(shape, options.runs))
    machine = describe_machine()
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(to_json(results, machine), indent=1) + "\n")
    print(markdown(results, machine))
    for line in verdicts(results):
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=lambda text: int(float(text)), default=100_000_000)
    parser.add_argument("--parties", type=int, nargs="+", default=[3, 5], choices=range(3, len(_NAMES) + 1))
    parser.add_argument("--links", nargs="+", choices=["shaped", "loopback"], default=["shaped", "loopback"])
    parser.add_argument("--mbit", type=float, default=1000, help="rate of a shaped link, each way")
    parser.add_argument("--runs", type=int, default=3, help="pairs of rounds that count")
    parser.add_argument("--chunk-blocks", type=int, default=120, help="at 128 plain chunks alone pass 1 MiB")
    parser.add_argument("--threads", type=int, default=1, help="native threads of a party")
    parser.add_argument("--no-namespaces", action="store_true", help="loopback alone, in this network namespace")
    parser.add_argument("--json", type=Path, help="where the rows go, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())

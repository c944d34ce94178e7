"""Five processes on loopback, one of them killed in round two: the same models as in one process, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pppml_fast.errors import ConfigError, DataError
from pppml_fast.experiment.config_file import load_config
from pppml_fast.experiment.demo_layout import METHOD, DemoSite, lay_out
from pppml_fast.experiment.runner import run_experiment

__all__ = ["compare", "follow", "party_command", "run_network_demo"]

KILLED_IN_ROUND = 1
"""Counted from 0."""
_POLL_S = 0.01
_TAIL = 12
Say = Callable[[str], None]


def run_network_demo(
    out: Path,
    say: Say,
    *,
    rounds: int = 3,
    seed: int = 0,
    timeout_s: float = 900.0,
    star: bool = False,
    kill_coordinator: bool = False,
) -> int:
    """Lay out, run in one process, run as five, compare. How many of the five sites end in the same bits.

    In a ``star`` a coordinator is a sixth process, and ``kill_coordinator`` kills it in the last round. Raises
    DataError when ``out`` is in use or a process fails or hangs; its last lines are in the message.
    """
    if kill_coordinator and not star:
        raise ConfigError("a ring has no coordinator that could be killed; give --topology star")
    nodes, experiment = lay_out(out, rounds=rounds, seed=seed, star=star)
    sites = [node for node in nodes if not node.coordinates]
    say(f"five sites below {out}: keys, certificates, one signed roster, phantom CT")
    say(f"in one process: {rounds} rounds of {METHOD}")
    run_experiment(load_config(experiment), out / "in_one_process")
    deadline = time.monotonic() + timeout_s
    with _Processes(out) as processes:
        for node in nodes:
            processes.start(node)
        between = "through a coordinator to which all dial out" if star else "between each two"
        say(f"as {len(nodes)} processes on loopback, TLS {between}")
        victim = sites[1]
        _await_training(victim, KILLED_IN_ROUND, processes, deadline)
        _restart(victim, KILLED_IN_ROUND, processes, say)
        if kill_coordinator:
            _await_training(sites[0], rounds - 1, processes, deadline)
            _restart(nodes[-1], rounds - 1, processes, say)
        processes.wait(deadline)
    return sum([compare(site, out / "in_one_process", say) for site in sites])


def _await_training(site: DemoSite, round_: int, processes: _Processes, deadline: float) -> None:
    """Return once the site trains in a round, or in a later one."""
    for event in follow(site.log, lambda: processes.check(deadline)):
        if event.get("kind") == "training" and event.get("round", -1) >= round_:
            return


def _restart(node: DemoSite, round_: int, processes: _Processes, say: Say) -> None:
    processes.kill(node)
    say(f"{node.name}: killed (SIGKILL) in round {round_ + 1}, started again")
    processes.start(node)


def follow(path: Path, check: Callable[[], object]) -> Iterator[dict[str, Any]]:
    """The events of a log that is being written, as they come; ``check`` is called while there are none."""
    done = 0
    while True:
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        for line in data[done:whole].splitlines():
            event = json.loads(line)
            if isinstance(event, dict):
                yield event
        done = max(done, whole)
        check()
        time.sleep(_POLL_S)


def compare(site: DemoSite, whole: Path, say: Say) -> bool:
    """Whether the site's shared and personal model are those of the run in one process, tensor files bit for bit."""
    told, same = [], True
    for what, file in (("shared", "global"), ("personal", site.name)):
        ours, theirs = (base / "models" / METHOD / f"{file}.safetensors" for base in (site.run, whole))
        equal = ours.is_file() and ours.read_bytes() == theirs.read_bytes()
        told.append(f"{what} model {'identical' if equal else 'DIFFERENT'}")
        same = same and equal
    summary = site.run / "summary.json"
    if summary.is_file():
        table = json.loads(summary.read_text(encoding="utf-8"))
        told.append(f"hash {table['model']['sha256'][:16]}")
        dice = table["methods"][METHOD]["dice"]
        means = [sum(cases.values()) / len(cases) for _, cases in sorted(dice.items(), key=lambda row: int(row[0]))]
        told.append(f"Dice {means[0]:.3f} -> {means[-1]:.3f}")
    say(f"{site.name}: {', '.join(told)}")
    return same


def party_command(site: DemoSite) -> list[str]:
    """The command line of a node's process."""
    command = "coordinator" if site.coordinates else "party"
    return [sys.executable, "-m", "pppml_fast.cli", command, "--config", str(site.config)]


class _Processes:
    """The processes of the sites; whatever happens, none is left behind."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def start(self, site: DemoSite) -> None:
        """Start the node's command; what it prints goes to output.txt beside its configuration."""
        with _output(self._out, site.name) as stream:
            self._running[site.name] = subprocess.Popen(
                party_command(site),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=_environment(),
            )

    def kill(self, site: DemoSite) -> None:
        """SIGKILL, and the end of the process. Raises DataError when it had ended before."""
        process = self._running[site.name]
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            raise DataError(f"{site.name} ended before it could be killed;{self._tail(site.name)}")

    def check(self, deadline: float) -> bool:
        """Whether all have ended well. Raises DataError when one failed, or the time is up."""
        codes = {name: process.poll() for name, process in self._running.items()}
        for name, code in codes.items():
            if code not in (None, 0):
                raise DataError(f"{name} ended with status {code};{self._tail(name)}")
        left = [name for name, code in codes.items() if code is None]
        if left and time.monotonic() > deadline:
            raise DataError(f"{', '.join(left)} did not end in time;{self._tail(left[0])}")
        return not left

    def wait(self, deadline: float) -> None:
        """Wait for all."""
        while not self.check(deadline):
            time.sleep(0.1)

    def _tail(self, name: str) -> str:
        path = self._out / name / "output.txt"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
        return f" the last lines of {str(path)!r}: " + " | ".join(line.strip() for line in lines)


@contextmanager
def _output(out: Path, name: str) -> Iterator[Any]:
    with (out / name / "output.txt").open("ab") as stream:
        yield stream


def _environment() -> dict[str, str]:
    """Ours, with the package where this process has it, and one thread for each of the many processes."""
    package = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}

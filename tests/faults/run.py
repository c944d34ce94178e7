"""Rounds of real federations under faults, and whether the rules held: the program of `make test-faults`.

`run.py --rounds 20 --seed 7`. A step is at least one round: faults are drawn from the seed and committed, then all
works again, and every party must come to hold one more sum. Federations follow each other, of both shapes and of 3 to 5
parties, ``--lanes`` at a time. The last line counts: rounds that a fault struck, attempts whose sum was accepted and is
exact, attempts that were abandoned, and what must be 0. A run that finds something keeps its folder and says how to
repeat it: with the same seed the same faults are drawn; how processes meet them depends on the machine.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import paths  # noqa: F401  (before the modules it makes importable)
from injector import Injector
from real_federation import RealFederation

SHAPES = (("ring", 3), ("star", 4), ("ring", 5), ("star", 3), ("ring", 4), ("star", 5))
STEPS = 25
"""Steps of one federation."""
HUNG_S = 300.0
"""What takes longer although nothing is wrong any more has hung; it takes seconds, on a busy machine half a minute."""


@dataclass
class Tally:
    """What all federations of a run have come to."""

    rounds: int = 0
    exact: int = 0
    abandoned: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    double_share: list[str] = field(default_factory=list)

    def line(self) -> str:
        faults = ", ".join(f"{kind}: {count}" for kind, count in sorted(self.faults.items()))
        return (
            f"rounds={self.rounds} exact={self.exact} abandoned={self.abandoned} wrong={len(self.wrong)} "
            f"hung={len(self.hung)} double_share={len(self.double_share)} faults={{{faults}}}"
        )

    @property
    def clean(self) -> bool:
        return not (self.wrong or self.hung or self.double_share)


class Course:
    """One federation through its steps."""

    def __init__(
        self, folder: Path, shape: str, parties: int, size: int, seed: int, wanted: Callable[[], bool]
    ) -> None:
        self.federation = RealFederation(folder, parties, shape, size, seed)
        self.injector = Injector(self.federation, seed)
        self.title = f"{shape} of {parties}, seed {seed}"
        self.hung: list[str] = []
        self.lost: list[str] = []
        self.rounds = 0
        self._wanted = wanted
        self._fired = 0

    def run(self, steps: int, struck: Callable[[], None]) -> None:
        """Go through all steps, then to a common end; ``struck`` hears of each step that a fault struck."""
        try:
            self.federation.start()
            if not self._reach(1, "first round"):
                return
            for number in range(steps):
                if not self._wanted():
                    break
                rounds = self.rounds
                if not self._step(number):
                    return
                if self.rounds > rounds:
                    struck()
            self._finish()
        finally:
            self.federation.close()
            self.federation.judge()
            self.lost += [f"{self.title}: {text}" for node in self.federation.members for text in node.lost]

    def _step(self, number: int) -> bool:
        before, base = sum(self.injector.counts.values()), self._newest()
        plan = self.injector.strike()
        began = time.monotonic()
        self._wait(3.0, lambda: self._struck(before) >= len(plan) or self._newest() > base + 6)
        self._wait(self.injector.random.choice((0.0, 0.5, 2.0)), lambda: False)
        self.injector.heal()
        done = self._reach(self._newest() + 1, f"step {number}: {plan}")
        self.federation.judge()
        self.rounds += self._struck(before) > 0
        print(f"  {self.title} step {number} {time.monotonic() - began:.1f}s {plan}", flush=True)
        return done and not self._broken()

    def _struck(self, before: int) -> int:
        return sum(self.injector.counts.values()) - before

    def _newest(self) -> int:
        return max(node.round for node in self.federation.members)

    def _reach(self, target: int, what: str) -> bool:
        """Wait until every party holds the sum of ``target`` rounds."""
        if self._wait(HUNG_S, lambda: self.injector.quiet and all(n.round >= target for n in self.federation.members)):
            return True
        rounds = {node.name: (node.round, "alive" if node.alive else "dead") for node in self.federation.members}
        self.hung.append(f"{self.title}: no common round {target} within {HUNG_S:g} s after {what}; {rounds}")
        return False

    def _wait(self, seconds: float, until: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.injector.poll()
            if until():
                return True
            time.sleep(0.02)
        return until()

    def _broken(self) -> bool:
        checks = self.federation.checks
        lost = any(node.lost for node in self.federation.members)
        return bool(checks.wrong or checks.double_share or self.injector.unexpected or lost)

    def _finish(self) -> None:
        """The training ends: every process ends by itself, with the same model."""
        end = self._newest() + 4  # so that all hear of it before
        for node in self.federation.nodes.values():
            node.order(finish=end)
        for node in self.federation.nodes.values():
            if not node.reap(HUNG_S) or node.status != 0:
                self.hung.append(f"{self.title}: {node.name} did not end with the training, status {node.status}")
        models = {node.name: node.models[0] for node in self.federation.members}
        if len(set(models.values())) != 1:
            self.lost.append(f"{self.title}: the parties end with different models: {models}")


class Run:
    """Federations until enough rounds were struck, or something broke."""

    def __init__(self, rounds: int, seed: int, lanes: int, folder: Path, size: int, seconds: float) -> None:
        self.tally, self.seed, self.folder, self.size = Tally(), seed, folder, size
        self._target, self._lanes = rounds, lanes
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._next = 0
        self._steps = 0

    def run(self) -> bool:
        lanes = [threading.Thread(target=self._lane) for _ in range(self._lanes)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        return self.tally.clean and (self.tally.rounds >= self._target or time.monotonic() >= self._until)

    def _wanted(self) -> bool:
        with self._lock:
            return self._steps < self._target and time.monotonic() < self._until and self.tally.clean

    def _struck(self) -> None:
        with self._lock:
            self._steps += 1

    def _lane(self) -> None:
        while self._wanted():
            with self._lock:
                number, self._next = self._next, self._next + 1
            shape, parties = SHAPES[number % len(SHAPES)]
            folder, seed = self.folder / f"federation-{number}", self.seed + number
            course = Course(folder, shape, parties, self.size, seed, self._wanted)
            # Short runs see every shape that has a lane of its own.
            steps = min(STEPS, max(2, self._target // (2 * self._lanes)))
            try:
                course.run(steps, self._struck)
            except Exception:
                course.lost.append(f"{course.title}: the kit itself failed: {traceback.format_exc()}")
            self._add(course, number)
            if self.tally.clean:
                shutil.rmtree(folder)

    def _add(self, course: Course, number: int) -> None:
        checks, injector = course.federation.checks, course.injector
        with self._lock:
            tally = self.tally
            tally.rounds += course.rounds
            tally.exact += len(checks.exact)
            tally.abandoned += checks.abandoned
            tally.faults.update(injector.counts)
            tally.wrong += [f"{course.title}: {text}" for text in (*checks.wrong, *injector.unexpected)] + course.lost
            tally.hung += course.hung
            tally.double_share += checks.double_share
            print(f"{course.title}: {number + 1} begun; {tally.line()}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="rounds that a fault struck")
    parser.add_argument("--seed", type=int, default=None, help="of the faults; drawn and printed if not given")
    parser.add_argument("--lanes", type=int, default=3, help="federations at a time")
    parser.add_argument("--size", type=int, default=100_000, help="weights of an update")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing new after these")
    parser.add_argument("--folder", type=Path, default=None, help="where to keep everything, below a fresh folder")
    chosen = parser.parse_args()
    seed = secrets.randbelow(10**6) if chosen.seed is None else chosen.seed
    folder = Path(tempfile.mkdtemp(prefix="pppml-faults-", dir=chosen.folder))
    print(f"seed {seed}, {chosen.rounds} rounds, {chosen.lanes} federations at a time, in {folder}", flush=True)
    run = Run(chosen.rounds, seed, chosen.lanes, folder, chosen.size, chosen.seconds)
    clean = run.run()
    tally = run.tally
    for what in (*tally.wrong, *tally.hung, *tally.double_share):
        print(f"FOUND: {what}", flush=True)
    if clean:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        options = f"--rounds {chosen.rounds} --seed {seed} --lanes {chosen.lanes} --size {chosen.size}"
        print(f"everything is kept in {folder}; again: python tests/faults/run.py {options}", flush=True)
    print(tally.line(), flush=True)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())

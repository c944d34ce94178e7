"""One run: our settings, the memory loops and the peers, measured in turns."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.bench.machine import available_memory, describe_machine
from pppml_fast.bench.memory import LOOP_BYTES_PER_WEIGHT, memory_cases
from pppml_fast.bench.ours import DEFAULT_SETTINGS, needed_memory, our_cases, parse_setting
from pppml_fast.bench.peers import found_peers, open_peer, parse_peers
from pppml_fast.bench.rows import Report
from pppml_fast.bench.setup import measure_setup
from pppml_fast.bench.stream import stream_rows
from pppml_fast.bench.timing import Case, measure
from pppml_fast.errors import ConfigError

__all__ = ["BenchPlan", "run_bench"]


@dataclass(frozen=True)
class BenchPlan:
    """What to measure. Raises ConfigError, before anything runs, when a part of it does not exist here.

    ``against`` is as in ``pppml bench --against``: names of peers, or "found" for those installed. ``stream`` is the
    number of weights that also go from a file through encryption and opening piece by piece; 0 leaves that out.
    ``scaling`` is a number of threads on which our encryption and opening are timed as well; 0 leaves that out.
    """

    size: int = 1 << 22
    threads: int = 1
    settings: tuple[str, ...] = DEFAULT_SETTINGS
    against: str = ""
    repetitions: int = 5
    stream: int = 0
    scaling: int = 0

    def __post_init__(self) -> None:
        for name in ("size", "threads", "repetitions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1")
        for name in ("stream", "scaling"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)} must be 0 or more")
        for setting in self.settings:
            parse_setting(setting)
        if self.against != "found":
            parse_peers(self.against)


def run_bench(plan: BenchPlan, progress: Callable[[str], None] = lambda text: None) -> Report:
    """Measure everything in the plan in interleaved repetitions and check every answer.

    Raises ConfigError when a peer that was named is missing or memory does not suffice, AssertionError on wrong answers
    """
    names, notes = parse_peers(plan.against), []
    if plan.against == "found":
        names, missing = found_peers()
        notes = [f"not measured, {line}" for line in missing]
    _check_memory(plan)
    before = os.getloadavg()
    machine = describe_machine()
    with contextlib.ExitStack() as stack:
        stack.enter_context(use_threads(plan.threads))
        progress("preparing")
        cases = memory_cases(plan.size, plan.threads)
        for name in names:
            peer = open_peer(name, plan.size, plan.threads)
            stack.callback(peer.close)
            machine["versions"][name] = peer.version
            cases += peer.cases()
        for setting in plan.settings:
            ours = our_cases(setting, plan.size, plan.threads)
            cases += ours
            if plan.scaling not in (0, plan.threads):
                cases += [on_threads(case, plan.scaling) for case in ours if case.operation in ("encrypt", "open")]
        rows = measure(cases, plan.repetitions, progress)
        setup = measure_setup(plan.settings, plan.repetitions, progress)
    for setting in plan.settings if plan.stream else ():
        if parse_setting(setting).keys != "public":
            progress(f"streaming {plan.stream:,} weights of {setting}")
            rows += stream_rows(setting, plan.stream, plan.threads)
    if before[0] > 0.5:
        notes.append(f"the machine was not idle: load {before[0]:.2f} before the run; times are then upper bounds")
    order = {"pppml_fast": 0, "memory": 1}
    ordered = tuple(sorted(rows, key=lambda row: order.get(row.system, 2)))
    return Report(ordered, setup, machine, tuple(notes))


def _check_memory(plan: BenchPlan) -> None:
    needed = LOOP_BYTES_PER_WEIGHT * plan.size + sum(needed_memory(setting, plan.size) for setting in plan.settings)
    available = available_memory()
    if available is not None and needed > available:
        raise ConfigError(
            f"size = {plan.size} takes about {needed / 2**30:.1f} GiB for {', '.join(plan.settings)}; "
            f"{available / 2**30:.1f} GiB are free: lower the size or measure fewer settings at a time"
        )


def on_threads(case: Case, threads: int) -> Case:
    """``case`` on another number of the core's threads."""

    def run(argument: Any) -> Any:
        with use_threads(threads):
            return case.run(argument)

    return dataclasses.replace(case, threads=threads, run=run)


@contextlib.contextmanager
def use_threads(threads: int) -> Iterator[None]:
    """The core's pool set to ``threads`` for a while. Raises ConfigError where the core has no pool and needs one."""
    core: Any = _native
    if not hasattr(core, "set_thread_count"):
        if threads != 1:
            raise ConfigError(f"threads = {threads}: pppml_fast {pf.__version__} runs on one thread; use --threads 1")
        yield
        return
    kept = core.thread_count()
    core.set_thread_count(threads)
    try:
        yield
    finally:
        core.set_thread_count(kept)

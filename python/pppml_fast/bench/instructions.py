"""Instructions per weight, counted by callgrind inside the extension alone: a figure that no other load can move.

Valgrind knows no AVX-512, so the portable backend and AVX2 are counted. Source: Valgrind manual, chapter 6
(callgrind) and its file format.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pppml_fast import _native
from pppml_fast.bench.workload import EXTRA_RUNS
from pppml_fast.errors import ConfigError, DataError

__all__ = [
    "COUNTED_BACKENDS",
    "COUNTED_CASES",
    "count_instructions",
    "counted_backends",
    "counted_cases",
    "object_cost",
    "why_not_counted",
]

COUNTED_BACKENDS = ("scalar", "avx2")
COUNTED_CASES = (
    "p31/collective:encrypt",
    "p31/collective:add2",
    "p31/collective:hop",
    "p31/collective:open",
    "p31/public:encrypt",
    "p31/public:open",
    "p50/collective:encrypt",
    "p50/collective:open",
    "compact/collective:encrypt",
)
# Three full blocks of the largest ring and a cut one, of every set.
COUNTED_WEIGHTS = 3 * 4096 + 1000

_NAMED = re.compile(r"^(c?ob)=\((\d+)\)(?: (.*))?$")
_COST = re.compile(r"^[+\-*]?\d* ?(\d+)$")


def counted_backends() -> tuple[str, ...]:
    """The backends of this build that callgrind can run; empty without valgrind."""
    if shutil.which("valgrind") is None:
        return ()
    supported = _native.supported_backends()
    return tuple(name for name in COUNTED_BACKENDS if name in supported)


def counted_cases(backend: str) -> tuple[str, ...]:
    """The cases to count of ``backend``: not those of the sets in 64-bit words, which AVX2 leaves to ``scalar``."""
    return tuple(case for case in COUNTED_CASES if backend == "scalar" or case.startswith("p31/"))


def why_not_counted(backend: str) -> str:
    """What keeps ``backend`` from being counted here; for backends that `counted_backends` leaves out."""
    if shutil.which("valgrind") is None:
        return "valgrind is not on the path"
    if backend not in COUNTED_BACKENDS:
        return "valgrind does not know its instructions"
    return "this build or this processor lacks it"


def count_instructions(
    backend: str, cases: Sequence[str] | None = None, progress: Callable[[str], None] = lambda text: None
) -> dict[str, float]:
    """Instructions per weight of each ``SETTING:OPERATION``, by default the backend's counted cases, on one thread.

    Raises ConfigError without valgrind, DataError when the counted program fails.
    """
    if shutil.which("valgrind") is None:
        raise ConfigError("instructions are counted by valgrind, which is not on the path; install it")
    cases = counted_cases(backend) if cases is None else cases
    progress(f"{backend}: everything once")
    once = _run(backend, "none", cases)
    found = {}
    for case in cases:
        progress(f"{backend}: {case}")
        extra = EXTRA_RUNS[case.partition(":")[2]]
        found[case] = (_run(backend, case, cases) - once) / extra / COUNTED_WEIGHTS
    return found


def _run(backend: str, repeated: str, cases: Sequence[str]) -> int:
    """Instructions that one run of the workload spends in the extension."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        command += [sys.executable, "-m", "pppml_fast.bench.workload", str(COUNTED_WEIGHTS), repeated, *cases]
        environment = {**os.environ, "PPPML_BACKEND": backend, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            raise DataError(f"the counted workload ended with code {done.returncode}: {done.stderr[-500:]}")
        return object_cost(out.read_text(errors="replace"), Path(_native.__file__).name)


def object_cost(profile: str, name: str) -> int:
    """Instructions spent in the object file ``name`` itself, not in what it calls.

    Raises DataError when the profile does not mention the file.
    """
    names: dict[str, str] = {}
    here, total, seen, skip = "", 0, False, False
    for line in profile.splitlines():
        named = _NAMED.match(line)
        if named:
            if named[3] is not None:
                names[named[2]] = named[3]
            if named[1] == "ob":
                here = names[named[2]]
                seen = seen or Path(here).name == name
        elif line.startswith("calls="):
            skip = True  # the next line is what the callee costs, counted where it is spent
        elif (cost := _COST.match(line)) is not None:
            if not skip and Path(here).name == name:
                total += int(cost[1])
            skip = False
    if not seen:
        raise DataError(f"the profile does not mention {name}: nothing was counted")
    return total

"""What is paid once: importing the package, and making keys."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import pppml_fast as pf
from pppml_fast.bench.ours import CLIP, CONTEXT, parse_setting
from pppml_fast.bench.rows import OURS, SetupRow
from pppml_fast.errors import DataError

__all__ = ["measure_setup"]

_IMPORT = (
    "import sys, time, numpy; start = time.perf_counter(); import pppml_fast; "
    "sys.stdout.write(str(time.perf_counter() - start))"
)


def measure_setup(
    settings: Sequence[str], repetitions: int, progress: Callable[[str], None] = lambda text: None
) -> tuple[SetupRow, ...]:
    """The median of ``repetitions`` imports, each in a process of its own, and of as many keys of every setting.

    Raises DataError when a process that imports the package fails, AssertionError when a key does not open.
    """
    progress("import and keys")
    note = "import pppml_fast after import numpy, in a new process with compiled bytecode"
    rows = [_row("beyond NumPy's own", "import", _imports(repetitions), note)]
    return (*rows, *(_row(setting, "keygen", _key_generations(setting, repetitions), "") for setting in settings))


def _imports(repetitions: int) -> list[float]:
    """Seconds of each import. The first compiles the bytecode, as installation does, and is not counted."""
    here = str(Path(pf.__file__).parents[1])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        environment["PYTHONPYCACHEPREFIX"] = folder
        for _ in range(repetitions + 1):
            command = [sys.executable, "-c", _IMPORT]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode != 0:
                raise DataError(f"importing the package in a new process failed: {done.stderr[-500:]}")
            seconds.append(float(done.stdout))
    return seconds[1:]


def _key_generations(setting: str, repetitions: int) -> list[float]:
    """Seconds of each key or key pair, after one that is not counted; the last one is used once."""
    params = parse_setting(setting)
    one = np.full(3, CLIP / 2)
    seconds = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        key = pf.CollectiveKey.generate(params) if params.keys == "collective" else pf.keygen(params)
        seconds.append(time.perf_counter() - start)
    if isinstance(key, pf.CollectiveKey):
        opened = pf.CollectiveKey.sum([key]).decrypt(key.encrypt(one, CONTEXT))
    else:
        opened = key.secret.decrypt((key.public or key.secret).encrypt(one))
    assert np.abs(opened - one).max() <= params.step, f"{setting}: a new key does not open what it encrypts"
    return seconds[1:]


def _row(setting: str, operation: str, seconds: Sequence[float], note: str) -> SetupRow:
    return SetupRow(
        system=OURS,
        setting=setting,
        operation=operation,
        ms=1e3 * statistics.median(seconds),
        ms_least=1e3 * min(seconds),
        ms_most=1e3 * max(seconds),
        repetitions=len(seconds),
        note=note,
    )

"""OpenFHE as a peer, in a Python environment of its own: its wheel supports few Python versions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import IO, Any

from pppml_fast.bench.timing import Case
from pppml_fast.errors import ConfigError

__all__ = ["OpenfhePeer", "find_python"]

SETTING = "best N=8192 depth 0, 50/60"
STATED_ERROR = 1e-8
VARIABLE = "PPPML_OPENFHE_PYTHON"
_WORKER = Path(__file__).with_name("openfhe_worker.py")
_OPERATIONS = ("encrypt", "pack", "unpack", "add2", "open")
_NOTES = {
    "encrypt": "encode + encrypt; serialising is pack",
    "open": "decrypt + decode; parsing is unpack",
}


def find_python() -> str:
    """A Python that imports openfhe: $PPPML_OPENFHE_PYTHON, .venv-openfhe here, or python3.10 on the path.

    Raises ConfigError, with the way to make one, when there is none.
    """
    named = os.environ.get(VARIABLE)
    candidates = [named] if named else [".venv-openfhe/bin/python", shutil.which("python3.10") or ""]
    for candidate in candidates:
        if candidate and _imports_openfhe(candidate):
            return candidate
    looked = f"${VARIABLE} = {named!r}" if named else ".venv-openfhe and python3.10"
    raise ConfigError(
        f"the peer openfhe is not installed: no Python with it at {looked}; make one with: "
        "python3.10 -m venv .venv-openfhe && .venv-openfhe/bin/pip install openfhe"
    )


def _imports_openfhe(python: str) -> bool:
    try:
        done = subprocess.run([python, "-c", "import openfhe"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class OpenfhePeer:
    """A worker process that does one operation per line of its input and reports the seconds it took."""

    def __init__(self, weights: int, threads: int) -> None:
        self._weights, self._threads = weights, threads
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [find_python(), str(_WORKER), str(weights)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        hello = self._answer()
        self.version = str(hello["version"])
        self._bytes_per_weight = float(hello["bytes_per_weight"])

    def cases(self) -> list[Case]:
        """encrypt, pack, unpack, add2 and open."""
        return [self._case(operation) for operation in _OPERATIONS]

    def close(self) -> None:
        """End the worker."""
        self._pipe(self._process.stdin).close()
        self._pipe(self._process.stdout).close()
        self._process.wait(timeout=60)

    def _case(self, operation: str) -> Case:
        return Case(
            system="openfhe",
            setting=SETTING,
            operation=operation,
            backend="openfhe",
            threads=self._threads,
            weights=self._weights,
            bytes_per_weight=None if operation in ("add2", "open") else self._bytes_per_weight,
            run=lambda _: self._ask(operation),
            check=_check,
            clock=lambda answer: float(answer["seconds"]),
            note=_NOTES.get(operation, ""),
        )

    def _ask(self, operation: str) -> dict[str, Any]:
        stdin = self._pipe(self._process.stdin)
        stdin.write(json.dumps({"operation": operation}) + "\n")
        stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            raise ConfigError(
                f"the openfhe worker ended with code {self._process.wait()}; its message stands above. Check the "
                f"environment that ${VARIABLE} or .venv-openfhe names"
            )
        values: dict[str, Any] = json.loads(line)
        return values

    @staticmethod
    def _pipe(stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream


def _check(answer: dict[str, Any]) -> float:
    error = float(answer["max_error"])
    assert error <= STATED_ERROR, f"openfhe is off by {error:.2g}; its stated error is {STATED_ERROR:g}"
    return error

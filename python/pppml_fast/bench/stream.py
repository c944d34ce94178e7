"""Vectors that fit in memory once or not at all: from a mapped file to a discarding sink, and back, in a process apart.

    python -m pppml_fast.bench.stream SETTING WEIGHTS THREADS

writes one JSON object; `stream_rows` runs that and makes rows of it. The file holds one tile of random weights again
and again, so that every opened value can be checked, and is deleted afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pppml_fast as pf
from pppml_fast.bench.ours import CLIP, CONTEXT, PARTIES, parse_setting
from pppml_fast.bench.rows import OURS, Row
from pppml_fast.errors import ConfigError

__all__ = ["main", "stream_rows"]

_TILE = 1 << 20
_FLOAT_BYTES = 4
# /proc is read at every so many chunks.
_SAMPLED = 64
_STATUS = Path("/proc/self/status")


def stream_rows(setting: str, weights: int, threads: int) -> tuple[Row, Row]:
    """The rows stream_encrypt and stream_open of ``setting`` on ``weights`` weights.

    Raises ConfigError where the temporary folder has no room for them or the setting is not streamed.
    """
    name, keys = parse_setting(setting)
    if keys == "public":
        raise ConfigError(f"{setting} is not streamed: its ciphertexts hold two polynomials; use collective or secret")
    if not _STATUS.exists():
        raise ConfigError("a stream is measured where /proc tells the memory of a process, on Linux")
    free, needed = shutil.disk_usage(tempfile.gettempdir()).free, weights * _FLOAT_BYTES
    if free < needed + (1 << 30):
        raise ConfigError(
            f"{weights} weights take {needed / 1e9:.1f} GB in {tempfile.gettempdir()}, where {free / 1e9:.1f} GB are "
            "free; set TMPDIR or stream fewer"
        )
    worker = [sys.executable, "-m", "pppml_fast.bench.stream", setting, str(weights), str(threads)]
    done = subprocess.run(worker, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{setting}: the streaming process failed: {done.stderr}"
    found = json.loads(done.stdout)
    params = pf.CkksParams.preset(name, parties=PARTIES, clip=CLIP, keys=keys)
    note = f"from a mapped file, RssAnon {found['peak'] / 2**20:.0f} MiB at most, {found['before'] / 2**20:.0f} before"

    def row(operation: str, seconds: float, text: str) -> Row:
        each = seconds * 1e9 / weights
        sent = found["bytes"] / weights
        return Row(
            OURS,
            setting,
            operation,
            params._scheme.backend,
            threads,
            each,
            sent,
            weights,
            1,
            each,
            each,
            0.0,
            None,
            text,
        )

    return (
        row("stream_encrypt", found["encrypt_s"], f"{note}; the look for NaN and Inf included"),
        row("stream_open", found["open_s"], f"{note}; every opened value checked"),
    )


class _Meter:
    """Seconds that a stream's steps take, its bytes, and the largest RssAnon seen."""

    def __init__(self) -> None:
        self.seconds, self.bytes, self.steps = 0.0, 0, 0
        self.before = self.peak = anonymous_memory()

    def timed(self, chunks: Iterator[Any]) -> Iterator[Any]:
        """The same chunks."""
        while True:
            began = time.perf_counter()
            chunk = next(chunks, None)
            self.seconds += time.perf_counter() - began
            self.sample(chunk is None)
            if chunk is None:
                return
            self.bytes += len(chunk)
            yield chunk

    def sample(self, always: bool) -> None:
        """Look at the memory, at every so many steps."""
        self.steps += 1
        if always or self.steps % _SAMPLED == 1:
            self.peak = max(self.peak, anonymous_memory())


def anonymous_memory() -> int:
    """RssAnon of this process in bytes."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


class _Checker:
    """Takes pieces of the opened vector and compares each with the tile."""

    def __init__(self, expected: NDArray[np.float32]) -> None:
        self.expected, self.done, self.seconds = expected, 0, 0.0

    def __call__(self, piece: NDArray[np.float32]) -> None:
        began = time.perf_counter()
        at = 0
        while at < piece.size:
            start = (self.done + at) % self.expected.size
            part = piece[at : at + self.expected.size - start]
            assert np.array_equal(part, self.expected[start : start + part.size]), f"wrong near {self.done + at}"
            at += part.size
        self.done += piece.size
        self.seconds += time.perf_counter() - began


def _write_file(path: Path, weights: int) -> NDArray[np.float32]:
    tile = np.random.default_rng(2024).normal(0, 0.05, min(_TILE, weights)).astype(np.float32)
    with path.open("wb") as file:
        for start in range(0, weights, tile.size):
            file.write(tile[: weights - start].data)
    return tile


def _there_and_back(setting: str, weights: int, folder: Path) -> dict[str, float]:
    name, keys = parse_setting(setting)
    params = pf.CkksParams.preset(name, parties=PARTIES, clip=CLIP, keys=keys)
    tile = _write_file(folder / "weights", weights)
    checker = _Checker(pf.dequantize(params, pf.quantize(params, tile)))
    x: NDArray[np.float32] = np.memmap(folder / "weights", np.float32, "r", shape=(weights,))
    meter = _Meter()
    began = time.perf_counter()
    if keys == "collective":
        key = pf.CollectiveKey.generate(params)
        opener: Any = pf.CollectiveKey.sum([key])
        chunks = key.encrypt_chunks(x, CONTEXT)
    else:
        opener = pf.keygen(params).secret
        chunks = opener.encrypt_chunks(x)
    looked = time.perf_counter() - began
    began = time.perf_counter()
    opener.decrypt_chunks(meter.timed(chunks), checker)
    total = time.perf_counter() - began
    assert checker.done == weights
    return {
        "encrypt_s": looked + meter.seconds,
        "open_s": total - meter.seconds - checker.seconds,
        "bytes": meter.bytes,
        "before": meter.before,
        "peak": max(meter.peak, anonymous_memory()),
    }


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    setting, weights, threads = arguments[0], int(arguments[1]), int(arguments[2])
    pf.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="pppml-stream-") as folder:
        found = _there_and_back(setting, weights, Path(folder))
    sys.stdout.write(json.dumps(found) + os.linesep)


if __name__ == "__main__":
    main(sys.argv[1:])

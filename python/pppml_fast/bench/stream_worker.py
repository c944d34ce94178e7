"""A stream from a mapped file through encryption and opening to a sink that checks and discards, in this process.

    python -m pppml_fast.bench.stream_worker SETTING WEIGHTS THREADS

writes one JSON object. The file, in the folder for temporary files, holds one tile of random weights again and again,
so that every opened value can be checked, and is deleted afterwards.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pppml_fast as pf
from pppml_fast.bench.ours import CONTEXT, parse_setting

__all__ = ["Checker", "anonymous_memory", "main"]

_TILE = 1 << 20
# /proc is read at every so many chunks.
_SAMPLED = 64


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
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


class Checker:
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
    params = parse_setting(setting)
    tile = _write_file(folder / "weights", weights)
    checker = Checker(pf.dequantize(params, pf.quantize(params, tile)))
    x: NDArray[np.float32] = np.memmap(folder / "weights", np.float32, "r", shape=(weights,))
    meter = _Meter()
    began = time.perf_counter()
    if params.keys == "collective":
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

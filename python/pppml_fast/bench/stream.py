"""Vectors that fit in memory once or not at all, as rows: `stream_worker` does the work in a process apart."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pppml_fast.bench.ours import parse_setting
from pppml_fast.bench.rows import OURS, Row
from pppml_fast.errors import ConfigError

__all__ = ["stream_rows"]

_FLOAT_BYTES = 4


def stream_rows(setting: str, weights: int, threads: int) -> tuple[Row, Row]:
    """The rows stream_encrypt and stream_open of ``setting`` on ``weights`` weights.

    Raises ConfigError where the temporary folder has no room for them or the setting is not streamed.
    """
    params = parse_setting(setting)
    if params.keys == "public":
        raise ConfigError(f"{setting} is not streamed: its ciphertexts hold two polynomials; use collective or secret")
    if not Path("/proc/self/status").exists():
        raise ConfigError("a stream is measured where /proc tells the memory of a process, on Linux")
    free, needed = shutil.disk_usage(tempfile.gettempdir()).free, weights * _FLOAT_BYTES
    if free < needed + (1 << 30):
        raise ConfigError(
            f"{weights} weights take {needed / 1e9:.1f} GB in {tempfile.gettempdir()}, where {free / 1e9:.1f} GB are "
            "free; set TMPDIR or stream fewer"
        )
    worker = [sys.executable, "-m", "pppml_fast.bench.stream_worker", setting, str(weights), str(threads)]
    done = subprocess.run(worker, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{setting}: the streaming process failed: {done.stderr}"
    found = json.loads(done.stdout)
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

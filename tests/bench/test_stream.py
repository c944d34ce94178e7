"""A small stream, measured: it comes back exact, in bounded memory, and leaves no file behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from pppml_fast.bench import BenchPlan, run_bench
from pppml_fast.bench.stream import stream_rows
from pppml_fast.bench.stream_worker import Checker
from pppml_fast.errors import ConfigError

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


@pytest.mark.parametrize("setting", ["p31/collective", "compact/secret"])
def test_a_stream_is_measured_and_checked(setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    encrypting, opening = stream_rows(setting, 1_100_003, 1)
    assert (encrypting.operation, opening.operation) == ("stream_encrypt", "stream_open")
    for row in (encrypting, opening):
        assert row.setting == setting and row.weights == 1_100_003
        assert row.ns_per_weight > 0 and 3 < (row.bytes_per_weight or 0) < 4 and "RssAnon" in row.note
    assert list(tmp_path.iterdir()) == []


def test_streams_are_part_of_a_run_where_they_exist() -> None:
    plan = BenchPlan(size=3000, settings=("p31/collective", "p31/public"), repetitions=1, stream=50_000)
    streamed = [row.setting for row in run_bench(plan).rows if row.operation.startswith("stream")]
    assert streamed == ["p31/collective"] * 2


def test_what_cannot_be_streamed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="p31/public is not streamed"):
        stream_rows("p31/public", 1000, 1)
    with pytest.raises(ConfigError, match=r"4000000000.0 GB in .* set TMPDIR"):
        stream_rows("p31/collective", 10**18, 1)


def test_a_wrong_value_is_noticed() -> None:
    tile = np.arange(7, dtype=np.float32)
    checker = Checker(tile)
    checker(np.tile(tile, 3)[:17])
    checker(np.tile(tile, 3)[17:])
    assert checker.done == 21
    wrong = np.tile(tile, 3)
    wrong[12] += 1
    with pytest.raises(AssertionError, match="wrong near 28"):
        checker(wrong)

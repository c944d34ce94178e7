"""The programs of `make test-gpu bench-gpu`, as far as they run without a GPU."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks" / "gpu"
pytestmark = pytest.mark.played_device


class Event:
    def __init__(self, **_: Any) -> None:
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: Event) -> float:
        return 1e3 * (other.at - self.at)


class Stream:
    cuda_stream = 0

    def wait_stream(self, _: Stream) -> None:
        pass


def on_the_host(function: Any) -> Any:
    """A maker of tensors that knows of no devices: the played one reads host memory."""

    def call(*arguments: Any, device: str = "", pin_memory: bool = False, **options: Any) -> Any:
        assert device in ("", "cuda")
        return function(*arguments, **options)

    return call


@pytest.fixture
def played_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for name in ("empty", "randn"):
        monkeypatch.setattr(torch, name, on_the_host(getattr(torch, name)))
    for name, value in {
        "Event": Event,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": contextlib.nullcontext,
        "mem_get_info": lambda: (10**10, 10**10),
        "empty_cache": lambda: None,
        "get_device_name": lambda: "played",
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delenv("PPPML_NATIVE", raising=False)


def test_every_figure_is_measured_and_checked(
    played_torch: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import figures

    monkeypatch.setattr(figures, "REPEATS", 1)
    out = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["figures.py", str(out), "--weights", "8000", "--parameters", "60000"])
    figures.main()
    found = json.loads(out.read_text())
    assert set(figures.AIMS) <= set(found) and all(value > 0 for value in found.values())
    table = capsys.readouterr().out
    assert "measured" in table and table.count("met") >= len(figures.AIMS)


def test_the_small_run_of_every_kernel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delenv("PPPML_NATIVE", raising=False)
    import small

    small.main()
    assert capsys.readouterr().out == "every kernel ran\n"


def test_the_gpu_is_described_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import run

    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 580.159.04, 9.0, 81559 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    gpu = run.find_gpu()
    assert gpu == {
        "name": "NVIDIA H100 80GB HBM3", "driver": "580.159.04", "capability": "9.0", "memory": "81559 MiB"
    }  # fmt: skip
    assert run.provenance(gpu)["gpu"] is gpu
    report = tmp_path / "test.xml"
    assert run.counted(report) == {"passed": 0, "failed": 0, "skipped": 0}
    report.write_text('<testsuites><testsuite tests="9" failures="1" errors="1" skipped="2"/></testsuites>')
    assert run.counted(report) == {"passed": 5, "failed": 2, "skipped": 2}


@pytest.mark.parametrize(
    "script, verdict",
    [
        ("echo '========= ERROR SUMMARY: 0 errors'", "clean"),
        ("echo '========= ERROR SUMMARY: 3 errors'; exit 9", "status 9"),
        ("echo nothing", "status 0"),
    ],
)
def test_a_sanitizer_is_believed_only_when_it_says_so(
    script: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import run

    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert run.sanitize(tmp_path, tmp_path / "native.so", "memcheck").startswith(verdict)

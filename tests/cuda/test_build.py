"""`pppml_fast.cuda` on a machine without a device, and the tools around its build; the rest is in `device/`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import pppml_fast as pf
from pppml_fast import _native, cuda

ROOT = Path(__file__).parents[2]
CONTEXT = bytes(32)


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_whether_there_is_a_device_is_a_question_without_an_error() -> None:
    assert cuda.is_available() is (cuda.why_unavailable() == "")
    assert (cuda.device_count() > 0) is cuda.is_available()
    assert pf.cuda is cuda


def test_a_build_without_cuda_says_so_and_leaves_keys_alone() -> None:
    if cuda.is_available():
        assert cuda.device_info(0).memory > 0  # tests/cuda/device has the rest
        return
    reason = cuda.why_unavailable()
    assert ("has no CUDA; build it with PPPML_CUDA=ON" in reason) is not _native.cuda.built()
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
    key, x = pf.CollectiveKey.generate(params), np.zeros(5, np.float32)
    for call in (
        lambda: cuda.encrypt(key, x, CONTEXT),
        lambda: cuda.encrypt_onto(key, None, x, CONTEXT),
        lambda: cuda.DeviceArray(3),
        cuda.device_info,
    ):
        with pytest.raises(pf.DeviceError) as error:
            call()
        assert str(error.value) == reason
    assert len(key.encrypt(x, CONTEXT)) == 5  # nothing was used up


REPORT = """
ptxas info    : Compiling entry function '_ZN5pppml7kernels4cuda14encrypt_kernelINS1_5ShapeIjLj11ELj1EEEEE' for 'sm_90'
ptxas info    : Function properties for _ZN5pppml7kernels4cuda14encrypt_kernelINS1_5ShapeIjLj11ELj1EEEEE
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 8 bytes cumulative stack size, 10288 bytes smem
ptxas info    : Compiling entry function '_ZN5pppml7kernels4cuda10sum_kernelINS1_5ShapeImLj12ELj1EEEEE' for 'sm_100'
ptxas info    : Function properties for _ZN5pppml7kernels4cuda10sum_kernelINS1_5ShapeImLj12ELj1EEEEE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers
"""


def test_the_resource_report_is_read_kernel_by_kernel() -> None:
    assert load("csrc/tests/cuda_build.py").parse(REPORT) == {
        "encrypt/p31/sm_90": {"stack": 8, "spilled": 28, "registers": 80, "shared": 10288},
        "sum/p50/sm_100": {"stack": 0, "spilled": 0, "registers": 32, "shared": 0},
    }


@pytest.mark.parametrize("what", ["test", "bench"])
def test_without_a_gpu_its_tests_and_figures_say_so_and_fail(what: str, tmp_path: Path) -> None:
    if Path("/usr/local/nvidia/bin/nvidia-smi").exists():
        return  # a GPU's machine runs them
    command = [sys.executable, "benchmarks/gpu/run.py", what, "--results", str(tmp_path)]
    environment = {**os.environ, "PATH": str(tmp_path)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 2
    assert "no GPU: " in run.stdout and "Nothing was tested or measured" in run.stdout
    assert list(tmp_path.iterdir()) == []

"""The extension under test, and how the processor plays its device (csrc/kernels/cuda/runtime_host.cpp).

`make test-cuda-host` names in PPPML_NATIVE an extension that was built with PPPML_CUDA=HOST; on a machine with a GPU
`make test-gpu` runs the same tests on the real one.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(_TESTS / "core"), str(_TESTS / "aggregation")]


def _load(path: str) -> None:
    name = "pppml_fast._native"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if native := os.environ.get("PPPML_NATIVE"):
    assert "pppml_fast" not in sys.modules, "run tests/cuda/device alone: another extension is in use already"
    _load(native)

from pppml_fast import cuda  # noqa: E402


def pytest_sessionstart() -> None:
    if reason := cuda.why_unavailable():
        pytest.exit(f"no device to test: {reason}", returncode=2)


PLAY = os.environ.get("PPPML_CUDA_HOST", "")  # what the played device plays in all tests that do not say otherwise
PLAYED = cuda.is_available() and cuda.device_info(0).capability == (0, 0)


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """What needs a played device is not for a real one, and the other way round: it is left out, not skipped."""
    unfit = [item for item in items if item.get_closest_marker("real_device" if PLAYED else "played_device")]
    config.hook.pytest_deselected(items=unfit)
    items[:] = [item for item in items if item not in unfit]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "played_device: the processor plays the device as PPPML_CUDA_HOST tells it")
    config.addinivalue_line("markers", "real_device: needs a GPU")


@pytest.fixture(autouse=True)
def nothing_is_left_on_the_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test gives back what it took."""
    if not PLAYED:
        yield
        return
    monkeypatch.setenv("PPPML_CUDA_HOST", PLAY)
    yield
    monkeypatch.setenv("PPPML_CUDA_HOST", PLAY)

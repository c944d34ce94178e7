"""Options and fixtures of the suite. With --benchmark-disable it runs once on few weights, as tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pppml_fast import _native
from pppml_fast.bench.ours import Workbench
from pppml_fast.bench.run import use_threads

FEW, MANY = 5000, 1 << 22


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--weights",
        action="append",
        type=int,
        default=[],
        metavar="N",
        help=f"weights per operation; may be repeated (default {MANY}, or {FEW} with --benchmark-disable)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "size" in metafunc.fixturenames:
        disabled = metafunc.config.getoption("benchmark_disable")
        sizes = metafunc.config.getoption("weights") or [FEW if disabled else MANY]
        metafunc.parametrize("size", sizes, ids=lambda size: f"n={size}", scope="module")
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", _native.supported_backends(), indirect=True, scope="module")


@pytest.fixture(scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The backend that parameter sets built now will use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPPML_BACKEND", request.param)
        yield request.param


@pytest.fixture(params=[1, 2], ids=["threads=1", "threads=2"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Threads of the core."""
    with use_threads(request.param):
        yield request.param


@pytest.fixture(scope="module")
def workbench() -> Iterator[Callable[[str, int, str], Workbench]]:
    """Keys and ciphertexts by setting, size and backend; the last one is kept, since large ones fill the memory."""
    kept: dict[tuple[str, int, str], Workbench] = {}

    def make(setting: str, size: int, backend: str) -> Workbench:
        key = (setting, size, backend)
        if key not in kept:
            kept.clear()
            kept[key] = Workbench(setting, size)
            assert kept[key].backend == backend
        return kept[key]

    yield make
    kept.clear()

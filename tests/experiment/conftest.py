"""Fixtures of the experiments: the tiny set of data, its configuration, and one finished run of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import tiny_study

from pppml_fast.experiment import build_config
from pppml_fast.experiment.results import RunResult
from pppml_fast.experiment.runner import run_experiment
from pppml_fast.experiment.study import Study, prepare


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests share their machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny NPZ set."""
    return tiny_study.write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="session")
def table(npz: Path) -> dict[str, Any]:
    """The tiny configuration as a table."""
    return tiny_study.table(npz)


@pytest.fixture(scope="session")
def study(table: dict[str, Any]) -> Study:
    """The tiny study, prepared."""
    return prepare(build_config(table))


@pytest.fixture(scope="session")
def finished(table: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path]:
    """One finished run of the tiny study and its folder."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    return run_experiment(build_config(table), out, command="pppml run tiny.toml"), out

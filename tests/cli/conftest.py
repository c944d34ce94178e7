"""Fixtures of the program: the tiny data of the experiments, and the program run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "experiment"))

import tiny_study

from pppml_fast.cli import main

torch.set_num_threads(1)


@dataclass(frozen=True)
class Outcome:
    """What a call of the program left on its streams."""

    code: int
    out: str
    err: str


Program = Callable[..., Outcome]


@pytest.fixture
def pppml(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Program:
    """Runs the program with arguments and returns its exit code and streams."""
    monkeypatch.delenv("PPPML_DATA", raising=False)

    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        code = stopped.value.code
        return Outcome(code if isinstance(code, int) else 1, streams.out, streams.err)

    return call


@pytest.fixture(scope="session")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny NPZ set."""
    return tiny_study.write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture
def config(npz: Path, tmp_path: Path) -> Path:
    """The tiny configuration as a file."""
    path = tmp_path / "tiny.toml"
    path.write_text(tiny_study.toml(npz))
    return path


@pytest.fixture(scope="session")
def trained(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run of one method."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(tiny_study.toml(npz, 'board = ["per_fedavg_fo"]\n'))
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(folder / "tiny.toml"), "--out", str(folder / "run")])
    assert stopped.value.code == 0
    return folder / "run"

"""A run that was killed, for real, goes on from its last finished round and ends in the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pppml_fast
from pppml_fast.experiment.results import RunResult

# Kills itself at the given rename (0: never): renames are what commits files, so any half-written state would show.
RUN = """
import os, signal, sys
from pathlib import Path

rename, count, kill_at = os.replace, 0, int(sys.argv[3])

def counted(source, target):
    global count
    count += 1
    if count == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)

os.replace = counted
from pppml_fast.cli import main
main(["run", sys.argv[1], "--out", sys.argv[2]])
"""


def run(config: Path, out: Path, kill_at: int) -> subprocess.CompletedProcess[str]:
    roots = [str(Path(root).parent) for root in pppml_fast.__path__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*roots, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", RUN, str(config), str(out), str(kill_at)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=False)


def test_killed_twice_and_the_same_bits(npz: Path, finished: tuple[RunResult, Path], tmp_path: Path) -> None:
    import tiny_study

    config, out = tmp_path / "tiny.toml", tmp_path / "run"
    config.write_text(tiny_study.toml(npz))
    # Renames: the mark of the run, then two per round. The first kill hits the second training between the
    # tensors of a round and their commit, the second one some rounds of the third training later.
    first = run(config, out, kill_at=18)
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert not (out / "summary.json").exists()
    trained = {path.parent.name for path in out.rglob("state.json")}
    assert "local" in trained and "per_fedavg_hf" not in trained

    second = run(config, out, kill_at=12)
    assert second.returncode == -signal.SIGKILL, second.stderr
    assert "goes on after round" in second.stdout
    assert not (out / "summary.json").exists()

    third = run(config, out, kill_at=0)
    assert third.returncode == 0, third.stderr
    summary = json.loads((out / "summary.json").read_text())
    uninterrupted = finished[0]
    assert summary["provenance"]["models"] == uninterrupted.provenance["models"]
    assert summary["provenance"]["resumed"] is True
    assert summary["aggregation"]["max_difference_from_plain"] == 0
    for name, method in summary["methods"].items():
        expected = next(m for m in uninterrupted.methods if m.name == name)
        assert method["mean"] == expected.mean(expected.steps)
    card = "models/per_fedavg_fo/east.safetensors"
    assert (out / card).read_bytes() == (finished[1] / card).read_bytes()
    assert not list(out.rglob("*.part"))

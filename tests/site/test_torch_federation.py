"""The same members over torch.distributed: three ranks of one job, as `torchrun` starts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

WORKER = Path(__file__).parent / "torch_member.py"


def test_three_ranks_sum_exactly(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    done = subprocess.run(
        [*launch, str(WORKER), str(tmp_path), "100000", "3"], capture_output=True, check=False, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = sorted(line.partition(" seconds")[0] for line in done.stdout.splitlines() if line.startswith("rank"))
    assert told == [f"rank{index} rounds=3 exact=3 weights=100000" for index in range(3)]

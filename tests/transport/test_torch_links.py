"""Links over torch.distributed: three processes, gloo, and what a wrong job gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from pppml_fast.errors import ConfigError
from pppml_fast.transport.torch_links import TorchLinks

NODE = Path(__file__).parent / "torch_node.py"


def test_three_ranks_exchange_messages_of_all_sizes(tmp_path: Path) -> None:
    command = [sys.executable, str(NODE)]
    nodes = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(3)
    ]
    try:
        found = [node.communicate(timeout=900) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0, 0], found
    assert [out.strip().splitlines()[-1] for out, _ in found] == ["a heard 10", "b heard 10", "c heard 10"]


def test_links_outside_a_job_are_refused() -> None:
    with pytest.raises(ConfigError, match="a must be rank 0 of an initialised"):
        TorchLinks("a", bytes(16), {"a": 0, "b": 1})


def test_torch_is_not_imported_with_the_module() -> None:
    code = "import pppml_fast.transport.torch_links, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=900)

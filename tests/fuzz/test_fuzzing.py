"""The fuzzers find what is planted, make the same inputs again, and know every parser."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from driver import mutate  # noqa: E402
from protocol_targets import PAYLOADS  # noqa: E402
from targets import NATIVE, PYTHON, python_target  # noqa: E402

from pppml_fast.aggregation import payloads  # noqa: E402

PLANTED = """
import sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from driver import fuzz

def target(data):
    if data.startswith(b"seed") and len(data) > 20:
        {fault}

sys.exit(fuzz(target, [b"seed"], runs=20000, seed=3, timeout={limit}, max_len=64, artifact=Path({artifact!r})))
"""


@pytest.mark.parametrize(
    ("fault", "named", "limit"),
    [
        ("raise KeyError('planted')", "KeyError: 'planted'", 300),
        ("bytearray(1 << 31)", "MemoryError", 300),
        ("while True: pass", "takes longer than its limit", 5),  # which no other input does on the slowest machine
    ],
)
def test_what_is_planted_is_found_and_its_input_saved(tmp_path: Path, fault: str, named: str, limit: int) -> None:
    artifact = tmp_path / "crash"
    script = PLANTED.format(folder=str(HERE), fault=fault, artifact=str(artifact), limit=limit)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    assert named in run.stderr
    data = artifact.read_bytes()
    assert data.startswith(b"seed")
    assert len(data) > 20


def test_the_same_seed_makes_the_same_inputs() -> None:
    pool, words = [b"", b"seed", bytes(100)], [b"word"]
    one, two = ([mutate(chance, pool, words) for _ in range(200)] for chance in (random.Random(5), random.Random(5)))
    assert one == two
    assert len(set(one)) > 100


@pytest.mark.parametrize("name", [target.name for target in PYTHON])
def test_seeds_are_no_findings(name: str) -> None:
    _, function, seeds, _ = python_target(name)
    assert seeds
    for seed in seeds[:6]:
        function(seed)


SEEDS = """
import hashlib, sys
sys.path.insert(0, {folder!r})
from native_seeds import native_seeds
from targets import NATIVE, PYTHON, python_target
seeds = [native_seeds(target.name) for target in NATIVE] + [python_target(target.name)[2] for target in PYTHON]
print(hashlib.sha256(b"".join(len(s).to_bytes(4, "little") + s for part in seeds for s in part)).hexdigest())
"""


def test_the_seeds_are_the_same_in_every_process() -> None:
    script = SEEDS.format(folder=str(HERE))
    outputs = {
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=900, check=True).stdout
        for _ in range(2)
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) == 65


def test_every_body_has_a_seed_and_every_source_a_target() -> None:
    parsers = {name for name in payloads.__all__ if hasattr(getattr(payloads, name), "parse")}
    assert {type(payload).__name__ for payload in PAYLOADS} == parsers
    sources = {path.stem for path in (HERE.parents[1] / "csrc" / "tests" / "fuzz").glob("*.cpp")}
    assert sources - {"sets", "driver"} == {target.name for target in NATIVE}

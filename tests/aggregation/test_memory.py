"""What a party's memory reaches besides its vector: no more with a longer one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MIB = 1 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")


def report(*options: str) -> dict[str, Any]:
    script = Path(__file__).parent / "party_memory.py"
    done = subprocess.run([sys.executable, str(script), *options], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["agreed"] and found["same"]
    return found


@pytest.mark.parametrize(
    ("party", "protocol", "topology"),
    [
        ("north", "collective", "ring"),
        ("east", "collective", "ring"),
        ("south", "collective", "ring"),
        ("east", "plain", "ring"),
        ("east", "collective", "star"),
    ],
)
def test_a_party_takes_its_vector_and_a_bounded_rest(party: str, protocol: str, topology: str) -> None:
    """Both ways and the opening: a whole term, sum or result in memory would be 4 to 8 bytes per weight more."""
    options = ("--party", party, "--protocol", protocol, "--topology", topology, "--weights")
    some, more = (report(*options, weights) for weights in ("1e6", "8e6"))
    for found in (some, more):
        assert found["beyond_model"] < 256 * MIB
    assert more["beyond_model"] - some["beyond_model"] < 12 * MIB


def test_pads_made_ahead_are_within_the_bound() -> None:
    assert report("--party", "east", "--weights", "4e6", "--pads")["beyond_model"] < 256 * MIB

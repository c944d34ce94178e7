"""A whole round in one process, by protocol, with every byte that a network would carry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pppml_fast as pf
from pppml_fast.aggregation import open_federation

PARTIES = ["north", "east", "south", "west"]


@pytest.mark.parametrize("name", ["p31", "p50", "compact"])
@pytest.mark.parametrize(
    "protocol, topology, keys",
    [
        ("collective", "ring", "collective"),
        ("collective", "star", "collective"),
        ("initiator", "ring", "public"),
        ("plain", "ring", "collective"),
    ],
)
def test_round(benchmark: Any, protocol: str, topology: str, keys: Any, name: str, size: int, backend: str) -> None:
    params = pf.CkksParams.preset(name, parties=len(PARTIES), clip=0.25, keys=keys, weights="public")
    source = np.random.default_rng(3)
    benchmark.extra_info["weights"] = size
    rounds: list[dict[str, NDArray[np.float32]]] = []

    def fresh() -> tuple[tuple[()], dict[str, Any]]:
        # An update serves one round only.
        rounds.append({party: source.normal(0, 0.05, size).astype(np.float32) for party in PARTIES})
        return (), {"updates": rounds[-1], "round": len(rounds) - 1}

    with open_federation(PARTIES, params=params, protocol=protocol, topology=topology) as federation:
        result = benchmark.pedantic(federation.aggregate, setup=fresh, rounds=3, warmup_rounds=1)
    expected = sum(pf.quantize(params, update, 1 / len(PARTIES)) for update in rounds[-1].values())
    assert np.array_equal(result.integers, expected)

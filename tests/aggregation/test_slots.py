"""Slot sets through every protocol: the paper's scheme, initiator and slots, included."""

from __future__ import annotations

import numpy as np
import pytest
from aggregation_support import LAYOUT, NAMES, SIZE, federation, vectors

from pppml_fast import CkksParams, ParameterError, quantize

SHAPES = [("collective", "ring"), ("collective", "star"), ("initiator", "ring"), ("plain", "ring"), ("plain", "star")]


def slots(protocol: str, weights: str = "public", packing: str = "slots", **more: object) -> CkksParams:
    keys = "public" if protocol == "initiator" else "collective"
    return CkksParams.preset("p50", parties=3, clip=1.0, keys=keys, weights=weights, packing=packing, **more)


@pytest.mark.parametrize("packing", ["slots", "real_slots"])
@pytest.mark.parametrize(("protocol", "topology"), SHAPES)
def test_every_protocol_sums_slots(protocol: str, topology: str, packing: str) -> None:
    shares = dict(zip(NAMES, (0.4, 0.3, 0.3), strict=False))
    updates = vectors()
    params = slots(protocol, packing=packing)
    with federation(3, protocol, topology, weights=shares, params=params, layout=LAYOUT) as fed:
        result = fed.aggregate(updates, round=0)
        assert np.array_equal(result.integers, sum(quantize(params, updates[name], shares[name]) for name in shares))
        mean = sum(shares[name] * np.clip(updates[name].astype(np.float64), -1, 1) for name in shares)
        assert result.vector.shape == (SIZE,)
        assert np.abs(result.vector - mean).max() <= params.max_error + 1e-7
        total = fed.sum({name: np.full(5, 0.25, np.float32) for name in NAMES[:3]})
        assert np.abs(total.vector - 0.75).max() <= fed.sum_params.max_error + 1e-7


def test_the_published_set_is_refused() -> None:
    with pytest.warns(UserWarning, match="comparison only"):
        params = CkksParams.preset("published", parties=3, clip=1.0, insecure_for_comparison=True)
    with pytest.raises(ParameterError, match="comparison only"):
        federation(3, "initiator", "ring", params=params)

"""Weights as they lie in memory, less a reference, rounded at random: what encryption takes and what it makes of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from core_support import MODES, SETS, Parties, vector

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.tensors import tensor_list


def params_of(name: str = "p31", **options: Any) -> pf.CkksParams:
    return pf.CkksParams.preset(name, **{"parties": 3, "clip": 1.0, "keys": "collective", **options})


# --- arrays that are not contiguous -----------------------------------------------------------------------------------

GRID = vector(60 * 50).reshape(60, 50)
CUBE = vector(5 * 12 * 40, 1).reshape(5, 12, 40)
IN_PLACE: dict[str, np.ndarray] = {
    "contiguous": GRID,
    "first columns": GRID[:, :17],
    "last columns": GRID[:, 33:],
    "every third row": GRID[::3],
    "every third row, some columns": GRID[1::3, 5:30],
    "one row": GRID[7:8, 3:20],
    "broadcast rows": np.broadcast_to(GRID[0], (7, 50)),
    "planes": CUBE[::2],
    "rows of all planes": CUBE[:, :, :20],
    "a plane's rows": CUBE[2, :, 4:24],
    "a new axis": GRID[:, None, :20],
    "float64": GRID.astype(np.float64)[:, :20],
    "float16": GRID.astype(np.float16)[:, :20],
    "of a record": np.zeros(9, [("x", np.float32, 20), ("y", np.float32)])["x"],
    "empty": GRID[:0, :7],
    "scalar": np.array(0.25, np.float32),
}
COPIED: dict[str, np.ndarray] = {
    "every second value": GRID.reshape(-1)[::2],
    "short rows": GRID[:, :3],
    "rows backwards": GRID[::-1],
    "columns backwards": GRID[:, ::-1],
    "transposed": GRID.T,
    "Fortran order": np.asfortranarray(GRID),
    "some rows of each plane": CUBE[:, 2:9, :20],
    "planes swapped with rows": CUBE.transpose(1, 0, 2),
    "a broadcast value": np.broadcast_to(np.float32(0.5), (40, 30)),
    "rows at odd distances": np.zeros(9, [("x", np.float32, 20), ("y", np.int8)])["x"],
}


@pytest.mark.parametrize("name", ["p31", "p50"])
@pytest.mark.parametrize("spelling", [*IN_PLACE, *COPIED])
def test_arrays_of_any_strides_are_read_in_c_order(name: str, spelling: str) -> None:
    array = {**IN_PLACE, **COPIED}[spelling]
    (handed,) = tensor_list(array)
    if array.size:
        assert np.shares_memory(handed, array) is (spelling in IN_PLACE)
    params = params_of(name)
    expected = pf.quantize(params, np.array(array, order="C").reshape(-1))
    assert np.array_equal(pf.quantize(params, array), expected)
    parties, before, after = Parties(params, 1), vector(2040, 2), vector(9, 3)
    opened = parties.opener.decrypt(parties.encrypt(0, [before, array, after]), integers=True)
    assert np.array_equal(opened[2040:-9], expected)
    assert np.array_equal(
        pf.quantize(params, vector(array.size, 4), reference=array),
        pf.quantize(params, vector(array.size, 4), reference=np.array(array, order="C")),
    )


def test_the_core_refuses_what_it_cannot_read_in_place() -> None:
    for array in COPIED.values():
        assert not _native.reads_in_place(array)
        with pytest.raises(_native.RequirementError, match="no sequence of contiguous rows"):
            params_of()._scheme.quantize([array], 1.0)


@pytest.mark.parametrize("array", [GRID[:, :20], GRID[::-1], CUBE[:, :, :20]])
def test_nan_is_named_by_its_place_in_c_order(array: np.ndarray) -> None:
    base = array.copy()
    base[-1, 3] = np.nan
    wide = np.zeros((*array.shape[:-1], array.shape[-1] + 5), np.float32)
    wide[..., : array.shape[-1]] = base
    element = int(np.flatnonzero(np.isnan(base))[0])
    with pytest.raises(pf.InputError, match=f"tensor 1, element {element} is NaN"):
        pf.quantize(params_of(), [np.zeros(3), wide[..., : array.shape[-1]]])


# --- a reference ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("keys", MODES)
def test_a_reference_is_subtracted_before_the_clip(name: str, keys: Any) -> None:
    params = params_of(name, keys=keys, weights="public", clip=0.3)
    x, reference = vector(9000), vector(9000, 1)
    wide = np.float32 if params._checked.single_precision else np.float64
    difference = x.astype(wide) - reference.astype(wide)
    expected = pf.quantize(params, difference, 0.5)
    for spelled in (reference, [reference[:100], reference[100:].reshape(89, 100)]):
        assert np.array_equal(pf.quantize(params, x, 0.5, spelled), expected)
        parties = Parties(params, 1)
        opened = parties.opener.decrypt(parties.encrypt(0, x, weight=0.5, reference=spelled), integers=True)
        assert np.array_equal(opened, expected)
    assert pf.count_clipped(params, x, reference) == np.count_nonzero(np.abs(difference) > wide(0.3))
    assert not pf.quantize(params, x, 0.5, x).any()
    out = np.ones(9000, np.int64)
    assert pf.quantize(params, x, 0.5, reference, out) is out
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("keys", MODES)
def test_an_unsuitable_reference_is_refused(keys: Any) -> None:
    params, x = params_of(keys=keys), vector(50)
    spoilt = x.copy()
    spoilt[[20, 40]] = np.nan, np.inf
    both = x.copy()
    both[30] = np.nan
    for weights, reference, message in (
        (x, x[1:], "the reference has 49 values, the weights 50"),
        (x, np.arange(50), "dtype int64"),
        (x, [x[:15], spoilt[15:]], "reference tensor 1, element 5 is NaN or Inf"),
        (both, spoilt, "reference tensor 0, element 20 is NaN or Inf"),
        ([x[:1], spoilt[1:]], both, "tensor 1, element 19 is NaN or Inf"),
        (spoilt, spoilt, "^tensor 0, element 20 is NaN or Inf"),
    ):
        parties = Parties(params, 1)
        with pytest.raises(pf.InputError, match=message):
            pf.quantize(params, weights, reference=reference)
        with pytest.raises(pf.InputError, match=message):
            parties.encrypt(0, weights, reference=reference)


@pytest.mark.parametrize(
    "out", [np.zeros(49, np.int64), np.zeros(50, np.int32), np.zeros(100, np.int64)[::2], [0] * 50]
)
def test_an_unsuitable_output_is_refused(out: Any) -> None:
    with pytest.raises(pf.InputError, match="out"):
        pf.quantize(params_of(), vector(50), out=out)


# --- stochastic rounding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1.0, 0.37])
@pytest.mark.parametrize("name", SETS)
def test_stochastic_rounding_is_right_on_average(name: str, weight: float) -> None:
    params = params_of(name, weights="public", rounding="stochastic", parties=16)
    # Thousands of steps and less, where the floats that the set quantises in are exact enough to tell.
    x = np.random.default_rng(3).uniform(-1, 1, 400) * min(1.0, 4096 * params.step)
    x[:3] = 0.3 * params.step, -0.3 * params.step, 1e-3 * params.step
    x = x.astype(np.float32).astype(np.float64)
    repeats = 4000
    values = pf.quantize(params, np.tile(x, repeats), weight).reshape(repeats, x.size)
    exact = x * (weight / params.step)
    # In the float type of the set, y may be off by two roundings.
    off = np.abs(exact) * (2.0**-23 if params._checked.single_precision else 2.0**-52)
    assert np.abs(values - exact).max() < 1 + off.max() + 1e-6
    below = np.floor(exact)
    up = exact - below
    settled = np.minimum(up, 1 - up) > 4 * off + 1e-2
    assert settled.sum() > 0.9 * x.size
    assert set(np.unique((values - below)[:, settled])) <= {0.0, 1.0}
    # Each draw is below + Bernoulli(up): six deviations of the mean of `repeats` of them.
    deviation = np.sqrt(up * (1 - up) / repeats)
    assert (np.abs(values.mean(0) - exact) <= 6 * deviation + 2 * off + 2.0**-20).all()
    # And of the mean over everything, where a bias of all values in common would show.
    total = math.sqrt(float((up * (1 - up)).sum()) / repeats) / x.size
    assert abs(float((values.mean(0) - exact).mean())) <= 6 * total + 2 * float(off.mean()) + 2.0**-22
    spread = values.var(0)[settled] / (up * (1 - up))[settled]
    assert abs(spread.mean() - 1) < 0.05


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("weights", ["free", "public"])
def test_the_clip_holds_whatever_the_draw(name: str, weights: Any) -> None:
    for clip in (1.0, 0.1, 2.446200742739921, 2.332374934325468, *np.random.default_rng(1).uniform(0.01, 10, 10)):
        params = params_of(name, weights=weights, rounding="stochastic", clip=float(clip))
        edge = np.tile(np.array([clip, 1e30, 2 * clip]), 3000)
        for sign in (1, -1):
            values = sign * pf.quantize(params, sign * edge, 1.0)
            assert params.max_magnitude - 2 <= values.min() <= values.max() <= params.max_magnitude
        assert params.parties * int(values.max()) <= params.sum_bound or weights == "public"


@pytest.mark.parametrize("name", SETS)
def test_values_on_the_grid_never_move(name: str) -> None:
    # A clip of max_magnitude makes the step 1: every integer is on the grid.
    reach = params_of(name, rounding="stochastic").max_magnitude
    params = params_of(name, rounding="stochastic", clip=float(min(reach, 2**22)))
    whole = params_of(name, rounding="stochastic", clip=float(reach))
    assert whole.step == 1.0
    grid = np.random.default_rng(2).integers(-min(reach, 2**22), min(reach, 2**22), 30_000)
    for _ in range(3):
        assert np.array_equal(pf.quantize(whole, grid.astype(np.float64)), grid)
        assert not pf.quantize(params, np.zeros(30_000)).any()
    assert np.array_equal(pf.quantize(whole, grid + 0.5, reference=np.full(30_000, 0.5)), grid)


@pytest.mark.parametrize("keys", MODES)
def test_every_encryption_rounds_anew(keys: Any) -> None:
    params = params_of(keys=keys, rounding="stochastic")
    x = vector(20_000)
    opened = []
    for _ in range(2):
        parties = Parties(params, 1)
        opened.append(parties.opener.decrypt(parties.encrypt(0, x), integers=True))
    opened += [pf.quantize(params, x), pf.quantize(params, x)]
    nearest = pf.quantize(params_of(keys=keys), x)
    for index, values in enumerate(opened):
        assert np.abs(values - nearest).max() == 1
        for other in opened[:index]:
            # Fractions are uniform: two draws differ with probability 2 E[u (1 - u)] = 1/3.
            assert 0.3 < (values != other).mean() < 0.367

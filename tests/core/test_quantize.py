"""Quantisation: what callers may hand in, what it rounds to, and what is refused."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from core_support import MODES, SETS, Parties, fresh_parties, vector

import pppml_fast as pf

torch.set_num_threads(1)


def params_of(name: str = "p31", **options: Any) -> pf.CkksParams:
    return pf.CkksParams.preset(name, **{"parties": 3, "clip": 1.0, "keys": "collective", **options})


class Foreign:
    """An object with DLPack and nothing else, as another framework would hand over."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._values.__dlpack_device__()


class ArrayLike:
    """An object with `__array__` and nothing else."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array([0.25, -0.5], np.float32)


# --- inputs --------------------------------------------------------------------------------------------------------

HALVES = np.array([0.5, -0.25, 0.125, 0.75, -1.0, 0.0], np.float32)  # exact in every dtype
SPELLINGS: dict[str, Any] = {
    "float64": HALVES.astype(np.float64),
    "float16": HALVES.astype(np.float16),
    "big-endian float32": HALVES.astype(">f4"),
    "big-endian float64": HALVES.astype(">f8"),
    "big-endian float16": HALVES.astype(">f2"),
    "list of numbers": HALVES.tolist(),
    "tuple of numbers": tuple(HALVES.tolist()),
    "list of NumPy scalars": list(HALVES),
    "nested lists": [[0.5, -0.25, 0.125], [0.75, -1.0, 0.0]],
    "ragged nested lists": [[0.5, -0.25, 0.125, 0.75], (-1.0,), [0.0]],
    "two rows": HALVES.reshape(2, 3),
    "Fortran order": np.asfortranarray(HALVES.reshape(2, 3)),
    "every second": np.repeat(HALVES, 2)[::2],
    "reversed twice": HALVES[::-1].copy()[::-1],
    "transposed twice": HALVES.reshape(3, 2).T.copy().T.reshape(3, 2),
    "read-only": np.frombuffer(HALVES.tobytes(), np.float32),
    "array.array": array.array("f", HALVES.tolist()),
    "memoryview": memoryview(HALVES),
    "memoryview of doubles": memoryview(array.array("d", HALVES.tolist())),
    "DLPack": Foreign(HALVES),
    "torch": torch.from_numpy(HALVES.copy()),
    "torch with gradient": torch.from_numpy(HALVES.copy()).requires_grad_(),
    "torch float16": torch.from_numpy(HALVES.copy()).half(),
    "torch bfloat16": torch.from_numpy(HALVES.copy()).bfloat16(),
    "torch bfloat16, strided": torch.from_numpy(np.repeat(HALVES, 2)).bfloat16()[::2],
    "torch parameter, transposed": torch.nn.Parameter(torch.from_numpy(HALVES.reshape(2, 3).T.copy())).T,
    "list of arrays": [HALVES[:1], HALVES[1:4].astype(np.float64), HALVES[4:].astype(np.float16)],
    "list with empty and scalar": [np.zeros(0, np.float32), np.float32(0.5), HALVES[1:], np.zeros((3, 0))],
    "mixed frameworks": [
        Foreign(HALVES[:2]),
        torch.from_numpy(HALVES[2:3].copy()).bfloat16(),
        array.array("d", HALVES[3:5].tolist()),
        [0.0],
    ],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", ["p31", "p50"])
def test_every_spelling_of_a_vector_gives_the_same_integers(name: str, spelling: str) -> None:
    params = params_of(name)
    expected = pf.quantize(params, HALVES)
    assert expected.dtype == np.int64
    assert np.count_nonzero(expected) == 5
    assert np.array_equal(pf.quantize(params, SPELLINGS[spelling]), expected)
    parties = Parties(params, 1)
    assert np.array_equal(parties.opener.decrypt(parties.encrypt(0, SPELLINGS[spelling]), integers=True), expected)


def test_array_protocol() -> None:
    assert np.array_equal(pf.quantize(params_of(), ArrayLike()), pf.quantize(params_of(), [0.25, -0.5]))


def test_every_half_precision_number_is_read_exactly() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    halves = bits.view(np.float16)
    halves = halves[np.isfinite(halves)]
    brains = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
    brains = brains[torch.isfinite(brains)]
    # A float64 set with a wide clip shows every bit of the fraction.
    params = pf.CkksParams.preset("p62", parties=1, clip=65536.0, keys="secret")
    assert np.array_equal(pf.quantize(params, halves), pf.quantize(params, halves.astype(np.float64)))
    assert np.array_equal(pf.quantize(params, brains), pf.quantize(params, brains.double()))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.arange(3), "tensor 0 has dtype int64; give float32"),
        ([np.zeros(2, np.float32), np.ones(2, bool)], "tensor 1 has dtype bool"),
        (np.zeros(2, complex), "dtype complex128"),
        (np.zeros(2, np.longdouble), "tensor 0 has dtype"),
        ("weights", "tensor 0"),
        (b"1234", "tensor 0"),
        (None, "tensor 0"),
        ([0.5, "x"], "tensor 1"),
        ({"a": 1.0}, "tensor 0"),
        (torch.zeros(2, dtype=torch.int64), "tensor 0 has dtype int64"),
        (torch.empty(2, device="meta"), "tensor 0 of type Tensor is no array"),
    ],
)
def test_other_inputs_are_refused(values: Any, message: str) -> None:
    with pytest.raises(pf.InputError, match=message):
        pf.quantize(params_of(), values)


BAD = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_and_inf_are_refused_by_tensor_and_element(bad: float, dtype: Any) -> None:
    tensors = [np.zeros(5, dtype), np.zeros(0, dtype), np.zeros((3, 4), dtype)]
    tensors[2][1, 2] = bad
    tensors[2][2, 0] = bad
    with pytest.raises(pf.InputError, match="tensor 2, element 6 is NaN or Inf"):
        pf.quantize(params_of(), tensors)
    brains = [torch.zeros(4), torch.tensor([0.0, bad]).bfloat16()]
    with pytest.raises(pf.InputError, match="tensor 1, element 1 is NaN or Inf"):
        pf.count_clipped(params_of(), brains)


# --- rounding and clipping -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("keys", MODES)
@pytest.mark.parametrize("weights", ["free", "public"])
def test_the_clip_never_passes_the_largest_magnitude(name: str, keys: Any, weights: Any) -> None:
    # 2.446200742739921 and 2.332374934325468 once rounded to max_magnitude + 1.
    random = np.random.default_rng(8)
    for clip in [1.0, 0.1, 2.446200742739921, 2.332374934325468, *random.uniform(0.01, 10, 40)]:
        for parties in (2, 3):
            params = params_of(name, parties=parties, clip=float(clip), keys=keys, weights=weights)
            values = pf.quantize(params, np.array([clip, -clip, 1e300, -1e300, 2 * clip]), weight=1.0)
            top = values[0]
            assert params.max_magnitude - 1 <= top <= params.max_magnitude
            assert values.tolist() == [top, -top, top, -top, top]
            assert parties * top <= params.sum_bound or weights == "public"


def rounding(params: pf.CkksParams) -> float:
    """Half a step, and a few units in the last place of the float type that the set quantises in."""
    return 0.5 + 4 * params.max_magnitude * (2.0**-24 if params.max_magnitude < 2**23 else 2.0**-53)


def test_ties_round_to_even() -> None:
    params = params_of("p50")
    half_steps = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5]) * params.step
    assert pf.quantize(params, half_steps).tolist() == [0, 2, 2, 0, -2, -2]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("weight", [1.0, 0.5, 1 / 3, 1 / 7])
def test_quantisation_agrees_with_the_oracle(name: str, weight: float) -> None:
    params = params_of(name, weights="public", clip=0.7)
    x = vector(4000, 4)
    values = pf.quantize(params, x, weight)
    assert values.tolist() == oracle.quantize(params, x, weight)
    exact = np.clip(x.astype(np.float64), -0.7, 0.7) * weight
    assert np.abs(values - exact / params.step).max() <= rounding(params)


def test_clipped_values_are_counted() -> None:
    params = params_of(clip=0.5)
    assert pf.count_clipped(params, [0.5, -0.5, 0.50001, -0.6, 1e30, 0.0]) == 3
    assert pf.count_clipped(params, [np.float32([0.7]), np.float64([0.1]), np.float16([-9])]) == 2
    assert pf.count_clipped(params, []) == 0


@pytest.mark.parametrize("weight", [0.0, -0.5, 1.0000001, float("nan"), float("inf")])
def test_shares_outside_their_range_are_refused(weight: float) -> None:
    params = params_of(weights="public")
    with pytest.raises(pf.InputError, match="is no share in"):
        pf.quantize(params, HALVES, weight)
    with pytest.raises(pf.InputError, match="is no share in"):
        Parties(params, 1).encrypt(0, HALVES, weight=weight)


def test_shares_need_parameters_that_count_them() -> None:
    with pytest.raises(pf.ParameterError, match="needs parameters with weights='public'"):
        pf.quantize(params_of(), HALVES, 0.5)


# --- the way back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_dequantised_values_lie_within_half_a_step(name: str) -> None:
    params = params_of(name)
    x = np.clip(vector(3000, 2).astype(np.float64), -1, 1)
    back = pf.dequantize(params, pf.quantize(params, x), dtype=np.float64)
    assert np.abs(back - x).max() <= rounding(params) * params.step
    assert pf.dequantize(params, pf.quantize(params, x)).dtype == np.float32


def test_restoring_is_float64_times_step() -> None:
    params = params_of("p62", clip=0.3)
    integers = np.array([0, 1, -1, params.max_magnitude, -params.max_magnitude, 3 * params.max_magnitude])
    expected = [np.float32(float(v) * params.step) for v in integers]
    assert pf.dequantize(params, integers).tolist() == expected
    out = np.full(6, np.nan, np.float32)
    assert pf.dequantize(params, integers, out=out) is out
    assert out.tolist() == expected


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros(4, np.float32), r"shape \(3,\), not \(4,\)"),
        (np.zeros((2, 3), np.float32), "shape"),
        (np.zeros(3, np.int64), "dtype int64; the values need a float"),
        (np.frombuffer(bytes(12), np.float32), "writable"),
        ([0.0, 0.0, 0.0], "writable array"),
    ],
)
def test_unsuitable_outputs_are_refused(out: Any, message: str) -> None:
    with pytest.raises(pf.InputError, match=message):
        pf.dequantize(params_of(), np.arange(3), out=out)


def test_only_integers_are_restored_and_only_to_floats() -> None:
    with pytest.raises(pf.InputError, match="dtype float64; they are integers"):
        pf.dequantize(params_of(), np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(pf.InputError, match="dtype int32 cannot hold weights"):
        pf.dequantize(params_of(), np.arange(3), dtype=np.int32)


def test_a_sum_of_shares_is_the_weighted_mean() -> None:
    parties = fresh_parties("p31", "collective", weights="public")
    shares, xs = (0.5, 0.3, 0.2), [np.clip(vector(999, seed), -1, 1) for seed in range(3)]
    total = pf.add([parties.encrypt(i, x, weight=p) for i, (x, p) in enumerate(zip(xs, shares, strict=True))])
    mean = sum(p * x.astype(np.float64) for x, p in zip(xs, shares, strict=True))
    assert np.abs(parties.opener.decrypt(total, dtype=np.float64) - mean).max() <= 1.6 * parties.params.step


@pytest.mark.parametrize("keys", ["public", "secret", "collective"])
def test_public_shares_are_never_taken_for_granted(keys: Any) -> None:
    # Sixteen shares of 1 would sum beyond the headroom of one party and open to a wrong value without any sign.
    params = params_of("compact", parties=16, keys=keys, weights="public")
    with pytest.raises(pf.InputError, match="need weight="):
        pf.quantize(params, HALVES)
    with pytest.raises(pf.InputError, match="need weight="):
        Parties(params, 1).encrypt(0, HALVES)


def test_a_value_too_wide_for_the_dtype_is_refused() -> None:
    params = params_of(clip=1e6)
    with pytest.raises(pf.InputError, match="does not fit float16"):
        pf.dequantize(params, pf.quantize(params, np.array([1e6])), dtype=np.float16)

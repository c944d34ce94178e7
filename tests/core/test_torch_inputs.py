"""Slices of torch tensors, bfloat16 among them: read where they lie, subtracted, and searched for NaN and Inf."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from core_support import CONTEXT, vector

import pppml_fast as pf
from pppml_fast.tensors import tensor_list

torch.set_num_threads(1)


def params_of() -> pf.CkksParams:
    return pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")


def test_slices_are_read_in_place() -> None:
    grid = torch.from_numpy(vector(60 * 50).reshape(60, 50))
    for tensor in (grid[:, :20], grid.bfloat16()[:, :20], grid.half()[3:, 10:40], grid.double()[::2]):
        (handed,) = tensor_list(tensor)
        array = handed[1] if isinstance(handed, tuple) else handed
        assert array.__array_interface__["data"][0] == tensor.data_ptr()
        assert np.array_equal(pf.quantize(params_of(), tensor), pf.quantize(params_of(), tensor.contiguous().clone()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_tensor_is_a_reference(dtype: torch.dtype) -> None:
    x, reference = vector(9000), torch.from_numpy(vector(9000, 1)).to(dtype)
    expected = pf.quantize(params_of(), x, reference=reference.double().numpy())
    assert np.array_equal(pf.quantize(params_of(), x, reference=reference), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_in_bfloat16_are_refused_before_anything_is_given_out(bad: float) -> None:
    key, x = pf.CollectiveKey.generate(params_of()), torch.zeros(50, 4001).bfloat16()
    x[49, 4000] = bad
    with pytest.raises(pf.InputError, match="tensor 1, element 199999 is NaN or Inf"):
        key.encrypt_chunks([np.zeros(7), x[:, 1:]], CONTEXT)
    with pytest.raises(pf.InputError, match="reference tensor 0, element 199999 is NaN or Inf"):
        key.encrypt_chunks(np.zeros((50, 4000), np.float32), CONTEXT, reference=x[:, 1:])
    assert "fresh" in repr(key)

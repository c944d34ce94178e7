"""Slices of torch tensors, bfloat16 among them: read where they lie, subtracted, and searched for NaN and Inf."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from core_support import CONTEXT, fresh_parties, vector

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


def test_tensors_are_outputs() -> None:
    parties = fresh_parties("p31", "secret")
    one, x = parties.encrypt(0, vector(9000)), vector(9000)
    for dtype in (torch.float32, torch.float64, torch.float16):
        out = torch.ones(9000, dtype=dtype, requires_grad=True)
        assert parties.opener.decrypt(one, out=out) is out
        expected = parties.opener.decrypt(one, str(dtype).removeprefix("torch."))
        assert np.array_equal(out.detach().numpy(), expected)
    whole = torch.ones(9000, dtype=torch.int64)
    assert pf.quantize(parties.params, x, out=whole) is whole
    assert np.array_equal(whole.numpy(), pf.quantize(parties.params, x))
    wire = torch.zeros(one.nbytes, dtype=torch.uint8)
    one.to_bytes(out=wire)
    assert bytes(wire.numpy()) == one.to_bytes() == pf.Ciphertext.from_bytes(parties.params, wire).to_bytes()


def test_tensors_that_cannot_be_written_to_are_refused() -> None:
    parties = fresh_parties("p31", "secret")
    one = parties.encrypt(0, vector(9))
    for out in (torch.ones(9).bfloat16(), torch.ones(9, device="meta"), torch.ones(9).to_sparse()):
        with pytest.raises(pf.InputError, match="out of type Tensor cannot be written to: "):
            parties.opener.decrypt(one, out=out)


def test_tensors_without_memory_of_the_host_are_refused() -> None:
    for x in (torch.ones(9, device="meta"), torch.ones(9).to_sparse()):
        for given in (x, x.bfloat16()):
            with pytest.raises(pf.InputError, match="tensor 0 of type Tensor is no array of numbers: "):
                pf.quantize(params_of(), given)


def test_residues_become_tensors_without_a_copy() -> None:
    one = fresh_parties("p31", "secret").encrypt(0, vector(9000))
    for tensor in (torch.from_dlpack(one), torch.from_dlpack(one.residues[0])):
        assert tensor.dtype == torch.uint32 and tensor.data_ptr() == one.first.ctypes.data

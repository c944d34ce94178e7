"""PyTorch's tensors on a GPU: a model's own parameters in, its tensors out, on its current stream."""

from __future__ import annotations

import numpy as np
import pytest

import pppml_fast as pf
from pppml_fast import cuda

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.real_device
CONTEXT = bytes(32)


def model() -> list[torch.Tensor]:
    generator = torch.Generator(device="cuda").manual_seed(1)
    shapes = [(300, 77), (77,), (5, 3, 11, 13), (), (4096,)]
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.float32, torch.float64]
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator, device="cuda").to(dtype) * 0.3)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


def rounded(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """From float64 at once, as NumPy rounds it; bfloat16 from float32, as PyTorch has it."""
    if dtype == torch.bfloat16:
        return torch.from_numpy(np.asarray(values, np.float32)).to(dtype)
    return torch.from_numpy(np.asarray(values).astype(str(dtype).removeprefix("torch.")))


def test_parameters_of_a_model_there_and_back() -> None:
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
    tensors = model()
    expected = pf.quantize(params, [t.detach().cpu() for t in tensors])
    key = pf.CollectiveKey.generate(params)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for tensor in tensors:
            tensor.data.mul_(1.0)  # still on its way when the encryption is queued
        ciphertext = cuda.encrypt(key, tensors, CONTEXT)
        out = [torch.empty_like(t.detach()) for t in tensors]
        opening = pf.CollectiveKey.sum([key])
        assert cuda.decrypt(opening, ciphertext, out) is out
        integers = cuda.decrypt(opening, ciphertext, integers=True)
    assert np.array_equal(integers.to_host(), expected)
    restored = expected * params.step
    at = 0
    for tensor in out:
        part = restored[at : at + tensor.numel()].reshape(tensor.shape)
        at += tensor.numel()
        assert torch.equal(tensor.cpu(), rounded(part, tensor.dtype))
    assert np.array_equal(opening.decrypt_bytes(ciphertext.to_bytes(), integers=True), expected)


def test_arrays_become_tensors_without_a_copy() -> None:
    array = cuda.DeviceArray.from_host(np.arange(7, dtype=np.float32))
    for tensor in (torch.from_dlpack(array), torch.as_tensor(array, device="cuda")):
        assert tensor.data_ptr() == array.address
        assert torch.equal(tensor.cpu(), torch.arange(7, dtype=torch.float32))


def test_what_does_not_fit_is_said() -> None:
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")

    def encrypt(value: object) -> None:
        cuda.encrypt(pf.CollectiveKey.generate(params), value, CONTEXT)

    grid = torch.zeros(64, 64, device="cuda")
    with pytest.raises(pf.InputError, match="is not contiguous"):
        encrypt(grid.t())
    with pytest.raises(pf.InputError, match="lies in host memory"):
        encrypt(grid.cpu())
    with pytest.raises(pf.InputError, match="dtype int64"):
        encrypt(grid.long())
    with pytest.raises(pf.InputError, match="tensor 1 lies in host memory"):
        encrypt([grid, grid.cpu()])


def test_pinned_memory_takes_the_bytes() -> None:
    params = pf.CkksParams.preset("p50", parties=3, clip=1.0, keys="secret")
    pair, x = pf.keygen(params), torch.randn(10_000, device="cuda") * 0.3
    ciphertext = cuda.encrypt(pair.secret, x)
    pinned = torch.empty(ciphertext.nbytes, dtype=torch.uint8, pin_memory=True)
    ciphertext.to_bytes(pinned)
    opened = pair.secret.decrypt_bytes(pinned.numpy(), integers=True)
    assert np.array_equal(opened, pf.quantize(params, x.cpu()))


def test_a_vector_too_large_for_the_device() -> None:
    free = cuda.device_info(0).free_memory
    with pytest.raises(cuda.DeviceMemoryError, match=r"cudaMallocAsync of \d+ bytes on device 0: .*Free tensors"):
        cuda.DeviceArray(2 * free, np.uint8)
    cuda.DeviceArray.from_host(np.zeros(3)).to_host()  # and it goes on

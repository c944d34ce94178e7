"""What goes wrong on a machine with a device is said: which call, what was handed in, what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes import Interface

import pppml_fast as pf
from pppml_fast import cuda
from pppml_fast.cuda import DeviceArray

CONTEXT = bytes(32)


def make(**options: Any) -> pf.CkksParams:
    return pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective", **options)


def encrypt(x: Any, **options: Any) -> cuda.Ciphertext:
    return cuda.encrypt(pf.CollectiveKey.generate(make()), x, CONTEXT, **options)


def some(size: int = 5, dtype: Any = np.float32, **options: Any) -> DeviceArray:
    return DeviceArray.from_host(np.zeros(size, dtype), **options)


@pytest.mark.played_device
@pytest.mark.parametrize(
    "played, reason",
    [
        ("driver=none", "cudaGetDeviceCount: no CUDA-capable device is detected"),
        ("driver=old", "CUDA driver version is insufficient.*this build needs 13.0; update the driver"),
        ("devices=0", "no CUDA device is visible; see CUDA_VISIBLE_DEVICES"),
    ],
)
def test_no_device(played: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = some()
    monkeypatch.setenv("PPPML_CUDA_HOST", played)
    assert not cuda.is_available() and cuda.device_count() == 0
    for call in (some, lambda: encrypt(here), cuda.device_info, lambda: DeviceArray(3)):
        with pytest.raises(cuda.DeviceError, match=reason):
            call()
    assert issubclass(cuda.DeviceError, pf.PppmlError) and issubclass(cuda.DeviceError, RuntimeError)


@pytest.mark.played_device
def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    x = some(100_000)
    monkeypatch.setenv("PPPML_CUDA_HOST", "memory=700000")
    with pytest.raises(cuda.DeviceMemoryError, match=r"cudaMallocAsync of \d+ bytes on device 0: out of memory"):
        encrypt(x)
    assert issubclass(cuda.DeviceMemoryError, cuda.DeviceError)
    with pytest.raises(cuda.DeviceMemoryError):
        DeviceArray(10**6)


@pytest.mark.played_device
def test_an_encryption_that_finds_no_memory_uses_up_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    params, x = make(), some(100_000)
    key = pf.CollectiveKey.generate(params)
    warm = cuda.encrypt(pf.CollectiveKey.generate(params), x, CONTEXT)
    used = 4294967296 - cuda.device_info(0).free_memory
    monkeypatch.setenv("PPPML_CUDA_HOST", f"memory={used + 8}")
    with pytest.raises(cuda.DeviceMemoryError):
        cuda.encrypt(key, x, CONTEXT, out=warm)
    monkeypatch.delenv("PPPML_CUDA_HOST")
    with pytest.raises(pf.KeyReuseError):
        cuda.encrypt(key, x, CONTEXT)


def test_a_device_that_does_not_exist() -> None:
    for device in (99, -1, "cuda"):
        with pytest.raises(cuda.DeviceError, match=r"does not exist; devices 0 \.\. "):
            cuda.device_info(device)  # type: ignore[arg-type]
        with pytest.raises(cuda.DeviceError, match="does not exist"):
            DeviceArray(3, device=device)  # type: ignore[arg-type]


@pytest.mark.played_device
def test_tensors_of_two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPPML_CUDA_HOST", "devices=2")
    here, there = some(), some(device=1)
    with pytest.raises(pf.InputError, match="tensor 1 lies on device 1, the others on device 0: all must share one"):
        encrypt([here, there])
    with pytest.raises(pf.InputError, match="tensor 1 lies on device 1"):
        encrypt([here, Interface(there)])
    with pytest.raises(pf.InputError, match="reference tensor 0 lies on device 1"):
        encrypt(here, reference=there)
    first, second = encrypt(here), encrypt(there)
    assert (first.device, second.device) == (0, 1)
    with pytest.raises(pf.CiphertextError, match="on device 1 to one on device 0"):
        cuda.add([first, second])
    key = pf.CollectiveKey.generate(make())
    ciphertext = cuda.encrypt(key, there, CONTEXT)
    with pytest.raises(pf.InputError, match="out 0 lies on device 0, the others on device 1"):
        cuda.decrypt(pf.CollectiveKey.sum([key]), ciphertext, [Interface(here)])
    assert np.array_equal(cuda.decrypt(pf.CollectiveKey.sum([key]), ciphertext).to_host(), np.zeros(5))


def test_host_memory() -> None:
    import torch

    for value in (np.zeros(4, np.float32), torch.zeros(4), [some(), torch.zeros(4)]):
        with pytest.raises(pf.InputError, match=r"tensor [01] lies in host memory; .* tensor.cuda"):
            encrypt(value)
    with pytest.raises(pf.InputError, match="tensor 0 of type float has neither DLPack nor __cuda_array_interface__"):
        encrypt([0.5, 0.25])


def test_a_tensor_of_the_device_on_the_host_path() -> None:
    with pytest.raises(pf.InputError, match="lies on device"):
        pf.CollectiveKey.generate(make()).encrypt(some(), CONTEXT)


def test_gaps_and_dtypes_and_read_only() -> None:
    plain = some(64)
    spread = Interface(plain, shape=(4, 8), strides=(64, 4))
    with pytest.raises(pf.InputError, match=r"tensor 0 is not contiguous; .*tensor.contiguous"):
        encrypt(spread)
    encrypt(Interface(plain, shape=(8, 8), strides=(32, 4))).check()
    encrypt(Interface(plain, shape=(1, 64), strides=(7, 4))).check()
    for dtype in (np.int64, np.uint8):
        with pytest.raises(pf.InputError, match=r"tensor 1 has dtype u?int\d+; use float32, float64"):
            encrypt([plain, some(3, dtype)])
    with pytest.raises(pf.InputError, match="has a mask or foreign byte order"):
        encrypt(Interface(plain, typestr=">f4"))
    key = pf.CollectiveKey.generate(make())
    ciphertext = cuda.encrypt(key, plain, CONTEXT)
    read_only = Interface(plain, data=(plain.address, True))
    with pytest.raises(pf.InputError, match="out 0 is read-only"):
        cuda.decrypt(pf.CollectiveKey.sum([key]), ciphertext, [read_only])
    encrypt(read_only).check()  # reading is another matter


def test_lengths_that_do_not_fit() -> None:
    params = make()
    key = pf.CollectiveKey.generate(params)
    with pytest.raises(pf.InputError, match="the reference has 4 values, the weights 5"):
        cuda.encrypt(key, some(), CONTEXT, reference=some(4))
    ciphertext = cuda.encrypt(key, some(), CONTEXT)
    opening = pf.CollectiveKey.sum([key])
    with pytest.raises(pf.InputError, match="the tensors of out hold 4 values; the sum has 5"):
        cuda.decrypt(opening, ciphertext, [some(4)])
    with pytest.raises(pf.InputError, match="the sum has 5 values on device 0"):
        cuda.decrypt(opening, ciphertext, some(4))
    with pytest.raises(pf.InputError, match="int32 cannot hold opened weights"):
        cuda.decrypt(opening, ciphertext, dtype=np.int32)
    with pytest.raises(pf.CiphertextError, match="cannot add a vector of 4 weights to one of 5"):
        cuda.add([ciphertext, encrypt(some(4))])
    with pytest.raises(pf.CiphertextError, match="nothing to add"):
        cuda.add([])
    with pytest.raises(pf.CiphertextError, match="different contexts"):
        cuda.add([ciphertext, cuda.encrypt(pf.CollectiveKey.generate(params), some(), bytes([1]) * 32)])
    with pytest.raises(pf.InputError, match=r"incoming takes \d+ bytes \(uint8\); it is 5 of float32"):
        cuda.encrypt_onto(pf.CollectiveKey.generate(params), some(), some(), CONTEXT)


def test_streams() -> None:
    assert encrypt(some(), stream=0).to_host().length == 5

    class Protocol:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, 0

    class Torch:
        cuda_stream = 0

    for stream in (Protocol(), Torch()):
        encrypt(some(), stream=stream).check()
    for stream in ("default", True, -1, object()):
        with pytest.raises(pf.InputError, match="is no CUDA stream"):
            encrypt(some(), stream=stream)


def test_sets_that_no_kernel_serves() -> None:
    slots = make(packing="slots")
    with pytest.raises(pf.ParameterError, match="slots are encoded on the host"):
        cuda.encrypt(pf.CollectiveKey.generate(slots), some(), CONTEXT)
    other = pf.CkksParams("other", 8192, (1125899906990081,), 3, 1.0, "collective")
    with pytest.raises(pf.ParameterError, match=r"8192 with 1 prime\(s\) has no kernels for CUDA; they serve rings of"):
        cuda.encrypt(pf.CollectiveKey.generate(other), some(), CONTEXT)
    shares = make(weights="public")
    with pytest.raises(pf.InputError, match="need weight="):
        cuda.encrypt(pf.CollectiveKey.generate(shares), some(), CONTEXT)

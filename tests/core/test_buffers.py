"""NumPy, the buffer protocol and DLPack, in and out, without copies; what lies on a device is refused."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from core_support import MODES, Parties, fresh_parties, vector

import pppml_fast as pf
from pppml_fast.cipher import Kind
from pppml_fast.tensors import tensor_list

LENGTH = 5000
NUMPY = tuple(int(part) for part in np.__version__.split(".")[:2])
# From 2.1 on NumPy knows which DLPack capsules are read-only. Before, all that come in are, and none such goes out.
READONLY_DLPACK = (2, 1)


class OnlyDlpack:
    """A tensor of a library that NumPy knows nothing of."""

    def __init__(self, values: np.ndarray, device: tuple[int, int] = (1, 0)) -> None:
        self.values, self.place = values, device

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.place


class OnlyArray:
    """An object that gives its memory by `__array__`, or a new copy of it each time."""

    def __init__(self, values: np.ndarray, copies: bool = False) -> None:
        self.values, self.copies = values, copies

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.values.copy() if self.copies else self.values


class OnlyInterface:
    """An object that describes its memory by `__array_interface__`."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.__array_interface__ = values, values.__array_interface__


SPELLINGS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda x: x,
    "memory map's class": lambda x: x.view(np.memmap),
    "buffer": memoryview,
    "array of the standard library": lambda x: array.array(x.dtype.char, x.tobytes()),
    "DLPack": OnlyDlpack,
    "__array__": OnlyArray,
    "__array_interface__": OnlyInterface,
}


def memory_of(value: Any) -> np.ndarray:
    return np.asarray(getattr(value, "values", value))


def secret_mode(length: int = LENGTH) -> tuple[Parties, pf.Ciphertext]:
    parties = fresh_parties("p31", "secret")
    return parties, parties.encrypt(0, vector(length))


# --- in --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_weights_are_read_where_they_lie(spelling: str) -> None:
    x = vector(LENGTH)
    given = SPELLINGS[spelling](x)
    (handed,) = tensor_list(given)
    assert np.shares_memory(handed, memory_of(given))
    parties = fresh_parties("p31", "secret")
    opened = parties.opener.decrypt(parties.encrypt(0, given), integers=True)
    assert np.array_equal(opened, pf.quantize(parties.params, x))
    assert not pf.quantize(parties.params, x, reference=given).any()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_results_go_to_the_memory_that_is_given(spelling: str) -> None:
    parties, one = secret_mode()
    exact, expected = parties.opener.decrypt(one, integers=True), parties.opener.decrypt(one)

    def room(dtype: Any) -> Any:
        return SPELLINGS[spelling](np.ones(LENGTH, dtype))

    writers: list[tuple[Callable[[Any], Any], Any, np.ndarray]] = [
        (lambda out: parties.opener.decrypt(one, out=out), np.float32, expected),
        (lambda out: parties.opener.decrypt_bytes(one.to_bytes(), out=out), np.float32, expected),
        (lambda out: pf.dequantize(parties.params, exact, out=out), np.float32, expected),
        (lambda out: parties.opener.decrypt(one, integers=True, out=out), np.int64, exact),
        (lambda out: pf.quantize(parties.params, vector(LENGTH), out=out), np.int64, exact),
    ]
    if spelling == "DLPack" and NUMPY < READONLY_DLPACK:
        with pytest.raises(pf.InputError, match="out must be a writable array"):
            parties.opener.decrypt(one, out=room(np.float32))
        return
    for write, dtype, values in writers:
        out = room(dtype)
        assert write(out) is out and np.array_equal(memory_of(out), values)
    out = room(np.float64)
    assert parties.opener.decrypt_chunks([one.to_bytes()], out) == LENGTH
    assert np.array_equal(memory_of(out), parties.opener.decrypt(one, np.float64))


def test_memory_that_results_cannot_go_to_is_refused() -> None:
    parties, one = secret_mode()
    readonly = np.ones(LENGTH, np.float32)
    readonly.flags.writeable = False
    for out, message in (
        ([0.0] * LENGTH, "out of type list is no memory that results go to; give a writable array"),
        (OnlyArray(np.ones(LENGTH, np.float32), copies=True), "is no memory that results go to"),
        (object(), "is no memory that results go to"),
        (7, "is no memory that results go to"),
        (readonly, "out must be a writable array of shape"),
        (memoryview(readonly), "out must be a writable array of shape"),
        (OnlyDlpack(np.ones(LENGTH, np.float32), (2, 1)), "out lies on device of DLPack type 2; give its copy in host"),
    ):
        with pytest.raises(pf.InputError, match=message):
            parties.opener.decrypt(one, out=out)
        with pytest.raises(pf.InputError, match=message):
            parties.opener.decrypt_bytes(one.to_bytes(), out=out)
        with pytest.raises(pf.InputError, match=message):
            pf.dequantize(parties.params, np.zeros(LENGTH, np.int64), out=out)


@pytest.mark.parametrize("device", [(2, 0), (10, 3), (8, 0)])
def test_weights_on_a_device_are_refused(device: tuple[int, int]) -> None:
    parties, far = fresh_parties("p31", "secret"), OnlyDlpack(vector(9), device)
    message = f"tensor 1 lies on device of DLPack type {device[0]}; give its copy in host memory, such as tensor.cpu"
    with pytest.raises(pf.InputError, match=message):
        parties.encrypt(0, [vector(3), far])
    with pytest.raises(pf.InputError, match=message):
        pf.quantize(parties.params, vector(12), reference=[vector(3), far])


@pytest.mark.parametrize("device", [(1, 0), (3, 0), (13, 0)])
def test_pinned_and_managed_memory_is_host_memory(device: tuple[int, int]) -> None:
    # NumPy is handed the array's own capsule, which tells of plain memory; what counts is that no check stands before.
    assert len(tensor_list(OnlyDlpack(vector(9), device))) == 1


def test_wire_bytes_come_from_and_go_to_any_buffer() -> None:
    parties, one = secret_mode()
    wire = np.frombuffer(one.to_bytes(), np.uint8)
    for given in (memoryview(wire), array.array("B", wire.tobytes()), OnlyDlpack(wire.copy())):
        assert pf.Ciphertext.from_bytes(parties.params, given).to_bytes() == one.to_bytes()
        assert np.array_equal(parties.opener.decrypt_bytes(given), parties.opener.decrypt(one))
    outs = [array.array("B", bytes(one.nbytes)), OnlyDlpack(np.zeros(one.nbytes, np.uint8))]
    for out in outs if NUMPY >= READONLY_DLPACK else outs[:1]:
        one.to_bytes(out=out)
        assert np.array_equal(memory_of(out), wire)


# --- out -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", MODES)
def test_residues_are_views_that_cannot_be_written_through(keys: Any) -> None:
    one = fresh_parties("p50", keys).encrypt(0, vector(LENGTH))
    for ciphertext in (one, one.expanded()):
        polynomials = [words for words in (ciphertext.first, ciphertext.second) if words is not None]
        assert len(ciphertext.residues) == len(polynomials)
        for residues, words in zip(ciphertext.residues, polynomials, strict=True):
            assert np.shares_memory(residues, words) and np.array_equal(residues, words)
            assert residues.dtype == np.uint64 and memoryview(residues).readonly
            with pytest.raises(ValueError, match="read-only"):
                residues[0] = 1
        assert polynomials[0].flags.writeable


def test_array_follows_the_copy_rules_of_numpy() -> None:
    _, one = secret_mode()
    whole = np.asarray(one)
    assert np.shares_memory(whole, one.first) and not whole.flags.writeable
    assert whole.dtype == np.uint32 and np.array_equal(whole, one.first)
    for copied in (np.array(one), one.__array__(copy=True)):
        assert not np.shares_memory(copied, one.first) and copied.flags.writeable
    assert np.asarray(one, np.uint64).dtype == np.uint64
    assert one.__array__(np.uint32, copy=False) is not None
    with pytest.raises(ValueError, match="residues are uint32; as float32 they are a copy, which copy=False forbids"):
        one.__array__(np.float32, copy=False)
    if NUMPY >= (2, 0):
        assert np.shares_memory(np.asarray(one, copy=False), one.first)
        with pytest.raises(ValueError, match="copy=False forbids"):
            np.asarray(one, np.float32, copy=False)


def test_dlpack_shares_memory_with_who_knows_that_it_is_read_only() -> None:
    _, one = secret_mode()
    assert one.__dlpack_device__() == (1, 0)
    shared = np.from_dlpack(one)
    assert np.array_equal(shared, one.first) and not shared.flags.writeable
    assert np.shares_memory(shared, one.first) is (NUMPY >= READONLY_DLPACK)


def test_dlpack_copies_for_who_knows_no_read_only_memory() -> None:
    _, one = secret_mode()

    class Old:
        """What a consumer of DLPack before 1.0 makes of it: it asks for no version."""

        def __dlpack__(self, **_: Any) -> Any:
            return one.__dlpack__()

        __dlpack_device__ = one.__dlpack_device__

    copied = np.from_dlpack(Old())
    assert np.array_equal(copied, one.first) and not np.shares_memory(copied, one.first)
    with pytest.raises(BufferError, match=r"needs DLPack 1.0 on both sides"):
        one.__dlpack__(copy=False)
    with pytest.raises(BufferError, match=r"not exported to device \(2, 0\)"):
        one.__dlpack__(max_version=(1, 0), dl_device=(2, 0))


@pytest.mark.parametrize("keys", ["public", "secret"])
def test_two_polynomials_are_no_one_array(keys: Any) -> None:
    parties = fresh_parties("p31", keys)
    total = parties.total([vector(LENGTH)] * 2)
    assert total.kind in (Kind.PUBLIC, Kind.EXPANDED)
    for convert in (np.asarray, np.array, np.from_dlpack):
        with pytest.raises(pf.InputError, match=r"has two polynomials .*; take .residues, or .to_bytes\(\)"):
            convert(total)


@pytest.mark.parametrize("keys", MODES)
def test_bytes_are_those_of_the_wire(keys: Any) -> None:
    one = fresh_parties("p31", keys).encrypt(0, vector(LENGTH))
    assert bytes(one) == one.to_bytes()


def test_numpy_adds_no_residues_of_ciphertexts() -> None:
    """They add modulo primes; NumPy's sum of the words would be a wrong one."""
    parties, one = secret_mode()
    other = parties.encrypt(1, vector(LENGTH))
    for add in (
        lambda: np.add(one, other),
        lambda: one + other.first,
        lambda: other.first + one,
        lambda: np.multiply(one, 2),
        lambda: other.residues[0] - one,
    ):
        with pytest.raises(TypeError):
            add()
    assert (one + other).terms == 2


def test_a_ciphertext_is_no_vector_of_weights() -> None:
    parties, one = secret_mode()
    with pytest.raises(pf.InputError, match="tensor 0 has dtype uint32"):
        parties.encrypt(1, one)

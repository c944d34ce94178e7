"""Encryption and opening in ranges, through the host's memory; identities of updates; zeros: the bits of the host."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from fakes import Bfloat16

import pppml_fast as pf
from pppml_fast import CiphertextError, InputError, KeyReuseError, OpeningError, ParameterError, _native, cuda
from pppml_fast.cipher.wire import Header
from pppml_fast.cuda import DeviceArray

CONTEXT, AES_KEY = bytes(range(32)), bytes(range(100, 132))
PRESETS = ["p31", "p50", "p62", "compact"]


def make(name: str = "p31", **options: Any) -> pf.CkksParams:
    return pf.CkksParams.preset(name, parties=3, clip=1.0, keys="collective", **options)


def weights(params: pf.CkksParams, blocks: float = 5.3, seed: int = 1) -> np.ndarray:
    length = int(blocks * params.block_weights)
    return np.random.default_rng(seed).normal(0, 0.5, length).astype(np.float32)


def fixed_key(params: pf.CkksParams) -> pf.CollectiveKey:
    """A key whose every bit is known, so that two of them encrypt alike."""
    secret = params._scheme.generate_secret(_native.StreamKey.from_bytes(AES_KEY))
    return pf.CollectiveKey(params, secret, _native.StreamKey.from_bytes(CONTEXT))


def twins(params: pf.CkksParams) -> tuple[pf.CollectiveKey, pf.CollectiveKey]:
    """Two such keys; private streams are ChaCha20 at both, as they are on devices."""
    params.__dict__["_scheme"] = _native.Scheme(params._checked, "scalar", "chacha20")
    return fixed_key(params), fixed_key(params)


def grid(blocks: int, step: int) -> list[tuple[int, int]]:
    return [(start, min(start + step, blocks)) for start in range(0, blocks, step)]


def written(pieces: Any, start: int, stop: int, incoming: bytes | None = None) -> bytes:
    out = bytearray(b"\xff" * pieces.packed_bytes(start, stop))
    pieces.write(start, stop, memoryview(out), None if incoming is None else memoryview(incoming))
    return bytes(out)


# --- encryption ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 4, 100])
@pytest.mark.parametrize("name", PRESETS)
def test_pieces_have_the_bytes_of_the_hosts(name: str, step: int) -> None:
    """Ranges alone, which are read ahead, and onto what comes in, in turns; several tensors."""
    params = make(name, weights="public")
    x, one, other = weights(params), *twins(params)
    tensors = [DeviceArray.from_host(part) for part in np.split(x, [1, 2000])]
    ours = cuda.encrypt_in_pieces(one, tensors, CONTEXT, 0.25)
    theirs = other.encrypt_in_pieces(x, CONTEXT, 0.25)
    assert (ours.blocks, ours.length, ours.prepared) == (theirs.blocks, x.size, 0.0)
    incoming = pf.CollectiveKey.generate(params).encrypt(weights(params, seed=2), CONTEXT, 0.5)
    for number, (start, stop) in enumerate(grid(ours.blocks, step)):
        assert ours.packed_bytes(start, stop) == theirs.packed_bytes(start, stop)
        added = bytes(incoming.pack(start, stop)) if number % 3 == 1 else None
        assert written(ours, start, stop, added) == written(theirs, start, stop, added)
    assert ours.finished and ours.clipped == theirs.clipped == int((np.abs(x) > 1).sum())


def test_a_grid_of_any_shape() -> None:
    """What was read ahead is not what is asked for next: it is dropped."""
    params = make()
    x, one, other = weights(params, 20.5), *twins(params)
    ours = cuda.encrypt_in_pieces(one, DeviceArray.from_host(x), CONTEXT)
    theirs = other.encrypt_in_pieces(x, CONTEXT)
    for start, stop in [(0, 1), (1, 5), (5, 6), (6, 14), (14, 15), (15, 21)]:
        assert written(ours, start, stop) == written(theirs, start, stop)
    assert ours.finished and "21 of 21" in repr(ours)


def test_a_range_is_given_out_once_and_none_after_the_end() -> None:
    params = make()
    x = DeviceArray.from_host(weights(params))
    pieces = cuda.encrypt_in_pieces(key := pf.CollectiveKey.generate(params), x, CONTEXT)
    written(pieces, 0, 2)
    for start, stop in [(0, 2), (3, 4), (2, 2), (2, 7)]:
        with pytest.raises(KeyReuseError, match="made before"):
            pieces.write(start, stop, memoryview(bytearray(9000)))
    with pytest.raises(InputError, match="out has 10 bytes"):
        pieces.write(2, 4, memoryview(bytearray(10)))
    with pytest.raises(InputError, match="incoming has 10 bytes"):
        pieces.write(2, 4, memoryview(bytearray(pieces.packed_bytes(2, 4))), memoryview(bytes(10)))
    pieces.close()
    with pytest.raises(KeyReuseError, match="key is destroyed"):
        written(pieces, 2, 4)
    with pytest.raises(KeyReuseError, match="one message"):
        cuda.encrypt_in_pieces(key, x, CONTEXT)


def test_a_key_that_is_destroyed_ends_its_encryption() -> None:
    params = make()
    key = pf.CollectiveKey.generate(params)
    pieces = cuda.encrypt_in_pieces(key, DeviceArray.from_host(weights(params)), CONTEXT)
    written(pieces, 0, 2)
    message: Any = pieces._message
    key.destroy()
    assert message._ahead is None and not message._places
    with pytest.raises(KeyReuseError, match="was destroyed"):
        written(pieces, 2, 4)


def test_a_foreign_residue_leaves_zeros_and_the_range_may_be_asked_for_again() -> None:
    params = make()
    x, one, other = weights(params), *twins(params)
    ours = cuda.encrypt_in_pieces(one, DeviceArray.from_host(x), CONTEXT)
    theirs = other.encrypt_in_pieces(x, CONTEXT)
    size = ours.packed_bytes(0, 2)
    out = bytearray(b"\xff" * size)
    with pytest.raises(CiphertextError, match="not below their primes"):
        ours.write(0, 2, memoryview(out), memoryview(b"\xff" * size))
    assert not any(out)
    assert written(ours, 0, 2) == written(theirs, 0, 2)


def test_what_is_not_finite_is_found_with_its_range() -> None:
    params = make()
    x = weights(params)
    x[3 * params.block_weights + 5] = np.nan
    pieces = cuda.encrypt_in_pieces(pf.CollectiveKey.generate(params), DeviceArray.from_host(x), CONTEXT)
    assert any(written(pieces, 0, 2))
    out = bytearray(b"\xff" * pieces.packed_bytes(2, 4))
    with pytest.raises(InputError, match="NaN or Inf"):
        pieces.write(2, 4, memoryview(out))
    assert not any(out)


def test_what_was_read_ahead_does_not_outlive_the_encryption(monkeypatch: pytest.MonkeyPatch) -> None:
    params = make()
    pieces = cuda.encrypt_in_pieces(pf.CollectiveKey.generate(params), DeviceArray.from_host(weights(params)), CONTEXT)
    written(pieces, 0, 2)
    message: Any = pieces._message
    ahead = message._ahead
    assert ahead is not None
    staged = message._places[ahead.place].bytes
    assert staged.any()
    del pieces, message
    gc.collect()
    assert not staged.any()


def test_slots_are_refused_before_the_key_is_used() -> None:
    params = make("p50", packing="slots")
    key = pf.CollectiveKey.generate(params)
    with pytest.raises(ParameterError, match="packing='coefficients'"):
        cuda.encrypt_in_pieces(key, DeviceArray.from_host(weights(params)), CONTEXT)
    key.encrypt(weights(params), CONTEXT)


# --- opening ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divisor", [1.0, 0.7, 3.0])
@pytest.mark.parametrize("name", PRESETS)
def test_ranges_open_to_the_bits_of_the_hosts(name: str, divisor: float) -> None:
    params = make(name)
    x, key = weights(params), pf.CollectiveKey.generate(params)
    ciphertext = key.encrypt(x, CONTEXT)
    opening = pf.CollectiveKey.sum([key])
    header = Header.of(params, ciphertext.kind, x.size, 1, CONTEXT)
    exact = np.asarray(opening.decrypt(ciphertext, np.float64)) / divisor
    cut = [1001, 2 * params.block_weights + 7]
    tensors: list[Any] = [
        DeviceArray.from_host(np.full(cut[0], 7, np.float16)),
        Bfloat16(np.full(cut[1] - cut[0], 7, np.float32)),
        DeviceArray.from_host(np.full(x.size - cut[1], 7, np.float64)),
    ]
    single = DeviceArray.from_host(np.full(x.size, 7, np.float32))
    for start, stop in reversed(grid(params.block_count(x.size), 2)):
        cuda.decrypt_range(opening, header, start, stop, [ciphertext.pack(start, stop)], tensors, divisor)
        before = single.to_host()
        cuda.decrypt_range(opening, header, start, stop, [ciphertext.pack(start, stop)], single, divisor)
        elsewhere = np.ones(x.size, bool)
        elsewhere[start * params.block_weights : stop * params.block_weights] = False
        assert np.array_equal(single.to_host()[elsewhere], before[elsewhere])
    assert np.array_equal(single.to_host(), exact.astype(np.float32))
    assert np.array_equal(tensors[0].to_host(), exact[: cut[0]].astype(np.float16))
    assert np.array_equal(tensors[1].bits(), Bfloat16(exact[cut[0] : cut[1]].astype(np.float32)).bits())
    assert np.array_equal(tensors[2].to_host(), exact[cut[1] :])


def test_a_range_that_does_not_open_holds_zeros_alone() -> None:
    params = make()
    x, key = weights(params), pf.CollectiveKey.generate(params)
    ciphertext, opening = key.encrypt(x, CONTEXT), pf.CollectiveKey.sum([pf.CollectiveKey.generate(params)])
    header = Header.of(params, ciphertext.kind, x.size, 1, CONTEXT)
    out, width = DeviceArray.from_host(np.full(x.size, 7, np.float32)), params.block_weights
    with pytest.raises(OpeningError, match="fails its residual check"):
        cuda.decrypt_range(opening, header, 1, 3, [ciphertext.pack(1, 3)], out)
    values = out.to_host()
    assert not values[width : 3 * width].any() and (values[:width] == 7).all() and (values[3 * width :] == 7).all()
    with pytest.raises(CiphertextError, match=r"take \d+ packed bytes; 3 are here"):
        cuda.decrypt_range(opening, header, 1, 3, [b"abc"], out)
    with pytest.raises(InputError, match=f"hold {x.size - 1} values"):
        cuda.decrypt_range(opening, header, 1, 3, [ciphertext.pack(1, 3)], DeviceArray(x.size - 1))
    with pytest.raises(ParameterError, match="positive number"):
        cuda.decrypt_range(opening, header, 1, 3, [ciphertext.pack(1, 3)], out, 0.0)
    wrong = Header.of(params, ciphertext.kind, x.size, 2, CONTEXT)
    with pytest.raises(CiphertextError, match="only the sum over the whole live set"):
        cuda.decrypt_range(opening, wrong, 1, 3, [ciphertext.pack(1, 3)], out)


# --- identity -----------------------------------------------------------------------------------------------------


def tags(x: Any, piece: int) -> list[bytes]:
    """AES-GMAC of each piece, from the device's hash and the host's cipher."""
    block = Cipher(AES(AES_KEY), ECB()).encryptor()
    hashes, bad = cuda.tag_pieces(x, block.update(bytes(16)), piece)
    assert bad is None
    masks = [block.update(number.to_bytes(12, "little") + b"\0\0\0\1") for number in range(len(hashes))]
    return [bytes(a ^ b for a, b in zip(hashed, mask, strict=True)) for hashed, mask in zip(hashes, masks, strict=True)]


def expected_tags(values: np.ndarray, piece: int) -> list[bytes]:
    cipher, single = AESGCM(AES_KEY), values.astype(np.float32) + np.float32(0)
    return [
        cipher.encrypt(number.to_bytes(12, "little"), b"", single[at : at + piece].tobytes())
        for number, at in enumerate(range(0, single.size, piece))
    ]


@pytest.mark.parametrize("piece", [1, 5, 1024, 1 << 16])
@pytest.mark.parametrize("length", [1, 3, 4, 1023, 1024, 1025, 4999])
def test_tags_are_those_of_aes_gmac(length: int, piece: int) -> None:
    x = np.random.default_rng(length).normal(size=length).astype(np.float32)
    x[0] = -0.0
    assert tags(DeviceArray.from_host(x), piece) == expected_tags(x, piece)


def test_tags_of_pieces_as_they_are_in_use() -> None:
    x = np.random.default_rng(0).normal(size=(1 << 17) + 77).astype(np.float32)
    tensors = [DeviceArray.from_host(part) for part in np.split(x, [13, 65_537, 65_537, 131_000])]
    assert tags(tensors, 1 << 16) == expected_tags(x, 1 << 16)


def test_tags_of_every_dtype_are_those_of_its_float32() -> None:
    x = np.random.default_rng(0).normal(size=999)
    x[:4] = [1e-300, -1e-300, 1e-42, -0.0]
    half, narrow = x.astype(np.float16), Bfloat16(x)
    assert tags(DeviceArray.from_host(x), 100) == expected_tags(x, 100)
    assert tags(DeviceArray.from_host(half), 100) == expected_tags(half, 100)
    assert tags(narrow, 100) == expected_tags(narrow.values(), 100)
    both = [DeviceArray.from_host(half), narrow, DeviceArray.from_host(x)]
    assert tags(both, 701) == expected_tags(np.concatenate([half.astype(np.float64), narrow.values(), x]), 701)


def test_the_first_value_that_is_not_finite_is_told() -> None:
    x = np.ones(5000)
    x[[4321, 4999]] = np.inf, np.nan
    tensors = [DeviceArray.from_host(x[:4000].astype(np.float16)), DeviceArray.from_host(x[4000:])]
    assert cuda.tag_pieces(tensors, bytes(16), 1000)[1] == 4321
    beyond = np.full(3, 1e300)  # finite where they lie, which is what counts
    assert cuda.tag_pieces(DeviceArray.from_host(beyond), bytes(16), 10)[1] is None
    found, bad = cuda.tag_pieces([], bytes(16), 10)
    assert found.shape == (0, 16) and bad is None


def test_bad_keys_and_pieces_are_refused() -> None:
    x = DeviceArray.from_host(np.ones(5, np.float32))
    for key, piece in [(bytes(15), 1), (bytes(32), 1), (bytes(16), 0)]:
        with pytest.raises(InputError, match="give 16 and at least 1"):
            cuda.tag_pieces(x, key, piece)


# --- zeros --------------------------------------------------------------------------------------------------------


def test_wipe() -> None:
    tensors = [DeviceArray.from_host(np.ones(5, dtype)) for dtype in (np.float16, np.float32, np.float64)]
    narrow = Bfloat16(np.ones(3))
    cuda.wipe([*tensors, narrow])
    assert not any(tensor.to_host().any() for tensor in tensors) and not narrow.bits().any()
    with pytest.raises(InputError, match="host memory"):
        cuda.wipe(np.ones(3))

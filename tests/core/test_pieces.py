"""Encryptions made range by range, sum checks that pass by, and sums opened range by range: the bits of the whole."""

from __future__ import annotations

import numpy as np
import pytest

import pppml_fast as pf
from pppml_fast.cipher.sum_check import SumCheck
from pppml_fast.cipher.wire import Header, Kind

CONTEXT, KEY = bytes(range(32)), bytes(32)
SETS = ["p31", "p50", "p62", "compact"]


def parameters(name: str = "p31") -> pf.CkksParams:
    return pf.CkksParams.preset(name, parties=3, clip=1.0, keys="collective", weights="free")


def vector(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.6, length).astype(np.float32)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("prepared", [False, True])
def test_pieces_add_up_to_a_sum_that_opens_range_by_range(name: str, prepared: bool) -> None:
    params = parameters(name)
    length = 3 * params.block_weights + 17
    keys = [pf.CollectiveKey.generate(params) for _ in range(3)]
    values = [vector(length, seed) for seed in range(3)]
    if prepared:
        keys[0].prepare(CONTEXT, length, background=False)
        keys[1].prepare(CONTEXT, length, background=False, limit_bytes=2 * 8 * params.ring_dimension)
    opener = pf.CollectiveKey.sum(keys)
    pieces = [key.encrypt_in_pieces(x, CONTEXT) for key, x in zip(keys, values, strict=True)]
    assert "made" in repr(pieces[0]) and pieces[0].prepared == prepared
    header = Header.of(params, Kind.COLLECTIVE, length, 3, CONTEXT)
    total, opened, integers = b"", np.ones(length, np.float32), np.ones(params.integer_count(length), np.int64)
    checks = [SumCheck(params, length, KEY) for _ in range(4)]
    for start in range(0, 4, 3):
        stop = min(start + 3, 4)
        part = memoryview(bytearray(pieces[0].packed_bytes(start, stop)))
        pieces[0].write(start, stop, part)
        checks[0].add(start, stop, part)
        for index in (1, 2):
            pieces[index].write(start, stop, part, part)
            checks[index].add(start, stop, part)
        checks[3].add(start, stop, part)
        at = slice(start * params.block_weights, min(stop * params.block_weights, length))
        opener.decrypt_range(header, start, stop, [part], opened[at])
        at = slice(start * params.block_integers, min(stop * params.block_integers, integers.size))
        opener.decrypt_range(header, start, stop, [part], integers[at])
        total += bytes(part)
    assert all(piece.finished for piece in pieces)
    assert [piece.clipped for piece in pieces] == [pf.count_clipped(params, x) for x in values]
    whole = pf.Ciphertext.zeros(params, length, 3, CONTEXT)
    whole.load(0, 4, total)
    assert np.array_equal(opener.decrypt(whole), opened)
    assert np.array_equal(opener.decrypt(whole, integers=True), integers)
    assert np.array_equal(integers, sum(pf.quantize(params, x) for x in values))
    tags = [checks[0].to_bytes(), checks[1].less(checks[0]), checks[2].less(checks[1])]
    checks[3].verify(tags)
    tags_of_sum = pf.sum_check_tag(whole, KEY)
    assert checks[3].to_bytes() == tags_of_sum
    pf.sum_check_verify(whole, KEY, tags)
    with pytest.raises(pf.OpeningError, match="sum check fails"):
        checks[2].verify([tags[0], tags[1], tags[1]])
    false = total[:-8] + b"\xff" * 8
    with pytest.raises(pf.CiphertextError, match="not below its prime"):
        checks[3].add(0, 4, false)
    assert checks[3].to_bytes() == tags_of_sum


def test_each_block_is_encrypted_once_and_in_order() -> None:
    params = parameters()
    length = 5 * params.block_weights
    key = pf.CollectiveKey.generate(params)
    pieces = key.encrypt_in_pieces(vector(length), CONTEXT)
    out = memoryview(bytearray(pieces.packed_bytes(0, 2)))
    for start, stop in ((1, 3), (2, 4)):
        with pytest.raises(pf.KeyReuseError, match="made before"):
            pieces.write(start, stop, out)
    pieces.write(0, 2, out)
    with pytest.raises(pf.KeyReuseError, match="made before"):
        pieces.write(0, 2, out)
    with pytest.raises(pf.KeyReuseError, match="one message"):
        key.encrypt(vector(length), CONTEXT)
    invalid = memoryview(b"\xff" * len(out))
    with pytest.raises(pf.CiphertextError, match="not below its prime"):
        pieces.write(2, 4, out, invalid)
    assert not any(out)
    pieces.write(2, 4, out)
    key.destroy()
    with pytest.raises(pf.KeyReuseError, match="destroyed"):
        pieces.write(4, 5, out[: pieces.packed_bytes(4, 5)])
    pieces.close()
    with pytest.raises(pf.KeyReuseError, match="destroyed"):
        pieces.write(4, 5, out)


def test_values_that_cannot_be_encrypted_leave_the_key_unused() -> None:
    params = parameters()
    key = pf.CollectiveKey.generate(params)
    values = vector(5000)
    values[4000] = np.nan
    with pytest.raises(pf.InputError, match="4000"):
        key.encrypt_in_pieces(values, CONTEXT)
    values[4000] = 0
    assert key.encrypt_in_pieces(values, CONTEXT).blocks == params.block_count(5000)


def test_a_range_of_a_foreign_sum_is_refused() -> None:
    params = parameters()
    keys = [pf.CollectiveKey.generate(params) for _ in range(3)]
    opener = pf.CollectiveKey.sum(keys)
    pieces = keys[0].encrypt_in_pieces(vector(10), CONTEXT)
    part, out = memoryview(bytearray(pieces.packed_bytes(0, 1))), np.ones(10, np.float32)
    pieces.write(0, 1, part)
    with pytest.raises(pf.CiphertextError, match="adds 1 encryptions"):
        opener.decrypt_range(Header.of(params, Kind.COLLECTIVE, 10, 1, CONTEXT), 0, 1, [part], out)
    with pytest.raises(pf.OpeningError, match="residual check"):
        opener.decrypt_range(Header.of(params, Kind.COLLECTIVE, 10, 3, CONTEXT), 0, 1, [part], out)
    assert not out.any()
    with pytest.raises(pf.CiphertextError, match="collective"):
        SumCheck(pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="public"), 10, KEY)

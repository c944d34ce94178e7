"""Results written where the caller says: the same bytes as new ones, in any kind of buffer, in place where allowed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from core_support import CONTEXT, MODES, fresh_parties, vector

import pppml_fast as pf
from pppml_fast import memory

BUFFERS = {
    "bytearray": bytearray,
    "memoryview": lambda size: memoryview(bytearray(size + 7))[3 : size + 3],
    "array": lambda size: np.zeros(size, np.uint8),
    "arena": lambda size: memory.empty(size, np.uint8),
}


def pair(keys: str, length: int, name: str = "p31") -> tuple[pf.Ciphertext, pf.Ciphertext]:
    parties = fresh_parties(name, keys)
    first, second = (parties.encrypt(index, vector(length, index)) for index in range(2))
    return first.expanded(), second.expanded()


@pytest.mark.parametrize("kind", BUFFERS)
@pytest.mark.parametrize("keys", MODES)
def test_pack_and_hop_fill_a_buffer_with_what_they_return_without_one(keys: str, kind: str) -> None:
    mine, other = pair(keys, 3 * 2048 + 500)
    for start, stop in ((0, mine.block_count), (1, 3), (2, 2)):
        size = mine.packed_size(start, stop)
        packed, out = mine.pack(start, stop), BUFFERS[kind](size)
        view = mine.pack(start, stop, out=out)
        assert isinstance(packed, bytes) and isinstance(view, memoryview)
        assert bytes(view) == bytes(memoryview(out)) == packed
        hopped = other.hop(packed, start, stop)
        target = BUFFERS[kind](size)
        assert bytes(other.hop(out, start, stop, out=target)) == bytes(memoryview(target)) == hopped
        assert bytes(memoryview(out)) == packed, "the incoming bytes were written to"


@pytest.mark.parametrize("name", ["p31", "p50", "p62"])
@pytest.mark.parametrize("keys", MODES)
def test_a_hop_may_write_over_what_came_in(keys: str, name: str) -> None:
    mine, other = pair(keys, 70 * 2048 + 11, name)
    expected = other.hop(mine.pack(0, mine.block_count), 0, mine.block_count)
    for threads in (1, 3):
        kept = pf.get_num_threads()
        pf.set_num_threads(threads)
        try:
            buffer = bytearray(mine.pack(0, mine.block_count))
            other.hop(buffer, 0, mine.block_count, out=buffer)
        finally:
            pf.set_num_threads(kept)
        assert buffer == expected


@pytest.mark.parametrize("keys", MODES)
def test_to_bytes_fills_a_buffer_with_header_and_payload(keys: str) -> None:
    mine, _ = pair(keys, 5000)
    out = bytearray(mine.nbytes)
    view = mine.to_bytes(out=out)
    assert bytes(view) == out == mine.to_bytes() and isinstance(mine.to_bytes(), bytes)
    again = pf.Ciphertext.from_bytes(mine.params, np.frombuffer(out, np.uint8))
    assert np.array_equal(again.first, mine.first)


def unfit_buffers(size: int) -> list[Any]:
    return [
        bytes(size),
        bytearray(size - 1),
        bytearray(size + 1),
        memoryview(bytearray(2 * size))[::2],
        np.zeros((2, size), np.uint8)[:, ::2],
        memoryview(bytearray(size)).toreadonly(),
        np.zeros(size, np.float64),
        [0] * size,
        "x" * size,
    ]


def test_a_buffer_that_does_not_fit_is_refused() -> None:
    mine, other = pair("public", 3000)
    blocks = mine.block_count
    packed = mine.pack(0, blocks)
    for out in unfit_buffers(len(packed)):
        with pytest.raises(pf.InputError, match=f"buffer of {len(packed)} bytes"):
            mine.pack(0, blocks, out=out)
        with pytest.raises(pf.InputError, match=f"buffer of {len(packed)} bytes"):
            other.hop(packed, 0, blocks, out=out)
    for out in unfit_buffers(mine.nbytes):
        with pytest.raises(pf.InputError, match=f"buffer of {mine.nbytes} bytes"):
            mine.to_bytes(out=out)


def test_an_output_that_overlaps_what_is_read_is_refused() -> None:
    mine, other = pair("collective", 3000)
    size = mine.packed_size(0, 2)
    space = bytearray(size + 8)
    space[4:-4] = mine.pack(0, 2)
    view = memoryview(space)
    with pytest.raises(pf.InputError, match="overlaps"):
        other.hop(view[4:-4], 0, 2, out=view[:size])
    assert space[4:-4] == mine.pack(0, 2)
    own = mine.first.view(np.uint8)[:size]
    with pytest.raises(pf.InputError, match="own memory"):
        mine.pack(0, 2, out=own)
    with pytest.raises(pf.InputError, match="own memory"):
        mine.hop(bytes(size), 0, 2, out=own)


@pytest.mark.parametrize("keys", MODES)
def test_an_output_that_is_also_the_input_is_refused(keys: str) -> None:
    parties = fresh_parties("p31", keys)
    x, room = vector(2048), np.zeros(3072, np.int64)
    mine = room[1024:2048].view(np.float32)
    for arguments in ({"x": mine}, {"x": [x[:9], x[9:]], "reference": [mine]}):
        with pytest.raises(pf.InputError, match="shares memory with the weights"):
            pf.quantize(parties.params, **arguments, out=room[:2048])
    pf.quantize(parties.params, mine, out=room[:2048].copy())
    out = pf.Ciphertext.zeros(parties.params, 1024)
    for words in (out.first, out.second):
        if words is not None:
            with pytest.raises(pf.InputError, match="shares memory with the weights"):
                parties.encrypt(0, words[:1024].view(np.float32), out=out)
    parties.encrypt(0, x[:1024], out=out)


@pytest.mark.parametrize("keys", MODES)
def test_a_residue_not_below_its_prime_is_refused_in_place_too(keys: str) -> None:
    mine, other = pair(keys, 3000)
    packed = bytearray(mine.pack(0, 2))
    packed[-8:] = b"\xff" * 8
    with pytest.raises(pf.CiphertextError, match="not below its prime"):
        other.hop(packed, 0, 2, out=packed)


@pytest.mark.parametrize("length", [0, 3, 300_000])
def test_quantised_values_go_where_they_are_wanted(length: int) -> None:
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0)
    x = vector(length)
    out = np.full(length, 99, np.int64)
    assert pf.quantize(params, x, out=out) is out
    assert np.array_equal(out, pf.quantize(params, x))
    for unfit in (np.zeros(length + 1, np.int64), np.zeros(length, np.int32), np.zeros(length, np.float64)):
        with pytest.raises(pf.InputError, match="out"):
            pf.quantize(params, x, out=unfit)
    if length:
        with pytest.raises(pf.InputError, match="contiguous"):
            pf.quantize(params, x, out=np.zeros(2 * length, np.int64)[::2])


def test_a_whole_round_in_the_callers_memory() -> None:
    parties = fresh_parties("p31", "collective")
    params, vectors = parties.params, [vector(5000, seed) for seed in range(3)]
    target = pf.Ciphertext.zeros(params, 5000, context=CONTEXT)
    wire = bytearray(target.packed_size(0, target.block_count))
    for index, x in enumerate(vectors):
        mine = parties.encrypt(index, x, out=target)
        if index == 0:
            mine.pack(0, mine.block_count, out=wire)
        else:
            mine.hop(wire, 0, mine.block_count, out=wire)
    target.load(0, target.block_count, wire)
    target.terms = 3
    opened = np.zeros(5000, np.int64)
    assert parties.opener.decrypt(target, integers=True, out=opened) is opened
    assert np.array_equal(opened, sum(pf.quantize(params, x) for x in vectors))

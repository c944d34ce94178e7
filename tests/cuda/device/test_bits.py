"""The device's kernels give the bits of `scalar`: all sets, all key modes, edge lengths, every order of threads."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from fakes import Bfloat16
from fixed_streams import KEY, PACKINGS, SEED, edge_lengths, packing

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.cuda import DeviceArray

MODES = ["collective", "secret", "public"]
TIE_KEY = hashlib.sha256(b"pppml tie search").digest()


class Both:
    """One parameter set on the host, by `scalar`, and on the device, from fixed streams."""

    def __init__(self, params: pf.CkksParams) -> None:
        self.params = params
        self.host = _native.Scheme(params._checked, "scalar", "chacha20")
        self.device = _native.cuda.DeviceScheme(self.host, 0)
        self.word = np.dtype(f"u{self.host.word_bytes}")
        self.noise = _native.StreamKey.from_bytes(SEED)
        self.secret = self.host.generate_secret(_native.StreamKey.from_bytes(KEY))
        self.public = None
        if params.keys == "public":
            pk0 = self.host.generate_public(self.secret, _native.StreamKey.from_bytes(KEY), KEY)
            self.public = self.host.load_public(pk0, KEY)

    def words(self, length: int, cut: bool = True) -> int:
        return int(self.host.words(length, cut))

    def packed(self, length: int, cut: bool = True) -> int:
        return int(self.host.packed_bytes(length, cut, 0, self.params.block_count(length)))

    def encrypt_on_host(self, tensors: list[Any], weight: float, reference: list[Any]) -> tuple[list[np.ndarray], int]:
        length = length_of(tensors)
        c0 = np.zeros(self.words(length), self.word)
        if self.public is None:
            clipped = self.host.encrypt(self.secret, self.noise, KEY, tensors, weight, c0, reference=reference)
            return [c0], clipped
        c1 = np.zeros(self.words(length, False), self.word)
        clipped = self.host.encrypt_public(self.public, self.noise, tensors, weight, c0, c1, reference=reference)
        return [c0, c1], clipped

    def encrypt_on_device(
        self, rows: list[tuple[int, int, str]], weight: float, reference: list[tuple[int, int, str]], packed: bool
    ) -> tuple[list[np.ndarray], int]:
        length = sum(row[1] for row in rows)
        cuts = [True] if self.public is None else [True, False]
        if packed:
            outs = [DeviceArray(self.packed(length, cut), np.uint8) for cut in cuts]
        else:
            outs = [DeviceArray(self.words(length, cut), self.word) for cut in cuts]
        places = [out.address for out in outs]
        if self.public is None:
            report = self.device.encrypt(
                self.secret, self.noise, KEY, length, rows, weight, *places, packed, 0, reference=reference
            )
        else:
            report = self.device.encrypt_public(
                self.public, self.noise, length, rows, weight, *places, packed, 0, reference=reference
            )
        clipped, *rest = report.wait()
        assert rest == [None, 0, 0, None]
        return [out.to_host() for out in outs], clipped


def length_of(tensors: list[Any]) -> int:
    return sum((t[1] if isinstance(t, tuple) else t).size for t in tensors)


def upload(tensors: list[np.ndarray]) -> tuple[list[Any], list[tuple[int, int, str]]]:
    """What keeps them, and their rows."""
    kept = [DeviceArray.from_host(tensor) for tensor in tensors]
    return kept, [(array.address, array.size, array.dtype.name) for array in kept]


def compare(params: pf.CkksParams, tensors: list[np.ndarray], weight: float = 0.3, reference: Any = ()) -> None:
    both = Both(params)
    kept, rows = upload(tensors)
    subtracted, reference_rows = upload(list(reference))
    length = length_of(tensors)
    expected, clipped = both.encrypt_on_host(tensors, weight, list(reference))
    got, counted = both.encrypt_on_device(rows, weight, reference_rows, packed=False)
    assert counted == clipped
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))
    blocks = params.block_count(length)
    bytes_expected = [
        both.host.pack(length, cut, 0, blocks, words) for cut, words in zip((True, False), expected, strict=False)
    ]
    packed, _ = both.encrypt_on_device(rows, weight, reference_rows, packed=True)
    assert [p.tobytes() for p in packed] == bytes_expected
    compare_opening(both, length, expected, bytes_expected)
    assert kept is not subtracted


def compare_opening(both: Both, length: int, words: list[np.ndarray], packed: list[bytes]) -> None:
    seed = KEY if both.public is None else None
    for dtype in (np.int64, np.float32, np.float64):
        opened = np.ones(length, dtype)
        refused, largest, valid = both.host.open(
            both.secret, length, 1, words[0], words[1] if len(words) == 2 else None, seed, opened
        )
        assert refused is None and valid
        for forms in (words, [np.frombuffer(p, np.uint8) for p in packed]):
            c0, *rest = (DeviceArray.from_host(form) for form in forms)
            out = DeviceArray(length, dtype)
            integers = out.address if dtype == np.int64 else 0
            rows = [] if integers or not length else [(out.address, length, out.dtype.name)]
            report = both.device.open(
                both.secret, length, 1, c0.address, rest[0].address if rest else None, forms is not words, seed,
                integers, rows, 0,
            )  # fmt: skip
            assert report.wait() == (0, None, 0, largest, None)
            assert np.array_equal(out.to_host(), opened)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("keys", MODES)
@pytest.mark.parametrize("name", PACKINGS)
def test_every_set_at_edge_lengths(name: str, keys: Any, rounding: Any) -> None:
    params = packing(name, keys, rounding=rounding)
    generator = np.random.default_rng(7)
    for length in edge_lengths(params):
        compare(params, [generator.normal(0, 0.6, length).astype(np.float32)])


@pytest.mark.parametrize("order", ["descending", "scattered"])
@pytest.mark.parametrize("keys", MODES)
@pytest.mark.parametrize("name", PACKINGS)
@pytest.mark.played_device
def test_the_order_of_threads_changes_nothing(
    name: str, keys: Any, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPPML_CUDA_HOST", f"order={order}")
    params = packing(name, keys, rounding="stochastic")
    generator = np.random.default_rng(9)
    for length in (1, params.block_weights + 1, 2 * params.block_weights + 333):
        compare(params, [generator.normal(0, 0.6, length).astype(np.float32)])


def mixed(params: pf.CkksParams) -> list[np.ndarray]:
    """Edge values in every dtype, tensors of nothing and of one, and some that cross blocks."""
    generator = np.random.default_rng(8)
    flat = generator.normal(0, 0.6, 2 * params.block_weights + 99)
    edges = np.array([0.0, -0.0, params.clip, -params.clip, 3.0, -3.0, 1e-30, params.step / 2, 1.5 * params.step, 6e-8])
    near = np.nextafter(params.clip, [0.0, 9.0])
    return [
        np.zeros(0, np.float32),
        flat[:7].astype(np.float16),
        edges.astype(np.float16),
        flat[7:8].astype(np.float32),
        flat[8:1000].astype(np.float32),
        np.zeros(0, np.float16),
        flat[1000:],
        np.concatenate([edges, near, -near, [1e300, -1e300]]),
        edges.astype(np.float32),
        np.zeros(0),
    ]


@pytest.mark.parametrize("weights", ["public", "free"])
@pytest.mark.parametrize("keys", ["collective", "public"])
@pytest.mark.parametrize("name", PACKINGS)
def test_tensors_of_all_dtypes_that_cross_blocks(name: str, keys: Any, weights: Any) -> None:
    params = packing(name, keys, weights)
    compare(params, mixed(params), 1.0 if weights == "free" else 0.7)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("name", ["p31", "p62"])
def test_a_reference_in_other_pieces(name: str, rounding: Any) -> None:
    params = packing(name, "collective", rounding=rounding)
    flat = np.random.default_rng(5).normal(0, 0.9, 2 * params.block_weights + 777)
    flat[[3, 2000, 4000]] = [3e38, -3e38, 1e-40]
    shift = np.roll(flat, 1) / 3
    halves, rest = np.split(shift, [1500])
    for reference in ([shift.astype(np.float32)], [np.clip(halves, -9, 9).astype(np.float16), rest]):
        compare(params, [flat.astype(np.float32)], reference=reference)


def test_many_tensors_of_one_element_and_bfloat16() -> None:
    params = packing("p31", "collective")
    both, values = Both(params), np.random.default_rng(4).normal(0, 0.6, 3000)
    bits = Bfloat16(values[:1500])
    kept, rows = upload([values[1500 + i : 1501 + i].astype(np.float32) for i in range(1500)])
    rows.insert(0, (bits.array.address, 1500, "bfloat16"))
    host = [bits.tagged(), *(array.to_host() for array in kept)]
    expected, clipped = both.encrypt_on_host(host, 0.3, [])
    got, counted = both.encrypt_on_device(rows, 0.3, [], packed=False)
    assert counted == clipped and np.array_equal(got[0], expected[0])


def test_a_row_with_a_tie() -> None:
    """Block 28101 of this stream holds a sample that ties with a threshold (tests/core/test_streams.py)."""
    params = packing("p31", "collective")
    both = Both(params)
    both.noise = _native.StreamKey.from_bytes(TIE_KEY)
    for block in (28101, 51834):
        length = (block + 1) * 2048
        expected = np.zeros(2048, np.uint32)
        zeros = np.broadcast_to(np.zeros(2048, np.float32), (block + 1, 2048))
        both.host.encrypt(both.secret, both.noise, KEY, [zeros], 0.3, expected, start=block, stop=block + 1)
        piece, out = DeviceArray.from_host(np.zeros(2048, np.float32)), DeviceArray(2048, np.uint32)
        # The vector before the block is never read: one span with an address to suit stands for all of it.
        rows = [(piece.address - 4 * (length - 2048), length, "float32")]
        report = both.device.encrypt(
            both.secret, both.noise, KEY, length, rows, 0.3, out.address, False, 0, start=block, stop=block + 1
        )
        assert report.wait() == (0, None, 0, 0, None)
        assert np.array_equal(out.to_host(), expected)


@pytest.mark.parametrize("name", PACKINGS)
def test_ranges_are_parts_of_the_whole(name: str) -> None:
    params = packing(name, "collective", rounding="stochastic")
    both = Both(params)
    values = np.random.default_rng(3).normal(0, 0.6, 4 * params.block_weights + 5).astype(np.float32)
    kept, rows = upload([values[:1000], values[1000:]])
    whole = both.encrypt_on_device(rows, 0.3, [], packed=False)[0][0]
    block = params.ring_dimension * len(params.primes)
    opened = DeviceArray.from_host(np.zeros(values.size, np.float32))
    width = params.block_weights
    for start, stop in ((0, 1), (1, 3), (3, 5)):
        part = whole[start * block : stop * block]
        out = DeviceArray(part.size, both.word)
        both.device.encrypt(
            both.secret, both.noise, KEY, values.size, rows, 0.3, out.address, False, 0, start=start, stop=stop
        ).wait()
        assert np.array_equal(out.to_host(), part)
        count = min(stop * width, values.size) - start * width
        target = [(opened.address + 4 * start * width, count, "float32")]
        both.device.open(
            both.secret, values.size, 1, out.address, None, False, KEY, 0, target, 0, start=start, stop=stop
        ).wait()
    expected = np.zeros_like(values)
    both.host.open(both.secret, values.size, 1, whole, None, KEY, expected)
    assert np.array_equal(opened.to_host(), expected)
    assert len(kept) == 2


@pytest.mark.parametrize("name", PACKINGS)
def test_chains_of_sums(name: str) -> None:
    params = packing(name, "collective")
    both, length = Both(params), params.block_weights + 333
    generator = np.random.default_rng(2)
    seeds = [generator.bytes(32) for _ in range(40)]
    zero = np.zeros(both.words(length), both.word)
    terms = [both.host.mask(length, seed, False, zero) for seed in seeds]
    arrays = [DeviceArray.from_host(term) for term in terms]
    for count in (1, 2, 3, 16, 17, 40):
        expected = np.zeros_like(zero)
        both.host.add(length, True, terms[:count], expected)
        out = DeviceArray(zero.size, both.word)
        both.device.add(length, True, [a.address for a in arrays[:count]], out.address, 0)
        assert np.array_equal(out.to_host(), expected)
    # Onto the last of forty, in place, and one at an address that is no multiple of sixteen bytes.
    both.device.add(length, True, [a.address for a in arrays], arrays[-1].address, 0)
    assert np.array_equal(arrays[-1].to_host(), expected)
    loose = DeviceArray(zero.size + 1, both.word)
    both.device.add(length, True, [arrays[0].address], loose.address + loose.dtype.itemsize, 0)
    assert np.array_equal(loose.to_host()[1:], terms[0])


@pytest.mark.parametrize("name", PACKINGS)
def test_packing_there_and_back_with_an_addition(name: str) -> None:
    params = packing(name, "collective")
    both = Both(params)
    for length in (1, params.block_weights - 1, 2 * params.block_weights + 333):
        blocks = params.block_count(length)
        words = both.host.mask(length, KEY, False, np.zeros(both.words(length), both.word))
        packed = both.host.pack(length, True, 0, blocks, words)
        mine, out = DeviceArray.from_host(words), DeviceArray(len(packed) + 1, np.uint8)
        for shift in (0, 1):  # at an address that is no multiple of four, too
            at = out.address + shift
            both.device.move(length, True, 0, blocks, mine.address, False, 0, at, True, 0).wait()
            assert out.to_host()[shift : shift + len(packed)].tobytes() == packed
            report = both.device.move(length, True, 0, blocks, at, True, mine.address, at, True, 0)
            assert report.wait() == (0, None, 0, 0, None)
            hop = both.host.hop(length, True, 0, blocks, packed, words)
            assert out.to_host()[shift : shift + len(packed)].tobytes() == hop
            back = DeviceArray(words.size, both.word)
            both.device.move(length, True, 0, blocks, at, True, 0, back.address, False, 0).wait()
            expected = np.zeros_like(words)
            both.host.add(length, True, [words, words], expected)
            assert np.array_equal(back.to_host(), expected)


def test_rejected_candidates_are_drawn_again() -> None:
    """About 9 % of p31's rows hold a rejection: among so many blocks some do."""
    params = packing("p31", "collective")
    generator = np.random.default_rng(1)
    compare(params, [generator.normal(0, 0.3, 60 * 2048).astype(np.float32)])
    rows = [_native.primitives.stream(KEY, 0, block, 0, 2048, "scalar", "chacha20") for block in range(60)]
    assert sum(bool(np.any((row & 0x7FFFFFFF) >= params.primes[0])) for row in rows) >= 3

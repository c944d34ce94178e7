"""The Python face under any values: parameters, ways to encrypt and open, forms that travel, quantisation, layouts."""

from __future__ import annotations

import functools
import itertools
import math
import pickle
from typing import Any

import numpy as np
import oracle
from core_support import CONTEXT, MODES, SETS, ntt_prime
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import pppml_fast as pf

few = settings(max_examples=40, deadline=None)
more = settings(max_examples=150, deadline=None)

# --- parameters ------------------------------------------------------------------------------------------------------

dimensions = st.sampled_from([1024, 2048, 4096, 8192])
odd_values = st.none() | st.booleans() | st.text(max_size=3) | st.floats() | st.integers() | st.just([])


@functools.cache
def prime_below(bits: int, dimension: int) -> int:
    return ntt_prime(bits, dimension)


@st.composite
def literals(draw: st.DrawFn) -> dict[str, Any]:
    """Literals of which many are sound, some nearly so, and some have a field that is nothing of the kind."""
    dimension = draw(dimensions)
    widths = draw(st.lists(st.integers(20, 60), min_size=1, max_size=2))
    literal: dict[str, Any] = {
        "name": draw(st.text(max_size=5)),
        "ring_dimension": dimension,
        "primes": [prime_below(bits, dimension) for bits in widths],
        "parties": draw(st.integers(1, 200) | st.integers(0, 2**64)),
        "clip": draw(st.floats(1e-6, 1e6) | st.floats()),
        "keys": draw(st.sampled_from(MODES)),
        "weights": draw(st.sampled_from(["free", "public"])),
        "values_per_coefficient": draw(st.integers(0, 4)),
        "rounding": draw(st.sampled_from(["nearest", "stochastic"])),
    }
    if draw(st.booleans()):
        literal["packing"] = draw(st.sampled_from(["coefficients", "slots", "real_slots"]))
        literal["slot_scale"] = draw(st.none() | st.integers(0, 60).map(lambda power: 2.0**power) | st.floats())
    if draw(st.integers(0, 3)) == 0:
        literal[draw(st.sampled_from(sorted(literal)))] = draw(odd_values)
    return literal


@more
@given(literals())
def test_any_literal_is_refused_or_gives_a_set_whose_law_holds(literal: dict[str, Any]) -> None:
    try:
        params = pf.CkksParams.from_dict(literal)
    except pf.ParameterError as error:
        assert len(str(error)) > 10
        return
    delta, noise, magnitude, bound = oracle.max_magnitude(params)
    assert (params.scale, params.noise_bound) == (delta, noise)
    if params.rounding == "nearest" and params.slot_scale is None:
        assert (params.max_magnitude, params.sum_bound) == (magnitude, bound)
    assert params.slot_scale is None or math.isclose(params.total_scale, params.slot_scale, rel_tol=1e-12)
    modulus, base = math.prod(params.primes), 2 * params.sum_bound + 1
    reach = base**params.values_per_coefficient - 1
    assert params.max_magnitude >= 1
    assert reach * delta + 2 * noise < modulus
    assert params.level_bits["classical"] >= 128
    assert params.failure_log2 <= -128
    largest = params.clip * (math.sqrt(2) if params.packing == "slots" else 1)  # of a coefficient
    assert params.step * params.max_magnitude >= largest * (1 - 1e-12)
    assert params.slot_scale is not None or math.isclose(params.step * params.max_magnitude, largest, rel_tol=1e-12)
    for again in (pf.CkksParams.from_dict(params.to_dict()), pickle.loads(pickle.dumps(params))):
        assert (again, again.id, hash(again)) == (params, params.id, hash(params))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4096),
    st.floats(1e-3, 1e3),
    st.floats(1, 45),
    st.sampled_from(["128", "192", "128c", "192c"]),
    st.sampled_from(MODES),
    st.sampled_from(["free", "public"]),
)
def test_for_sum_keeps_its_promises_or_nothing_could(
    parties: int, clip: float, bits: float, level: str, keys: Any, weights: Any
) -> None:
    asked: Any = {"parties": parties, "clip": clip, "keys": keys, "weights": weights}
    column, wanted = ("classical" if level.endswith("c") else "quantum"), int(level.rstrip("c"))
    fitting = []
    for name, packed in itertools.product(pf.PRESETS, (1, 2, 3)):
        try:
            candidate = pf.CkksParams.preset(name, values_per_coefficient=packed, **asked)
        except pf.ParameterError:
            continue
        if candidate.exact_bits >= bits and candidate.level_bits[column] >= wanted:
            fitting.append(candidate)
    try:
        chosen = pf.CkksParams.for_sum(bits=bits, level=level, **asked)
    except pf.ParameterError:
        assert not fitting
        return
    assert chosen in fitting
    assert chosen.bytes_per_weight == min(params.bytes_per_weight for params in fitting)


# --- encrypting and opening ------------------------------------------------------------------------------------------

PARTIES = 3
DTYPES = ["<f2", "<f4", "<f8", ">f4", ">f8"]
values = st.floats(-3, 3, width=16) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 65504.0, -65504.0, 6e-8])


@functools.cache
def parties_of(name: str, keys: Any, weights: Any) -> tuple[pf.CkksParams, Any]:
    """Parameters and, where keys serve more than once, the pair."""
    params = pf.CkksParams.preset(name, parties=PARTIES, clip=1.0, keys=keys, weights=weights)
    return params, None if keys == "collective" else pf.keygen(params)


class Sender:
    """One party's way to the wire, whichever keys it has."""

    def __init__(self, params: pf.CkksParams, pair: Any) -> None:
        self.key: Any = pf.CollectiveKey.generate(params) if pair is None else pair.public or pair.secret
        self.options: dict[str, Any] = {"context": CONTEXT} if pair is None else {}
        self.streams = hasattr(self.key, "encrypt_chunks")

    def send(self, way: str, x: Any, **options: Any) -> bytes:
        options |= self.options
        if way == "chunks" and self.streams:
            return b"".join(bytes(part) for part in self.key.encrypt_chunks(x, chunk_blocks=1, **options))
        if way == "bytes":
            return bytes(self.key.encrypt_bytes(x, **options))
        if way == "bytes into memory":
            target = bytearray(pf.Ciphertext.wire_size(self.key.params, sum(np.size(part) for part in x)))
            assert self.key.encrypt_bytes(x, out=target, **options).obj is target
            return bytes(target)
        return bytes(self.key.encrypt(x, **options).to_bytes())


@st.composite
def tensors(draw: st.DrawFn) -> list[np.ndarray]:
    """Up to three arrays of any float type, shape and strides."""
    result = []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(arrays.array_shapes(max_dims=3, min_side=0, max_side=9))
        array = draw(arrays.arrays(draw(st.sampled_from(DTYPES)), shape, elements=values, fill=values))
        if draw(st.booleans()):
            array = array.T
        if draw(st.booleans()) and array.ndim:
            array = array[:: draw(st.sampled_from([1, 2, -1]))]
        if draw(st.booleans()):
            array = np.broadcast_to(array, (draw(st.integers(1, 20)), *array.shape))
        result.append(array)
    return result


def flat(parts: list[np.ndarray]) -> np.ndarray:
    """The parts as one vector in C order, without the help of the library."""
    return np.concatenate([np.array([float(v) for v in part.ravel(order="C")]) for part in parts])


@few
@given(st.data(), st.sampled_from(SETS), st.sampled_from(MODES), st.sampled_from(["free", "public"]))
def test_every_way_to_encrypt_and_open_gives_the_sum_of_the_quantised_values(
    data: st.DataObject, name: str, keys: Any, weights: Any
) -> None:
    params, pair = parties_of(name, keys, weights)
    x = data.draw(tensors())
    vector = flat(x)
    count = data.draw(st.integers(1, PARTIES))
    shares = [None if weights == "free" else share for share in (0.5, 0.25, 0.25)][:count]
    subtracted = data.draw(st.none() | st.just(np.full(vector.size, 0.25, np.float32)))
    senders = [Sender(params, pair) for _ in range(count)]
    total, expected = None, np.zeros(vector.size, np.int64)
    for sender, share in zip(senders, shares, strict=True):
        way = data.draw(st.sampled_from(["object", "bytes", "bytes into memory", "chunks"]))
        wire = sender.send(way, x, weight=share, reference=subtracted)
        one = pf.Ciphertext.from_bytes(params, wire)
        assert (one.to_bytes(), pickle.loads(pickle.dumps(one)).to_bytes()) == (wire, wire)
        total = one if total is None else total + one
        integers = pf.quantize(params, x, share, subtracted)
        assert np.array_equal(integers, pf.quantize(params, vector, share, subtracted))
        expected += integers
    assert total is not None
    opener = pf.CollectiveKey.sum([sender.key for sender in senders]) if pair is None else pair.secret
    assert_every_opening(opener, total, expected)


def assert_every_opening(opener: Any, total: pf.Ciphertext, expected: np.ndarray) -> None:
    """All ways to open agree, on integers and on weights of every type, in new memory and in given memory."""
    wire, size = total.to_bytes(), expected.size
    for dtype in (np.int64, np.float32, np.float64, np.float16):
        integers = dtype is np.int64
        wanted = expected if integers else (expected * total.params.step).astype(dtype)
        options: Any = {"integers": True} if integers else {"dtype": dtype}
        strided = np.zeros(2 * size, dtype)[::2]
        assert np.array_equal(opener.decrypt(total, **options), wanted)
        assert np.array_equal(opener.decrypt_bytes(wire, **options), wanted)
        assert opener.decrypt(total, out=strided, **options) is strided
        assert np.array_equal(strided, wanted)
        if dtype is not np.float16 and total.second is None:
            out = np.zeros(size, dtype)
            assert opener.decrypt_chunks([wire[:50], wire[50:]], out) == size
            assert np.array_equal(out, wanted)


@few
@given(st.data(), st.sampled_from(SETS), st.sampled_from(MODES), st.integers(0, 300))
def test_adding_packing_and_hopping_into_given_memory_change_nothing(
    data: st.DataObject, name: str, keys: Any, length: int
) -> None:
    params, pair = parties_of(name, keys, "free")
    length += data.draw(st.sampled_from([0, params.block_weights]))
    x = np.linspace(-1, 1, length, dtype=np.float32)
    one, two = (pf.Ciphertext.from_bytes(params, Sender(params, pair).send("bytes", [x])).expanded() for _ in range(2))
    expected = (one + two).to_bytes()
    room = pf.Ciphertext.empty_like(one, terms=1)
    assert pf.add([one, two], out=room) is room
    assert room.to_bytes() == expected == (two + one).to_bytes()
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, one.block_count)] * 2)))
    packed, target = one.pack(start, stop), bytearray(one.packed_size(start, stop))
    assert one.pack(start, stop, target).tobytes() == packed == bytes(target)
    hopped = two.hop(packed, start, stop)
    assert hopped == room.pack(start, stop)
    assert two.hop(target, start, stop, target).tobytes() == hopped == bytes(target)
    assert pf.add([one, two], out=one) is one
    assert one.to_bytes() == expected


@few
@given(st.sampled_from(SETS), st.integers(0, 300))
def test_public_keys_are_what_their_bytes_are(name: str, length: int) -> None:
    params, pair = parties_of(name, "public", "free")
    data = pair.public.to_bytes()
    for again in (pf.PublicKey.from_bytes(params, memoryview(data)), pickle.loads(pickle.dumps(pair.public))):
        assert again.to_bytes() == data
        x = np.linspace(-1, 1, length)
        assert np.array_equal(pair.secret.decrypt(again.encrypt(x), integers=True), pf.quantize(params, x))


# --- quantisation ----------------------------------------------------------------------------------------------------


@more
@given(
    st.sampled_from(SETS),
    st.sampled_from(MODES),
    st.integers(2, 300),
    st.floats(1e-20, 1e20),
    arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats(-2, 2, width=32)),
    st.randoms(use_true_random=False),
)
def test_quantising_is_odd_monotone_bounded_and_undone(
    name: str, keys: Any, parties: int, clip: float, x: np.ndarray, chance: Any
) -> None:
    try:
        params = pf.CkksParams.preset(name, parties=parties, clip=clip, keys=keys)
    except pf.ParameterError:
        assume(False)
    scaled = np.sort(x * clip)
    integers = pf.quantize(params, scaled)
    out = np.empty_like(integers)
    assert pf.quantize(params, scaled, out=out) is out
    assert np.array_equal(out, integers)
    assert np.array_equal(pf.quantize(params, -scaled), -integers)
    assert (np.diff(integers) >= 0).all()
    assert np.abs(integers).max() <= params.max_magnitude
    assert pf.count_clipped(params, scaled) == np.count_nonzero(np.abs(x.astype(np.float32)) > 1) or (
        np.isclose(np.abs(x), 1, rtol=1e-6).any()
    )
    grid = np.array([chance.randint(-params.max_magnitude, params.max_magnitude) for _ in range(20)])
    restored = pf.dequantize(params, grid, np.float64)
    assert np.array_equal(pf.quantize(params, restored), grid)
    room = np.empty(20, np.float64)
    assert pf.dequantize(params, grid, out=room) is room
    assert np.array_equal(room, restored)


# --- layouts ---------------------------------------------------------------------------------------------------------

models = st.dictionaries(
    st.text(max_size=8),
    st.tuples(
        arrays.array_shapes(min_dims=0, min_side=0, max_side=5), st.sampled_from(["float16", "float32", "float64"])
    ),
    max_size=6,
)


@more
@given(models, models)
def test_layouts_are_equal_when_nothing_differs_and_name_the_first_difference(
    one: dict[str, Any], two: dict[str, Any]
) -> None:
    layouts = [
        pf.Layout.from_arrays({name: np.zeros(shape, dtype) for name, (shape, dtype) in model.items()})
        for model in (one, two)
    ]
    rows = [list(model.items()) for model in (one, two)]
    assert (layouts[0] == layouts[1]) == (rows[0] == rows[1])
    assert (layouts[0].fingerprint == layouts[1].fingerprint) == (rows[0] == rows[1])
    try:
        layouts[0].check_same(layouts[1])
        assert rows[0] == rows[1]
    except pf.LayoutMismatchError as error:
        first = next(i for i, (a, b) in enumerate(itertools.zip_longest(*rows)) if a != b)
        named = str(layouts[0].tensors[first] if first < len(rows[0]) else layouts[1].tensors[first])
        assert named in str(error)


@more
@given(models, st.randoms(use_true_random=False))
def test_models_of_any_types_and_strides_return_from_their_vector(model: dict[str, Any], chance: Any) -> None:
    random = np.random.default_rng(chance.getrandbits(32))
    tensors_ = {}
    for name, (shape, dtype) in model.items():
        tensor = random.normal(size=shape).astype(dtype)
        tensors_[name] = np.asfortranarray(tensor) if chance.random() < 0.5 else tensor
    layout = pf.Layout.from_arrays(tensors_)
    vector = layout.flatten(dict(sorted(tensors_.items(), key=lambda item: chance.random())))
    back = layout.unflatten(vector.astype(np.float64))
    assert (vector.dtype, vector.size) == (np.float32, layout.size)
    assert list(back) == list(model)
    assert all(np.array_equal(back[name], tensor.astype(np.float32)) for name, tensor in tensors_.items())

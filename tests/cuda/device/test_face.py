"""`pppml_fast.cuda`: what a user of the library calls, from tensors of a device to tensors of a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes import Bfloat16, Interface

import pppml_fast as pf
from pppml_fast import _native, cuda
from pppml_fast.cuda import DeviceArray

CONTEXT = bytes(range(32))
PRESETS = ["p31", "p50", "p62", "compact"]


def make(name: str = "p31", keys: Any = "collective", **options: Any) -> pf.CkksParams:
    return pf.CkksParams.preset(name, parties=3, clip=1.0, keys=keys, **options)


def weights(params: pf.CkksParams, seed: int = 1, blocks: float = 2.3) -> np.ndarray:
    length = int(blocks * params.block_weights)
    return np.random.default_rng(seed).normal(0, 0.5, length).astype(np.float32)


@pytest.mark.parametrize("name", PRESETS)
def test_three_parties_sum_exactly_on_the_device(name: str) -> None:
    params = make(name)
    vectors = [weights(params, seed) for seed in range(3)]
    keys = [pf.CollectiveKey.generate(params) for _ in vectors]
    ciphertexts = [cuda.encrypt(key, DeviceArray.from_host(x), CONTEXT) for key, x in zip(keys, vectors, strict=True)]
    total = cuda.add(ciphertexts)
    exact = sum(pf.quantize(params, x) for x in vectors)
    opening = pf.CollectiveKey.sum(keys)
    assert np.array_equal(cuda.decrypt(opening, total, integers=True).to_host(), exact)
    assert np.array_equal(cuda.decrypt(opening, total).to_host(), pf.dequantize(params, exact))
    # The host opens it as well, from its residues and from its bytes.
    assert np.array_equal(opening.decrypt(total.to_host(), integers=True), exact)
    assert np.array_equal(opening.decrypt_bytes(total.to_bytes(), integers=True), exact)
    assert bytes(total.to_bytes()) == total.to_host().to_bytes()
    assert total.terms == 3 and total.nbytes == len(total.to_bytes())


@pytest.mark.parametrize("keys", ["public", "secret"])
@pytest.mark.parametrize("name", PRESETS)
def test_key_pairs(name: str, keys: Any) -> None:
    params = make(name, keys)
    pair, x = pf.keygen(params), weights(params)
    ciphertext = cuda.encrypt(pair.public or pair.secret, DeviceArray.from_host(x))
    assert np.array_equal(cuda.decrypt(pair.secret, ciphertext, integers=True).to_host(), pf.quantize(params, x))
    assert np.array_equal(pair.secret.decrypt(ciphertext.to_host(), integers=True), pf.quantize(params, x))
    assert bytes(ciphertext.to_bytes()) == ciphertext.to_host().to_bytes()
    again = cuda.Ciphertext.from_host(ciphertext.to_host())
    assert np.array_equal(cuda.decrypt(pair.secret, again, integers=True).to_host(), pf.quantize(params, x))
    if keys == "public":
        doubled = cuda.decrypt(pair.secret, again + ciphertext, integers=True)
        assert np.array_equal(doubled.to_host(), 2 * pf.quantize(params, x))
    else:
        with pytest.raises(pf.CiphertextError, match="added on the host"):
            cuda.add([ciphertext, again])


def test_a_list_of_tensors_less_a_reference_scattered_back() -> None:
    params = make(weights="public")
    flat = weights(params)
    model = np.roll(flat, 7) / 2
    cuts = [10, 2048, 4000]
    tensors = [DeviceArray.from_host(part) for part in np.split(flat, cuts)]
    reference = [DeviceArray.from_host(part.astype(np.float64)) for part in np.split(model, [777])]
    key = pf.CollectiveKey.generate(params)
    ciphertext = cuda.encrypt(key, tensors, CONTEXT, weight=0.5, reference=reference)
    expected = pf.quantize(params, flat, 0.5, reference=model)
    assert ciphertext.clipped == pf.count_clipped(params, flat, model) > 0
    opening = pf.CollectiveKey.sum([key])
    assert np.array_equal(cuda.decrypt(opening, ciphertext, integers=True).to_host(), expected)

    half = DeviceArray(10, np.float16)
    nothing = DeviceArray(0, np.float32)
    brain = Bfloat16(np.zeros(2038))
    single, double = DeviceArray(1952, np.float32), DeviceArray(flat.size - 4000, np.float64)
    out = [half, nothing, brain, Interface(single), double]
    assert cuda.decrypt(opening, ciphertext, out) is out
    restored = expected * params.step
    assert np.array_equal(half.to_host(), restored[:10].astype(np.float16))
    assert np.array_equal(single.to_host(), restored[2048:4000].astype(np.float32))
    assert np.array_equal(double.to_host(), restored[4000:])
    nearest = Bfloat16(restored[10:2048].astype(np.float32))
    assert np.array_equal(brain.bits(), nearest.bits())


def test_a_ring_of_three_turns() -> None:
    params = make()
    vectors = [weights(params, seed) for seed in range(3)]
    keys = [pf.CollectiveKey.generate(params) for _ in vectors]
    running: Any = None
    for key, x in zip(keys, vectors, strict=True):
        running, pending = cuda.encrypt_onto(key, running, DeviceArray.from_host(x), CONTEXT, out=running)
        assert pending.wait()[0] == pf.count_clipped(params, x)
    total = pf.Ciphertext.zeros(params, vectors[0].size, 3, CONTEXT)
    total.load(0, total.block_count, running.to_host())
    exact = sum(pf.quantize(params, x) for x in vectors)
    assert np.array_equal(pf.CollectiveKey.sum(keys).decrypt(total, integers=True), exact)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, "bfloat16"])
@pytest.mark.parametrize("keys", ["collective", "public"])
def test_nan_and_inf_leave_zeros_and_are_raised(keys: Any, dtype: Any, bad: float) -> None:
    params = make(keys=keys)
    values = weights(params).astype(np.float64)
    values[[2050, 3000]] = bad
    parts = np.split(values, [100])
    tensors = [
        DeviceArray.from_host(parts[0].astype(np.float32)),
        Bfloat16(parts[1]) if dtype == "bfloat16" else DeviceArray.from_host(parts[1].astype(dtype)),
    ]
    key = pf.CollectiveKey.generate(params) if keys == "collective" else pf.keygen(params).public
    assert key is not None
    ciphertext = cuda.encrypt(key, tensors, CONTEXT)
    for take in (ciphertext.check, ciphertext.to_host, ciphertext.to_bytes, lambda: ciphertext.clipped):
        with pytest.raises(pf.InputError, match="tensor 1, element 1950, or the reference there, is NaN or Inf"):
            take()
    assert not any(rows.to_host().any() for rows in ciphertext.residues)
    # What it was added to tells as well.
    other = (
        cuda.encrypt(pf.CollectiveKey.generate(params), DeviceArray.from_host(weights(params)), CONTEXT)
        if (keys == "collective")
        else cuda.encrypt(key, DeviceArray.from_host(weights(params)))
    )
    with pytest.raises(pf.InputError, match="NaN or Inf"):
        (other + ciphertext).to_host()
    other.check()


def test_a_collective_key_serves_one_message_also_on_a_device() -> None:
    params = make()
    key, x = pf.CollectiveKey.generate(params), DeviceArray.from_host(weights(params))
    with pytest.raises(pf.InputError, match="a collective key encrypts in a context"):
        cuda.encrypt(key, x)
    key.prepare(CONTEXT, x.size, background=False)
    cuda.encrypt(key, x, CONTEXT).check()
    with pytest.raises(pf.KeyReuseError, match="has encrypted its one message"):
        cuda.encrypt(key, x, CONTEXT)
    with pytest.raises(pf.KeyReuseError):
        key.encrypt(weights(params), CONTEXT)
    with pytest.raises(pf.KeyReuseError):
        cuda.encrypt_onto(key, None, x, CONTEXT)
    used = pf.CollectiveKey.generate(params)
    used.encrypt(weights(params), CONTEXT)
    with pytest.raises(pf.KeyReuseError):
        cuda.encrypt(used, x, CONTEXT)


def test_a_refused_message_uses_up_its_key() -> None:
    params = make()
    key = pf.CollectiveKey.generate(params)
    ciphertext = cuda.encrypt(key, DeviceArray.from_host(np.full(5, np.nan, np.float32)), CONTEXT)
    with pytest.raises(pf.InputError):
        ciphertext.check()
    with pytest.raises(pf.KeyReuseError):
        cuda.encrypt(key, DeviceArray.from_host(np.zeros(5, np.float32)), CONTEXT)


def test_wrong_sums_do_not_open_and_leave_zeros() -> None:
    params = make()
    keys = [pf.CollectiveKey.generate(params) for _ in range(3)]
    x = weights(params)
    parts = [cuda.encrypt(key, DeviceArray.from_host(x), CONTEXT) for key in keys]
    opening = pf.CollectiveKey.sum(keys)
    with pytest.raises(pf.CiphertextError, match="adds 2 encryptions, the opening key 3 secrets"):
        cuda.decrypt(opening, cuda.add(parts[:2]))
    doubled = cuda.add([parts[0], parts[0], parts[1]])
    out = DeviceArray.from_host(np.ones(x.size, np.float32))
    with pytest.raises(pf.OpeningError, match="block 0 fails its residual check"):
        cuda.decrypt(opening, doubled, out)
    assert not out.to_host().any()
    halves = [DeviceArray.from_host(np.ones(n, np.float16)) for n in (17, x.size - 17)]
    kept, pending = cuda.decrypt(opening, doubled, halves, wait=False)
    with pytest.raises(pf.OpeningError):
        pending.wait()
    with pytest.raises(pf.OpeningError):  # every time
        pending.wait()
    assert kept is halves and not any(half.to_host().any() for half in halves)
    good, pending = cuda.decrypt(opening, cuda.add(parts), wait=False)
    assert pending.wait()[4] is None
    assert np.array_equal(good.to_host(), pf.dequantize(params, 3 * pf.quantize(params, x)))


def test_one_altered_block_is_named() -> None:
    params = make()
    key, x = pf.CollectiveKey.generate(params), weights(params, blocks=5)
    words = cuda.encrypt(key, DeviceArray.from_host(x), CONTEXT).to_host()
    row = words.first[3 * 2048 : 4 * 2048]
    row[:] = (row.astype(np.uint64) * 12345 % params.primes[0]).astype(np.uint32)
    ciphertext = cuda.Ciphertext.from_host(words)
    opening = pf.CollectiveKey.sum([key])
    with pytest.raises(pf.OpeningError, match="block 3 fails"):
        opening.decrypt(words)
    with pytest.raises(pf.OpeningError, match="block 3 fails"):
        cuda.decrypt(opening, ciphertext)


def test_an_incoming_residue_beyond_its_prime_is_refused() -> None:
    params = make()
    key, x = pf.CollectiveKey.generate(params), weights(params)
    first, _ = cuda.encrypt_onto(key, None, DeviceArray.from_host(x), CONTEXT)
    payload = first.to_host()
    for damage in ((slice(4, 12), 0xFF), (slice(payload.size - 1, None), 0x80 | int(payload[-1]))):
        broken = payload.copy()
        broken[damage[0]] = damage[1]
        incoming = DeviceArray.from_host(broken)
        fresh = pf.CollectiveKey.generate(params)
        out, pending = cuda.encrypt_onto(fresh, incoming, DeviceArray.from_host(x), CONTEXT)
        if damage[0].start == 4:
            with pytest.raises(pf.CiphertextError, match="not below their primes"):
                pending.wait()
            assert not out.to_host().any()
        elif params.ring_dimension * 31 % 8 == 0 and x.size % 2048 * 31 % 8 != 0:
            with pytest.raises(pf.CiphertextError):
                pending.wait()


def test_results_into_what_is_there() -> None:
    params = make()
    x = weights(params)
    keys = [pf.CollectiveKey.generate(params) for _ in range(3)]
    first = cuda.encrypt(keys[0], DeviceArray.from_host(x), CONTEXT)
    place = cuda.encrypt(keys[1], DeviceArray.from_host(x), CONTEXT)
    address = place.first.address
    assert cuda.add([first, place], out=place) is place
    assert (place.first.address, place.terms) == (address, 2)
    opened = cuda.decrypt(pf.CollectiveKey.sum(keys[:2]), place, integers=True)
    assert np.array_equal(opened.to_host(), 2 * pf.quantize(params, x))
    assert cuda.encrypt(keys[2], DeviceArray.from_host(x), CONTEXT, out=place) is place
    opened = cuda.decrypt(pf.CollectiveKey.sum(keys[2:]), place, integers=True)
    assert np.array_equal(opened.to_host(), pf.quantize(params, x))
    out = bytearray(place.nbytes)
    assert place.to_bytes(out).obj is not None and bytes(out) == place.to_host().to_bytes()
    with pytest.raises(pf.InputError, match="the encryption has 3 weights"):
        three = DeviceArray.from_host(np.zeros(3, np.float32))
        cuda.encrypt(pf.CollectiveKey.generate(params), three, CONTEXT, out=place)


def test_nothing_is_a_vector_too() -> None:
    params = make()
    key = pf.CollectiveKey.generate(params)
    ciphertext = cuda.encrypt(key, [], CONTEXT)
    assert (len(ciphertext), ciphertext.clipped) == (0, 0)
    assert cuda.decrypt(pf.CollectiveKey.sum([key]), ciphertext).size == 0
    assert bytes(ciphertext.to_bytes()) == ciphertext.to_host().to_bytes()


def test_memory_is_shared_by_both_protocols() -> None:
    array = DeviceArray.from_host(np.arange(5, dtype=np.float32))
    interface = array.__cuda_array_interface__
    assert interface["data"] == (array.address, False) and interface["shape"] == (5,)
    assert (interface["typestr"], interface["version"]) == ("<f4", 3)
    tensor = _native.cuda.ForeignTensor(array.__dlpack__())
    assert (tensor.address, tensor.length, tensor.dtype) == (array.address, 5, "float32")
    assert (tensor.device_type, tensor.device, tensor.shape) == (2, 0, (5,))
    assert array.__dlpack_device__() == (2, 0)
    with pytest.raises(BufferError, match="shared, not copied"):
        array.__dlpack__(dl_device=(1, 0))
    capsule = array.__dlpack__()
    _native.cuda.ForeignTensor(capsule)
    with pytest.raises(ValueError, match="used before"):
        _native.cuda.ForeignTensor(capsule)


def test_tables_stay_with_the_parameters() -> None:
    params = make()
    x = DeviceArray.from_host(weights(params))
    for _ in range(2):
        cuda.encrypt(pf.CollectiveKey.generate(params), x, CONTEXT).check()
    assert list(params._device_schemes) == [0]
    assert pf.CkksParams.from_dict(params.to_dict()) == params


@pytest.mark.played_device
def test_memory_is_given_back() -> None:
    params = make()
    x = weights(params)
    cuda.encrypt(pf.CollectiveKey.generate(params), DeviceArray.from_host(x), CONTEXT).check()
    _native.cuda.synchronize(0, 0)
    before = cuda.device_info(0).free_memory
    key = pf.CollectiveKey.generate(params)
    ciphertext = cuda.encrypt(key, DeviceArray.from_host(x), CONTEXT)
    cuda.decrypt(pf.CollectiveKey.sum([key]), ciphertext)
    ciphertext.to_bytes()
    assert cuda.device_info(0).free_memory < before
    del ciphertext
    _native.cuda.synchronize(0, 0)
    assert cuda.device_info(0).free_memory == before

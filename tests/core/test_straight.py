"""Weights to bytes on the wire and back in one pass: what the two steps give, in every mode, and what they refuse."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from core_support import CONTEXT, MODES, SETS, Parties, fresh_parties, vector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.cipher.wire import HEADER_BYTES

SEED, OTHER = bytes(range(32)), bytes(32)
every_set = pytest.mark.parametrize("name", SETS)
every_mode = pytest.mark.parametrize("keys", MODES)


def params_of(name: str, keys: Any, **options: Any) -> pf.CkksParams:
    return pf.CkksParams.preset(name, **{"parties": 3, "clip": 1.0, "keys": keys, **options})


@pytest.fixture
def fixed_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's generator gives the same bytes again and again, so that two encryptions are alike."""
    stream = _native.StreamKey.from_bytes(SEED)
    monkeypatch.setattr(_native.StreamKey, "from_system", staticmethod(lambda: stream))
    monkeypatch.setattr("os.urandom", lambda size: SEED[:size])


def encryptor(params: pf.CkksParams) -> Any:
    """What encrypts under ``params``, and the arguments that its methods take after the vector."""
    if params.keys == "collective":
        return pf.CollectiveKey.generate(params), (CONTEXT,)
    pair = pf.keygen(params)
    return pair.public or pair.secret, ()


def lengths(params: pf.CkksParams) -> list[int]:
    block = params.block_weights
    return [0, 1, 333, block - 1, block, block + 1, 2 * block + params.ring_dimension // 2 + 5, 70 * block + 3]


# --- the same as the two steps ---------------------------------------------------------------------------------------


@every_set
@every_mode
@pytest.mark.usefixtures("fixed_randomness")
def test_encrypting_to_bytes_gives_the_bytes_of_the_ciphertext(name: str, keys: Any) -> None:
    params = params_of(name, keys, weights="public", rounding="stochastic")
    for length in lengths(params):
        x, reference = vector(length), vector(length, 1).astype(np.float64)
        key, context = encryptor(params)
        expected = key.encrypt(x, *context, 0.25, reference).to_bytes()
        assert pf.Ciphertext.wire_size(params, length) == len(expected)
        straight = encryptor(params)[0].encrypt_bytes(x, *context, 0.25, reference)
        assert isinstance(straight, memoryview) and straight == expected
        buffer = np.full(len(expected) + 9, 7, np.uint8)
        out = buffer[5:-4]
        assert encryptor(params)[0].encrypt_bytes(x, *context, 0.25, reference, out=out) == out.data == expected
        assert (buffer[:5] == 7).all() and (buffer[-4:] == 7).all()


@every_set
@every_mode
def test_opening_bytes_gives_what_opening_the_ciphertext_gives(name: str, keys: Any) -> None:
    params = params_of(name, keys)
    for length in lengths(params):
        parties = Parties(params, 3)
        sums = [] if keys == "collective" else [parties.encrypt(0, vector(length))]
        sums.append(parties.total([vector(length, seed) for seed in range(3)]))
        for total in sums:
            data = total.to_bytes()
            odd = memoryview(b"?" + data)[1:]
            for dtype in (np.float32, np.float64, np.float16):
                expected = parties.opener.decrypt(total, dtype)
                opened = parties.opener.decrypt_bytes(odd, dtype)
                assert opened.dtype == expected.dtype and np.array_equal(opened, expected)
                out = np.full(2 * length, 9, dtype)
                assert np.array_equal(parties.opener.decrypt_bytes(bytearray(data), out=out[::2]), expected)
                assert np.array_equal(out[::2], expected) and (out[1::2] == 9).all()
            integers = np.full(length, 9, np.int64)
            assert parties.opener.decrypt_bytes(data, integers=True, out=integers) is integers
            assert np.array_equal(integers, parties.opener.decrypt(total, integers=True))


@every_mode
@pytest.mark.parametrize("threads", [1, 3])
def test_a_round_of_bytes_in_the_same_buffers(keys: Any, threads: int) -> None:
    params = params_of("p31", keys)
    wire = bytearray(pf.Ciphertext.wire_size(params, 5000))
    opened = np.ones(5000, np.float32)
    kept = pf.get_num_threads()
    pf.set_num_threads(threads)
    try:
        pair = None if keys == "collective" else pf.keygen(params)
        for seed in range(3):
            x = vector(5000, seed)
            key, context = encryptor(params) if pair is None else (pair.public or pair.secret, ())
            opener = pf.CollectiveKey.sum([key]) if pair is None else pair.secret
            assert key.encrypt_bytes(x, *context, out=wire).obj is wire
            assert opener.decrypt_bytes(wire, out=opened) is opened
            assert np.array_equal(opened, pf.dequantize(params, pf.quantize(params, x)))
    finally:
        pf.set_num_threads(kept)


@pytest.mark.parametrize("prepared", [0, 1, 3, 9])
@every_set
@pytest.mark.usefixtures("fixed_randomness")
def test_pads_are_used_and_change_nothing(name: str, prepared: int) -> None:
    params = params_of(name, "collective")
    block = params.ring_dimension * len(params.primes) * int(params._scheme.word_bytes)
    for length in (0, 3, 4 * params.block_weights + 333):
        x, blocks = vector(length), params.block_count(length)
        expected = pf.CollectiveKey.generate(params).encrypt(x, CONTEXT).to_bytes()
        key = pf.CollectiveKey.generate(params)
        key.prepare(CONTEXT, length, limit_bytes=prepared * block, background=False)
        assert key.encrypt_bytes(x, CONTEXT) == expected
        assert key._pads is None and key.prepared_fraction == (min(prepared, blocks) / blocks if blocks else 0.0)


# --- refusals --------------------------------------------------------------------------------------------------------


@every_set
@every_mode
def test_values_that_cannot_be_encrypted_leave_zeros(name: str, keys: Any) -> None:
    params = params_of(name, keys)
    x = vector(3 * params.block_weights)
    key, context = encryptor(params)
    out = bytearray(key.encrypt_bytes(x, *context))
    for bad in (np.nan, np.inf):
        key, context = encryptor(params)
        x[-2] = bad
        if keys == "collective":
            key.prepare(CONTEXT, x.size, limit_bytes=1 << 16, background=False)
        with pytest.raises(pf.InputError, match=f"tensor 0, element {x.size - 2} is NaN or Inf"):
            key.encrypt_bytes(x, *context, out=out)
        assert not any(out)
        out[:] = b"\x01" * len(out)
    if keys == "collective":
        with pytest.raises(pf.KeyReuseError):
            key.encrypt_bytes(vector(x.size), *context)
        key, context = encryptor(params)
        with pytest.raises(pf.InputError, match="NaN or Inf"):
            key.encrypt_bytes(x, *context)
        assert "fresh" in repr(key)
    x[-2] = 0
    assert pf.Ciphertext.from_bytes(params, key.encrypt_bytes(x, *context, out=out)).terms == 1


def test_a_collective_key_encrypts_one_message_to_bytes() -> None:
    params, x = params_of("p31", "collective"), vector(3000)
    key = pf.CollectiveKey.generate(params)
    key.encrypt_bytes(x, CONTEXT)
    out = bytearray(b"\x01" * pf.Ciphertext.wire_size(params, x.size))
    for again in (lambda: key.encrypt_bytes(x, CONTEXT, out=out), lambda: key.encrypt(x, OTHER)):
        with pytest.raises(pf.KeyReuseError, match="one message"):
            again()
    key.destroy()
    with pytest.raises(pf.KeyReuseError, match="destroyed"):
        key.encrypt_bytes(x, CONTEXT, out=out)
    assert out == b"\x01" * len(out)
    with pytest.raises(pf.InputError, match="32 bytes"):
        pf.CollectiveKey.generate(params).encrypt_bytes(x, b"short")


def test_keys_of_another_mode_and_shares_are_refused_before_anything_is_written() -> None:
    params = params_of("p31", "public", weights="public")
    pair, x = pf.keygen(params), vector(100)
    out = bytearray(b"\x01" * pf.Ciphertext.wire_size(params, x.size))
    with pytest.raises(pf.ParameterError, match="needs keys='secret', not 'public'"):
        pair.secret.encrypt_bytes(x, out=out)
    for share in (None, 0, 1.5):
        with pytest.raises(pf.InputError, match="share"):
            pair.public.encrypt_bytes(x, share, out=out)
    with pytest.raises(pf.InputError, match="reference has 99 values"):
        pair.public.encrypt_bytes(x, 0.5, x[1:], out=out)
    assert out == b"\x01" * len(out)


@every_mode
def test_buffers_that_do_not_fit_are_refused(keys: Any) -> None:
    params, x = params_of("p31", keys), vector(3000)
    key, context = encryptor(params)
    size = pf.Ciphertext.wire_size(params, x.size)
    unfit = (bytes(size), bytearray(size - 1), bytearray(size + 1), memoryview(bytearray(2 * size))[::2], [0] * size)
    for out in unfit:
        with pytest.raises(pf.InputError, match=f"buffer of {size} bytes"):
            key.encrypt_bytes(x, *context, out=out)
    memory = np.zeros(2 * size, np.uint8)
    for at in (0, 4000):
        mine = memory[at : at + 12000].view(np.float32)
        for arguments in ({"x": mine}, {"x": [x[:1000], x[1000:]], "reference": mine}, {"x": (mine[:9], x[9:])}):
            with pytest.raises(pf.InputError, match="shares memory with the weights"):
                key.encrypt_bytes(**arguments, **dict(zip(["context"], context, strict=False)), out=memory[:size])
    if keys == "collective":
        with pytest.raises(pf.InputError, match="shares memory with the weights"):
            key.encrypt_onto(None, memory[:12000].view(np.float32), CONTEXT, out=memory[: size - HEADER_BYTES])
        assert "fresh" in repr(key)
    memory[:size] = data = key.encrypt_bytes(x, *context)
    opener = pf.CollectiveKey.sum([key]) if keys == "collective" else pf.keygen(params).secret
    for out in (np.zeros(2999, np.float32), np.zeros(3000, np.int64), [0.0] * 3000):
        with pytest.raises(pf.InputError, match="out"):
            opener.decrypt_bytes(data, out=out)
    with pytest.raises(pf.InputError, match="shares memory with the ciphertext"):
        opener.decrypt_bytes(memory[:size], out=memory[8:12008].view(np.float32))
    with pytest.raises(pf.CiphertextError, match="contiguous bytes"):
        opener.decrypt_bytes(memoryview(data)[::2])


@every_set
@every_mode
def test_a_residue_not_below_its_prime_and_a_foreign_key_leave_zeros(name: str, keys: Any) -> None:
    parties = fresh_parties(name, keys, count=1)
    params = parties.params
    data = bytearray(parties.encrypt(0, vector(2 * params.block_weights + 50)).to_bytes())
    length = 2 * params.block_weights + 50
    foreign = fresh_parties(name, keys, count=1).opener
    outs: list[Any] = [np.ones(length, np.float32), np.ones(length, np.float16), np.ones(2 * length)[::2]]
    for out in outs:
        with pytest.raises(pf.OpeningError, match=r"residual check.*; nothing was released"):
            foreign.decrypt_bytes(data, out=out)
        assert not out.any()
        out[:] = 1
        with pytest.raises(pf.OpeningError, match="residual check"):
            foreign.decrypt(pf.Ciphertext.from_bytes(params, data), out=out)
        assert not out.any()
    data[HEADER_BYTES : HEADER_BYTES + 16] = b"\xff" * 16
    for out in (*outs, np.ones(length, np.int64)):
        out[:] = 1
        with pytest.raises(pf.CiphertextError, match=r"a residue in blocks 0 \.\. 3 is not below its prime"):
            parties.opener.decrypt_bytes(data, integers=out.dtype == np.int64, out=out)
        assert not out.any()


def test_the_sum_of_some_is_refused() -> None:
    parties = fresh_parties("p31", "collective")
    ciphertexts = [parties.encrypt(index, vector(300)) for index in range(3)]
    out = np.ones(300, np.float32)
    with pytest.raises(pf.CiphertextError, match="adds 2 encryptions, the opening key 3 secrets"):
        parties.opener.decrypt_bytes(pf.add(ciphertexts[:2]).to_bytes(), out=out)
    assert (out == 1).all()
    parties.opener.decrypt_bytes(pf.add(ciphertexts).to_bytes(), out=out)


# --- bytes at random -------------------------------------------------------------------------------------------------


@functools.cache
def fixed(name: str, keys: Any) -> tuple[Parties, bytes]:
    parties = fresh_parties(name, keys, count=1)
    return parties, parties.encrypt(0, vector(300)).to_bytes()


def outcome(action: Any) -> Any:
    """The result as bytes, or the refusal's type and words; any other exception is a failure."""
    try:
        return action().tobytes()
    except (pf.CiphertextError, pf.OpeningError) as error:
        return type(error), str(error)


random_bytes = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@random_bytes
@given(
    st.sampled_from(SETS),
    st.sampled_from(MODES),
    st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=4),
    st.integers(0, 2**20),
    st.binary(max_size=9),
)
def test_both_ways_refuse_alike(name: str, keys: Any, edits: list[tuple[int, int]], cut: int, tail: bytes) -> None:
    parties, data = fixed(name, keys)
    mutated = bytearray(data)
    for at, change in edits:
        mutated[at % len(data)] ^= change
    for damaged in (mutated, mutated[: cut % len(data)] + tail, mutated + tail, tail):
        straight = outcome(lambda damaged=damaged: parties.opener.decrypt_bytes(damaged))
        stepwise = outcome(
            lambda damaged=damaged: parties.opener.decrypt(pf.Ciphertext.from_bytes(parties.params, damaged))
        )
        assert straight == stepwise

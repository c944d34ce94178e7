"""Encryption and opening in pieces: the bytes of the whole, bounded memory, and nothing out before it is checked."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core_support import CONTEXT, SETS, vector

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.cipher.wire import HEADER_BYTES

SEED = bytes(range(32))


def params_of(name: str = "p31", **options: Any) -> pf.CkksParams:
    return pf.CkksParams.preset(name, **{"parties": 3, "clip": 1.0, "keys": "collective", **options})


def fixed_key(params: pf.CkksParams) -> pf.CollectiveKey:
    secret = params._scheme.generate_secret(_native.StreamKey.from_bytes(SEED))
    return pf.CollectiveKey(params, secret, _native.StreamKey.from_bytes(CONTEXT))


def joined(chunks: Any) -> bytes:
    return b"".join(bytes(chunk) for chunk in chunks)


def recut(data: bytes, seed: int = 0) -> Iterator[bytes]:
    """The same bytes in pieces of any size, empty ones included."""
    source = np.random.default_rng(seed)
    while data:
        size = int(source.choice([0, 1, 7, 84, 1000, 100_000]))
        yield data[:size]
        data = data[size:]


@pytest.mark.parametrize("chunk_blocks", [1, 2, 3, 128])
@pytest.mark.parametrize("name", SETS)
def test_the_pieces_are_the_bytes_of_the_whole(name: str, chunk_blocks: int) -> None:
    params = params_of(name, weights="public", rounding="stochastic")
    for length in (0, 1, 3 * params.block_weights, 5 * params.block_weights + 333):
        x, reference = vector(length), [vector(length, 1).astype(np.float64)]
        whole = fixed_key(params).encrypt(x, CONTEXT, 0.5, reference)
        for prepared in (0, 2):
            key = fixed_key(params)
            room = prepared * params.ring_dimension * len(params.primes) * int(params._scheme.word_bytes)
            key.prepare(CONTEXT, length, limit_bytes=room, background=False)
            chunks = list(map(bytes, key.encrypt_chunks(x, CONTEXT, 0.5, reference, chunk_blocks=chunk_blocks)))
            assert len(chunks[0]) == HEADER_BYTES
            assert len(chunks) == 1 + -(-whole.block_count // chunk_blocks)
            assert b"".join(chunks) == whole.to_bytes()
        opener = pf.CollectiveKey.sum([key])
        for dtype in (np.float32, np.float64, np.int64):
            expected = opener.decrypt(whole, dtype, integers=dtype is np.int64)
            out, pieces = np.ones(length, dtype), []
            data = whole.to_bytes()
            assert opener.decrypt_chunks(recut(data), out, chunk_blocks=chunk_blocks) == length
            assert np.array_equal(out, expected)
            sink = lambda piece: pieces.append(piece.copy())  # noqa: E731, B023
            assert opener.decrypt_chunks(recut(data, 1), sink, dtype, chunk_blocks=chunk_blocks) == length
            assert np.array_equal(np.concatenate([np.zeros(0, dtype), *pieces]), expected)
            assert all(piece.dtype == dtype for piece in pieces)


def test_secret_keys_stream_as_well() -> None:
    params = params_of(keys="secret")
    secret, x = pf.keygen(params).secret, vector(10_000)
    data = joined(secret.encrypt_chunks(x, chunk_blocks=2))
    assert np.array_equal(secret.decrypt(pf.Ciphertext.from_bytes(params, data), integers=True), pf.quantize(params, x))
    out = np.zeros(x.size, np.float32)
    secret.decrypt_chunks(secret.encrypt_chunks(x), out)
    assert np.array_equal(out, pf.dequantize(params, pf.quantize(params, x)))
    assert joined(secret.encrypt_chunks(x)) != joined(secret.encrypt_chunks(x))
    two = secret.encrypt(x) + secret.encrypt(x)
    with pytest.raises(pf.CiphertextError, match="of expanded kind holds two polynomials and is not streamed"):
        secret.decrypt_chunks([two.to_bytes()], out)


def test_public_key_ciphertexts_are_not_streamed() -> None:
    params = params_of(keys="public")
    pair, x = pf.keygen(params), vector(100)
    with pytest.raises(pf.ParameterError, match="needs keys='secret', not 'public'"):
        pair.secret.encrypt_chunks(x)
    with pytest.raises(pf.CiphertextError, match="of public kind holds two polynomials"):
        pair.secret.decrypt_chunks([pair.public.encrypt(x).to_bytes()], np.zeros(100))


def test_a_ring_of_streams_adds_up() -> None:
    params = params_of()
    keys, xs = [pf.CollectiveKey.generate(params) for _ in range(3)], [vector(20_011, i) for i in range(3)]
    stream: Any = None
    for key, x in zip(keys, xs, strict=True):
        stream = key.encrypt_chunks(x, CONTEXT, incoming=stream, chunk_blocks=3)
    out = np.zeros(20_011, np.int64)
    pf.CollectiveKey.sum(keys).decrypt_chunks(stream, out, chunk_blocks=2)
    assert np.array_equal(out, sum(pf.quantize(params, x) for x in xs))


def test_a_running_sum_that_does_not_fit_is_refused() -> None:
    params = params_of()
    one = pf.CollectiveKey.generate(params).encrypt(vector(5000), CONTEXT).to_bytes()
    full = pf.add([pf.CollectiveKey.generate(params).encrypt(vector(5000), CONTEXT) for _ in range(3)]).to_bytes()
    for incoming, message in (
        ([pf.CollectiveKey.generate(params).encrypt(vector(5000), SEED).to_bytes()], "in context 00010203"),
        ([pf.CollectiveKey.generate(params).encrypt(vector(5001), CONTEXT).to_bytes()], "holds 5001 weights"),
        ([full], "would hold 4 terms"),
        ([one[:50]], "truncated: 34 bytes are missing"),
        ([one[:-1]], "truncated: 1 bytes are missing"),
        ([one, b"x"], "bytes follow the end"),
        ([one[:-8], b"\xff" * 8], "not below its prime"),
    ):
        key = pf.CollectiveKey.generate(params)
        with pytest.raises(pf.CiphertextError, match=message):
            list(key.encrypt_chunks(vector(5000), CONTEXT, incoming=incoming))
        with pytest.raises(pf.KeyReuseError):
            key.encrypt(vector(5000), CONTEXT)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_and_inf_are_refused_before_anything_is_given_out(dtype: Any, bad: float) -> None:
    params, key = params_of(), pf.CollectiveKey.generate(params_of())
    x = np.zeros((50, 4001))
    x[49, 4000] = bad
    spoilt = x.astype(dtype)[:, 1:]
    with pytest.raises(pf.InputError, match="tensor 1, element 199999 is NaN or Inf"):
        key.encrypt_chunks([np.zeros(7), spoilt], CONTEXT)
    with pytest.raises(pf.InputError, match="reference tensor 0, element 199999 is NaN or Inf"):
        key.encrypt_chunks(np.zeros((50, 4000), np.float32), CONTEXT, reference=spoilt)
    assert "fresh" in repr(key)
    largest = np.array([np.finfo(np.float32).max, -np.finfo(np.float32).max], np.float32)  # finite, if hardly
    out = np.zeros(2, np.int64)
    opener = pf.CollectiveKey.sum([key])
    opener.decrypt_chunks(key.encrypt_chunks(largest, CONTEXT), out)
    assert np.array_equal(out, pf.quantize(params, largest))


@pytest.mark.parametrize("options", [{"chunk_blocks": 1.5}, {"chunk_blocks": 0}, {"incoming": 5}])
def test_a_stream_that_cannot_begin_leaves_its_key(options: Any) -> None:
    key = pf.CollectiveKey.generate(params_of())
    with pytest.raises(pf.InputError, match=r"chunk_blocks|an iterable of bytes"):
        key.encrypt_chunks(vector(9), CONTEXT, **options)
    assert "fresh" in repr(key)


def test_values_beyond_float32_are_refused_where_differences_are_taken() -> None:
    x, reference = np.zeros(5000), np.zeros(5000)
    x[4000] = reference[4000] = 1e300
    for arguments in ({}, {"reference": reference}):
        key = pf.CollectiveKey.generate(params_of())
        if not arguments:
            key.encrypt_chunks(x, CONTEXT)  # is clipped
            continue
        for encrypt in (key.encrypt_chunks, key.encrypt):
            with pytest.raises(pf.InputError, match=r"tensor 0, element 4000 = 1e\+300 exceeds float32"):
                encrypt(x, CONTEXT, **arguments)
        assert "fresh" in repr(key)
        with pytest.raises(pf.InputError, match="exceeds float32"):
            key.encrypt_chunks(x, CONTEXT, reference=np.zeros(5000))
        wide = pf.CollectiveKey.generate(params_of("p50"))
        wide.encrypt_chunks(x, CONTEXT, **arguments)  # takes differences in float64
        key.encrypt(x, CONTEXT, reference=reference - reference)


def test_a_stream_takes_its_key_at_the_call() -> None:
    params = params_of()
    key = pf.CollectiveKey.generate(params)
    for arguments, error in (
        ({"chunk_blocks": 0}, "chunk_blocks = 0 must be a whole number, 1 or more"),
        ({"reference": vector(3)}, "the reference has 3 values, the weights 5000"),
        ({"weight": 2.0}, "is no share"),
    ):
        with pytest.raises(pf.InputError, match=error):
            key.encrypt_chunks(vector(5000), CONTEXT, **arguments)
    stream = key.encrypt_chunks(vector(5000), CONTEXT, chunk_blocks=1)
    with pytest.raises(pf.KeyReuseError):
        key.encrypt_chunks(vector(5000), CONTEXT)
    next(stream), next(stream)
    key.destroy()
    with pytest.raises(pf.KeyReuseError, match="was destroyed"):
        next(stream)


def test_pads_of_a_stream_that_is_given_up_are_destroyed() -> None:
    params = params_of()
    for end in ("closed", "destroyed", "collected", "never begun"):
        key = pf.CollectiveKey.generate(params)
        key.prepare(CONTEXT, 60 * 2048, background=False)
        assert key._pads is not None
        words = key._pads._native.words()
        stream: Any = key.encrypt_chunks(vector(60 * 2048), CONTEXT, chunk_blocks=5)
        assert key.prepared_fraction == 1
        if end != "never begun":
            next(stream), next(stream)
            assert not words[: 5 * 2048].any() and words[5 * 2048 :].any()
        if end == "closed":
            stream.close()
        elif end == "destroyed":
            key.destroy()
        else:
            del stream
        assert not words.any(), end


def test_what_was_given_out_before_a_refusal_is_taken_back() -> None:
    params = params_of(parties=2)
    keys = [pf.CollectiveKey.generate(params) for _ in range(2)]
    x = vector(20 * 2048)
    one, two = (key.encrypt(x, CONTEXT) for key in keys)
    total, alone = (one + two).to_bytes(), one.to_bytes()
    size = 2048 * 31 // 8
    at = HEADER_BYTES + 11 * size
    # Block 11 of the first party alone: a contribution is missing there.
    mixed = total[:at] + alone[at : at + size] + total[at + size :]
    invalid = total[:at] + b"\xff" * size + total[at + size :]
    opener = pf.CollectiveKey.sum(keys)
    for data, error, message in (
        (mixed, pf.OpeningError, "block 11 fails its residual check"),
        (invalid, pf.CiphertextError, "not below its prime"),
        (total[:-1], pf.CiphertextError, "truncated"),
        (total + b"\0", pf.CiphertextError, "bytes follow"),
    ):
        out, seen = np.ones(x.size, np.float32), []
        with pytest.raises(error, match=message):
            opener.decrypt_chunks(recut(data), out, chunk_blocks=4)
        assert not out.any()
        with pytest.raises(error, match=message):
            opener.decrypt_chunks(recut(data), lambda piece: seen.append(piece.copy()), chunk_blocks=4)  # noqa: B023
        expected = pf.dequantize(params, 2 * pf.quantize(params, x))
        assert all(np.array_equal(p, expected[i * 8192 : i * 8192 + p.size]) for i, p in enumerate(seen))
        assert len(seen) == (2 if data in (mixed, invalid) else 4 if data == total[:-1] else 5)


def test_what_cannot_be_opened_is_refused_at_once() -> None:
    params = params_of()
    key, x = pf.CollectiveKey.generate(params), vector(5000)
    data, opener = key.encrypt(x, CONTEXT).to_bytes(), pf.CollectiveKey.sum([key])
    for out, dtype, message in (
        (np.zeros(4999, np.float32), None, r"shape \(5000,\)"),
        (np.zeros(5000, np.float16), None, "opens as float32, float64 or int64, not float16"),
        (np.zeros(5000, np.int32), None, "int64"),
        ([0.0] * 5000, None, "writable array"),
        (lambda _: None, np.int32, "not int32"),
    ):
        with pytest.raises(pf.InputError, match=message):
            opener.decrypt_chunks([data], out, dtype or np.float32)
    other = pf.CollectiveKey.sum([key, pf.CollectiveKey.generate(params)])
    with pytest.raises(pf.CiphertextError, match="adds 1 encryptions, the opening key 2 secrets"):
        other.decrypt_chunks([data], np.zeros(5000))
    with pytest.raises(pf.CiphertextError, match="checksum"):
        opener.decrypt_chunks([data[:30] + bytes([data[30] ^ 1]) + data[31:]], np.zeros(5000))


# --- memory -----------------------------------------------------------------------------------------------------------

BOUNDED = """
import sys
import numpy as np
import pppml_fast as pf

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) << 10

folder, length = sys.argv[1], int(sys.argv[2])
x = np.memmap(folder + "/x", np.float32, "r", shape=(length,))
reference = np.memmap(folder + "/reference", np.float32, "r", shape=(length,))
out = np.memmap(folder + "/out", np.float32, "w+", shape=(length,))
params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
warm = pf.CollectiveKey.generate(params)
pf.CollectiveKey.sum([warm]).decrypt_chunks(warm.encrypt_chunks(x[:5000], bytes(32)), np.zeros(5000))
before = largest = anonymous()

def watched(chunks):
    global largest
    for chunk in chunks:
        largest = max(largest, anonymous())
        yield chunk

key = pf.CollectiveKey.generate(params)
chunks = key.encrypt_chunks(x, bytes(32), reference=reference)
pf.CollectiveKey.sum([key]).decrypt_chunks(watched(chunks), out)
largest = max(largest, anonymous())
print(largest - before, before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_vector(tmp_path: Path) -> None:
    length = 1 << 23  # 32 MiB of weights
    x, reference = vector(length), vector(length, 1)
    x.tofile(tmp_path / "x")
    reference.tofile(tmp_path / "reference")
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BOUNDED), str(tmp_path), str(length)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    growth, before = map(int, run.stdout.split())
    assert growth < 8 << 20, f"{growth >> 20} MiB beyond {before >> 20}"
    out = np.fromfile(tmp_path / "out", np.float32)
    params = params_of()
    assert np.array_equal(out, pf.dequantize(params, pf.quantize(params, x, reference=reference)))

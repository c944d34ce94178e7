"""Encrypt, add, open: exact sums in every set and mode, and refusal of everything that is not such a sum."""

from __future__ import annotations

import hashlib
import math
import pickle
from typing import Any

import numpy as np
import pytest
from core_support import CONTEXT, MODES, SETS, Parties, fresh_parties, vector

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.cipher.wire import Kind

every_set = pytest.mark.parametrize("name", SETS)
every_mode = pytest.mark.parametrize("keys", MODES)


def integers(parties: Parties, vectors: list[Any], weights: Any = None) -> np.ndarray:
    shares = weights or [1.0] * len(vectors)
    return sum(pf.quantize(parties.params, x, w) for x, w in zip(vectors, shares, strict=True))


# --- exact sums ------------------------------------------------------------------------------------------------------


def lengths(params: pf.CkksParams) -> list[int]:
    n, block = params.ring_dimension, params.block_weights
    return sorted({0, 1, 2, 127, 129, n - 1, n, n + 1, 777, block - 1, block, block + 1, 3 * n + 7})


def edges(params: pf.CkksParams, length: int, seed: int) -> list[np.ndarray]:
    """One vector per party: an edge value throughout for two of them, a mixture of all edges for the third."""
    values = np.array([0.0, -0.0, params.clip, -params.clip, 9 * params.clip, -1e30, params.step, 1e-12], np.float32)
    random = np.random.default_rng(seed)
    whole = [np.full(length, values[(seed + k) % len(values)]) for k in range(2)]
    return [*whole, random.choice(values, length)]


@every_set
@every_mode
def test_sums_are_exact_at_every_length_and_edge(name: str, keys: Any) -> None:
    params = pf.CkksParams.preset(name, parties=3, clip=0.37, keys=keys)
    for seed, length in enumerate(lengths(params)):
        parties = Parties(params, 3)
        xs = edges(params, length, seed)
        total = parties.total(xs)
        expected = integers(parties, xs)
        assert (total.length, len(total), total.terms) == (length, length, 3)
        opened = parties.opener.decrypt(total, integers=True)
        assert opened.dtype == np.int64
        assert np.array_equal(opened, expected)
        weights = parties.opener.decrypt(total)
        assert weights.dtype == np.float32
        assert weights.shape == (length,)
        assert np.array_equal(weights, (expected * params.step).astype(np.float32))


@every_set
@every_mode
def test_sums_of_fewer_terms_than_parties_open(name: str, keys: Any) -> None:
    params = pf.CkksParams.preset(name, parties=16, clip=1.0, keys=keys)
    for count in (1, 2):
        parties, xs = Parties(params, count), [vector(300, seed) for seed in range(count)]
        assert np.array_equal(parties.opener.decrypt(parties.total(xs), integers=True), integers(parties, xs))


def packings(name: str) -> list[int]:
    return {"p31": [1], "p50": [1, 2, 3], "p62": [1, 2, 3], "compact": [1, 2]}[name]


@every_set
@every_mode
def test_every_party_at_the_largest_magnitude(name: str, keys: Any) -> None:
    for packed in packings(name):
        parties = fresh_parties(name, keys, count=16, values=packed)
        length = parties.params.block_weights
        signs = np.random.default_rng(packed).choice(np.float32([-1, 1]), length)
        signs[: length // 2] = np.repeat(np.float32([1, -1]), length // 4)
        expected = 16 * pf.quantize(parties.params, signs)
        assert np.abs(expected).max() >= parties.params.sum_bound - 16
        assert np.array_equal(parties.opener.decrypt(parties.total([signs] * 16), integers=True), expected)


@pytest.mark.parametrize("clip", [2.446200742739921, 2.332374934325468])
def test_clips_that_round_badly_stay_within_the_law(clip: float) -> None:
    for keys in ("secret", "collective"):
        parties = fresh_parties("p62", keys, clip=clip)
        x = np.repeat([clip, -clip], 50)
        opened = parties.opener.decrypt(parties.total([x] * 3), integers=True)
        assert np.array_equal(opened, 3 * pf.quantize(parties.params, x))
        assert np.abs(opened).max() <= parties.params.sum_bound


@every_set
@every_mode
@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (1 / 7,) * 7, (1 - 2e-9, 1e-9, 1e-9), (1 / 16,) * 16])
def test_public_weights_at_their_extreme(name: str, keys: Any, shares: tuple[float, ...]) -> None:
    parties = fresh_parties(name, keys, count=len(shares), weights="public", clip=0.9)
    signs = np.repeat(np.float32([1, -1]), 150)
    total = pf.add([parties.encrypt(i, signs, weight=p) for i, p in enumerate(shares)])
    expected = integers(parties, [signs] * len(shares), shares)
    opened = parties.opener.decrypt(total, integers=True)
    assert np.array_equal(opened, expected)
    assert np.abs(opened).max() <= parties.params.sum_bound
    slack = (len(shares) / 2 + 2) * parties.params.step + 0.9 * 2e-7
    assert np.allclose(parties.opener.decrypt(total, dtype=np.float64), 0.9 * signs, atol=slack, rtol=0)


@every_mode
def test_order_of_addition_does_not_matter(keys: Any) -> None:
    parties = fresh_parties("p50", keys, count=4)
    xs = [vector(5000, seed) for seed in range(4)]
    a, b, c, d = (parties.encrypt(i, x) for i, x in enumerate(xs))
    expected = integers(parties, xs)
    for total in (pf.add([a, b, c, d]), ((d + c) + b) + a, (a + c) + (b + d), pf.add([pf.add([a, b]), c + d])):
        assert total.terms == 4
        assert np.array_equal(parties.opener.decrypt(total, integers=True), expected)


def test_the_example_of_the_documentation() -> None:
    params = pf.CkksParams.preset("p31", parties=16, clip=1.0)
    keys = pf.keygen(params)
    x, y = vector(3000, 1), [vector(1000, 2), vector(2000, 3).reshape(20, 100)]
    total = keys.public.encrypt(x) + keys.public.encrypt(y)
    again = pf.Ciphertext.from_bytes(params, total.to_bytes())
    assert np.array_equal(keys.secret.decrypt(again, integers=True), pf.quantize(params, x) + pf.quantize(params, y))
    for level, wanted in (("128", "collective"), ("128c", "public"), ("192", "secret")):
        chosen = pf.CkksParams.for_sum(parties=3, clip=1.0, bits=16, level=level, keys=wanted)
        parties = Parties(chosen, 3)
        opened = parties.opener.decrypt(parties.total([x] * 3))
        assert np.abs(opened - 3 * np.clip(x, -1, 1)).max() < 3 * 2**-15


# --- outputs ---------------------------------------------------------------------------------------------------------


@every_set
@every_mode
def test_results_can_be_written_into_given_memory(name: str, keys: Any) -> None:
    parties = fresh_parties(name, keys)
    params, length = parties.params, 4999
    xs = [vector(length, seed) for seed in range(3)]
    target = pf.Ciphertext.zeros(params, length)
    words = target.first
    assert parties.encrypt(0, xs[0], out=target) is target
    assert target.first is words
    assert target.terms == 1
    total = parties.encrypt(1, xs[1]) + target
    assert pf.add([total, parties.encrypt(2, xs[2])], out=total) is total
    assert total.terms == 3
    out = np.full(length, np.nan)
    assert parties.opener.decrypt(total, out=out) is out
    exact = np.full(length, -1, np.int64)
    assert parties.opener.decrypt(total, integers=True, out=exact) is exact
    assert np.array_equal(exact, integers(parties, xs))
    assert np.array_equal(out, exact * params.step)


@every_mode
def test_memory_that_does_not_fit_is_refused(keys: Any) -> None:
    parties = fresh_parties("p31", keys)
    params, x = parties.params, vector(300)
    other = pf.CkksParams.preset("p31", parties=4, clip=1.0, keys=keys)
    for out in (pf.Ciphertext.zeros(params, 299), pf.Ciphertext.zeros(other, 300)):
        with pytest.raises(pf.InputError, match="out is Ciphertext"):
            parties.encrypt(0, x, out=out)
    first = parties.encrypt(0, x)
    for out in (pf.Ciphertext.zeros(params, 299), pf.Ciphertext.zeros(other, 300)):
        with pytest.raises(pf.InputError, match="out is Ciphertext"):
            pf.add([first], out=out)


@pytest.mark.parametrize(
    "out", [np.zeros(300, np.int32), np.zeros(300), np.zeros((2, 300), np.int64), np.zeros(1, int)]
)
def test_integers_go_into_int64_of_their_shape_only(out: np.ndarray) -> None:
    parties = fresh_parties("p31", "collective", count=1)
    with pytest.raises(pf.InputError, match="out"):
        parties.opener.decrypt(parties.total([vector(300)]), integers=True, out=out)
    assert not out.any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_of_opened_weights(dtype: Any) -> None:
    parties = fresh_parties("p50", "public", count=1)
    ciphertext = parties.encrypt(0, vector(100))
    opened = parties.opener.decrypt(ciphertext, dtype=dtype)
    assert opened.dtype == dtype
    exact = parties.opener.decrypt(ciphertext, integers=True) * parties.params.step
    assert np.array_equal(opened, exact.astype(dtype))
    with pytest.raises(pf.InputError, match="dtype int64 cannot hold weights"):
        parties.opener.decrypt(ciphertext, dtype=np.int64)


@every_mode
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nothing_is_left_behind_after_a_refusal(keys: Any, bad: float) -> None:
    parties = fresh_parties("p31", keys)
    x = [vector(2500, 1), vector(2500, 2)]
    x[1][1234] = bad
    out = pf.Ciphertext.zeros(parties.params, 5000)
    with pytest.raises(pf.InputError, match="tensor 1, element 1234 is NaN or Inf; nothing was encrypted"):
        parties.encrypt(0, x, out=out)
    assert not out.first.any()
    assert out.second is None or not out.second.any()
    if keys == "collective":
        # Others may have read from `out`; what was to be new memory nobody has seen.
        with pytest.raises(pf.KeyReuseError):
            parties.encrypt(0, vector(5000))
        parties = fresh_parties("p31", keys)
        with pytest.raises(pf.InputError, match="NaN or Inf"):
            parties.encrypt(0, x)
    # The key is still good for its message.
    x[1][1234] = 0
    assert np.array_equal(
        parties.opener.decrypt(parties.total([x, x, x]), integers=True), 3 * pf.quantize(parties.params, x)
    )


@every_mode
def test_values_of_a_ciphertext(keys: Any) -> None:
    params = pf.CkksParams.preset("p62", parties=3, clip=1.0, keys=keys)
    one, two = (Parties(params, 1).encrypt(0, vector(9000)) for _ in range(2))
    assert not np.array_equal(one.first, two.first)
    assert one.block_count == 3
    assert one.nbytes == len(one.to_bytes())
    text = repr(one)
    assert "p62" in text and "length=9000" in text and "terms=1" in text and "192 classical, 128 quantum" in text
    again = pickle.loads(pickle.dumps(one))
    assert again.to_bytes() == one.to_bytes()


# --- what does not belong together -----------------------------------------------------------------------------------


@every_mode
def test_foreign_ciphertexts_do_not_add(keys: Any) -> None:
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys=keys)
    others = [
        pf.CkksParams.preset("p31", parties=4, clip=1.0, keys=keys),
        pf.CkksParams.preset("p31", parties=3, clip=2.0, keys=keys),
        pf.CkksParams.preset("p50", parties=3, clip=1.0, keys=keys),
    ]
    mine = Parties(params, 1).encrypt(0, vector(10))
    for other in others:
        with pytest.raises(pf.CiphertextError, match="their parameters differ"):
            mine + Parties(other, 1).encrypt(0, vector(10))
    with pytest.raises(pf.CiphertextError, match="a vector of 11 weights to one of 10"):
        mine + Parties(params, 1).encrypt(0, vector(11))
    with pytest.raises(pf.CiphertextError, match="nothing to add"):
        pf.add([])
    with pytest.raises(TypeError):
        mine + 1  # type: ignore[operator]


def test_contexts_do_not_mix() -> None:
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
    one = pf.CollectiveKey.generate(params).encrypt(vector(10), context=CONTEXT)
    two = pf.CollectiveKey.generate(params).encrypt(vector(10), context=bytes(32))
    assert (one.context, two.context) == (CONTEXT, bytes(32))
    with pytest.raises(pf.CiphertextError, match="different contexts"):
        one + two


@pytest.mark.parametrize("context", [b"", b"short", bytes(33), "x" * 32, None, 32])
def test_contexts_are_32_bytes(context: Any) -> None:
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
    key = pf.CollectiveKey.generate(params)
    with pytest.raises(pf.InputError, match="context must be 32 bytes"):
        key.encrypt(vector(10), context=context)
    assert key.encrypt(vector(10), context=bytearray(CONTEXT)).context == CONTEXT


@every_mode
def test_one_term_too_many_is_refused(keys: Any) -> None:
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys=keys)
    xs = [vector(10)] * 4
    if keys == "collective":
        with pytest.raises(pf.ParameterError, match=r"terms = 4 is outside 1 \.\. 3"):
            Parties(params, 4)
        parties = Parties(params, 3)
        fourth = Parties(params, 1).encrypt(0, xs[3])
    else:
        parties = Parties(params, 4)
        fourth = parties.encrypt(3, xs[3])
    total = parties.total(xs[:3])
    with pytest.raises(pf.CiphertextError, match="would hold 4 terms; the parameters hold 3"):
        pf.add([total, fourth])
    total.terms = 4
    with pytest.raises(pf.CiphertextError, match="adds 4 encryptions"):
        parties.opener.decrypt(total)


def test_part_of_a_live_set_does_not_open() -> None:
    parties = fresh_parties("p31", "collective")
    ciphertexts = [parties.encrypt(i, vector(10)) for i in range(3)]
    for part in (ciphertexts[:1], ciphertexts[:2]):
        with pytest.raises(pf.CiphertextError, match="only the sum over the whole live set opens"):
            parties.opener.decrypt(pf.add(part))


@every_mode
def test_keys_refuse_ciphertexts_of_other_parameters(keys: Any) -> None:
    mine, theirs = fresh_parties("p31", keys), fresh_parties("p31", keys, clip=2.0)
    foreign = theirs.total([vector(10)] * 3)
    with pytest.raises(pf.CiphertextError, match="made under"):
        mine.opener.decrypt(foreign)


# --- openings that must fail -----------------------------------------------------------------------------------------


def assert_unopened(opener: Any, total: pf.Ciphertext) -> None:
    """Decrypting raises OpeningError and releases nothing: ``out`` is zeroed."""
    out = np.full(total.length, 7, np.int64)
    with pytest.raises(pf.OpeningError, match="nothing was released"):
        opener.decrypt(total, integers=True, out=out)
    assert not out.any()


@every_set
@pytest.mark.parametrize("length", [1, 100, 4097])
def test_false_collective_sums_do_not_open(name: str, length: int) -> None:
    parties, stranger = fresh_parties(name, "collective"), fresh_parties(name, "collective")
    a, b, c = (parties.encrypt(i, vector(length, i)) for i in range(3))
    foreign = stranger.encrypt(0, vector(length, 9))
    for terms in ([a, b], [a, b, b], [a, b, foreign], [foreign] * 3):
        total = pf.add(terms)
        total.terms = 3  # as a dishonest relay would declare it
        assert_unopened(parties.opener, total)
    honest = pf.add([a, b, c])
    assert_unopened(stranger.opener, honest)
    coefficients = sum(key._secret_coefficients() for key in parties.keys)
    coefficients[17] += 1
    assert_unopened(pf.OpeningKey.from_coefficients(parties.params, coefficients, terms=3), honest)
    coefficients[17] -= 1
    opener = pf.OpeningKey.from_coefficients(parties.params, coefficients, terms=3)
    assert np.array_equal(opener.decrypt(honest), parties.opener.decrypt(honest))


@every_set
@pytest.mark.parametrize("keys", ["public", "secret"])
@pytest.mark.parametrize("length", [1, 4097])
def test_sums_under_two_key_pairs_do_not_open(name: str, keys: Any, length: int) -> None:
    parties, stranger = fresh_parties(name, keys), fresh_parties(name, keys)
    mine, foreign = parties.encrypt(0, vector(length)), stranger.encrypt(0, vector(length))
    assert_unopened(parties.opener, foreign)
    assert_unopened(parties.opener, mine + foreign)


@every_set
def test_a_foreign_context_does_not_open(name: str) -> None:
    parties = fresh_parties(name, "collective")
    total = parties.total([vector(10)] * 3)
    total.context = hashlib.sha256(b"another attempt").digest()
    assert_unopened(parties.opener, total)
    total.context = None
    with pytest.raises(pf.CiphertextError, match="names no context"):
        parties.opener.decrypt(total)


def test_the_refused_block_is_named() -> None:
    parties = fresh_parties("p31", "collective", count=1)
    total = parties.total([vector(5 * 2048)])
    block = slice(3 * 2048, 4 * 2048)
    total.first[block] = total.first[block][::-1]
    with pytest.raises(pf.OpeningError, match="block 3 fails its residual check"):
        parties.opener.decrypt(total)


# --- sum check -------------------------------------------------------------------------------------------------------

CHECK_KEY = hashlib.sha256(b"sum check").digest()


@every_set
def test_the_sum_check_detects_one_changed_residue(name: str) -> None:
    parties = fresh_parties(name, "collective")
    length = parties.params.block_weights + 100
    terms = [parties.encrypt(i, vector(length, i)) for i in range(3)]
    tags = [pf.sum_check_tag(term, CHECK_KEY) for term in terms]
    total = pf.add(terms)
    pf.sum_check_verify(total, CHECK_KEY, tags)
    pf.sum_check_verify(total, CHECK_KEY, tags[::-1])
    # A shift by delta passes the residual check: this is what the sum check is for.
    for at in (0, parties.params.ring_dimension - 1, total.first.size - 1):
        kept = total.first[at]
        row = at // parties.params.ring_dimension % len(parties.params.primes)
        prime = parties.params.primes[row if at < parties.params.block_weights else -1]
        total.first[at] = (int(kept) + 1) % prime
        with pytest.raises(pf.OpeningError, match="the sum check fails"):
            pf.sum_check_verify(total, CHECK_KEY, tags)
        total.first[at] = kept
    pf.sum_check_verify(total, CHECK_KEY, tags)


def test_shifts_by_the_scale_pass_the_residuals_and_fail_the_sum_check() -> None:
    parties = fresh_parties("p31", "collective")
    params = parties.params
    terms = [parties.encrypt(i, np.zeros(200, np.float32)) for i in range(3)]
    tags = [pf.sum_check_tag(term, CHECK_KEY) for term in terms]
    total = pf.add(terms)
    total.first[5] = (int(total.first[5]) + params.scale) % params.primes[0]
    assert parties.opener.decrypt(total, integers=True).tolist() == [0] * 5 + [1] + [0] * 194
    with pytest.raises(pf.OpeningError, match="altered on its way"):
        pf.sum_check_verify(total, CHECK_KEY, tags)


def test_false_tags_are_refused() -> None:
    parties = fresh_parties("p31", "collective")
    terms = [parties.encrypt(i, vector(300, i)) for i in range(3)]
    tags = [pf.sum_check_tag(term, CHECK_KEY) for term in terms]
    total = pf.add(terms)
    assert len(tags[0]) == 2 * 2048 * 4
    for wrong in (tags[:2], [*tags, tags[0]], []):
        with pytest.raises(pf.OpeningError, match="tags for a sum of 3 terms"):
            pf.sum_check_verify(total, CHECK_KEY, wrong)
    with pytest.raises(pf.OpeningError, match="sum check fails"):
        pf.sum_check_verify(total, CHECK_KEY, [tags[0], tags[1], tags[1]])
    with pytest.raises(pf.OpeningError, match="sum check fails"):
        pf.sum_check_verify(total, bytes(32), tags)
    for malformed in (tags[2][:-1], tags[2] + b"\0", b""):
        with pytest.raises(pf.CiphertextError, match="takes 16384 bytes"):
            pf.sum_check_verify(total, CHECK_KEY, [*tags[:2], malformed])
    too_large = parties.params.primes[0].to_bytes(4, "little") + tags[2][4:]
    with pytest.raises(pf.CiphertextError, match="not below its prime"):
        pf.sum_check_verify(total, CHECK_KEY, [*tags[:2], too_large])
    with pytest.raises(pf.InputError, match="32 bytes"):
        pf.sum_check_tag(total, b"short")
    with pytest.raises(pf.CiphertextError, match="collective"):
        pf.sum_check_tag(fresh_parties("p31", "public").encrypt(0, vector(10)), CHECK_KEY)


# --- masks -----------------------------------------------------------------------------------------------------------


@every_set
@every_mode
def test_masks_come_off_the_sum(name: str, keys: Any) -> None:
    parties = fresh_parties(name, keys)
    xs = [vector(4500, seed) for seed in range(3)]
    seed = hashlib.sha256(b"mask").digest()
    first = parties.encrypt(0, xs[0])
    masked = first.add_mask(seed)
    assert masked.context == first.context
    assert (masked.first != first.first).mean() > 0.99
    assert np.array_equal(masked.subtract_mask(seed).first, first.first)
    total = pf.add([masked, parties.encrypt(1, xs[1]), parties.encrypt(2, xs[2])])
    assert_unopened(parties.opener, total)
    assert_unopened(parties.opener, total.subtract_mask(bytes(32)))
    opened = parties.opener.decrypt(total.subtract_mask(seed), integers=True)
    assert np.array_equal(opened, integers(parties, xs))
    with pytest.raises(pf.InputError, match="mask seed must be 32 bytes"):
        first.add_mask(b"short")


def test_masks_are_uniform() -> None:
    parties = fresh_parties("p31", "public")
    q = parties.params.primes[0]
    x = parties.encrypt(0, np.zeros(40 * 2048, np.float32))
    mask = (x.add_mask(CHECK_KEY).first.astype(np.int64) - x.first.astype(np.int64)) % q
    counts = np.bincount(16 * mask // q, minlength=16)
    expected = mask.size / 16
    assert ((counts - expected) ** 2 / expected).sum() < 60  # 15 degrees of freedom


# --- seeded ciphertexts ----------------------------------------------------------------------------------------------


@every_set
def test_seeded_ciphertexts_expand_when_they_add(name: str) -> None:
    parties = fresh_parties(name, "secret")
    xs = [vector(4500, seed) for seed in range(3)]
    a, b, c = (parties.encrypt(i, x) for i, x in enumerate(xs))
    assert a.kind is Kind.SEEDED
    assert a.second is None
    assert len({a.context, b.context, c.context}) == 3
    assert pf.add([a]).kind is Kind.SEEDED
    assert a.expanded().kind is Kind.EXPANDED
    assert np.array_equal(parties.opener.decrypt(a.expanded(), integers=True), parties.opener.decrypt(a, integers=True))
    total = (a + b) + c
    assert total.kind is Kind.EXPANDED
    assert total.context is None
    assert total.nbytes > 1.9 * a.nbytes
    assert np.array_equal(parties.opener.decrypt(total, integers=True), integers(parties, xs))
    with pytest.raises(pf.InputError, match="the sum is of expanded kind"):
        pf.add([a, b], out=a)
    with pytest.raises(pf.CiphertextError, match="holds no seed yet"):
        pf.Ciphertext.zeros(parties.params, 4500) + a


# --- noise -----------------------------------------------------------------------------------------------------------


def stream(label: str) -> _native.StreamKey:
    return _native.StreamKey.from_bytes(hashlib.sha256(label.encode()).digest())


def product(params: pf.CkksParams, secret: np.ndarray, other: np.ndarray) -> np.ndarray:
    """INTT(NTT(secret) * other) of p31, `other` in NTT form."""
    q = params.primes[0]
    transformed = _native.primitives.ntt(q, 11, (secret % q).astype(np.uint64))
    return _native.primitives.ntt(q, 11, transformed * other.astype(np.uint64) % np.uint64(q), True)


def residuals(keys: str, parties: int, blocks: int) -> tuple[np.ndarray, pf.CkksParams]:
    """Noise of a sum of `parties` encryptions of random weights under p31, streams injected."""
    params = pf.CkksParams.preset("p31", parties=parties, clip=1.0, keys=keys)
    scheme, q, n = params._scheme, params.primes[0], params.ring_dimension
    length, a_key = blocks * n, hashlib.sha256(b"a").digest()
    shared = scheme.generate_secret(stream("secret"))
    c0, c1 = np.zeros((2, blocks, n), np.uint64)
    phase = np.zeros((blocks, n), np.int64)
    for party in range(parties):
        secret = scheme.generate_secret(stream(f"secret {party}")) if keys == "collective" else shared
        x, noise = vector(length, party), stream(f"noise {party}")
        first, second = np.zeros((2, length), np.uint32)
        if keys == "public":
            pk0 = scheme.generate_public(shared, stream("key error"), a_key)
            scheme.encrypt_public(scheme.load_public(pk0, a_key), noise, [x], 1.0, first, second)
            c1 = (c1 + second.reshape(blocks, n)) % q
        else:
            scheme.encrypt(secret, noise, a_key, [x], 1.0, first)
        c0 = (c0 + first.reshape(blocks, n)) % q
        phase -= params.scale * pf.quantize(params, x).reshape(blocks, n)
        if keys != "public":
            for block in range(blocks):
                a = _native.primitives.uniform(q, 11, a_key, 0, block)
                phase[block] += product(params, secret.coefficients(), a).astype(np.int64)
    for block in range(blocks):
        if keys == "public":
            a = _native.primitives.ntt(q, 11, c1[block])
            phase[block] += product(params, shared.coefficients(), a).astype(np.int64)
    phase = (phase + c0.astype(np.int64)) % q
    return np.where(phase > q // 2, phase - q, phase), params


@pytest.mark.parametrize("parties", [1, 4])
@every_mode
def test_honest_residuals_have_the_variance_that_the_law_assumes(keys: str, parties: int) -> None:
    noise, params = residuals(keys, parties, blocks=16)
    exact = {"collective": 40.5, "secret": 10.24, "public": 10.24 * (1 + 4 * 2048 / 3)}[keys] * parties
    # 32768 samples give a variance to 0.8 %; public noise spreads wider, its key's norms by about 2 % each.
    assert 0.9 * exact < noise.var() < 1.08 * exact
    assert abs(noise.mean()) < 6 * math.sqrt(exact / noise.size)
    declared = _declared_variance(params)
    assert noise.var() < declared * parties * (1 if keys == "public" else 1.05)
    assert np.abs(noise).max() < params.noise_bound
    # Every block stays within the check's limit.
    margin = 2 if keys == "public" else 1
    limit = _native.primitives.residual_limit(declared * parties * margin, 2048)
    assert (noise.astype(np.float64) ** 2).sum(axis=1).max() < limit


def _declared_variance(params: pf.CkksParams) -> float:
    return float(params._checked.noise_variance)


def test_key_generation_holds_its_norms() -> None:
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0)
    for seed in range(20):
        secret = params._scheme.generate_secret(stream(f"norm {seed}"))
        assert set(secret.coefficients()) == {-1, 0, 1}
        assert secret.squared_norm <= 1.1 * 2 * 2048 / 3
    collective = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
    norms = [collective._scheme.generate_secret(stream(f"norm {seed}")).squared_norm for seed in range(20)]
    assert np.mean(norms) / 2048 == pytest.approx(20.25, rel=0.05)

"""Statistics of private and public randomness, on every backend and under both ciphers.

The draws come from fixed keys, different ones for every backend and cipher; `bounds.py` derives the thresholds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from bounds import (
    assert_all_independent,
    assert_chi_square,
    assert_count,
    assert_distribution,
    assert_independent,
    assert_mean,
    assert_serially_independent,
    assert_squares,
)
from core_support import is_prime
from draws import (
    BACKENDS,
    GAUSSIAN,
    LAGS,
    ROW,
    SEVENTEENTHS,
    STREAMS,
    TERNARY,
    centred,
    draws_of,
    gaussian_rows,
    key_of,
    public_rows,
)

import pppml_fast as pf
from pppml_fast import _native

primitives = _native.primitives
BINS = 512
EVEN = np.full(BINS, 1 / BINS)

# --- the bounds themselves -------------------------------------------------------------------------------------------


def small_fault(name: str, draws: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rows of sixteen good draws, spoilt a little."""
    spoilt = draws.copy()
    some = generator.random(draws.shape)
    if name == "a hundredth loses its sign":
        spoilt[some < 0.01] = abs(draws[some < 0.01])
    elif name == "signs follow magnitudes":
        spoilt = np.where((abs(draws) % 2 == 1) & (some < 0.02), abs(draws), draws)
        spoilt = np.where((abs(draws) % 2 == 0) & (some < 0.02), -abs(draws), spoilt)
    elif name == "one threshold off":
        spoilt = np.where((abs(draws) == 3) & (some < 0.03), draws // 3 * 4, draws)
    elif name == "cut tails":
        spoilt = np.clip(draws, -25, 25)
    elif name == "a lane twice":
        spoilt[:, 9] = draws[:, 8]
    elif name == "a lane negated":
        spoilt[:, 9] = -draws[:, 1]
    elif name == "magnitudes of a lane twice":
        spoilt[:, 9] = abs(draws[:, 1]) * generator.choice([-1, 1], len(draws))
    elif name == "a row in 64 twice":
        spoilt[1::64] = draws[::64]
    return spoilt


FAULTS = {
    "a hundredth loses its sign": "moment 1",
    "signs follow magnitudes": "chi-square",
    "one threshold off": "chi-square",
    "cut tails": "moment|x. >=",
    "a lane twice": "correlation, lanes 8 and 9",
    "a lane negated": "correlation, lanes 1 and 9",
    "magnitudes of a lane twice": "joint classes, lanes 1 and 9",
    "a row in 64 twice": "lag 16",
}


@pytest.mark.parametrize("fault", ["none", *FAULTS])
def test_the_bounds_find_small_faults_and_only_those(fault: str) -> None:
    law, generator = GAUSSIAN["collective_error"], np.random.default_rng(11)
    draws = small_fault(fault, generator.choice(law.values, (2**16, 16), p=law.probabilities), generator)

    def examine() -> None:
        assert_distribution(law, law.histogram(draws), "draws")
        assert_all_independent(law, np.ascontiguousarray(draws.T), "lanes")
        assert_serially_independent(law, draws, LAGS, "draws")

    if fault == "none":
        examine()
    else:
        with pytest.raises(AssertionError, match=FAULTS[fault]):
            examine()


def test_counts_too_even_are_no_chance() -> None:
    with pytest.raises(AssertionError, match="chi-square"):
        assert_chi_square(np.full(BINS, 2**11), EVEN, "counts")


# --- distributions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", sorted(GAUSSIAN))
@pytest.mark.parametrize(("backend", "cipher"), STREAMS)
def test_gaussian_moments_tails_signs_and_cells(backend: str, cipher: str, table: str) -> None:
    draws = gaussian_rows(table, backend, cipher, draws_of(backend, 2**22) // ROW)
    assert_distribution(GAUSSIAN[table], GAUSSIAN[table].histogram(draws), table)


@pytest.mark.parametrize(("backend", "cipher"), [stream for stream in STREAMS if stream[0] != "scalar"])
def test_far_tails_of_many_draws(backend: str, cipher: str) -> None:
    # 2^26 draws: 4300 expected beyond 4 standard deviations, 40 beyond 5, none beyond 7.
    law, table = GAUSSIAN["collective_error"], "collective_error"
    sizes = [math.ceil(deviations * math.sqrt(40.5)) for deviations in (4, 5, 6, 7)]
    beyond = dict.fromkeys(sizes, 0)
    for block in range(2**10):
        draws = np.abs(primitives.gaussian(table, key_of(backend, cipher, "far"), 0, block, 2**16, backend, cipher))
        far = draws[draws >= sizes[0]]
        for size in sizes:
            beyond[size] += int((far >= size).sum())
    for size, seen in beyond.items():
        assert_count(seen, 2**26, law.probabilities[abs(law.values) >= size].sum(), f"|x| >= {size}")


@pytest.mark.parametrize(("backend", "cipher"), STREAMS)
def test_ternary_counts(backend: str, cipher: str) -> None:
    blocks = draws_of(backend, 2**21) // ROW
    key = key_of(backend, cipher, "ternary")
    draws = np.stack([primitives.ternary(key, 2, block, ROW, backend, cipher) for block in range(blocks)])
    assert_distribution(TERNARY, TERNARY.histogram(draws), "ternary")
    assert_serially_independent(TERNARY, draws[: blocks // 4], LAGS, "ternary")


@pytest.mark.parametrize("keys", ["public", "collective"])
@pytest.mark.parametrize(("backend", "cipher"), STREAMS)
def test_secret_keys_of_many_seeds(backend: str, cipher: str, keys: Any) -> None:
    scheme = _native.Scheme(pf.CkksParams.preset("p31", parties=3, clip=1.0, keys=keys)._checked, backend, cipher)
    seeds = [_native.StreamKey.from_bytes(key_of(backend, cipher, keys, i)) for i in range(64)]
    secrets = np.stack([scheme.generate_secret(seed).coefficients() for seed in seeds])
    law = GAUSSIAN["collective_secret"] if keys == "collective" else TERNARY
    assert_distribution(law, law.histogram(secrets), f"{keys} secrets")
    assert_independent(law, secrets[::2], law, secrets[1::2], "neighbouring seeds")
    assert len({row.tobytes() for row in secrets}) == len(secrets)


# --- a_j -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p31", "p50", "p62"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_public_polynomials_are_uniform(backend: str, name: str) -> None:
    params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys="collective")
    scheme = _native.Scheme(params._checked, backend, "")
    blocks = draws_of(backend, 2**20) // params.ring_dimension
    rows = public_rows(scheme, params, blocks, key_of(backend, name))
    classes = []
    for index, q in enumerate(params.primes):
        residues = rows[:, index]
        assert residues.max() < q
        # By size, in bins whose widths differ by less than 2^-21 of them, and by the low bits: 512 divides q - 1.
        width = q / BINS
        assert_chi_square(np.bincount((residues.ravel() / width).astype(int), minlength=BINS), EVEN, f"bins of {q}")
        assert_chi_square(np.bincount(residues.ravel() % BINS, minlength=BINS), EVEN, f"low bits of {q}")
        assert_mean(float((residues / (q - 1) - 0.5).sum()), residues.size, 0, 1 / 12, 0.5, f"mean of {q}")
        classes.append((residues * (17 / q)).astype(np.int64) - 8)
        assert_serially_independent(SEVENTEENTHS, classes[-1], LAGS, f"residues of {q}")
        assert_independent(SEVENTEENTHS, classes[-1][::2], SEVENTEENTHS, classes[-1][1::2], f"blocks of {q}")
    if len(params.primes) == 2:
        # Equal words under two primes would lift to small integers, from which the key falls to linear algebra.
        (first, second), (a, b) = params.primes, (rows[:, 0].ravel(), rows[:, 1].ravel())
        table = np.bincount((a * 32 // first * 16 + b * 16 // second).astype(int), minlength=BINS)
        assert_chi_square(table, EVEN, "joint bins of two primes")
        assert_count(int((a % 1024 == b % 1024).sum()), a.size, 1 / 1024, "equal low bits of two primes")
        lift = a + first * ((b + second - a % second) % second * pow(first, -1, second) % second)
        bins = lift // np.uint64(first * second // BINS + 1)
        assert_chi_square(np.bincount(bins.astype(int), minlength=BINS), EVEN, "lift to [0, Q)")
        assert_serially_independent(SEVENTEENTHS, (lift / (first * second / 17)).astype(int) - 8, LAGS, "lift")


def prime_above(floor: int, order: int) -> int:
    """The smallest prime above ``floor`` that is 1 modulo ``order``."""
    candidate = floor // order * order + 1 + order
    while not is_prime(candidate):
        candidate += order
    return candidate


# Presets reject 4 candidates in 10^5 at most; just above a power of two it is one in two, over and over.
REJECTING = [(2147389441, 11), *((prime_above(2**bits, 2**12), 11) for bits in (24, 30, 36, 49, 58))]


@pytest.mark.parametrize(("q", "log_degree"), REJECTING)
@pytest.mark.parametrize("backend", BACKENDS)
def test_rejected_candidates_are_replaced_by_position(backend: str, q: int, log_degree: int) -> None:
    n, wide, key = 2**log_degree, 1 if q < 2**31 else 2, key_of(backend, "candidates")
    blocks, accepted, rows, mask = 64, 0, [], 2 ** q.bit_length() - 1
    for block in range(blocks):
        row = np.full(n, q, np.uint64)
        attempt = 0
        while (left := row >= q).any():
            words = primitives.stream(key, 5, block, attempt * n * wide, n * wide, backend).astype("<u4")
            candidates = words.view("<u8" if wide == 2 else "<u4").astype(np.uint64) & np.uint64(
                2 ** q.bit_length() - 1
            )
            accepted += int((candidates < q).sum()) if attempt == 0 else 0
            row[left] = candidates[left]
            attempt += 1
        rows.append(row)
        assert np.array_equal(primitives.uniform(q, log_degree, key, 5, block, backend), row), block
    assert_count(accepted, blocks * n, q / (mask + 1), f"accepted candidates of {q}")
    bins = (np.concatenate(rows) / (q / 64)).astype(int)
    assert_chi_square(np.bincount(bins, minlength=64), np.full(64, 1 / 64), f"residues of {q}")


# --- independence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "cipher"), STREAMS)
def test_coefficients_lanes_and_blocks_are_independent(backend: str, cipher: str) -> None:
    law = GAUSSIAN["collective_error"]
    draws = gaussian_rows("collective_error", backend, cipher, draws_of(backend, 2**20) // ROW, first=2**32 - 5)
    assert_serially_independent(law, draws, LAGS, "coefficients")
    assert_independent(law, draws[::2], law, draws[1::2], "neighbouring blocks")
    half = len(draws) // 2
    assert_independent(law, draws[:half], law, draws[half:], "distant blocks")
    assert_all_independent(law, np.ascontiguousarray(draws.reshape(-1, 16).T), "lanes")


@pytest.mark.parametrize(("backend", "cipher"), STREAMS)
def test_selectors_block_numbers_and_keys_are_independent(backend: str, cipher: str) -> None:
    law, rows = GAUSSIAN["error"], 8
    key = key_of(backend, cipher, "selectors")
    near = bytes([key[0] ^ 1]) + key[1:]
    # Lanes 256 and above hold the tie words of those below; counters and block numbers stand beside them in the nonce.
    places = [(key, lane, first) for lane in (0, 1, 2, 3, 4, 5, 256, 257) for first in (0, 2**32)]
    places += [(key, 0, 2**16), (key, 0, 2**63), (near, 0, 0), (near, 1, 0), (key[::-1], 0, 0)]
    streams = np.stack([gaussian_rows("error", backend, cipher, rows, k, lane, first) for k, lane, first in places])
    assert_all_independent(law, streams, "streams")


@pytest.mark.parametrize(("backend", "cipher"), STREAMS)
def test_the_polynomials_of_public_encryption_are_independent(backend: str, cipher: str) -> None:
    """u, e0 and e1 as the encryption itself draws them, read through public keys of the test's making.

    With m = 0 and pk0 = 0, 1 or pk1, the first polynomial is e0, u + e0 or pk1 u + e0; the second is pk1 u + e1.
    """
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0)
    scheme, q, n = _native.Scheme(params._checked, backend, cipher), params.primes[0], params.ring_dimension
    blocks = draws_of(backend, 64)
    x, seed = np.zeros(blocks * n, np.float32), key_of("public seed")
    noise = _native.StreamKey.from_bytes(key_of(backend, cipher, "public"))

    def encrypt(pk0: np.ndarray) -> list[np.ndarray]:
        rows = [np.zeros(x.size, np.uint32) for _ in range(2)]
        scheme.encrypt_public(scheme.load_public(pk0.astype(np.uint32), seed), noise, [x], 1.0, *rows)
        return [row.astype(np.int64) for row in rows]

    e0 = centred(encrypt(np.zeros(n))[0], q)
    u = centred(encrypt(np.ones(n))[0], q) - e0
    first, second = encrypt(primitives.uniform(q, 11, seed, 0, 0))
    e1 = centred(second - first, q) + e0
    error = GAUSSIAN["error"]
    laws = {"e0": (error, e0), "e1": (error, e1), "u": (TERNARY, u)}
    for name, (law, draws) in laws.items():
        assert_distribution(law, law.histogram(draws), name)
        assert_serially_independent(law, draws, LAGS, name)
        assert_independent(law, draws.reshape(-1, n)[::2], law, draws.reshape(-1, n)[1::2], f"blocks of {name}")
    for one, other in (("e0", "e1"), ("e0", "u"), ("e1", "u")):
        for shift in (0, 1, 16, n):
            assert_independent(*laws[one], laws[other][0], np.roll(laws[other][1], shift), f"{one} and {other}")


# --- end to end ------------------------------------------------------------------------------------------------------


class Encrypted:
    """``parties`` encryptions of random vectors under fixed streams, and what their noise should be."""

    def __init__(self, name: str, keys: Any, parties: int, blocks: int, backend: str, cipher: str) -> None:
        self.params = pf.CkksParams.preset(name, parties=parties, clip=1.0, keys=keys)
        self.scheme, self.n = _native.Scheme(self.params._checked, backend, cipher), self.params.ring_dimension
        self.length, self.seed = blocks * self.n, key_of("a_j", name)
        word = np.uint32 if self.scheme.word_bytes == 4 else np.uint64
        self.shape, self.word = (blocks, len(self.params.primes), self.n), word
        self.rows: list[list[np.ndarray]] = []
        self.secrets: list[_native.SecretKey] = []
        self.messages: list[np.ndarray] = []
        for party in range(parties):
            secret, error, noise = (
                _native.StreamKey.from_bytes(key_of(name, keys, backend, cipher, use, party))
                for use in ("secret", "error", "noise")
            )
            x = np.random.default_rng(party).normal(0, 0.4, self.length).astype(np.float32)
            rows = [np.zeros(self.length * self.shape[1], word) for _ in range(2 if keys == "public" else 1)]
            if keys == "collective":
                self.secrets.append(self.scheme.generate_secret(secret))
                self.scheme.encrypt(self.secrets[-1], noise, self.seed, [x], 1.0, rows[0])
            else:
                if party == 0:
                    self.secrets = [self.scheme.generate_secret(secret)]
                    self.pk0 = self.scheme.generate_public(self.secrets[0], error, self.seed)
                    self.public = self.scheme.load_public(self.pk0, self.seed)
                self.scheme.encrypt_public(self.public, noise, [x], 1.0, *rows)
            self.rows.append(rows)
            self.messages.append(self.scheme.quantize([x], 1.0)[0])

    def key(self, parties: int) -> _native.SecretKey:
        """What opens the first parties' sum."""
        if self.params.keys == "public":
            return self.secrets[0]
        coefficients = np.sum([secret.coefficients() for secret in self.secrets[:parties]], axis=0)
        return self.scheme.secret_from_coefficients(coefficients)

    def sums(self, parties: int) -> list[np.ndarray]:
        """The first parties' polynomials, added."""
        totals = []
        for polynomials in zip(*self.rows[:parties], strict=True):
            totals.append(np.zeros_like(polynomials[0]))
            self.scheme.add(self.length, True, list(polynomials), totals[-1])
        return totals

    def product(self, secret: _native.SecretKey, sums: list[np.ndarray]) -> np.ndarray:
        """a s, of all blocks: by two pads of one noise, or from the second polynomial."""
        if self.params.keys == "public":
            return np.concatenate(
                [
                    times(row.astype(np.uint64), secret.coefficients(), q)
                    for block in sums[1].reshape(self.shape)
                    for row, q in zip(block, self.params.primes, strict=True)
                ]
            )
        noise, pads = _native.StreamKey.from_bytes(bytes(32)), [np.zeros_like(sums[0]) for _ in range(2)]
        zero = self.scheme.secret_from_coefficients(np.zeros(self.n, np.int64))
        for key, pad in zip((zero, secret), pads, strict=True):
            self.scheme.make_pads(key, noise, self.seed, self.length, 0, self.shape[0], pad)
        return pads[0].astype(np.int64) - pads[1].astype(np.int64)

    def residual(self, parties: int) -> np.ndarray:
        """phase - Delta m of the first parties' sum, the same under every prime."""
        sums = self.sums(parties)
        phases = (sums[0].astype(np.int64) + self.product(self.key(parties), sums)).reshape(self.shape)
        message = self.params.scale * np.sum(self.messages[:parties], axis=0).reshape(-1, self.n)
        found = [centred((phases[:, i] - message % q) % q, q) for i, q in enumerate(self.params.primes)]
        assert all(np.array_equal(row, found[0]) for row in found)
        return found[0].astype(np.float64)

    def eigenvalues(self) -> np.ndarray:
        """Of the covariance of one party's residual; public: that of e u + e0 + e1 s given the key (s, e)."""
        if self.params.keys == "collective":
            return np.full(self.length, 40.5)
        secret, q = self.secrets[0].coefficients(), self.params.primes[0]
        seeded = primitives.uniform(q, self.n.bit_length() - 1, self.seed, 0, 0)
        pk0 = primitives.ntt(q, self.n.bit_length() - 1, self.pk0[: self.n].astype(np.uint64), True)
        seeded = primitives.ntt(q, self.n.bit_length() - 1, seeded, True)
        error = centred((pk0.astype(np.int64) + times(seeded, secret, q)) % q, q)
        assert np.abs(error).max() <= 31
        odd_roots = np.exp(1j * np.pi * np.arange(self.n) / self.n)
        spectra = [abs(np.fft.fft(f * odd_roots)) ** 2 for f in (error, secret)]
        return np.tile(2 / 3 * spectra[0] + 10.24 * spectra[1] + 10.24, self.shape[0])


def times(row: np.ndarray, small: np.ndarray, q: int) -> np.ndarray:
    """A row times a small polynomial, in coefficient form, as int64."""
    log_degree = row.size.bit_length() - 1
    left, right = (primitives.ntt(q, log_degree, (f % q).astype(np.uint64)) for f in (row, small))
    product = (left.astype(object) * right % q).astype(np.uint64)
    return primitives.ntt(q, log_degree, product, True).astype(np.int64)


CASES = [("p31", 1), ("p31", 2), ("p31", 16), ("p50", 2), ("p62", 2)]


@pytest.mark.parametrize(("name", "parties"), CASES)
@pytest.mark.parametrize("keys", ["public", "collective"])
@pytest.mark.parametrize(("backend", "cipher"), STREAMS)
def test_opened_residuals_have_the_declared_variance(
    backend: str, cipher: str, keys: Any, name: str, parties: int
) -> None:
    # A missing contribution takes 1 / parties of the variance: 2^17 coefficients tell 15 / 16 from 1, 2^14 a half.
    blocks = (2**17 if parties == 16 else 2**14) // (2048 if name == "p31" else 4096)
    encrypted = Encrypted(name, keys, parties, blocks, backend, cipher)
    declared = encrypted.params._checked.noise_variance
    expected, residual = parties * encrypted.eigenvalues(), encrypted.residual(parties)
    squares = float((residual**2).sum())
    assert np.abs(residual).max() <= encrypted.params.noise_bound
    assert_squares(squares, expected, "residual")
    if keys == "collective":
        assert expected.mean() == parties * declared
    else:  # the declared variance allows keys of 1.1 times the expected norm
        assert 0.85 * parties * declared < expected.mean() <= parties * declared
    # Without the last contribution the noise is too small for so many parties,
    missing = encrypted.residual(parties - 1) if parties > 1 else np.zeros(1)
    with pytest.raises(AssertionError, match="of the expected squares"):
        assert_squares(float((missing**2).sum()), expected, "residual")
    # and the key of all opens nothing.
    if keys == "collective" and parties > 1:
        sums, opened = encrypted.sums(parties - 1), np.zeros(encrypted.length, np.int64)
        arguments = (encrypted.key(parties), encrypted.length, parties, sums[0], None, encrypted.seed, opened)
        assert encrypted.scheme.open(*arguments)[0] == 0 and not opened.any()

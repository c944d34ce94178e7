"""Levelled ciphertexts: slot-wise arithmetic against plain numbers, within the bounds that they report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from core_support import CONTEXT, ntt_prime

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.levelled import LevelledCiphertext

N = 8192
PRIMES = (ntt_prime(59, N), ntt_prime(40, N), ntt_prime(41, N))


def set_of(
    packing: Any = "real_slots", keys: Any = "public", primes: tuple[int, ...] = PRIMES, n: int = N
) -> pf.CkksParams:
    return pf.CkksParams("deep", n, primes, 4, 1.0, keys, packing=packing, slot_scale=2.0**40)


class Owner:
    """A key pair and what it encrypts."""

    def __init__(self, params: pf.CkksParams, length: int = 9000) -> None:
        self.params, self.length = params, length
        self.pair = pf.keygen(params)
        self.source = np.random.default_rng(1)

    def draw(self) -> np.ndarray:
        return self.source.uniform(-1, 1, self.length)

    def encrypt(self, x: np.ndarray) -> LevelledCiphertext:
        return LevelledCiphertext.of((self.pair.public or self.pair.secret).encrypt(x))

    def check(self, ciphertext: LevelledCiphertext, expected: np.ndarray) -> None:
        raw = ciphertext.decrypt(self.pair.secret, rounded=False)
        released = ciphertext.decrypt(self.pair.secret)
        assert np.abs(raw - expected).max() <= ciphertext.error
        assert np.abs(released - expected).max() <= ciphertext.error + ciphertext.release_step / 2
        assert np.array_equal(released, np.rint(released / ciphertext.release_step) * ciphertext.release_step)
        assert np.abs(expected).max() <= ciphertext.bound
        # A bound that is far from what happens would be no bound to rely on: at most 2^14 of the error that occurs.
        assert ciphertext.error < 2**14 * np.abs(raw - expected).max()


@pytest.mark.parametrize("keys", ["public", "secret"])
@pytest.mark.parametrize("packing", ["slots", "real_slots"])
def test_every_operation_keeps_its_bound(packing: str, keys: str) -> None:
    owner = Owner(set_of(packing, keys))
    x, y = owner.draw(), owner.draw()
    a, b = owner.encrypt(x), owner.encrypt(y)
    owner.check(a, x)
    owner.check(a + b, x + y)
    owner.check(a - b, x - y)
    owner.check(-a, -x)
    owner.check(a + y, x + y)
    owner.check(a - y, x - y)
    owner.check(a * 3, 3 * x)
    owner.check(-5 * a, -5 * x)
    blocks, slots = -(-x.size // owner.params.block_weights), N // 2
    factors = owner.source.uniform(-1, 1, x.size if packing == "real_slots" else blocks * slots)
    per_weight = factors
    if packing == "slots":
        per_weight = np.concatenate([np.tile(part, 2) for part in factors.reshape(blocks, slots)])[: x.size]
    product = a * factors
    owner.check(product, x * per_weight)
    rescaled = product.rescale()
    assert (rescaled.level, product.level) == (2, 3)
    owner.check(rescaled, x * per_weight)
    owner.check((rescaled * 0.25).rescale(), 0.25 * x * per_weight)
    assert rescaled.scale == pytest.approx(b.scale, rel=2**-40)
    owner.check(rescaled - b.at_level(2), x * per_weight - y)
    steps = [step.operation for step in rescaled.report]
    assert steps == ["sum of 1", "times plaintext", "rescale"]
    assert all(0 < step.bits < 60 for step in rescaled.report)
    assert "bits" in str(rescaled.report[-1]) and "level 2 of 3" in repr(rescaled)


def test_a_sum_of_ciphertexts_goes_on_as_one() -> None:
    owner = Owner(set_of())
    x, y = owner.draw(), owner.draw()
    total = pf.add([owner.pair.public.encrypt(x), owner.pair.public.encrypt(y)])
    levelled = LevelledCiphertext.of(total)
    owner.check(levelled, x + y)
    assert levelled.bound == 2 and levelled.report[0].operation == "sum of 2"


@pytest.mark.parametrize("sizes", [(59,), (31, 31), (30, 30, 30, 30), (50, 45, 45), (59, 59)])
def test_any_primes_serve(sizes: tuple[int, ...]) -> None:
    primes: list[int] = []
    for bits in sizes:
        q = ntt_prime(bits, N)
        while q in primes:
            q = ntt_prime_below(q, N)
        primes.append(q)
    params = pf.CkksParams("any", N, tuple(primes), 2, 1.0, "secret", packing="slots")
    owner = Owner(params, 5000)
    x = owner.draw()
    owner.check(owner.encrypt(x), x)
    owner.check(owner.encrypt(x).at_level(params._checked.opening_primes), x)


def ntt_prime_below(q: int, n: int) -> int:
    from core_support import is_prime

    q -= 2 * n
    while not is_prime(q):
        q -= 2 * n
    return q


def test_composition_and_rescaling_are_those_of_integers() -> None:
    """Residues against Python integers: the arithmetic alone, without keys."""
    params = set_of(keys="secret")
    native = _native.Levelled(params._checked)
    source = np.random.default_rng(5)
    modulus = int(np.prod([int(q) for q in PRIMES], dtype=object))
    numbers = [int.from_bytes(source.bytes(20), "little") % modulus for _ in range(N)]
    numbers[:4] = [0, modulus - 1, modulus // 2, modulus // 2 + 1]
    rows = np.array([[v % q for v in numbers] for q in PRIMES], np.uint64)[None]
    transformed = native.forward(rows)
    assert np.array_equal(native.inverse(transformed), rows)
    last = PRIMES[-1]
    centred = [(v % last) - (last if v % last > last // 2 else 0) for v in numbers]
    smaller = [(v - c) // last for v, c in zip(numbers, centred, strict=True)]
    expected = np.array([[v % q for v in smaller] for q in PRIMES[:-1]], np.uint64)[None]
    assert np.array_equal(native.inverse(native.rescale(transformed)), expected)
    square = native.inverse(native.multiply(transformed, transformed))
    reference = [int(v) for v in rows[0, 0]]
    assert (
        int(square[0, 0, 0])
        == (reference[0] ** 2 - sum(reference[i] * reference[N - i] for i in range(1, N))) % PRIMES[0]
    )
    times = native.inverse(native.multiply_integer(transformed, -7))
    assert [int(v) for v in times[0, 1]] == [-7 * v % PRIMES[1] for v in numbers]
    both = native.inverse(native.subtract(native.add(transformed, transformed), transformed))
    assert np.array_equal(both, rows)


@pytest.mark.parametrize("backend", _native.supported_backends())
def test_backends_agree(backend: str) -> None:
    params = set_of("slots", "secret")
    values = np.random.default_rng(2).uniform(-1, 1, (2, N))
    expected = _native.Levelled(params._checked, "scalar").encode(values, 3, False, 2.0**40)
    assert np.array_equal(_native.Levelled(params._checked, backend).encode(values, 3, False, 2.0**40), expected)


def test_residues_come_and_go() -> None:
    owner = Owner(set_of())
    x = owner.draw()
    a = owner.encrypt(x)
    c0, c1 = a.residues()
    again = LevelledCiphertext.from_residues(
        owner.params, c0, c1, length=len(a), scale=a.scale, bound=a.bound, error=a.error
    )
    assert np.array_equal(again.decrypt(owner.pair.secret), a.decrypt(owner.pair.secret))
    with pytest.raises(pf.CiphertextError, match="take \\(3, 3, 8192\\)"):
        LevelledCiphertext.from_residues(owner.params, c0[:2], c1, length=9000, scale=1.0, bound=1.0, error=1.0)
    c0[0, 0, 0] = PRIMES[0]
    with pytest.raises(pf.CiphertextError, match="not below its prime"):
        LevelledCiphertext.from_residues(owner.params, c0, c1, length=9000, scale=1.0, bound=1.0, error=1.0)


def test_operators_work_from_either_side() -> None:
    owner = Owner(set_of())
    x = owner.draw()
    a, v = owner.encrypt(x), owner.source.uniform(-1, 1, x.size)
    owner.check(v * a, v * x)
    owner.check(v + a, v + x)
    owner.check(v - a, v - x)


def test_what_others_hand_over_is_looked_at() -> None:
    owner = Owner(set_of())
    c0, c1 = owner.encrypt(owner.draw()).residues()
    good = {"length": 9000, "scale": 2.0**40, "bound": 1.0, "error": 1e-3}
    for name, values in {"scale": (0.0, -1.0, np.inf, np.nan), "bound": (0.0, np.nan), "error": (0.0, -1.0)}.items():
        for value in values:
            with pytest.raises(pf.InputError, match=f"{name} = "):
                LevelledCiphertext.from_residues(owner.params, c0, c1, **{**good, name: value})
    with pytest.raises(pf.CiphertextError, match="exceed half of the modulus"):
        LevelledCiphertext.from_residues(owner.params, c0, c1, **{**good, "bound": 1e40})
    with pytest.raises(pf.CiphertextError, match="residues are integers"):
        LevelledCiphertext.from_residues(owner.params, c0 + 0.5, c1, **good)


def test_moduli_beyond_float64_are_refused() -> None:
    primes, q = [], ntt_prime(59, 32768)
    while len(primes) < 18:
        primes.append(q)
        q = ntt_prime_below(q, 32768)
    with pytest.warns(UserWarning, match="comparison only"):
        params = pf.CkksParams("long", 32768, tuple(primes), 2, 1.0, packing="slots", insecure_for_comparison=True)
    with pytest.raises(_native.RequirementError, match="exceeds the 2\\^1000"):
        _native.Levelled(params._checked)


def test_what_does_not_belong_together_is_refused() -> None:
    owner, other = Owner(set_of()), Owner(set_of(), 100)
    a, b = owner.encrypt(owner.draw()), other.encrypt(other.draw())
    with pytest.raises(pf.CiphertextError, match="cannot add"):
        a + b
    with pytest.raises(pf.CiphertextError, match="cannot subtract"):
        a - (a * 0.5)
    with pytest.raises(pf.CiphertextError, match=r"outside 1 \.\. 3"):
        a.at_level(4)
    with pytest.raises(pf.CiphertextError, match="no prime to rescale by"):
        a.at_level(1).rescale()
    with pytest.raises(pf.CiphertextError, match="exceed half of the modulus"):
        a * 2**59 * 2**59 * 2**30
    with pytest.raises(pf.InputError, match="takes 9000 finite numbers"):
        a + np.ones(3)
    with pytest.raises(pf.InputError, match="finite numbers"):
        a * np.full(9000, np.nan)
    with pytest.raises(pf.InputError, match="factor = 0 is 0"):
        a * 0
    with pytest.raises(pf.InputError, match="reaches 2\\^62"):
        a + np.full(9000, 1e12)
    foreign = pf.keygen(set_of("slots")).secret
    with pytest.raises(pf.ParameterError, match="the key was made under"):
        a.decrypt(foreign)


def test_coefficients_and_collective_sums_have_no_levels() -> None:
    plain = pf.CkksParams.preset("p50", parties=2, clip=1.0)
    with pytest.raises(pf.CiphertextError, match="only slots have"):
        LevelledCiphertext.of(pf.keygen(plain).public.encrypt([0.5]))
    collective = pf.CkksParams.preset("p50", parties=2, clip=1.0, keys="collective", packing="slots")
    with pytest.raises(pf.CiphertextError, match="key's owner"):
        LevelledCiphertext.of(pf.CollectiveKey.generate(collective).encrypt([0.5], CONTEXT))


class TestForeignKeys:
    """Keys as residues and coefficients: what other libraries hand over."""

    def test_a_key_of_residues_encrypts_for_its_owner(self) -> None:
        owner = Owner(set_of())
        b, a = owner.pair.public.residues()
        key = pf.PublicKey.from_residues(owner.params, b, a)
        again = pf.PublicKey.from_bytes(owner.params, key.to_bytes())
        x = owner.draw()
        for each in (key, again):
            assert np.abs(owner.pair.secret.decrypt(each.encrypt(x), np.float64) - x).max() <= owner.params.max_error
        assert np.array_equal(again.residues()[1], a)

    def test_a_secret_of_coefficients_opens(self) -> None:
        owner = Owner(set_of())
        secret = pf.SecretKey.from_coefficients(owner.params, owner.pair.secret._native.coefficients())
        x = owner.draw()
        assert np.abs(secret.decrypt(owner.pair.public.encrypt(x), np.float64) - x).max() <= owner.params.max_error

    def test_what_is_no_key_is_refused(self) -> None:
        params = set_of()
        b, a = pf.keygen(params).public.residues()
        with pytest.raises(pf.CiphertextError, match="takes integers \\(3, 8192\\)"):
            pf.PublicKey.from_residues(params, b[:2], a)
        with pytest.raises(pf.CiphertextError, match="not below its prime"):
            pf.PublicKey.from_residues(params, np.full_like(b, PRIMES[0]), a)
        for value, kind in ((2, np.int64), (-2, np.int64), (-128, np.int8), (3, np.uint8)):
            with pytest.raises(pf.InputError, match="not in -1, 0, 1"):
                pf.SecretKey.from_coefficients(params, np.full(N, value, kind))
        with pytest.raises(pf.InputError, match="0 coefficients that are not zero"):
            pf.SecretKey.from_coefficients(params, np.zeros(N, np.int64))
        with pytest.raises(pf.InputError, match="8192 coefficients that are not zero"):
            pf.SecretKey.from_coefficients(params, np.ones(N, np.int64))
        data = bytearray(pf.PublicKey.from_residues(params, b, a).to_bytes())
        data[30] = 1
        with pytest.raises(pf.CiphertextError, match="both a seed and residues"):
            pf.PublicKey.from_bytes(params, data)

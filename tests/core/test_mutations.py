"""Bytes of ciphertexts, changed on their way: every change is refused, or opens to exactly what the scheme says.

What a change does is computed beside, in Python integers: which residues are no residues, what phases the others give,
and whether their residuals stay within the check's limit. So both halves of its reach are held: a contribution that is
missing, doubled or foreign is caught; a few coefficients moved by anything that leaves small residuals, a multiple of
Delta above all, are not. Those are the sum check's.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest
from core_support import CONTEXT, SETS, Parties, vector

import pppml_fast as pf
from pppml_fast.cipher.wire import HEADER_BYTES, Kind

PARTIES = 3
COEFFICIENTS = 130
CHECK_KEY = hashlib.sha256(b"sum check").digest()
FIELDS = struct.Struct("<4sBBH16sQI32sQ")
NOISE_VARIANCE = {"collective": 40.5, "secret": 3.2**2}
KINDS = {"public": Kind.PUBLIC, "seeded": Kind.SEEDED, "expanded": Kind.EXPANDED, "collective": Kind.COLLECTIVE}
REFUSED = (pf.CiphertextError, pf.OpeningError)
every_set = pytest.mark.parametrize("name", SETS)
every_kind = pytest.mark.parametrize("kind", KINDS)


@dataclasses.dataclass(frozen=True)
class Sample:
    """A ciphertext on the wire, another one under the same keys, the sum it holds, and what opens it."""

    params: pf.CkksParams
    wire: bytes
    other: bytes
    integers: list[int]
    opener: Any
    secret: list[int]
    tags: list[bytes]

    def open(self, data: bytes) -> Any:
        """The integers in ``data``, or the kind of its refusal."""
        try:
            return self.opener.decrypt_bytes(data, integers=True).tolist()
        except REFUSED as error:
            return type(error)


@functools.cache
def sample(name: str, kind: str) -> Sample:
    keys: Any = {"public": "public", "collective": "collective"}.get(kind, "secret")
    params = pf.CkksParams.preset(name, parties=PARTIES, clip=1.0, keys=keys)
    parties = Parties(params, PARTIES)
    length = COEFFICIENTS * params.values_per_coefficient
    count = 1 if kind == "seeded" else PARTIES
    terms = [parties.encrypt(i, vector(length, i)) for i in range(PARTIES)]
    total = terms[0] if kind == "seeded" else pf.add(terms)
    assert total.kind is KINDS[kind]
    native = parties.opener._native
    return Sample(
        params,
        total.to_bytes(),
        (terms[1] if kind != "expanded" else pf.add(terms[:2])).to_bytes(),
        sum(pf.quantize(params, vector(length, i)) for i in range(count)).tolist(),  # type: ignore[union-attr]
        parties.opener,
        [int(c) for c in native.coefficients()],
        [pf.sum_check_tag(term, CHECK_KEY) for term in terms] if keys == "collective" else [],
    )


def forged(data: bytes) -> bytes:
    """``data`` with the header's checksum made right."""
    return data[: FIELDS.size] + hashlib.sha256(data[: FIELDS.size]).digest()[:8] + data[HEADER_BYTES:]


# --- what a payload holds, in Python integers ------------------------------------------------------------------------


def residues(params: pf.CkksParams, packed: bytes, count: int) -> list[list[int]] | None:
    """The rows of one packed polynomial, or None where a residue is not below its prime or padding is set."""
    rows, at = [], 0
    for prime in params.primes:
        bits = prime.bit_length()
        size = (count * bits + 7) // 8
        number = int.from_bytes(packed[at : at + size], "little")
        row = [number >> (bits * k) & ((1 << bits) - 1) for k in range(count)]
        if number >> (bits * count) or any(residue >= prime for residue in row):
            return None
        rows.append(row)
        at += size
    assert at == len(packed)
    return rows


def repacked(params: pf.CkksParams, rows: list[list[int]]) -> bytes:
    return b"".join(oracle.pack(row, q.bit_length()) for row, q in zip(rows, params.primes, strict=True))


def sizes(one: Sample) -> tuple[int, int]:
    """Bytes of c0 and of c1, which is 0 where the kind has none."""
    first = sum((COEFFICIENTS * q.bit_length() + 7) // 8 for q in one.params.primes)
    return first, len(one.wire) - HEADER_BYTES - first


@functools.lru_cache(maxsize=64)
def second_times_secret(params: pf.CkksParams, secret: tuple[int, ...], packed: bytes, seed: bytes) -> Any:
    """Rows of c1 s, c1 being packed or expanded from a seed; None where it is refused."""
    rows = residues(params, packed, params.ring_dimension) if packed else None
    if packed and rows is None:
        return None
    products = []
    for index, q in enumerate(params.primes):
        if rows is None:
            values = oracle.public_polynomial(params, oracle.expansion_key(params, seed), index, 0)
        else:
            values = oracle.ntt(rows[index], q)
        factor = oracle.ntt([c % q for c in secret], q)
        products.append(oracle.inverse_ntt([x * y % q for x, y in zip(values, factor, strict=True)], q))
    return products


def expected(one: Sample, data: bytes) -> Any:
    """What opening ``data``, whose header is untouched, must give: integers, or the kind of refusal."""
    params, (first_size, _) = one.params, sizes(one)
    payload, fields = data[HEADER_BYTES:], FIELDS.unpack(data[: FIELDS.size])
    first = residues(params, payload[:first_size], COEFFICIENTS)
    product = second_times_secret(params, tuple(one.secret), payload[first_size:], fields[7])
    if first is None or product is None:
        return pf.CiphertextError
    modulus, delta = math.prod(params.primes), params.scale
    lifts = [modulus // q * pow(modulus // q, -1, q) for q in params.primes]
    energy, messages = 0, []
    for k in range(COEFFICIENTS):
        phase = sum((row[k] + more[k]) * lift for row, more, lift in zip(first, product, lifts, strict=True))
        centred = (phase + modulus // 2) % modulus - modulus // 2
        messages.append((2 * centred + delta) // (2 * delta))
        energy += (centred - delta * messages[-1]) ** 2
    if energy > residual_limit(params, fields[6]):
        return pf.OpeningError
    bound, values = params.sum_bound, []
    for _ in range(params.values_per_coefficient):
        digits = [(m + bound) % (2 * bound + 1) - bound for m in messages]
        messages = [(m - d) // (2 * bound + 1) for m, d in zip(messages, digits, strict=True)]
        values += digits
    return values


def residual_limit(params: pf.CkksParams, terms: int) -> float:
    """Largest sum of squared residuals over the short block (csrc/kernels/contract.hpp, `residual_limit`)."""
    public = 2 * 3.2**2 * (1 + 1.1 * 4 * params.ring_dimension / 3)
    variance = NOISE_VARIANCE.get(params.keys, public) * terms
    c = COEFFICIENTS
    return variance * max(2 * c, c + 2 * math.sqrt(120 * c) + 240)


# --- headers ---------------------------------------------------------------------------------------------------------


@every_set
@every_kind
def test_every_flipped_bit_of_every_header_is_refused(name: str, kind: str) -> None:
    one = sample(name, kind)
    assert one.open(one.wire) == one.integers == expected(one, one.wire)
    for bit in range(8 * HEADER_BYTES):
        damaged = bytearray(one.wire)
        damaged[bit // 8] ^= 1 << bit % 8
        assert one.open(bytes(damaged)) is pf.CiphertextError
        with pytest.raises(pf.CiphertextError):
            pf.Ciphertext.from_bytes(one.params, damaged)


@every_set
@every_kind
def test_a_flipped_bit_under_a_true_checksum_is_refused_or_changes_no_value(name: str, kind: str) -> None:
    """The checksum is no secret: who makes it right changes how many values are read, and none of them."""
    one = sample(name, kind)
    outcomes: dict[str, int] = {"refused": 0, "terms": 0, "length": 0}
    for bit in range(8 * FIELDS.size):
        damaged = bytearray(one.wire)
        damaged[bit // 8] ^= 1 << bit % 8
        opened = one.open(forged(bytes(damaged)))
        if opened in REFUSED:
            outcomes["refused"] += 1
            continue
        shared = min(len(opened), len(one.integers))
        assert opened[:shared] == one.integers[:shared]
        assert not any(opened[shared:])
        outcomes["terms" if 32 <= bit // 8 < 36 else "length"] += 1
        assert bit // 8 in range(24, 36), "neither length nor terms"
    assert outcomes["refused"] > 8 * FIELDS.size - 12
    if kind == "collective":
        assert outcomes["terms"] == 0, "an opening key knows its terms"


@every_set
@every_kind
def test_truncated_and_extended_bytes_are_refused(name: str, kind: str) -> None:
    one = sample(name, kind)
    chance = random.Random(1)
    for size in (0, 1, HEADER_BYTES, len(one.wire) - 1, *(chance.randrange(len(one.wire)) for _ in range(40))):
        assert one.open(one.wire[:size]) is pf.CiphertextError
    for extra in (b"\0", bytes(8), one.wire):
        assert one.open(one.wire + extra) is pf.CiphertextError


# --- payloads --------------------------------------------------------------------------------------------------------

Change = Callable[[random.Random, bytearray, Sample], None]


def flip(chance: random.Random, payload: bytearray, one: Sample) -> None:
    payload[chance.randrange(len(payload))] ^= 1 << chance.randrange(8)


def flip_low_bits(chance: random.Random, payload: bytearray, one: Sample) -> None:
    """Of one residue of c0, or of some: small moves that the noise may hide."""
    q = one.params.primes[0]
    for _ in range(chance.choice((1, 1, 5, 60))):
        bit = chance.randrange(COEFFICIENTS) * q.bit_length() + chance.randrange(6)
        payload[bit // 8] ^= 1 << bit % 8


def overwrite(chance: random.Random, payload: bytearray, one: Sample) -> None:
    at = chance.randrange(len(payload))
    count = min(len(payload) - at, chance.choice((1, 4, 40)))
    payload[at : at + count] = chance.choice((bytes(count), chance.randbytes(count)))


def swap(chance: random.Random, payload: bytearray, one: Sample) -> None:
    """Two ranges of c0, whole bytes or whole residues."""
    unit = chance.choice((1, one.params.primes[0].bit_length()))  # eight residues begin and end at bytes
    a, b = (chance.randrange(COEFFICIENTS // 8 - 1) * unit for _ in range(2))
    payload[a : a + unit], payload[b : b + unit] = payload[b : b + unit], payload[a : a + unit]


def splice(chance: random.Random, payload: bytearray, one: Sample) -> None:
    """The tail, or the head, of another ciphertext under the same keys."""
    other = one.other[HEADER_BYTES:]
    at = chance.randrange(min(len(payload), len(other)))
    if chance.random() < 0.5:
        payload[:at] = other[:at]
    else:
        payload[at : len(other)] = other[at : len(payload)]


@every_set
@every_kind
def test_changed_payloads_open_to_what_they_hold_or_are_refused(name: str, kind: str) -> None:
    one = sample(name, kind)
    first_size, second_size = sizes(one)
    chance = random.Random(f"{name} {kind}")
    seen: dict[Any, int] = {}
    for change in (flip, flip_low_bits, overwrite, swap, splice):
        # A change of c1 takes a product of whole polynomials to foretell.
        for number in range(24):
            part = slice(0, first_size) if second_size == 0 or number else slice(first_size, None)
            payload = bytearray(one.wire[HEADER_BYTES:])
            piece = bytearray(payload[part])
            change(chance, piece, one)
            payload[part] = piece
            data = one.wire[:HEADER_BYTES] + bytes(payload)
            opened, told = one.open(data), expected(one, data)
            assert opened == told, f"{change.__name__} {number}"
            outcome = opened if opened in REFUSED else opened == one.integers
            seen[outcome] = seen.get(outcome, 0) + 1
            if one.tags:
                check_sum_check(one, data)
    # Both refusals, and what the residual check cannot see.
    assert {pf.OpeningError, False} <= set(seen), seen


def check_sum_check(one: Sample, data: bytes) -> None:
    """Where the sum check is on, no changed residue goes by unflagged, whatever the residual check says."""
    try:
        total = pf.Ciphertext.from_bytes(one.params, data)
    except pf.CiphertextError:
        return
    if data == one.wire:
        pf.sum_check_verify(total, CHECK_KEY, one.tags)
        return
    with pytest.raises(pf.OpeningError, match="sum check fails"):
        pf.sum_check_verify(total, CHECK_KEY, one.tags)


# --- the residual check's reach --------------------------------------------------------------------------------------


def moved(one: Sample, polynomial: int, moves: dict[int, int]) -> bytes:
    """The ciphertext with residues of c0 or c1 moved by integers, in every prime."""
    first_size, _ = sizes(one)
    payload = one.wire[HEADER_BYTES:]
    parts = [payload[:first_size], payload[first_size:]]
    count = COEFFICIENTS if polynomial == 0 else one.params.ring_dimension
    rows = residues(one.params, parts[polynomial], count)
    assert rows is not None
    for row, q in zip(rows, one.params.primes, strict=True):
        for k, move in moves.items():
            row[k] = (row[k] + move) % q
    parts[polynomial] = repacked(one.params, rows)
    return one.wire[:HEADER_BYTES] + b"".join(parts)


@every_set
@every_kind
def test_multiples_of_the_scale_pass_the_residual_check(name: str, kind: str) -> None:
    """The stated limit: they add to the sum what they are multiples by, on all coefficients at once if need be."""
    one = sample(name, kind)
    for shift in (1, -1, 2):
        for changed in ([5], list(range(COEFFICIENTS))):
            data = moved(one, 0, dict.fromkeys(changed, shift * one.params.scale))
            opened = one.open(data)
            assert opened == expected(one, data)
            assert opened not in REFUSED
            # The first value of each coefficient takes the shift; short of the sum's bound nothing is carried.
            shifted = [value + shift * (k in changed) for k, value in enumerate(one.integers[:COEFFICIENTS])]
            assert opened == shifted + one.integers[COEFFICIENTS:]
            if one.tags:
                check_sum_check(one, data)


@every_set
@pytest.mark.parametrize("kind", ["public", "expanded"])
def test_a_multiple_of_the_scale_in_c1_adds_the_secret_to_the_sum(name: str, kind: str) -> None:
    """Why a key's owner opens only what authenticated members built: the sum would show its key."""
    one = sample(name, kind)
    opened = one.open(moved(one, 1, {0: one.params.scale}))
    values = [a - b for a, b in zip(opened[:COEFFICIENTS], one.integers[:COEFFICIENTS], strict=True)]
    assert values == one.secret[:COEFFICIENTS]


@every_set
@every_kind
def test_half_the_scale_is_hidden_in_few_coefficients_and_seen_in_many(name: str, kind: str) -> None:
    one = sample(name, kind)
    half = one.params.scale // 2
    few, many = (moved(one, 0, dict.fromkeys(range(count), half)) for count in (1, 20))
    assert one.open(many) is pf.OpeningError
    opened = one.open(few)
    assert opened == expected(one, few)
    # Half the scale is 15.2 standard deviations of the noise of all parties; the noise of one leaves no room for it.
    assert (opened in REFUSED) == (kind == "seeded")
    if opened not in REFUSED:
        assert opened[1:] == one.integers[1:]


@every_set
def test_missing_doubled_and_foreign_contributions_are_refused_whatever_the_header_says(name: str) -> None:
    params = pf.CkksParams.preset(name, parties=PARTIES, clip=1.0, keys="collective")
    parties, strangers = Parties(params, PARTIES), Parties(params, 1)
    length = 2 * params.block_weights + 50
    terms = [parties.encrypt(i, vector(length, i)) for i in range(PARTIES)]
    foreign = strangers.encrypt(0, vector(length))
    tags = [pf.sum_check_tag(term, CHECK_KEY) for term in terms]
    honest = sum(pf.quantize(params, vector(length, i)) for i in range(PARTIES))
    assert np.array_equal(parties.opener.decrypt_bytes(pf.add(terms).to_bytes(), integers=True), honest)
    for chosen in (terms[:2], [terms[0], terms[1], terms[1]], [*terms[:2], foreign], terms[:1]):
        total = pf.add(chosen)
        total.terms = PARTIES
        data = total.to_bytes()
        assert FIELDS.unpack(data[: FIELDS.size])[6:8] == (PARTIES, CONTEXT)
        out = np.full(length, 7, np.int64)
        with pytest.raises(pf.OpeningError, match="missing, doubled or foreign"):
            parties.opener.decrypt_bytes(data, integers=True, out=out)
        assert not out.any()
        with pytest.raises(pf.OpeningError, match="sum check fails"):
            pf.sum_check_verify(pf.Ciphertext.from_bytes(params, data), CHECK_KEY, tags)


@every_set
def test_one_foreign_block_among_honest_ones_is_refused(name: str) -> None:
    params = pf.CkksParams.preset(name, parties=PARTIES, clip=1.0, keys="collective")
    parties, strangers = Parties(params, PARTIES), Parties(params, PARTIES)
    length = 3 * params.block_weights
    honest = pf.add([parties.encrypt(i, vector(length, i)) for i in range(PARTIES)])
    foreign = pf.add([strangers.encrypt(i, vector(length, i)) for i in range(PARTIES)])
    for block in range(3):
        spliced = pf.Ciphertext.from_bytes(params, honest.to_bytes())
        spliced.load(block, block + 1, foreign.pack(block, block + 1))
        with pytest.raises(pf.OpeningError, match=f"block {block} fails"):
            parties.opener.decrypt_bytes(spliced.to_bytes())
    for a, b in ((0, 1), (1, 2)):
        swapped = pf.Ciphertext.from_bytes(params, honest.to_bytes())
        swapped.load(a, a + 1, honest.pack(b, b + 1))
        swapped.load(b, b + 1, honest.pack(a, a + 1))
        with pytest.raises(pf.OpeningError, match=f"block {a} fails"):
            parties.opener.decrypt_bytes(swapped.to_bytes())

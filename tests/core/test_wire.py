"""The bytes of a ciphertext: round trips, refusals by name, block ranges, and bytes made at random."""

from __future__ import annotations

import functools
import hashlib
import struct
from typing import Any

import numpy as np
import pytest
from core_support import CONTEXT, MODES, SETS, Parties, fresh_parties, vector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pppml_fast as pf
from pppml_fast.cipher.wire import HEADER_BYTES, Kind

FIELDS = struct.Struct("<4sBBH16sQI32sQ")
NAMES = ("magic", "version", "kind", "reserved", "tag", "length", "terms", "context", "payload")
every_set = pytest.mark.parametrize("name", SETS)
every_mode = pytest.mark.parametrize("keys", MODES)


def sample(name: str, keys: Any, length: int) -> tuple[Parties, pf.Ciphertext]:
    parties = fresh_parties(name, keys, count=3)
    return parties, parties.encrypt(0, vector(length))


def forge(data: bytes, **changes: Any) -> bytes:
    """``data`` with header fields replaced and the checksum made right again."""
    fields = dict(zip(NAMES, FIELDS.unpack(data[: FIELDS.size]), strict=True)) | changes
    header = FIELDS.pack(*(fields[name] for name in NAMES))
    return header + hashlib.sha256(header).digest()[:8] + data[HEADER_BYTES:]


def refused(params: pf.CkksParams, data: bytes, message: str | None = None) -> None:
    with pytest.raises(pf.CiphertextError, match=message):
        pf.Ciphertext.from_bytes(params, data)


# --- round trips -----------------------------------------------------------------------------------------------------


@every_set
@every_mode
def test_round_trips(name: str, keys: Any) -> None:
    params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys=keys)
    block = params.block_weights
    for length in (0, 1, 200, params.ring_dimension + 1, block - 1, block, block + 333):
        parties = Parties(params, 3)
        one = parties.encrypt(0, vector(length))
        for ciphertext in (one, one + parties.encrypt(1, vector(length, 1))):
            data = ciphertext.to_bytes()
            assert len(data) == ciphertext.nbytes
            for spelling in (data, bytearray(data), memoryview(data)):
                again = pf.Ciphertext.from_bytes(params, spelling)
                assert again.to_bytes() == data
                assert (again.kind, again.length, again.terms, again.context) == (
                    ciphertext.kind,
                    length,
                    ciphertext.terms,
                    ciphertext.context,
                )
                assert np.array_equal(again.first, ciphertext.first)
                assert again.second is None or np.array_equal(again.second, ciphertext.second)


@every_set
@every_mode
def test_bytes_per_weight_are_what_the_parameters_say(name: str, keys: Any) -> None:
    params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys=keys)
    length = 8 * params.block_weights
    size = Parties(params, 1).encrypt(0, vector(length)).nbytes
    assert size == HEADER_BYTES + params.bytes_per_weight * length


def test_the_last_block_is_cut() -> None:
    _, short = sample("p31", "collective", 2048 + 200)
    assert short.nbytes == HEADER_BYTES + (2048 * 31 + 200 * 31) // 8
    # At least 128 coefficients travel, so that the residual check keeps its reach.
    _, shortest = sample("p31", "collective", 1)
    assert shortest.nbytes == HEADER_BYTES + 128 * 31 // 8


def test_the_header_as_documented() -> None:
    parties, ciphertext = sample("p31", "collective", 300)
    data = ciphertext.to_bytes()
    tag = parties.params.id[:16]
    assert FIELDS.unpack(data[:76]) == (b"PPML", 1, 3, 0, tag, 300, 1, CONTEXT, len(data) - 84)
    assert data[76:84] == hashlib.sha256(data[:76]).digest()[:8]
    assert forge(data) == data


# --- refusals --------------------------------------------------------------------------------------------------------


@every_mode
def test_every_flipped_bit_of_the_header_is_refused(keys: Any) -> None:
    parties, ciphertext = sample("p31", keys, 130)
    data = ciphertext.to_bytes()
    assert HEADER_BYTES == 84
    for bit in range(84 * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(parties.params, bytes(damaged))


@every_mode
def test_truncations_and_extensions_are_refused(keys: Any) -> None:
    parties, ciphertext = sample("p31", keys, 130)
    data = ciphertext.to_bytes()
    for size in range(84):
        refused(parties.params, data[:size], "its header alone takes 84")
    for size in range(84, len(data), 7):
        refused(parties.params, data[:size], "truncated")
    for extra in (b"\0", bytes(8), data):
        refused(parties.params, data + extra, "payload bytes")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic": b"PPMX"}, "the bytes begin with b'PPMX'"),
        ({"version": 2}, "wire version 2 is not 1; update the older side"),
        ({"version": 0}, "wire version 0"),
        ({"reserved": 1}, "version"),
        ({"kind": 0}, "kind 0 does not occur under keys='collective'"),
        ({"kind": 4}, "kind 4 does not occur"),
        ({"kind": 255}, "kind 255 does not occur"),
        ({"tag": bytes(16)}, "made under other parameters"),
        ({"terms": 0}, "zero terms"),
        ({"length": 129}, "129 weights take 500 bytes; the header says 504"),
        ({"length": 131}, "131 weights take"),
        ({"length": 10**6}, "1000000 weights take"),
        ({"length": 0}, "0 weights take 0 bytes"),
        ({"length": 2**64 - 1}, "exceeds 281474976710656"),
        ({"length": 2**48, "payload": 504}, "weights take"),
        ({"payload": 503}, "announces 503 payload bytes"),
        ({"payload": 2**64 - 1}, "truncated"),
    ],
)
def test_false_headers_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    parties, ciphertext = sample("p31", "collective", 130)
    data = forge(ciphertext.to_bytes(), **changes)
    refused(parties.params, data, message)


def test_sizes_that_wrap_around_are_refused() -> None:
    # B - 1 full blocks of 31 * 2^8 bytes and a last row of 496: a length whose size is the payload's modulo 2^64.
    parties, ciphertext = sample("p31", "collective", 128)
    forgeries = 0
    for excess in range(1, 64):
        full_blocks = excess * pow(31, -1, 2**56) % 2**56
        length, payload = full_blocks * 2048 + 128, 256 * excess + 496
        if excess % 31 and length < 2**64:
            assert parties.params._scheme.packed_bytes(length, True, 0, full_blocks + 1) == payload
            data = forge(ciphertext.to_bytes(), length=length, payload=payload)
            refused(parties.params, data + bytes(256 * excess), "forged")
            forgeries += 1
    assert forgeries > 0


def test_parameters_are_named_on_a_mismatch() -> None:
    parties, ciphertext = sample("p31", "public", 10)
    for other in (
        pf.CkksParams.preset("p31", parties=2, clip=1.0),
        pf.CkksParams.preset("p31", parties=1, clip=1.0, keys="secret"),
        pf.CkksParams.preset("p50", parties=1, clip=1.0),
    ):
        refused(
            other, ciphertext.to_bytes(), rf"other parameters \(tag {parties.params.id[:16].hex()}\) than {other.name}"
        )


def test_fields_that_a_kind_lacks_are_refused() -> None:
    parties, ciphertext = sample("p31", "public", 10)
    refused(parties.params, forge(ciphertext.to_bytes(), context=CONTEXT), "do not occur with kind 0")
    parties, ciphertext = sample("p31", "secret", 10)
    refused(parties.params, forge(ciphertext.to_bytes(), terms=2), "do not occur with kind 1")
    refused(parties.params, forge(ciphertext.to_bytes(), terms=4), "4 terms exceed the 3")
    refused(parties.params, forge(ciphertext.to_bytes(), kind=2), "do not occur with kind 2")


@every_set
@every_mode
def test_a_residue_that_is_not_below_its_prime_is_refused(name: str, keys: Any) -> None:
    parties, ciphertext = sample(name, keys, 200)
    params, data = parties.params, ciphertext.to_bytes()
    rows, at = [], 84
    for words, cut in ciphertext._polynomials():
        count = words.size // len(params.primes)
        for prime in params.primes:
            rows.append((at, prime, count))
            at += (count * prime.bit_length() + 7) // 8
        assert cut or count == params.ring_dimension
    assert at == len(data)
    for start, prime, count in rows:
        bits = prime.bit_length()
        size = (count * bits + 7) // 8
        number = int.from_bytes(data[start : start + size], "little")
        for k in (0, 77, count - 1):
            for residue, good in ((prime - 1, True), (prime, False), (2**bits - 1, False)):
                changed = number & ~((2**bits - 1) << (bits * k)) | residue << (bits * k)
                forged = data[:start] + changed.to_bytes(size, "little") + data[start + size :]
                if good:
                    assert pf.Ciphertext.from_bytes(params, forged).to_bytes() == forged
                else:
                    refused(params, forged, "not below its prime")


def test_padding_bits_are_zero() -> None:
    parties, ciphertext = sample("p31", "collective", 130)  # 130 * 31 = 4030 bits in 504 bytes
    data = bytearray(ciphertext.to_bytes())
    for bit in (6, 7):
        data[-1] ^= 1 << bit
        refused(parties.params, bytes(data))
        data[-1] ^= 1 << bit
    pf.Ciphertext.from_bytes(parties.params, data)


# --- block ranges ----------------------------------------------------------------------------------------------------


@every_set
@every_mode
def test_block_ranges_pack_load_and_hop_like_whole_ciphertexts(name: str, keys: Any) -> None:
    parties = fresh_parties(name, keys, count=2)
    length = 3 * parties.params.block_weights + 50
    mine, theirs = (parties.encrypt(i, vector(length, i)).expanded() for i in range(2))
    expected = mine + theirs
    total = pf.Ciphertext.empty_like(mine, terms=2)
    assert total.terms == 2
    for start, stop in ((0, 1), (1, 3), (3, 4), (2, 2), (4, 4)):
        packed = theirs.pack(start, stop)
        assert len(packed) == theirs.packed_size(start, stop)
        hopped = mine.hop(packed, start, stop)
        assert hopped == expected.pack(start, stop)
        total.load(start, stop, memoryview(hopped))
    assert total.to_bytes() == expected.to_bytes()
    opened = parties.opener.decrypt(total, integers=True)
    assert np.array_equal(opened, sum(pf.quantize(parties.params, vector(length, i)) for i in range(2)))


@every_set
@every_mode
def test_block_ranges_refuse_what_does_not_fit(name: str, keys: Any) -> None:
    parties = fresh_parties(name, keys, count=1)
    length = 2 * parties.params.block_weights + 50
    ciphertext = parties.encrypt(0, vector(length))
    good = ciphertext.pack(1, 3)
    for start, stop in ((0, 4), (2, 1), (-1, 2), (4, 4), (2**70, 2**70)):
        with pytest.raises(pf.CiphertextError, match="are outside the ciphertext's 3"):
            ciphertext.pack(start, stop)
        with pytest.raises(pf.CiphertextError, match="are outside"):
            ciphertext.packed_size(start, stop)
        with pytest.raises(pf.CiphertextError, match="are outside"):
            ciphertext.hop(good, start, stop)
        with pytest.raises(pf.CiphertextError, match="are outside"):
            ciphertext.load(start, stop, good)
    before = ciphertext.to_bytes()
    for bad in (good[:-1], good + b"\0", b""):
        for action in (ciphertext.hop, lambda payload, a, b: ciphertext.load(a, b, payload)):
            arguments = (bad, 1, 3)
            with pytest.raises(pf.CiphertextError, match=f"take {len(good)} bytes; got {len(bad)}"):
                action(*arguments)
    with pytest.raises(pf.CiphertextError, match="not below its prime"):
        ciphertext.hop(b"\xff" * len(good), 1, 3)
    assert ciphertext.to_bytes() == before
    with pytest.raises(pf.CiphertextError, match="not below its prime"):
        ciphertext.load(1, 3, b"\xff" * len(good))


def test_zeros_are_a_neutral_element() -> None:
    parties, ciphertext = sample("p31", "collective", 3000)
    zeros = pf.Ciphertext.zeros(parties.params, 3000, terms=1, context=CONTEXT)
    assert (zeros + ciphertext).pack(0, 2) == ciphertext.pack(0, 2)
    assert ciphertext.hop(zeros.pack(0, 2), 0, 2) == ciphertext.pack(0, 2)
    with pytest.raises(pf.InputError, match="32 bytes"):
        pf.Ciphertext.zeros(parties.params, 3000, context=b"short")


# --- bytes at random -------------------------------------------------------------------------------------------------


@functools.cache
def fixed(name: str, keys: Any) -> tuple[pf.CkksParams, bytes]:
    parties, ciphertext = sample(name, keys, 300)
    return parties.params, ciphertext.to_bytes()


random_bytes = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def parse(params: pf.CkksParams, data: bytes) -> pf.Ciphertext | None:
    """A ciphertext, or None where it was refused; any other exception is a failure."""
    try:
        return pf.Ciphertext.from_bytes(params, data)
    except pf.CiphertextError:
        return None


@random_bytes
@given(st.binary(max_size=200), st.sampled_from(MODES))
def test_random_bytes_are_refused(data: bytes, keys: Any) -> None:
    params, _ = fixed("p31", keys)
    assert parse(params, data) is None
    assert parse(params, b"PPML" + data) is None


@random_bytes
@given(
    st.sampled_from(SETS),
    st.sampled_from(MODES),
    st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), min_size=1, max_size=5),
)
def test_mutated_ciphertexts_parse_or_are_refused(name: str, keys: Any, edits: list[tuple[int, int]]) -> None:
    params, data = fixed(name, keys)
    mutated = bytearray(data)
    for at, change in edits:
        mutated[at % len(data)] ^= change
    parsed = parse(params, bytes(mutated))
    if parsed is not None:
        assert parsed.to_bytes() == mutated
        assert mutated[:HEADER_BYTES] == data[:HEADER_BYTES]


@random_bytes
@given(
    st.sampled_from(SETS),
    st.sampled_from(MODES),
    st.fixed_dictionaries(
        {},
        optional={
            "version": st.integers(0, 255),
            "kind": st.integers(0, 255) | st.sampled_from(list(Kind)),
            "reserved": st.integers(0, 2**16 - 1),
            "length": st.integers(0, 2**64 - 1) | st.integers(0, 400) | st.integers(0, 63).map(lambda k: 2**k),
            "terms": st.integers(0, 2**32 - 1),
            "context": st.binary(min_size=32, max_size=32),
            "payload": st.integers(0, 2**64 - 1) | st.integers(0, 10**4),
        },
    ),
)
def test_forged_headers_parse_or_are_refused(name: str, keys: Any, changes: dict[str, Any]) -> None:
    params, data = fixed(name, keys)
    forged = forge(data, **changes)
    parsed = parse(params, forged)
    if parsed is not None:
        assert parsed.to_bytes() == forged


@random_bytes
@given(st.sampled_from(SETS), st.integers(0, 3), st.integers(0, 3), st.binary(max_size=100))
def test_random_hops_are_refused(name: str, start: int, stop: int, payload: bytes) -> None:
    params, data = fixed(name, "collective")
    mine = pf.Ciphertext.from_bytes(params, data)
    if start == stop <= 1 and not payload:
        assert mine.hop(payload, start, stop) == b""
    else:
        with pytest.raises(pf.CiphertextError):
            mine.hop(payload, start, stop)

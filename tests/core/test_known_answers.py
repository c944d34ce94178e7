"""The core against known answers: published vectors of its primitives, and whole ciphertexts made by the oracle."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import known_answers
import numpy as np
import oracle
import pytest
from known_answers import seed, weights

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.cipher.expansion import expansion_key

primitives = _native.primitives
BACKENDS = _native.supported_backends()
DOCUMENT = json.loads(known_answers.PATH.read_text())
CASES = DOCUMENT["cases"]

# --- published vectors -----------------------------------------------------------------------------------------------

# RFC 8439, section 2.3.2 and appendix A.1: key, nonce, counter, the first 16 bytes of the block.
CHACHA20 = [
    (bytes(range(32)), "000000090000004a00000000", 1, "10f1e7e4d13b5915500fdd1fa32071c4"),
    (bytes(32), "00" * 12, 0, "76b8e0ada0f13d90405d6ae55386bd28"),
    (bytes(32), "00" * 12, 1, "9f07e7be5551387a98ba977c732d080d"),
    (bytes(31) + b"\x01", "00" * 12, 1, "3aeb5224ecf849929b9d828db1ced4dd"),
    (b"\x00\xff" + bytes(30), "00" * 12, 2, "72d54dfbf12ec44b362692df94137f32"),
    (bytes(32), "00" * 11 + "02", 0, "c2c64d378cd536374ae204b9ef933fcd"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("key", "nonce", "counter", "first"), CHACHA20)
def test_the_blocks_of_rfc_8439(backend: str, key: bytes, nonce: str, counter: int, first: str) -> None:
    raw = bytes.fromhex(nonce)
    selector, block = int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:], "little")
    words = primitives.stream(key, selector, block, 16 * counter, 16, backend)
    assert words.astype("<u4").tobytes()[:16].hex() == first
    assert words.tolist() == oracle.chacha20_block(key, raw, counter)


# RFC 5869, appendix A, the SHA-256 cases: input key material, salt, info, length, output.
HKDF = [
    (
        b"\x0b" * 22,
        bytes(range(13)),
        bytes(range(0xF0, 0xFA)),
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)),
        bytes(range(0x60, 0xB0)),
        bytes(range(0xB0, 0x100)),
        82,
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        b"\x0b" * 22,
        b"",
        b"",
        42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize(("material", "salt", "info", "length", "expected"), HKDF)
def test_the_oracles_hkdf_is_that_of_rfc_5869(
    material: bytes, salt: bytes, info: bytes, length: int, expected: str
) -> None:
    assert oracle.hkdf(material, salt, info, length).hex() == expected


@pytest.mark.parametrize("purpose", ["a", "mask", "tag"])
def test_expansion_keys_are_hkdf_of_the_context(purpose: str) -> None:
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0)
    expected = oracle.hkdf(seed("hkdf"), b"pppml-fast public polynomials v1", params.id + purpose.encode(), 32)
    assert expansion_key(params, seed("hkdf"), purpose) == expected


# --- the oracle's answers --------------------------------------------------------------------------------------------


def test_the_file_says_how_to_make_it_and_is_what_the_oracle_says() -> None:
    assert DOCUMENT["provenance"]["command"] == "python tests/core/known_answers.py --write"
    assert known_answers.main([]) == 0


def inject(*names: object) -> _native.StreamKey:
    return _native.StreamKey.from_bytes(seed(*names))


def words(params: pf.CkksParams, count: int) -> np.ndarray:
    return np.zeros(count, f"u{params._scheme.word_bytes}")


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)).hexdigest()


def check_opened(case: dict[str, Any], opened: np.ndarray) -> None:
    assert opened[:8].tolist() == case["opened_first"]
    assert digest(opened) == case["opened_sha256"]


def case_id(case: dict[str, Any]) -> str:
    return f"{case['set']}-{case['keys']}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_ciphertexts_and_openings_are_the_oracles(case: dict[str, Any], backend: str) -> None:
    params = pf.CkksParams.preset(case["set"], parties=known_answers.PARTIES, clip=0.625, keys=case["keys"])
    scheme, length, key = _native.Scheme(params._checked, backend, "chacha20"), case["length"], expansion_key_of(case)
    assert params.id.hex() == case["parameter_id"]
    assert expansion_key(params, bytes.fromhex(case["context"])) == key
    secrets = [scheme.generate_secret(inject("secret", party)) for party in range(len(case["ciphertexts"]))]
    opened = np.zeros(length, np.int64)
    if case["keys"] == "public":
        pk0 = scheme.generate_public(secrets[0], inject("key error"), key)
        assert digest(pk0) == case["public_key_sha256"]
        c0, c1 = words(params, scheme.words(length, True)), words(params, scheme.words(length, False))
        public = scheme.load_public(pk0, key)
        scheme.encrypt_public(public, inject("noise", 0), [weights(0, length)], 1.0, c0, c1)
        assert [digest(c0, c1)] == case["ciphertexts"]
        assert c0[:4].tolist() == case["sum_first_words"]
        assert scheme.open(secrets[0], length, 1, c0, c1, None, opened)[0] is None
        return check_opened(case, opened)
    rows = []
    for party, secret in enumerate(secrets):
        rows.append(words(params, scheme.words(length, True)))
        scheme.encrypt(secret, inject("noise", party), key, [weights(party, length)], 1.0, rows[-1])
    assert [digest(row) for row in rows] == case["ciphertexts"]
    total = words(params, rows[0].size)
    scheme.add(length, True, rows, total)
    assert total[:4].tolist() == case["sum_first_words"]
    payload = scheme.pack(length, True, 0, params.block_count(length), total)
    assert hashlib.sha256(payload).hexdigest() == case["sum_payload_sha256"]
    opener = scheme.secret_from_coefficients(np.sum([s.coefficients() for s in secrets], axis=0))
    assert scheme.open(opener, length, len(rows), total, None, key, opened)[0] is None
    check_opened(case, opened)


def expansion_key_of(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["expansion_key"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_of_them_holds_a_rejected_candidate(backend: str) -> None:
    (case,) = (c for c in CASES if "rejected_coefficient" in c)
    key, at, q = expansion_key_of(case), case["rejected_coefficient"], pf.PRESETS["p31"].primes[0]
    candidates = primitives.stream(key, 0, 0, 0, 4096, backend) & (2**31 - 1)
    assert candidates[at] >= q > candidates[2048 + at]
    row = primitives.uniform(q, 11, key, 0, 0, backend)
    assert row[at] == candidates[2048 + at]
    assert row.tolist() == oracle.uniform(q, 2048, key, 0, 0)

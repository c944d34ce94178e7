"""SEAL's saved form without SEAL: what is refused, on bytes that the bridge wrote itself."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from pppml_fast.errors import CiphertextError
from pppml_fast.interop.residues import PublicResidues, ResidueCiphertext
from pppml_fast.interop.seal import SealBridge

# The last one serves keys alone.
PRIMES = (1125899906826241, 1099511480321, 1152921504606830593)
N = 4096
BRIDGE = SealBridge(N, PRIMES)


def ciphertext(seed: int = 1, **changes: Any) -> ResidueCiphertext:
    generator = np.random.default_rng(seed)
    rows = [[generator.integers(0, q, N, dtype=np.uint64) for q in PRIMES[:2]] for _ in range(2)]
    given: dict[str, Any] = {"residues": np.array(rows), "primes": PRIMES[:2], "scale": 2.0**40, "slots": N // 2}
    return ResidueCiphertext(**{**given, **changes})


SAVED = BRIDGE.write_ciphertext(ciphertext())


def wrapped(body: bytes, compression: int) -> bytes:
    return SAVED[:5] + bytes([compression, 0, 0]) + struct.pack("<Q", len(body) + 16) + body


def changed(position: int, value: bytes) -> bytes:
    return SAVED[:position] + value + SAVED[position + len(value) :]


def test_what_was_written_is_read() -> None:
    read = BRIDGE.read_ciphertext(SAVED)
    assert (read.residues == ciphertext().residues).all()
    assert dataclasses.replace(read, residues=ciphertext().residues).scale == 2.0**40
    assert (read.primes, read.level, read.slots) == (PRIMES[:2], 0, N // 2)
    compressed = BRIDGE.read_ciphertext(wrapped(zlib.compress(SAVED[16:]), 1))
    assert (compressed.residues == read.residues).all()


def test_keys_that_were_written_are_read() -> None:
    secret = np.random.default_rng(2).integers(-1, 2, N)
    assert (BRIDGE.read_secret_key(BRIDGE.write_secret_key(secret)) == secret).all()
    generator = np.random.default_rng(3)
    b, a = (np.stack([generator.integers(0, q, N, dtype=np.uint64) for q in PRIMES]) for _ in range(2))
    read = BRIDGE.read_public_key(BRIDGE.write_public_key(PublicResidues(b, a, PRIMES)))
    assert (read.b == b).all() and (read.a == a).all()
    assert (read.under(2).b == b[:2]).all()
    assert read.under(2).primes == PRIMES[:2]


BODY = 16
DAMAGES = {
    "nothing": (b"", "header alone"),
    "half a header": (SAVED[:8], "header alone"),
    "magic": (changed(0, b"\0"), "no SEAL ciphertext"),
    "header size": (changed(2, b"\x11"), "no SEAL ciphertext"),
    "version": (changed(3, b"\x03"), "saved by SEAL 3"),
    "compression": (changed(5, b"\x07"), "compression 7"),
    "reserved": (changed(6, b"\x01"), "no SEAL ciphertext"),
    "size": (changed(8, b"\0"), "no SEAL ciphertext"),
    "cut": (SAVED[:-1], "no SEAL ciphertext"),
    "longer": (SAVED + b"\0", "no SEAL ciphertext"),
    "fields alone": (wrapped(SAVED[BODY : BODY + 40], 0), "ends before its fields"),
    "words missing": (wrapped(SAVED[BODY:-8], 0), "a SEAL array of"),
    "words too many": (wrapped(SAVED[BODY:] + bytes(8), 0), "a SEAL array of"),
    "parameters": (changed(BODY, b"\0\0\0\0"), "other parameters"),
    "coefficient form": (changed(BODY + 32, b"\0"), "NTT form"),
    "four polynomials": (changed(BODY + 33, b"\x04"), "does not fit"),
    "one polynomial": (changed(BODY + 33, b"\x01"), "does not fit"),
    "ring dimension": (changed(BODY + 41, struct.pack("<Q", 8192)), "does not fit"),
    "key level": (changed(BODY + 49, b"\x03"), "does not fit"),
    "no prime": (changed(BODY + 49, b"\x00"), "does not fit"),
    "scale": (changed(BODY + 57, struct.pack("<d", float("nan"))), "scale"),
    "array magic": (changed(BODY + 73, b"\0"), "damaged"),
    "array count": (changed(BODY + 89, b"\xff"), "a SEAL array of"),
    "residue": (changed(BODY + 97, struct.pack("<Q", PRIMES[0])), "not below its prime"),
    "no zlib": (wrapped(SAVED[BODY:], 1), "no zlib stream"),
    "cut zlib": (wrapped(zlib.compress(SAVED[BODY:])[:-9], 1), "ends early"),
    "zlib bomb": (wrapped(zlib.compress(bytes(1 << 24)), 1), "takes more than"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_ciphertexts_are_refused(name: str) -> None:
    data, message = DAMAGES[name]
    with pytest.raises(CiphertextError, match=message):
        BRIDGE.read_ciphertext(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 16}, "16 slots"),
        ({"residues": ciphertext().residues[:1]}, "1 polynomials"),
        ({"residues": ciphertext().residues[:, ::-1].copy() % PRIMES[1], "primes": PRIMES[1::-1]}, "do not fit"),
    ],
)
def test_what_seal_cannot_hold_is_not_written(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CiphertextError, match=message):
        BRIDGE.write_ciphertext(ciphertext(**change))


def test_objects_of_another_kind_are_refused() -> None:
    secret = BRIDGE.write_secret_key(np.zeros(N, np.int64))
    for read, data in (
        (BRIDGE.read_public_key, SAVED),
        (BRIDGE.read_secret_key, SAVED),
        (BRIDGE.read_ciphertext, secret),
        (BRIDGE.read_public_key, secret),
    ):
        with pytest.raises(CiphertextError):
            read(data)


@pytest.mark.parametrize(
    "secret", [np.zeros(N - 1, np.int64), np.full(N, 1 << 40), np.zeros(N), np.zeros((2, N), np.int64)]
)
def test_what_is_no_secret_key_is_not_written(secret: np.ndarray) -> None:
    with pytest.raises(CiphertextError, match="small coefficients"):
        BRIDGE.write_secret_key(secret)


def test_a_secret_whose_residues_are_of_no_small_polynomial_is_refused() -> None:
    data = bytearray(BRIDGE.write_secret_key(np.ones(N, np.int64)))
    data[-8:] = struct.pack("<Q", 12345)
    with pytest.raises(CiphertextError, match="small coefficients"):
        BRIDGE.read_secret_key(bytes(data))

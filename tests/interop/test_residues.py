"""Ciphertexts and keys as arrays: what is refused, and sums."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from pppml_fast.errors import CiphertextError
from pppml_fast.interop.residues import PublicResidues, ResidueCiphertext

PRIMES = (1125899906826241, 1152921504606830593)


def ciphertext(seed: int = 1, **changes: Any) -> ResidueCiphertext:
    generator = np.random.default_rng(seed)
    rows = [[generator.integers(0, q, 64, dtype=np.uint64) for q in PRIMES] for _ in range(2)]
    values: dict[str, Any] = {"residues": np.array(rows), "primes": PRIMES, "scale": 2.0**40, "slots": 32, **changes}
    return ResidueCiphertext(**values)


def test_sums_are_residue_by_residue() -> None:
    left, right = ciphertext(1), ciphertext(2)
    total = left + right
    for index, q in enumerate(PRIMES):
        for p in range(2):
            pairs = zip(left.residues[p, index], right.residues[p, index], strict=True)
            assert [int(v) for v in total.residues[p, index]] == [(int(x) + int(y)) % q for x, y in pairs]
    assert (total.scale, total.primes, total.slots) == (2.0**40, PRIMES, 32)


@pytest.mark.parametrize(
    "change",
    [{"scale": 2.0**41}, {"slots": 16}, {"level": 1}, {"degree": 2}, {"key_tag": "another"}],
    ids=lambda change: next(iter(change)),
)
def test_only_ciphertexts_of_one_kind_are_added(change: dict[str, Any]) -> None:
    with pytest.raises(CiphertextError, match=next(iter(change))):
        ciphertext() + dataclasses.replace(ciphertext(), **change)


def test_sums_of_different_sizes_are_refused() -> None:
    with pytest.raises(CiphertextError, match="shapes"):
        ciphertext() + dataclasses.replace(ciphertext(), residues=ciphertext().residues[:1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residues": np.zeros((2, 64), np.uint64)}, "shape"),
        ({"residues": np.zeros((4, 2, 64), np.uint64)}, "shape"),
        ({"residues": np.zeros((0, 2, 64), np.uint64)}, "shape"),
        ({"residues": np.zeros((2, 2, 64), np.int64)}, "int64"),
        ({"residues": np.zeros((2, 1, 64), np.uint64)}, "1 rows of residues for 2 primes"),
        ({"residues": np.zeros((2, 2, 63), np.uint64)}, "power of two"),
        ({"residues": np.zeros((2, 2, 8), np.uint64)}, "power of two"),
        ({"slots": 64}, "64 slots"),
        ({"slots": 12}, "12 slots"),
        ({"slots": 0}, "0 slots"),
        ({"scale": 0.0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": float("inf")}, "scale"),
        ({"level": -1}, "level"),
        ({"degree": 0}, "degree"),
    ],
)
def test_what_is_no_ciphertext_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CiphertextError, match=message):
        ciphertext(**changes)


def test_residues_lie_below_their_primes() -> None:
    for index, q in enumerate(PRIMES):
        residues = ciphertext().residues.copy()
        residues[1, index, 63] = q - 1
        assert ciphertext(residues=residues).ring_dimension == 64
        residues[1, index, 63] = q
        with pytest.raises(CiphertextError, match=f"{q} is not below"):
            ciphertext(residues=residues)


def test_public_keys_are_two_polynomials_of_one_ring() -> None:
    b, a = ciphertext().residues
    assert PublicResidues(b, a, PRIMES).primes == PRIMES
    for wrong in (b[:1], b[:, :32], b.astype(np.int64), b[0], np.full_like(b, PRIMES[1])):
        with pytest.raises(CiphertextError):
            PublicResidues(wrong, a, PRIMES)

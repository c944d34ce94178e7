"""Shared by the tests of the core's public face: vectors, and parties of any key mode behind one small interface."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

import pppml_fast as pf

SETS = ["p31", "p50", "p62", "compact"]
MODES = ["public", "secret", "collective"]
CONTEXT = hashlib.sha256(b"session, round, attempt").digest()


def vector(length: int, seed: int = 0) -> np.ndarray:
    """Weights of which about a hundredth lies beyond a clip of 1."""
    return np.random.default_rng(seed).normal(0, 0.4, length).astype(np.float32)


class Parties:
    """``count`` parties that encrypt under one parameter set, and what opens their sum."""

    def __init__(self, params: pf.CkksParams, count: int) -> None:
        self.params, self.count = params, count
        if params.keys == "collective":
            self.keys = [pf.CollectiveKey.generate(params) for _ in range(count)]
            self.opener: Any = pf.CollectiveKey.sum(self.keys)
        else:
            self.pair = pf.keygen(params)
            self.opener = self.pair.secret

    def encrypt(self, party: int, x: Any, **options: Any) -> pf.Ciphertext:
        """Party ``party``'s ciphertext; in collective mode its one and only."""
        if self.params.keys == "collective":
            return self.keys[party].encrypt(x, context=CONTEXT, **options)
        return (self.pair.public or self.pair.secret).encrypt(x, **options)

    def total(self, vectors: Sequence[Any]) -> pf.Ciphertext:
        """The sum of one ciphertext per vector."""
        return pf.add([self.encrypt(party, x) for party, x in enumerate(vectors)])


def fresh_parties(
    name: str, keys: Any, count: int = 3, weights: Any = "free", clip: float = 1.0, values: int | None = None
) -> Parties:
    """``count`` parties under a preset for exactly as many."""
    return Parties(
        pf.CkksParams.preset(name, parties=count, clip=clip, keys=keys, weights=weights, values_per_coefficient=values),
        count,
    )


def is_prime(number: int) -> bool:
    """Miller and Rabin's test with 24 fixed bases."""
    if number % 2 == 0:
        return number == 2
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    bases = random.Random(1)
    for _ in range(24):
        power = pow(bases.randrange(2, number - 1), odd, number)
        if power in (1, number - 1):
            continue
        if not any((power := power * power % number) == number - 1 for _ in range(twos - 1)):
            return False
    return True


def ntt_prime(bits: int, ring_dimension: int) -> int:
    """The largest prime below 2^bits that is 1 modulo 2N."""
    order = 2 * ring_dimension
    candidate = (2**bits - 1) // order * order + 1
    while candidate >= 2**bits or not is_prime(candidate):
        candidate -= order
    return candidate

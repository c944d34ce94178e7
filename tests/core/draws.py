"""Where the statistical tests draw: the exact laws, every backend's streams under keys of its own, and rows of them."""

from __future__ import annotations

import hashlib

import numpy as np
import oracle
from bounds import Law

import pppml_fast as pf
from pppml_fast import _native

primitives = _native.primitives
BACKENDS = _native.supported_backends()
STREAMS = [(backend, cipher) for backend in BACKENDS for cipher in ("chacha20", "aes256")]
ROW = 4096
LAGS = [2**i for i in range(12)]


def gaussian_law(table: str) -> Law:
    """The exact probabilities, from the oracle's cumulative numbers."""
    variance, largest = oracle.GAUSSIANS[table]
    cuts = [0, *oracle.gaussian_cuts(variance, largest), 2**95]
    sizes = [(cuts[i + 1] - cuts[i]) / 2**95 for i in range(largest + 1)]
    return Law(np.array([p / 2 for p in sizes[:0:-1]] + [sizes[0]] + [p / 2 for p in sizes[1:]]))


GAUSSIAN = {table: gaussian_law(table) for table in oracle.GAUSSIANS}
# The sampler's floor(3 w / 2^32) - 1 is off by less than 2^-32, which no number of draws here can show.
TERNARY = Law(np.full(3, 1 / 3))
# Residues by seventeenths of [0, q), centred.
SEVENTEENTHS = Law(np.full(17, 1 / 17))


def key_of(*names: object) -> bytes:
    return hashlib.sha256(" ".join(map(str, ("statistics", *names))).encode()).digest()


def draws_of(backend: str, full: int) -> int:
    """`scalar` takes up to 0.2 us per draw: fewer of them."""
    return full // 4 if backend == "scalar" else full


def gaussian_rows(
    table: str, backend: str, cipher: str, rows: int, key: bytes = b"", lane: int = 0, first: int = 0
) -> np.ndarray:
    """Blocks first .. first + rows of one lane, ROW draws each."""
    key = key or key_of(backend, cipher, table)
    blocks = [primitives.gaussian(table, key, lane, first + b, ROW, backend, cipher) for b in range(rows)]
    return np.stack(blocks)


def public_rows(scheme: _native.Scheme, params: pf.CkksParams, blocks: int, key: bytes) -> np.ndarray:
    """Uniform residues as (blocks, primes, N): a mask put on zeros is the expansion of its seed."""
    length = blocks * params.block_weights
    words = np.zeros(scheme.words(length, False), np.uint32 if scheme.word_bytes == 4 else np.uint64)
    masked = scheme.mask(length, key, False, words)
    return masked.reshape(blocks, len(params.primes), params.ring_dimension).astype(np.uint64)


def centred(residues: np.ndarray, q: int) -> np.ndarray:
    """Residues as the integers nearest to zero."""
    return np.asarray((residues + q // 2) % q - q // 2)

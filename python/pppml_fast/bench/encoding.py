"""Weights to slots and back, beside the encoder that TenSEAL uses: `python -m pppml_fast.bench.encoding`.

Ours gives integer coefficients, in which form sums are encrypted. SEAL's encoder, called through TenSEAL's own binding,
also brings them to NTT form, once per prime of its setting: the table says how many.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from pppml_fast import CkksParams, _native, set_num_threads
from pppml_fast.errors import ConfigError

__all__ = ["main"]

RING_DIMENSION = 8192
BLOCKS = 4  # so few that a measurement is seldom interrupted
# The largest prime below 2^59 that is 1 modulo 16384.
PRIME = 576460752303210497
SETTINGS = ([31, 26, 26, 26, 26, 26, 26, 31], [60, 40, 40, 60], [60, 60])


def main() -> None:
    """Print nanoseconds per weight of both sides, medians and least, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=300)
    repetitions = parser.parse_args().repetitions
    set_num_threads(1)
    peers = _peer_rows(repetitions)
    print(f"N = {RING_DIMENSION}, one thread, TenSEAL {version('tenseal')}")
    print(f"ns per weight: median (least) of {repetitions}; each peer's median over ours, in the peers' order")
    for name, (median, least) in peers.items():
        print(f"  {name:<52} {median:8.2f} ({least:.2f})")
    for backend in _native.supported_backends():
        for packing in ("slots", "real_slots"):
            for operation, (median, least) in _our_rows(backend, packing, repetitions).items():
                ratios = ", ".join(f"{row[0] / median:.1f}" for row in peers.values()) if operation == "encode" else ""
                print(f"  {backend + ' ' + packing + ' ' + operation:<52} {median:8.2f} ({least:.2f})  {ratios}")


def _our_rows(backend: str, packing: Any, repetitions: int) -> dict[str, tuple[float, float]]:
    params = CkksParams("bench", RING_DIMENSION, (PRIME,), 4, 1.0, "public", packing=packing)
    scheme = _native.Scheme(params._checked, backend, "")
    weights = np.random.default_rng(2024).normal(0, 0.05, BLOCKS * params.block_weights)
    integers = np.empty(params.integer_count(weights.size), np.int64)
    opened = np.empty_like(weights)

    def encode() -> None:
        scheme.quantize([weights], 1.0, reference=[], rounding=None, out=integers)

    def decode() -> None:
        scheme.restore_slots(integers, opened)

    rows = {name: _timed(run, weights.size, repetitions) for name, run in (("encode", encode), ("decode", decode))}
    worst = float(np.abs(opened - weights).max())
    if params.max_error is None or worst > params.max_error:
        raise AssertionError(f"{backend} {packing}: an error of {worst} exceeds {params.max_error}")
    return rows


def _peer_rows(repetitions: int) -> dict[str, tuple[float, float]]:
    try:
        from tenseal import sealapi
    except ImportError:
        raise ConfigError("TenSEAL is not installed; install it with: pip install 'pppml-fast[bench]'") from None
    values = np.random.default_rng(2024).normal(0, 0.05, RING_DIMENSION // 2).tolist()
    rows = {}
    for bits in SETTINGS:
        parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(RING_DIMENSION)
        parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(RING_DIMENSION, bits))
        encoder = sealapi.CKKSEncoder(sealapi.SEALContext(parameters, True, sealapi.SEC_LEVEL_TYPE.NONE))
        plain = sealapi.Plaintext()
        name = f"TenSEAL's encoder, {bits}, {len(bits) - 1} NTTs"
        encode = functools.partial(encoder.encode, values, 2.0**26, plain)
        rows[name] = _timed(encode, len(values), repetitions)
    return rows


def _timed(run: Callable[[], object], weights: int, repetitions: int) -> tuple[float, float]:
    run()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) / weights * 1e9)
    return statistics.median(times), min(times)


if __name__ == "__main__":
    main()

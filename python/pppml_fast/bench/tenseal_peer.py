"""TenSEAL as a peer: the setting of the published code, and the setting that is best for sums."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from typing import Any

import numpy as np

from pppml_fast.bench.timing import Case
from pppml_fast.errors import ConfigError

__all__ = ["TensealPeer"]


@dataclass(frozen=True)
class Setting:
    """Parameters of one comparison; ``error`` is what a sum of two may be off by."""

    name: str
    coefficient_bits: tuple[int, ...]
    log2_scale: int
    tensor_weights: int
    error: float


RING_DIMENSION = 8192
SETTINGS = (
    # The published code encrypts tensors of this size; the last ciphertext of each is part empty.
    Setting("published N=8192 [31,26x6,31] 2^26", (31, 26, 26, 26, 26, 26, 26, 31), 26, 62_500, 2e-3),
    Setting("best N=8192 [60,60] 2^40", (60, 60), 40, 62_500, 1e-6),
)


class TensealPeer:
    """TenSEAL's vectors under a public key, ``weights`` values N(0, 0.05^2) in tensors of 62,500."""

    def __init__(self, weights: int, threads: int) -> None:
        try:
            import tenseal
        except ImportError:
            raise ConfigError(
                "the peer tenseal is not installed; install it with: pip install 'pppml-fast[bench]'"
            ) from None
        self._tenseal: Any = tenseal
        self.version = version("tenseal")
        self._weights, self._threads = weights, threads
        self._values = np.random.default_rng(2024).normal(0, 0.05, weights)

    def close(self) -> None:
        """Nothing to release."""

    def cases(self) -> list[Case]:
        """encrypt, pack, unpack, add2 and open in both settings."""
        return list(chain.from_iterable(self._cases(setting) for setting in SETTINGS))

    def _cases(self, setting: Setting) -> list[Case]:
        tenseal = self._tenseal
        context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS,
            poly_modulus_degree=RING_DIMENSION,
            coeff_mod_bit_sizes=list(setting.coefficient_bits),
            n_threads=self._threads,
        )
        context.global_scale = 2**setting.log2_scale
        starts = range(0, self._weights, setting.tensor_weights)
        plain = [tenseal.plain_tensor(self._values[start : start + setting.tensor_weights]) for start in starts]

        def encrypt(_: object) -> list[Any]:
            with quiet():
                return [tenseal.ckks_vector(context, tensor) for tensor in plain]

        def add(_: object) -> list[Any]:
            return [left + right for left, right in zip(encrypted, encrypted, strict=True)]

        def open_sum(_: object) -> list[list[float]]:
            return [vector.decrypt() for vector in doubled]

        def within(parts: Sequence[list[float]], factor: int) -> float:
            error = float(np.abs(np.concatenate(parts) - factor * self._values).max())
            assert error <= setting.error, f"tenseal {setting.name} is off by {error:.2g}, beyond {setting.error:g}"
            return error

        def opened_within(vectors: list[Any], factor: int) -> float:
            with quiet():
                return within([vector.decrypt() for vector in vectors], factor)

        def unpack(_: object) -> list[Any]:
            # Parsing is lazy: asking for the ciphertexts does it.
            with quiet():
                vectors = [tenseal.ckks_vector_from(context, data) for data in packed]
                for vector in vectors:
                    vector.ciphertext()
                return vectors

        encrypted = encrypt(None)
        doubled = add(None)
        packed = [vector.serialize() for vector in encrypted]
        sent = sum(map(len, packed)) / self._weights

        def case(operation: str, run: Any, check: Any, note: str = "") -> Case:
            return Case(
                system="tenseal",
                setting=setting.name,
                operation=operation,
                backend="seal",
                threads=self._threads,
                weights=self._weights,
                bytes_per_weight=None if operation in ("add2", "open") else sent,
                run=run,
                check=check,
                note=note,
            )

        return [
            case("encrypt", encrypt, lambda made: opened_within(made, 1), "encode + encrypt; serialising is pack"),
            case(
                "pack",
                lambda _: [v.serialize() for v in encrypted],
                lambda made: abs(sum(map(len, made)) / self._weights - sent),
            ),
            case("unpack", unpack, lambda made: opened_within(made, 1)),
            case("add2", add, lambda made: opened_within(made, 2)),
            case("open", open_sum, lambda parts: within(parts, 2), "decrypt + decode; parsing is unpack"),
        ]


@contextmanager
def quiet() -> Iterator[None]:
    """TenSEAL's C++ warns on stdout about every long vector: that is dropped, so that our output stays ours."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)

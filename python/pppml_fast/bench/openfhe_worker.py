"""OpenFHE's side of the comparison: a script for a Python that has `openfhe`, driven by lines of JSON.

    worker.py WEIGHTS    then one line per request: {"operation": "encrypt"}

It answers each with {"seconds": ..., "max_error": ...}, and begins with {"version": ..., "bytes_per_weight": ...}.
It imports nothing but the standard library and openfhe, so that any environment with the wheel will do.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import openfhe

RING_DIMENSION, SLOTS = 8192, 4096


class Workbench:
    """A context at depth 0 with a 60-bit and a 50-bit modulus: OpenFHE's best for sums, with its best serialiser."""

    def __init__(self, weights: int) -> None:
        parameters = openfhe.CCParamsCKKSRNS()
        parameters.SetMultiplicativeDepth(0)
        parameters.SetScalingModSize(50)
        parameters.SetFirstModSize(60)
        parameters.SetScalingTechnique(openfhe.ScalingTechnique.FIXEDMANUAL)
        parameters.SetRingDim(RING_DIMENSION)
        parameters.SetBatchSize(SLOTS)
        parameters.SetSecurityLevel(openfhe.SecurityLevel.HEStd_128_classic)
        self.context = openfhe.GenCryptoContext(parameters)
        self.context.Enable(openfhe.PKESchemeFeature.PKE)
        self.context.Enable(openfhe.PKESchemeFeature.LEVELEDSHE)
        self.keys = self.context.KeyGen()
        source = random.Random(2024)
        self.values = [source.gauss(0, 0.05) for _ in range(weights)]
        self.pieces = [self.values[start : start + SLOTS] for start in range(0, weights, SLOTS)]
        self.encrypted = self.encrypt()
        self.doubled = self.add2()
        self.packed = self.pack()

    def encrypt(self) -> list[Any]:
        encode, encrypt, key = self.context.MakeCKKSPackedPlaintext, self.context.Encrypt, self.keys.publicKey
        return [encrypt(key, encode(piece)) for piece in self.pieces]

    def add2(self) -> list[Any]:
        return [self.context.EvalAdd(left, left) for left in self.encrypted]

    def pack(self) -> list[bytes]:
        return [openfhe.Serialize(ciphertext, openfhe.BINARY) for ciphertext in self.encrypted]

    def unpack(self) -> list[Any]:
        return [openfhe.DeserializeCiphertextString(data, openfhe.BINARY) for data in self.packed]

    def open(self) -> list[float]:
        return self.opened(self.doubled)

    def opened(self, ciphertexts: list[Any]) -> list[float]:
        values: list[float] = []
        for ciphertext, piece in zip(ciphertexts, self.pieces, strict=True):
            plain = self.context.Decrypt(self.keys.secretKey, ciphertext)
            plain.SetLength(len(piece))
            values.extend(plain.GetRealPackedValue())
        return values

    def error(self, operation: str, result: Any) -> float:
        """The largest error of an answer; for packed bytes the difference of their sizes."""
        if operation == "pack":
            return float(abs(sum(map(len, result)) - sum(map(len, self.packed))))
        values = result if operation == "open" else self.opened(result)
        factor = 2 if operation in ("add2", "open") else 1
        return max(abs(value - factor * wanted) for value, wanted in zip(values, self.values, strict=True))


def main() -> None:
    """Answer requests until the input ends."""
    bench = Workbench(int(sys.argv[1]))
    sent = sum(map(len, bench.packed)) / len(bench.values)
    answer({"version": version("openfhe"), "bytes_per_weight": sent})
    operations: dict[str, Callable[[], Any]] = {
        name: getattr(bench, name) for name in ("encrypt", "add2", "pack", "unpack", "open")
    }
    for line in sys.stdin:
        operation = json.loads(line)["operation"]
        start = time.perf_counter()
        result = operations[operation]()
        seconds = time.perf_counter() - start
        answer({"seconds": seconds, "max_error": bench.error(operation, result)})


def answer(values: dict[str, Any]) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

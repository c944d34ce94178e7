"""Encrypt and add here, decrypt there, against OpenFHE alone: medians of one run, and their ratios.

    OMP_NUM_THREADS=1 python -m pppml_fast.interop.openfhe.bench [WEIGHTS [REPETITIONS]]

Both sides use as many threads as OMP_NUM_THREADS says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import openfhe

from pppml_fast import add, get_num_threads
from pppml_fast.bench.machine import describe_machine
from pppml_fast.bench.rows import Row
from pppml_fast.bench.timing import Case, measure
from pppml_fast.interop.openfhe import OpenfheBridge, OpenfheExchange

__all__ = ["Comparison", "main"]

PARTIES = 4
ALONE, HERE = "OpenFHE alone", "here, then there"
SUM_QUICK = f"sum of {PARTIES}, skip_tables"


class Comparison:
    """One context, and the same vectors of ``PARTIES`` parties on both ways to their sum."""

    def __init__(self, ring_dimension: int, first: int, scaling: int, weights: int) -> None:
        self.setting = f"N={ring_dimension}, {first}/{scaling} bits"
        self.weights = weights
        self.context = _context(ring_dimension, first, scaling)
        self.keys = self.context.KeyGen()
        self.exchange, self.quick = (
            OpenfheExchange(OpenfheBridge(self.context, skip_tables=skip), self.keys.publicKey, parties=PARTIES, clip=1)
            for skip in (False, True)
        )
        generator = np.random.default_rng(2024)
        self.vectors = [np.clip(generator.normal(0, 0.05, weights), -1, 1) for _ in range(PARTIES)]
        self.sums = [np.add.reduce(self.vectors[:terms]) for terms in range(1, PARTIES + 1)]

    def cases(self) -> list[Case]:
        """Each operation alone, and the whole sum of ``PARTIES`` vectors."""
        ours = [self.exchange.public_key.encrypt(vector) for vector in self.vectors[:2]]
        theirs = [self.encrypt_there(vector) for vector in self.vectors[:2]]
        total, sent, added = add(ours), self.exchange.send(add(ours)), self.add_there(theirs)
        return [
            self._case(ALONE, "encrypt", lambda: self.encrypt_there(self.vectors[0]), self._there(1)),
            self._case(HERE, "encrypt", lambda: self.exchange.public_key.encrypt(self.vectors[0]), self._sent(1)),
            self._case(ALONE, "add two", lambda: self.add_there(theirs), self._there(2)),
            self._case(HERE, "add two", lambda: add(ours), self._sent(2)),
            self._case(HERE, "send", lambda: self.exchange.send(total), self._there(2)),
            self._case(HERE, "send, skip_tables", lambda: self.quick.send(total), self._there(2)),
            self._case(ALONE, "decrypt", lambda: self.decrypt_there(added), self._error(2)),
            self._case(HERE, "decrypt", lambda: self.decrypt_there(sent), self._error(2)),
            self._case(ALONE, f"sum of {PARTIES}", self.sum_there, self._error(PARTIES)),
            self._case(HERE, f"sum of {PARTIES}", lambda: self.sum_here(self.exchange), self._error(PARTIES)),
            self._case(ALONE, SUM_QUICK, self.sum_there, self._error(PARTIES)),
            self._case(HERE, SUM_QUICK, lambda: self.sum_here(self.quick), self._error(PARTIES)),
        ]

    # --- OpenFHE alone -------------------------------------------------------------------------------------------

    def encrypt_there(self, vector: np.ndarray) -> list[Any]:
        encode, encrypt, key = self.context.MakeCKKSPackedPlaintext, self.context.Encrypt, self.keys.publicKey
        slots = self.exchange.params.block_weights
        return [encrypt(key, encode(vector[start : start + slots])) for start in range(0, len(vector), slots)]

    def add_there(self, ciphertexts: Sequence[list[Any]]) -> list[Any]:
        total = list(ciphertexts[0])
        for other in ciphertexts[1:]:
            total = [self.context.EvalAdd(left, right) for left, right in zip(total, other, strict=True)]
        return total

    def decrypt_there(self, ciphertexts: list[Any]) -> np.ndarray:
        opened = [self.context.Decrypt(self.keys.secretKey, one).GetRealPackedValueArray() for one in ciphertexts]
        return np.concatenate(opened)[: self.weights]

    def sum_there(self) -> np.ndarray:
        return self.decrypt_there(self.add_there([self.encrypt_there(vector) for vector in self.vectors]))

    # --- here, then there ----------------------------------------------------------------------------------------

    def sum_here(self, exchange: OpenfheExchange) -> np.ndarray:
        total = add([exchange.public_key.encrypt(vector) for vector in self.vectors])
        return self.decrypt_there(exchange.send(total))

    # --- checks --------------------------------------------------------------------------------------------------

    def _error(self, terms: int) -> Callable[[Any], float]:
        def check(opened: np.ndarray) -> float:
            error = float(np.abs(opened - self.sums[terms - 1]).max())
            limit = self.exchange.params.max_error
            assert limit is not None and error <= limit, f"off by {error:.2g}; stated is {limit:.2g}"
            return error

        return check

    def _there(self, terms: int) -> Callable[[Any], float]:
        return lambda ciphertexts: self._error(terms)(self.decrypt_there(ciphertexts))

    def _sent(self, terms: int) -> Callable[[Any], float]:
        return lambda ciphertext: self._there(terms)(self.exchange.send(ciphertext))

    def _case(self, system: str, operation: str, run: Callable[[], Any], check: Callable[[Any], float]) -> Case:
        return Case(
            system=system,
            setting=self.setting,
            operation=operation,
            backend="",
            threads=get_num_threads(),
            weights=self.weights,
            bytes_per_weight=None,
            run=lambda _: run(),
            check=check,
        )


def _context(ring_dimension: int, first: int, scaling: int) -> Any:
    parameters = openfhe.CCParamsCKKSRNS()
    parameters.SetMultiplicativeDepth(0)
    parameters.SetRingDim(ring_dimension)
    parameters.SetFirstModSize(first)
    parameters.SetScalingModSize(scaling)
    parameters.SetScalingTechnique(openfhe.FIXEDMANUAL)
    # OpenFHE counts a key-switching prime that sums never use; `CkksParams` checks the ring that is used.
    parameters.SetSecurityLevel(openfhe.HEStd_NotSet)
    context = openfhe.GenCryptoContext(parameters)
    for feature in (openfhe.PKE, openfhe.KEYSWITCH, openfhe.LEVELEDSHE):
        context.Enable(feature)
    return context


def table(rows: Sequence[Row]) -> str:
    """Rows side by side: OpenFHE alone, here and there, and how many times faster the latter is."""
    medians = {(row.setting, row.operation, row.system): row for row in rows}
    lines = [
        "| setting | operation | OpenFHE alone, ns per weight | here, then there | times faster | largest error |",
        "|---|---|---|---|---|---|",
    ]
    for setting, operation in dict.fromkeys((row.setting, row.operation) for row in rows):
        alone = medians.get((setting, operation, ALONE))
        here = medians[(setting, operation, HERE)]
        before, ratio = (
            (f"{alone.ns_per_weight:.1f}", f"{alone.ns_per_weight / here.ns_per_weight:.1f}") if alone else ("", "")
        )
        lines.append(
            f"| {setting} | {operation} | {before} | {here.ns_per_weight:.1f} | {ratio} | {here.max_error:.1e} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure both settings and print the table."""
    weights, repetitions = (int(value) for value in (*sys.argv[1:], *("262144", "9")[len(sys.argv) - 1 :]))
    comparisons = [Comparison(4096, 50, 40, weights), Comparison(8192, 60, 50, weights)]
    rows = measure([case for comparison in comparisons for case in comparison.cases()], repetitions)
    machine = describe_machine()
    print(
        f"{machine['cpu']}, {get_num_threads()} thread(s), openfhe {version('openfhe')}, {machine['date']}; "
        f"medians of {repetitions}, {weights:,} weights\n"
    )
    print(table(rows))


if __name__ == "__main__":
    main()

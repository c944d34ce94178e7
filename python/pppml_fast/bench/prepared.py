"""Encryption from pads that were made ahead, as a case: what is left is bound by memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import pppml_fast as pf
from pppml_fast import memory
from pppml_fast.bench.rows import OURS
from pppml_fast.bench.timing import Case

if TYPE_CHECKING:
    from pppml_fast.bench.ours import Workbench

__all__ = ["prepared_cases"]


class _Prepared:
    """float32 weights and pads in memory to packed bytes."""

    def __init__(self, bench: Workbench, context: bytes) -> None:
        self.bench, self.context, self.quantised = bench, context, bench.quantised
        scheme = bench.params._scheme
        self.pad_bytes = int(scheme.words(bench.size, True)) * int(scheme.word_bytes)
        self.out = memory.zeros(pf.Ciphertext.wire_size(bench.params, bench.size), np.uint8).data

    @property
    def moved_bytes(self) -> int:
        """Weights and pads read, packed bytes written."""
        return int(self.bench.weights[0].nbytes) + self.pad_bytes + len(self.out)

    def prepare(self) -> pf.CollectiveKey:
        """A key whose pads are all there."""
        key = pf.CollectiveKey.generate(self.bench.params)
        # Room for a full last block.
        room = self.pad_bytes + self.bench.params.ring_dimension * 16
        key.prepare(self.context, self.bench.size, limit_bytes=room, background=False)
        assert key.prepared_fraction == 1, "not all pads were made"
        return key

    def run(self, key: pf.CollectiveKey) -> pf.CollectiveKey:
        key.encrypt_bytes(self.bench.weights[0], self.context, out=self.out)
        return key

    def check(self, key: pf.CollectiveKey) -> float:
        """The packed bytes open to the quantised weights."""
        opened = pf.CollectiveKey.sum([key]).decrypt_bytes(self.out, integers=True)
        return self.bench.check_opened(opened, self.quantised[0])


def prepared_cases(bench: Workbench, context: bytes, threads: int) -> list[Case]:
    """The case encrypt_prepared, where keys are collective."""
    if bench.params.keys != "collective":
        return []
    work = _Prepared(bench, context)
    return [
        Case(
            OURS,
            bench.setting,
            "encrypt_prepared",
            bench.backend,
            threads,
            bench.size,
            len(work.out) / bench.size,
            work.run,
            work.check,
            prepare=work.prepare,
            moved_bytes_per_weight=work.moved_bytes / bench.size,
            note="float32 and pads in memory to packed bytes; zeroising the used pads is not among the bytes moved",
        )
    ]

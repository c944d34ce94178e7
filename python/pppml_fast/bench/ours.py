"""Our own operations as cases: from weights in memory to packed bytes on the wire, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

import pppml_fast as pf
from pppml_fast import memory
from pppml_fast.bench.prepared import prepared_cases
from pppml_fast.bench.rows import OURS
from pppml_fast.bench.timing import Case
from pppml_fast.cipher.wire import HEADER_BYTES
from pppml_fast.errors import ConfigError
from pppml_fast.params import KeyMode

__all__ = ["DEFAULT_SETTINGS", "PARTIES", "Workbench", "needed_memory", "our_cases", "parse_setting"]

PARTIES = 16
CLIP = 0.25
CONTEXT = bytes(range(32))
DEFAULT_SETTINGS = ("p31/collective", "p31/public", "p50/collective", "compact/collective", "p62x3/collective")

_FLOAT_BYTES = 4


def parse_setting(setting: str) -> pf.CkksParams:
    """The parameters of ``"p31/collective"``, or of ``"p62x3/collective"`` with three values per coefficient.

    Raises ConfigError for a setting that does not exist.
    """
    chosen, _, keys = setting.partition("/")
    name, times, values = chosen.partition("x")
    if name not in pf.PRESETS or keys not in get_args(KeyMode) or (times and values not in ("1", "2", "3")):
        raise ConfigError(
            f"no setting {setting!r}; write SET/KEYS with SET one of {', '.join(pf.PRESETS)} and KEYS one of "
            f"{', '.join(get_args(KeyMode))}, such as p31/collective; SETx3 packs three values per coefficient"
        )
    packed = int(values) if times else None
    return pf.CkksParams.preset(
        name, parties=PARTIES, clip=CLIP, keys=cast(KeyMode, keys), values_per_coefficient=packed
    )


def needed_memory(setting: str, size: int) -> int:
    """About how many bytes :func:`our_cases` keep for ``size`` weights of ``setting``."""
    params = parse_setting(setting)
    scheme, polynomials = params._scheme, 1 if params.keys == "collective" else 2
    held = int(scheme.words(size, True)) * int(scheme.word_bytes) * polynomials
    # The ciphertexts, their sum, the pads and what unpacking fills; packed bytes; weights, integers, what is opened.
    return (PARTIES + 3) * held + 5 * pf.Ciphertext.wire_size(params, size) + 40 * size


@dataclass(frozen=True)
class _Encryptor:
    """A key about to encrypt, and the key that opens what it encrypted, alone."""

    encrypt: Callable[..., memoryview]
    opener: Callable[[], Any]


class Workbench:
    """Keys, weights and ciphertexts of one setting: 16 parties with two different vectors in turn.

    Public so that the suite in ``benchmarks/`` times the same operations on the same data.
    """

    def __init__(self, setting: str, size: int) -> None:
        self.setting, self.size = setting, size
        self.params = parse_setting(setting)
        self.backend = str(self.params._scheme.backend)
        # In huge pages like all that is written, and like the memory loops' own words.
        self.weights = (memory.empty(size, np.float32), memory.empty(size, np.float32))
        self.weights[0][:] = np.random.default_rng(2024).normal(0, 0.05, size)
        self.weights[1][:] = self.weights[0][::-1]
        self._pair = None if self.params.keys == "collective" else pf.keygen(self.params)

    # --- keys and data --------------------------------------------------------------------------------------

    def encryptor(self) -> _Encryptor:
        """A key for one encryption to bytes: a fresh one where keys serve once."""
        if self._pair is None:
            key = pf.CollectiveKey.generate(self.params)
            return _Encryptor(
                lambda x, out=None: key.encrypt_bytes(x, CONTEXT, out=out), lambda: pf.CollectiveKey.sum([key])
            )
        secret = self._pair.secret
        return _Encryptor((self._pair.public or secret).encrypt_bytes, lambda: secret)

    def opener(self, terms: int) -> Any:
        """The key that opens the sum of the first ``terms`` ciphertexts."""
        return self._pair.secret if self._pair else pf.CollectiveKey.sum(self._parties[0][:terms])

    @cached_property
    def _parties(self) -> tuple[list[pf.CollectiveKey], list[pf.Ciphertext]]:
        keys, ciphertexts = [], []
        for index in range(PARTIES):
            if self._pair is None:
                keys.append(pf.CollectiveKey.generate(self.params))
                ciphertexts.append(keys[-1].encrypt(self.weights[index % 2], CONTEXT))
            else:
                ciphertexts.append((self._pair.public or self._pair.secret).encrypt(self.weights[index % 2]).expanded())
        return keys, ciphertexts

    @property
    def ciphertexts(self) -> list[pf.Ciphertext]:
        """One fresh ciphertext of every party."""
        return self._parties[1]

    @cached_property
    def quantised(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What the two vectors are rounded to."""
        return pf.quantize(self.params, self.weights[0]), pf.quantize(self.params, self.weights[1])

    def expected(self, terms: int) -> NDArray[np.int64]:
        """The exact sum of the first ``terms`` parties."""
        return (terms + 1) // 2 * self.quantised[0] + terms // 2 * self.quantised[1]

    @cached_property
    def fresh_wire(self) -> memoryview:
        """Where the bytes of an encryption go."""
        return memory.zeros(pf.Ciphertext.wire_size(self.params, self.size), np.uint8).data

    @cached_property
    def sum_target(self) -> pf.Ciphertext:
        """A ciphertext of the sums' kind that sums are written into."""
        return pf.Ciphertext.empty_like(self.ciphertexts[0], 1)

    @cached_property
    def passed_payload(self) -> memoryview:
        """Where the packed bytes of a sum go."""
        return _room_for(self.ciphertexts[0])

    @cached_property
    def sum_wire(self) -> memoryview:
        """The bytes of the sum of all parties, as they arrive at the opener."""
        total = pf.add(self.ciphertexts)
        return total.to_bytes(out=memory.empty(total.nbytes, np.uint8).data)

    @property
    def sum_payload(self) -> memoryview:
        """Its packed residues."""
        return self.sum_wire[HEADER_BYTES:]

    @cached_property
    def opened(self) -> NDArray[np.float32]:
        """Where opened weights go."""
        return memory.zeros(self.size, np.float32)

    # --- the operations -------------------------------------------------------------------------------------

    def run_encrypt(self, encryptor: _Encryptor) -> tuple[_Encryptor, memoryview]:
        """float32 weights to the bytes on the wire."""
        return encryptor, encryptor.encrypt(self.weights[0], out=self.fresh_wire)

    def check_encrypt(self, result: tuple[_Encryptor, memoryview]) -> float:
        """The bytes parse, and open to the quantised weights."""
        encryptor, wire = result
        ciphertext = pf.Ciphertext.from_bytes(self.params, wire)
        return self.check_opened(encryptor.opener().decrypt(ciphertext, integers=True), self.quantised[0])

    def run_pack(self, _: object) -> memoryview:
        """Residues to packed bytes."""
        return self.ciphertexts[0].pack(0, self.ciphertexts[0].block_count, out=self.passed_payload)

    def check_pack(self, payload: memoryview) -> float:
        """Packed bytes are what the ciphertext's own file form holds."""
        assert self.ciphertexts[0].to_bytes().endswith(bytes(payload)), f"{self.setting}: pack differs from to_bytes"
        return 0.0

    def run_unpack(self, _: object) -> pf.Ciphertext:
        """Packed bytes to residues."""
        self.sum_target.load(0, self.sum_target.block_count, self.sum_payload)
        return self.sum_target

    def check_unpack(self, result: pf.Ciphertext) -> float:
        """Unpacked residues open to the sum."""
        result.terms = PARTIES
        return self.check_sum(result)

    def run_add(self, count: int) -> pf.Ciphertext:
        """The sum of the first ``count`` ciphertexts, in one call."""
        return pf.add(self.ciphertexts[:count], out=self.sum_target)

    def check_sum(self, total: pf.Ciphertext) -> float:
        """A sum opens to the sum of the quantised weights."""
        opened = self.opener(total.terms).decrypt(total, integers=True)
        return self.check_opened(opened, self.expected(total.terms))

    @cached_property
    def incoming(self) -> memoryview:
        """What the ring's second party receives from the first."""
        first = self.ciphertexts[0]
        return first.pack(0, first.block_count, out=_room_for(first))

    def run_hop(self, _: object) -> memoryview:
        """The second party's turn in a ring."""
        mine = self.ciphertexts[1]
        return mine.hop(self.incoming, 0, mine.block_count, out=self.passed_payload)

    def check_hop(self, payload: memoryview) -> float:
        """What leaves the second party opens to the sum of two."""
        self.sum_target.load(0, self.sum_target.block_count, payload)
        self.sum_target.terms = 2
        return self.check_sum(self.sum_target)

    def run_open(self, key: Any) -> NDArray[np.float32]:
        """The bytes of the sum of all parties to float32 weights."""
        return np.asarray(key.decrypt_bytes(self.sum_wire, out=self.opened))

    def check_open(self, opened: NDArray[np.float32]) -> float:
        """Opened weights are the exact sum, restored."""
        expected = pf.dequantize(self.params, self.expected(PARTIES))
        assert np.array_equal(opened, expected), f"{self.setting}: the opened weights differ from the exact sum"
        return 0.0

    def check_opened(self, opened: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
        """Opened integers are the expected ones."""
        assert np.array_equal(opened, expected), f"{self.setting}: the opened sum differs from the quantised one"
        return 0.0


def _room_for(ciphertext: pf.Ciphertext) -> memoryview:
    """A buffer in the arena that holds the packed blocks of ``ciphertext``."""
    return memory.empty(ciphertext.packed_size(0, ciphertext.block_count), np.uint8).data


def our_cases(setting: str, size: int, threads: int) -> list[Case]:
    """All operations of one setting on ``size`` weights. Raises ConfigError for an unknown setting."""
    bench = Workbench(setting, size)
    wire = len(bench.fresh_wire) / size
    summed = bench.ciphertexts[0].nbytes / size
    words = bench.ciphertexts[0]._polynomials()
    held = sum(part.nbytes for part, _ in words) / size

    def case(operation: str, run: Any, check: Any, sent: float | None, **extra: Any) -> Case:
        return Case(OURS, setting, operation, bench.backend, threads, size, sent, run, check, **extra)

    return [
        case(
            "encrypt",
            bench.run_encrypt,
            bench.check_encrypt,
            wire,
            prepare=bench.encryptor,
            note="float32 in memory to packed bytes, all randomness included",
        ),
        *prepared_cases(bench, CONTEXT, threads),
        case("pack", bench.run_pack, bench.check_pack, summed, moved_bytes_per_weight=held + summed),
        case("unpack", bench.run_unpack, bench.check_unpack, summed, moved_bytes_per_weight=held + summed),
        case("add2", lambda _: bench.run_add(2), bench.check_sum, None, moved_bytes_per_weight=3 * held),
        case("add16", lambda _: bench.run_add(16), bench.check_sum, None, moved_bytes_per_weight=17 * held),
        case(
            "hop",
            bench.run_hop,
            bench.check_hop,
            summed,
            moved_bytes_per_weight=held + 2 * summed,
            note="parse, add mine, write",
        ),
        case(
            "open",
            bench.run_open,
            bench.check_open,
            summed,
            prepare=lambda: bench.opener(PARTIES),
            note="packed bytes of the sum to float32, residual check included",
        ),
    ]

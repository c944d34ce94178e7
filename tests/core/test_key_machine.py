"""Keys under any sequence of calls: a collective key encrypts one message, an opening key opens one sum."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pppml_fast as pf

PARAMS = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
CONTEXTS = [hashlib.sha256(bytes([index])).digest() for index in range(2)]
LENGTHS = [1, 300, 2500]
contexts, lengths = st.sampled_from(CONTEXTS), st.sampled_from(LENGTHS)
ways = st.sampled_from(["object", "into a ciphertext", "bytes", "into bytes", "onto nothing", "chunks"])


def weights(length: int) -> np.ndarray:
    return np.linspace(-1, 1, length, dtype=np.float32)


class OneTimeKey(RuleBasedStateMachine):
    """Against a model of three words: fresh, used, destroyed."""

    def __init__(self) -> None:
        super().__init__()
        self.key = pf.CollectiveKey.generate(PARAMS)
        self.opener = pf.CollectiveKey.sum([self.key])
        self.state = "fresh"
        self.messages = 0
        self.stream: Any = None

    def encrypt(self, way: str, x: np.ndarray, context: bytes) -> bytes | None:
        """The bytes on the wire, or None where a stream has only begun."""
        if way == "object":
            return self.key.encrypt(x, context).to_bytes()
        if way == "into a ciphertext":
            room = pf.Ciphertext.zeros(PARAMS, x.size)
            self.key.encrypt(x, context, out=room)
            return room.to_bytes()
        if way == "bytes":
            return bytes(self.key.encrypt_bytes(x, context))
        if way == "into bytes":
            return bytes(self.key.encrypt_bytes(x, context, out=bytearray(pf.Ciphertext.wire_size(PARAMS, x.size))))
        if way == "onto nothing":
            whole = pf.Ciphertext.zeros(PARAMS, x.size, context=context)
            whole.load(0, whole.block_count, self.key.encrypt_onto(None, x, context))
            return whole.to_bytes()
        self.stream = self.key.encrypt_chunks(x, context, chunk_blocks=1)
        return None

    @rule(way=ways, length=lengths, context=contexts)
    def message(self, way: str, length: int, context: bytes) -> None:
        if self.state != "fresh":
            with pytest.raises(pf.KeyReuseError):
                self.encrypt(way, weights(length), context)
            return
        wire = self.encrypt(way, weights(length), context)
        self.state, self.messages = "used", self.messages + 1
        self.length = length
        if wire is not None:
            self.opens(wire)

    def opens(self, wire: bytes) -> None:
        opened = self.opener.decrypt_bytes(wire, integers=True)
        assert np.array_equal(opened, pf.quantize(PARAMS, weights(self.length)))

    @precondition(lambda self: self.stream is not None)
    @rule(finish=st.booleans())
    def go_on(self, finish: bool) -> None:
        """A stream that was begun ends, or is given up."""
        stream, self.stream = self.stream, None
        if not finish:
            stream.close()
        elif self.state == "destroyed":
            with pytest.raises(pf.KeyReuseError):
                b"".join(bytes(part) for part in stream)
        else:
            self.opens(b"".join(bytes(part) for part in stream))

    @rule(
        way=ways,
        length=lengths,
        context=contexts,
        fault=st.sampled_from(["nan", "dtype", "weight", "context"]),
    )
    def refused_message(self, way: str, length: int, context: bytes, fault: str) -> None:
        x = weights(length)
        x[-1] = np.nan if fault == "nan" else 0
        bad: Any = x.astype(np.int32) if fault == "dtype" else x
        if fault == "weight":
            with pytest.raises((pf.ParameterError, pf.InputError, pf.KeyReuseError)):
                self.key.encrypt(x, context, weight=0.5)
            return
        with pytest.raises((pf.InputError, pf.KeyReuseError)):
            self.encrypt(way, bad, b"short" if fault == "context" else context)
        self.stream = None
        # What was written into memory that others may have read counts as a message.
        if fault == "nan" and way.startswith("into") and self.state == "fresh":
            self.state = "used"

    @rule(length=lengths, context=contexts, limit=st.sampled_from([0, 9000, 1 << 30]), background=st.booleans())
    def prepare(self, length: int, context: bytes, limit: int, background: bool) -> None:
        if self.state == "fresh":
            self.key.prepare(context, length, limit_bytes=limit, background=background)
        else:
            with pytest.raises(pf.KeyReuseError):
                self.key.prepare(context, length)

    @rule()
    def destroy(self) -> None:
        self.key.destroy()
        self.state = "destroyed"
        with pytest.raises(pf.KeyReuseError):
            pf.CollectiveKey.sum([self.key])

    @invariant()
    def one_message_at_most(self) -> None:
        assert self.messages <= 1
        assert self.state in repr(self.key)
        assert 0 <= self.key.prepared_fraction <= 1 and math.isfinite(self.key.prepared_fraction)

    def teardown(self) -> None:
        if self.stream is not None:
            self.stream.close()
        self.key.destroy()


class LiveSet(RuleBasedStateMachine):
    """Three parties' ciphertexts, added in any way: only each once, together, opens under the sum of the keys."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: list[tuple[Counter[int], pf.Ciphertext]] = []

    @initialize(length=lengths, seed=st.integers(0, 9))
    def encrypt(self, length: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.vectors = [random.normal(0, 0.5, length) for _ in range(3)]
        keys = [pf.CollectiveKey.generate(PARAMS) for _ in range(3)]
        self.openers = {
            live: pf.CollectiveKey.sum([keys[party] for party in live]) for live in ((0,), (0, 1), (1, 2), (0, 1, 2))
        }
        for party, key in enumerate(keys):
            self.sums.append((Counter([party]), key.encrypt(self.vectors[party], CONTEXTS[0])))

    @rule(one=st.integers(0, 99), two=st.integers(0, 99))
    def add(self, one: int, two: int) -> None:
        (in_one, first), (in_two, second) = self.sums[one % len(self.sums)], self.sums[two % len(self.sums)]
        if in_one.total() + in_two.total() > PARAMS.parties:
            with pytest.raises(pf.CiphertextError, match="terms"):
                first + second
            return
        total = first + second
        assert total.terms == (in_one + in_two).total()
        self.sums.append((in_one + in_two, total))

    @rule(which=st.integers(0, 99), live=st.sampled_from([(0,), (0, 1), (1, 2), (0, 1, 2)]), by_bytes=st.booleans())
    def open(self, which: int, live: tuple[int, ...], by_bytes: bool) -> None:
        added, total = self.sums[which % len(self.sums)]
        opener, out = self.openers[live], np.full(total.length, 7, np.int64)

        def opened() -> Any:
            if by_bytes:
                return opener.decrypt_bytes(total.to_bytes(), integers=True, out=out)
            return opener.decrypt(total, integers=True, out=out)

        if added == Counter(live):
            expected = sum(pf.quantize(PARAMS, self.vectors[party]) for party in live)
            assert np.array_equal(opened(), expected)
        elif added.total() != len(live):
            with pytest.raises(pf.CiphertextError, match="whole live set"):
                opened()
            assert (out == 7).all()
        else:
            with pytest.raises(pf.OpeningError):
                opened()
            assert not out.any()


TestOneTimeKey = OneTimeKey.TestCase
TestOneTimeKey.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
TestLiveSet = LiveSet.TestCase
TestLiveSet.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)

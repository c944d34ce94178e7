"""The `plain` aggregator: the same quantised integers, the same routes, summed openly. The yardstick of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.aggregation.attempt_state import State, divisor
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.aggregation.opened import HostSum, OpenedSum
from pppml_fast.aggregation.party import PartyMachine, Source
from pppml_fast.aggregation.payloads import AbandonReason
from pppml_fast.aggregation.session import Message
from pppml_fast.aggregation.spool import SumStore
from pppml_fast.aggregation.streams import RingPass, StarPass, StreamBrokenError, sum_root
from pppml_fast.aggregation.terms import FloatTerm, PlainCodec, PlainTerm
from pppml_fast.aggregation.vectors import HostVector, Vector
from pppml_fast.errors import InputError, PppmlError, ProtocolError
from pppml_fast.params import CkksParams
from pppml_fast.transport.base import Outgoing

__all__ = ["FloatParty", "PlainBlocks", "PlainParty"]


class PlainBlocks:
    """int64 integers in the blocks of a parameter set, as a relay adds them up."""

    def __init__(self, params: CkksParams, length: int, values: NDArray[np.int64]) -> None:
        self.values = values
        self.block_count = params.block_count(length)
        self._codec = PlainCodec(params, length)

    @classmethod
    def zeros(cls, params: CkksParams, length: int) -> PlainBlocks:
        """Zeros in place of the integers of ``length`` weights."""
        return cls(params, length, np.zeros(params.integer_count(length), np.int64))

    def pack(self, start: int, stop: int) -> bytes:
        """The integers of blocks [start, stop), little-endian."""
        return self.values[self._codec.span(start, stop)].astype(self._codec.dtype).tobytes()

    def load(self, start: int, stop: int, payload: bytes | memoryview) -> None:
        """Replace blocks [start, stop). Raises ProtocolError on a wrong length or a sum out of bounds."""
        self.values[self._codec.span(start, stop)] = self._codec.parse(payload, start, stop)


class PlainParty(PartyMachine):
    """One member of a plain session: everyone along the route can read what passes."""

    _opens_on_host = True

    def _set_up(self) -> None:
        self._term: PlainTerm | FloatTerm | None = None
        self._stream_pass: RingPass | StarPass | None = None
        self._handlers |= {
            MessageType.BEGIN: self._on_peer_begins,
            MessageType.CHUNK: self._on_stream,
            MessageType.RETURN: self._on_stream,
        }

    def _bind_update(self, vector: Vector) -> bytes:
        """Nothing is encrypted here, so nothing is spent."""
        vector.check_finite()
        return b""

    def _on_begin(self) -> list[Outgoing]:
        self._term = self._stream_pass = None
        return self._tell_begin()

    def _on_values(self) -> list[Outgoing]:
        now = self._now
        if now.vector is None:
            raise ProtocolError(f"{now.id} has no vector")
        self._term = self._make_term(now.vector.to_host(), now.weight)
        now.vector = None
        return self._advance()

    def _make_term(self, parts: Sequence[NDArray[Any]], weight: float) -> PlainTerm | FloatTerm:
        return PlainTerm(self._now.params, parts, weight)

    def _on_stream(self, message: Message) -> list[Outgoing]:
        if self.state is State.PREPARING:
            return self._hold(message)
        if self.state is not State.STREAMING or self._stream_pass is None:
            raise ProtocolError(f"{message.header.type.name} arrived while {self._now.id} is {self.state.value}")
        return self._stream(self._stream_pass, message) + self._advance()

    def _source(self) -> Source | None:
        return self._stream_pass if self.state is State.STREAMING else None

    def _advance(self) -> list[Outgoing]:
        term, stream = self._term, self._stream_pass
        if self.state is State.PREPARING and term is not None and self._everyone_ready():
            self._stream_pass = self._new_pass(term)
            self.state = State.STREAMING
            return self._take_held(self._on_stream)
        if self.state is State.STREAMING and stream is not None and stream.complete:
            return self._close(stream)
        return []

    def _close(self, stream: RingPass | StarPass) -> list[Outgoing]:
        now, parties = self._now, len(self.session.roster.members)
        try:
            self._check_live_set(stream.members)
        except ProtocolError as error:
            return self._give_up(AbandonReason.POLICY, error)
        if self._store is None or self._term is None:
            raise ProtocolError("there is no sum")
        now.meter.clipped = self._term.clipped
        now.meter.encrypt_s += stream.write_seconds
        began = self._clock()
        opened = self._opened_sum(stream.members)
        try:
            self._read(opened, stream, self._store)
        except (PppmlError, OSError) as error:
            return self._give_up(AbandonReason.REFUSED, ProtocolError(f"the sum cannot be read: {error}"))
        now.meter.open_s += self._clock() - began
        root = sum_root(now.id.context, now.length, parties, stream.members, stream.hashes)
        self._finish(stream.members, opened, root)
        return []

    def _read(self, opened: OpenedSum, stream: RingPass | StarPass, store: SumStore) -> None:
        codec = PlainCodec(self._now.params, self._now.length)

        def open_(index: int, start: int, stop: int, values: NDArray[Any]) -> None:
            values[:] = codec.parse(store.read(index), start, stop)

        opened.fill(stream.grid, open_)

    def _on_lost(self, index: int) -> list[Outgoing]:
        members = len(self.session.roster.members)
        if len([i for i in self._now.remaining if i < members]) < self._policy.minimum(members):
            raise StreamBrokenError(f"after the loss of party {index} too few are left")
        if self._stream_pass is not None:
            self._stream_pass.lost(index)
        return self._advance()

    def _wipe(self) -> None:
        super()._wipe()
        self._term = self._stream_pass = None


class FloatParty(PlainParty):
    """The yardstick of encryption on a ring: plain float32 values, 4 bytes per weight, in the same chunks.

    Nothing is quantised or clipped. Its mean depends on the order of the parties in its last bits, and ``integers`` on
    nothing: without an ``out`` of the caller's they are zeros.
    """

    def _bind_update(self, vector: Vector) -> bytes:
        if not isinstance(vector, HostVector):
            raise InputError("plain float32 values are summed in the host's memory alone: copy the tensors there")
        return super()._bind_update(vector)

    def _make_term(self, parts: Sequence[NDArray[Any]], weight: float) -> PlainTerm | FloatTerm:
        return FloatTerm(self._now.params, parts, weight)

    def _read(self, opened: OpenedSum, stream: RingPass | StarPass, store: SumStore) -> None:
        now, width = self._now, self._now.params.block_weights
        assert isinstance(opened, HostSum)
        opened.begin()
        total = np.float32(divisor(now.id.round, now.params, self.session.roster, stream.members))
        for index, (start, stop) in enumerate(stream.grid):
            mean = opened.mean[start * width : min(stop * width, self._now.length)]
            np.divide(np.frombuffer(store.read(index), np.float32), total, out=mean)

"""The `plain` aggregator: the same quantised integers, the same routes, summed openly. The yardstick of the others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.aggregation.attempt_state import State
from pppml_fast.aggregation.attempts import AttemptLedger
from pppml_fast.aggregation.base import Policy
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.aggregation.party import PartyMachine
from pppml_fast.aggregation.payloads import AbandonReason, Begin
from pppml_fast.aggregation.session import Message, Session
from pppml_fast.aggregation.streams import Clock, RingPass, StarPass, StreamBrokenError, no_clock, sum_root
from pppml_fast.errors import ProtocolError
from pppml_fast.params import CkksParams
from pppml_fast.quantize import quantize
from pppml_fast.transport.base import Outgoing

__all__ = ["PlainBlocks", "PlainParty"]

_INT32_LIMIT = 1 << 31


class PlainBlocks:
    """int64 integers in the blocks of a parameter set; on the wire int32 where the sum's bound allows it."""

    def __init__(self, params: CkksParams, values: NDArray[np.int64]) -> None:
        self.values = values
        self._params = params
        self._type = np.dtype("<i4" if params.sum_bound < _INT32_LIMIT else "<i8")

    @classmethod
    def zeros(cls, params: CkksParams, length: int) -> PlainBlocks:
        """Zeros in place of the integers of ``length`` weights."""
        return cls(params, np.zeros(params.integer_count(length), np.int64))

    @property
    def block_count(self) -> int:
        """Number of blocks."""
        return -(-self.values.size // self._params.block_integers)

    def pack(self, start: int, stop: int) -> bytes:
        """The integers of blocks [start, stop), little-endian."""
        return self.values[self._span(start, stop)].astype(self._type).tobytes()

    def hop(self, incoming: bytes, start: int, stop: int) -> bytes:
        """packed(incoming + these blocks). Raises ProtocolError on a wrong length or a sum out of bounds."""
        total = self._parse(incoming, start, stop) + self.values[self._span(start, stop)]
        self._check_bound(total)
        return total.astype(self._type).tobytes()

    def load(self, start: int, stop: int, payload: bytes) -> None:
        """Replace blocks [start, stop). Raises ProtocolError on a wrong length."""
        self.values[self._span(start, stop)] = self._parse(payload, start, stop)

    def _parse(self, payload: bytes, start: int, stop: int) -> NDArray[np.int64]:
        span = self._span(start, stop)
        if len(payload) != (span.stop - span.start) * self._type.itemsize:
            raise ProtocolError(f"blocks {start}..{stop} do not fit a payload of {len(payload)} bytes")
        values = np.frombuffer(payload, self._type).astype(np.int64)
        self._check_bound(values)
        return values

    def _check_bound(self, values: NDArray[np.int64]) -> None:
        if int(np.abs(values).max(initial=0)) > self._params.sum_bound:
            raise ProtocolError(f"a sum exceeds its bound of {self._params.sum_bound}")

    def _span(self, start: int, stop: int) -> slice:
        width = self._params.block_integers
        return slice(start * width, min(stop * width, self.values.size))


class PlainParty(PartyMachine):
    """One member of a plain session: everyone along the route can read what passes."""

    def __init__(self, session: Session, ledger: AttemptLedger, policy: Policy, clock: Clock = no_clock) -> None:
        super().__init__(session, ledger, policy, clock)
        self._own: PlainBlocks | None = None
        self._stream_pass: RingPass | StarPass | None = None
        self._handlers |= {
            MessageType.BEGIN: self._on_peer_begins,
            MessageType.CHUNK: self._on_stream,
            MessageType.RETURN: self._on_stream,
        }

    def _bind_update(self, parts: list[NDArray[Any]]) -> bytes:
        """Nothing is encrypted here, so nothing is spent."""
        return b""

    def _on_begin(self) -> list[Outgoing]:
        self._own = self._stream_pass = None
        parties = len(self.session.roster.members)
        return self._broadcast(MessageType.BEGIN, Begin(parties, frozenset(self._now.live)).encode())

    def _on_peer_begins(self, message: Message) -> list[Outgoing]:
        if Begin.parse(message.body).live != frozenset(self._now.live):
            raise ProtocolError(f"party {message.header.sender} begins over another live set")
        self._now.ready.add(message.header.sender)
        return self._advance()

    def _on_values(self) -> list[Outgoing]:
        now = self._now
        began = self._clock()
        self._own = PlainBlocks(now.params, quantize(now.params, now.parts, now.weight))
        now.meter.encrypt_s += self._clock() - began
        now.parts = None
        return self._advance()

    def _on_stream(self, message: Message) -> list[Outgoing]:
        if self.state is State.PREPARING:
            self._now.held.append(message)
            return []
        if self.state is not State.STREAMING or self._stream_pass is None:
            raise ProtocolError(f"{message.header.type.name} arrived while {self._now.id} is {self.state.value}")
        return self._stream(self._stream_pass, message) + self._advance()

    def _advance(self) -> list[Outgoing]:
        own, stream = self._own, self._stream_pass
        if self.state is State.PREPARING and own is not None and self._everyone_ready():
            params, length = self._now.params, self._now.length
            self._stream_pass = self._new_pass(own, lambda terms: PlainBlocks.zeros(params, length))
            self.state = State.STREAMING
            out = self._send_pieces(self._stream_pass.start())
            held, self._now.held = self._now.held, []
            for message in held:
                out += self._on_stream(message)
            return out + self._advance()
        if self.state is State.STREAMING and stream is not None and stream.complete:
            return self._close(stream)
        return []

    def _close(self, stream: RingPass | StarPass) -> list[Outgoing]:
        try:
            self._check_live_set(stream.members)
        except ProtocolError as error:
            return self._give_up(AbandonReason.POLICY, error)
        if not isinstance(stream.total, PlainBlocks):
            raise ProtocolError("there is no sum")
        now, parties = self._now, len(self.session.roster.members)
        root = sum_root(now.id.context, now.length, parties, stream.members, stream.hashes)
        self._finish(stream.members, stream.total.values, root)
        return []

    def _on_lost(self, index: int) -> list[Outgoing]:
        members = len(self.session.roster.members)
        if len([i for i in self._now.remaining if i < members]) < self._policy.minimum(members):
            raise StreamBrokenError(f"after the loss of party {index} too few are left")
        pieces = self._stream_pass.lost(index) if self._stream_pass is not None else []
        return self._send_pieces(pieces) + self._advance()

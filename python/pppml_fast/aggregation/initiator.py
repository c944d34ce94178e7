"""The `initiator` protocol: the cycle as PPPML-HMI published it, done properly. The weaker variant.

One party per round holds the key, so it opens, together with any one other party, a prefix of the ring: with the
third party it has the second one's vector exactly. It learns the sum first, and as it rotates every colluding pair gets
its turn. Kept for fidelity to the paper; `collective` is the default. Refused on a star.
"""

from __future__ import annotations

import os
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.aggregation.attempt_state import ENDED_WITHOUT_SUM, PeerAbandonedError, State
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.aggregation.party import PartyMachine, Source
from pppml_fast.aggregation.payloads import Abandon, AbandonReason, Announce, Chunk, Digest
from pppml_fast.aggregation.session import Message
from pppml_fast.aggregation.spool import SumStore
from pppml_fast.aggregation.streams import Piece, RingPass, StreamBrokenError, chunk_grid
from pppml_fast.aggregation.terms import PlainCodec, StoredTerm
from pppml_fast.cipher import Ciphertext, PublicKey, SecretKey, keygen
from pppml_fast.errors import DeviceError, OpeningError, PppmlError, ProtocolError
from pppml_fast.transport.base import Outgoing

__all__ = ["InitiatorParty"]


class InitiatorParty(PartyMachine):
    """One member of an initiator session; the initiator of round r is member r mod n of the live set.

    Unlike the other protocols' parties it holds its encryption in memory, and the initiator the sum's, too: two
    polynomials, which are not encrypted or opened in pieces.
    """

    _opens_on_host = True

    def _set_up(self) -> None:
        self._order: tuple[int, ...] = ()
        self._public: PublicKey | None = None
        self._secret: SecretKey | None = None
        self._seed = b""
        self._own: Ciphertext | None = None
        self._ring: RingPass | None = None
        self._announced: Announce | None = None
        self._sum: _AnnouncedSum | None = None
        self._sender: _SumSender | None = None
        self._hashes: dict[int, bytes] = {}
        self._handlers |= {
            MessageType.BEGIN: self._on_peer_begins,
            MessageType.PUBLIC_KEY: self._on_public_key,
            MessageType.CHUNK: self._on_chunk,
            MessageType.ANNOUNCE: self._on_announce,
            MessageType.SUM_CHUNK: self._on_sum_chunk,
            MessageType.SUM_HASH: self._on_sum_hash,
        }

    @property
    def initiator(self) -> int:
        """Roster index of the current round's initiator."""
        return self._order[0]

    @property
    def _leads(self) -> bool:
        return self.initiator == self.session.index

    # --- 1. the key ---------------------------------------------------------------------------------------

    def _on_begin(self) -> list[Outgoing]:
        now = self._now
        turn = now.id.round % len(now.live)
        self._order = now.live[turn:] + now.live[:turn]
        self._public = self._own = self._ring = self._announced = self._sum = self._sender = None
        self._hashes.clear()
        out = self._tell_begin()
        if self._leads:
            keys = keygen(now.params)
            if keys.public is None:
                raise ProtocolError("the initiator protocol needs parameters with keys='public'")
            self._public, self._secret = keys.public, keys.secret
            self._seed = os.urandom(32)
            out += self._broadcast(MessageType.PUBLIC_KEY, keys.public.to_bytes())
        return out

    def _on_public_key(self, message: Message) -> list[Outgoing]:
        if message.header.sender != self.initiator or self._public is not None:
            raise ProtocolError(f"party {message.header.sender} is not this round's initiator, or sent a second key")
        self._public = PublicKey.from_bytes(self._now.params, message.body)
        return self._advance()

    # --- 2., 3. the cycle ---------------------------------------------------------------------------------

    def _on_values(self) -> list[Outgoing]:
        return self._advance()

    def _on_chunk(self, message: Message) -> list[Outgoing]:
        if self.state is State.PREPARING:
            return self._hold(message)
        if self.state is not State.STREAMING or self._ring is None:
            raise ProtocolError(f"a chunk arrived while {self._now.id} is {self.state.value}")
        return self._stream(self._ring, message) + self._advance()

    def _begin_streaming(self, public: PublicKey) -> list[Outgoing]:
        """Encrypt, mask (the initiator, after encryption), and spend the update: a key holder may open it."""
        now = self._now
        began = self._clock()
        if now.vector is None:
            raise ProtocolError(f"{now.id} has no vector")
        try:
            own, now.meter.clipped = now.vector.encrypt_under(public, now.weight)
        except DeviceError as error:
            raise StreamBrokenError(f"this party's term cannot be made: {error}") from None
        if self._leads:
            own = own.add_mask(self._seed)
        now.meter.encrypt_s += self._clock() - began
        now.vector = None
        self._ledger.spend(now.id, now.update)
        self._own = own
        self.state = State.STREAMING
        ring = self._new_pass(StoredTerm(own), self._order)
        if not isinstance(ring, RingPass):
            raise ProtocolError("the initiator protocol needs a ring")
        self._ring = ring
        return self._take_held(self._on_chunk) + self._advance()

    # --- 4. open and announce -----------------------------------------------------------------------------

    def _open(self, ring: RingPass) -> list[Outgoing]:
        """Decrypt, subtract the mask modulo Q, then round; sign and announce the sum."""
        now, own, secret, store = self._now, self._own, self._secret, self._store
        if own is None or secret is None or store is None:
            raise ProtocolError(f"{now.id} has no sum to open")
        try:
            self._check_live_set(ring.members)
        except ProtocolError as error:
            return self._stop(AbandonReason.POLICY, error)
        began = self._clock()
        try:
            total = Ciphertext.empty_like(own, len(ring.members))
            for index, (start, stop) in enumerate(ring.grid):
                total.load(start, stop, store.read(index))
            integers = secret.decrypt(total.subtract_mask(self._seed), integers=True)
            self._sum = _AnnouncedSum(PlainCodec(now.params, now.length), ring.grid, self._new_store())
            self._sum.store_all(integers)
        except (PppmlError, OSError) as error:
            failure = error if isinstance(error, OpeningError) else OpeningError(f"no sum opens: {error}")
            return self._stop(AbandonReason.REFUSED, failure)
        now.meter.encrypt_s += ring.write_seconds
        now.meter.open_s += self._clock() - began
        digest, parties = self._sum.digest(), len(self.session.roster.members)
        self._announced = Announce(parties, ring.members, now.length, digest)
        peers = sorted(ring.members - {self.session.index})
        self._sender = _SumSender(self._sum, peers, Chunk(now.length, parties, ring.members, b""))
        self.state = State.OPENING
        return self._broadcast(MessageType.ANNOUNCE, self._announced.encode()) + self._confirm(digest)

    def _source(self) -> Source | None:
        if self.state is State.OPENING:
            return self._sender
        return self._ring if self.state is State.STREAMING else None

    def _new_store(self) -> SumStore:
        """A store for the announced sum, in place of the ciphertexts'."""
        if self._store is not None:
            self._store.close()
        self._store = SumStore(self._spool)
        return self._store

    def _on_announce(self, message: Message) -> list[Outgoing]:
        announce, now = Announce.parse(message.body), self._now
        if message.header.sender != self.initiator or self._announced is not None:
            raise ProtocolError(f"party {message.header.sender} may not announce the sum of {now.id}")
        if self.state is not State.STREAMING or announce.length != now.length:
            raise ProtocolError(f"a sum of {announce.length} values is announced while {now.id} is {self.state.value}")
        if self.session.index not in announce.contributors or not announce.contributors <= set(now.live):
            raise ProtocolError("the announced live set leaves this party out or adds strangers")
        try:
            self._check_live_set(announce.contributors)
        except ProtocolError as error:
            return self._stop(AbandonReason.POLICY, error)
        self._announced = announce
        blocks = self.session.roster.options.chunk_blocks
        grid = chunk_grid(now.params.block_count(now.length), blocks)
        self._sum = _AnnouncedSum(PlainCodec(now.params, now.length), grid, self._new_store())
        if self._ring is not None:
            now.meter.encrypt_s += self._ring.write_seconds
        self.state = State.OPENING
        return []

    def _on_sum_chunk(self, message: Message) -> list[Outgoing]:
        header, chunk = message.header, Chunk.parse(message.body)
        if header.sender != self.initiator or self._sum is None or self._announced is None or self._leads:
            raise ProtocolError(f"party {header.sender} sends a sum that was not announced")
        try:
            self._sum.store(header.start, header.stop, chunk.packed)
        except OSError as error:
            return self._stop(AbandonReason.REFUSED, OpeningError(f"the sum cannot be kept: {error}"))
        if not self._sum.complete:
            return []
        digest = self._sum.digest()
        if digest != self._announced.digest:
            return self._stop(AbandonReason.STATEMENTS_DIFFER, OpeningError("the sum is not the one that was signed"))
        return self._confirm(digest)

    def _confirm(self, digest: bytes) -> list[Outgoing]:
        self._hashes[self.session.index] = digest
        return self._broadcast(MessageType.SUM_HASH, Digest(digest).encode()) + self._compare()

    def _on_sum_hash(self, message: Message) -> list[Outgoing]:
        self._hashes.setdefault(message.header.sender, Digest.parse(message.body).value)
        return self._compare()

    def _compare(self) -> list[Outgoing]:
        """Finish once every contributor holds the same sum; stop when somebody was told another one."""
        mine = self._hashes.get(self.session.index)
        if mine is None or self._announced is None or self._sum is None or self.state is not State.OPENING:
            return []
        if any(digest != mine for digest in self._hashes.values()):
            error = ProtocolError("the parties were told different sums; the initiator signed more than one")
            return self._stop(AbandonReason.STATEMENTS_DIFFER, error)
        if self._announced.contributors <= set(self._hashes):
            return self._finish_with(self._announced, self._sum)
        return []

    def _finish_with(self, announced: Announce, sum_: _AnnouncedSum) -> list[Outgoing]:
        opened = self._opened_sum(announced.contributors)
        try:
            opened.fill(sum_.grid, sum_.read)
        except DeviceError as error:  # of this party's own; no check failed
            return self._stop(AbandonReason.REFUSED, error)
        except (PppmlError, OSError) as error:
            return self._stop(AbandonReason.REFUSED, OpeningError(f"the sum cannot be read: {error}"))
        self._finish(announced.contributors, opened, announced.digest)
        return []

    # --- states -------------------------------------------------------------------------------------------

    def _advance(self) -> list[Outgoing]:
        ready = self._public is not None and self._now.vector is not None and self._everyone_ready()
        if self.state is State.PREPARING and ready and self._public is not None:
            return self._begin_streaming(self._public)
        if self.state is State.STREAMING and self._leads and self._ring is not None and self._ring.complete:
            return self._open(self._ring)
        return []

    def _on_lost(self, index: int) -> list[Outgoing]:
        members = len(self.session.roster.members)
        if len(self._now.remaining) < self._policy.minimum(members) or index == self.initiator:
            raise StreamBrokenError(f"party {index} was lost; the round needs it")
        if self.state is State.OPENING:
            if self._announced is not None and index not in self._hashes and index in self._announced.contributors:
                raise StreamBrokenError(f"party {index} was lost before it confirmed the sum")
            return []
        if self._ring is not None:
            self._ring.lost(index)
        return self._advance()

    def _give_up(self, reason: AbandonReason, error: PppmlError, evidence: bytes = b"") -> list[Outgoing]:
        """Before anything left the attempt may be abandoned; afterwards the update stays spent."""
        if not self._ledger.is_released(self._now.id):
            return super()._give_up(reason, error, evidence)
        return self._stop(reason, error)

    def _on_abandon(self, message: Message) -> list[Outgoing]:
        if self.state is State.FINISHED or self.state in ENDED_WITHOUT_SUM:
            return []
        name = self.session.roster.everyone[message.header.sender].name
        error = PeerAbandonedError(f"party {name!r} gave up {self._now.id}")
        return self._give_up(AbandonReason.PEER_ABANDONED, error)

    def _stop(self, reason: AbandonReason, error: PppmlError) -> list[Outgoing]:
        self._end(State.FAILED if isinstance(error, OpeningError) else State.DISCARDED, error)
        return self._broadcast(MessageType.ABANDON, Abandon(reason).encode())

    def _wipe(self) -> None:
        super()._wipe()
        self._secret = None
        self._seed = b""
        self._own = self._ring = self._sender = self._sum = None


class _AnnouncedSum:
    """The opened integers as they travel: packed chunks in order, under one hash of their int64 values."""

    def __init__(self, codec: PlainCodec, grid: list[tuple[int, int]], store: SumStore) -> None:
        self.grid = grid
        self._codec, self._store = codec, store
        self._hash = sha256()

    @property
    def complete(self) -> bool:
        return len(self._store) == len(self.grid)

    def store_all(self, integers: NDArray[np.int64]) -> None:
        for start, stop in self.grid:
            packed = integers[self._codec.span(start, stop)].astype(self._codec.dtype)
            self.store(start, stop, packed.view(np.uint8).data)

    def store(self, start: int, stop: int, payload: memoryview) -> None:
        """Take the next chunk. Raises ProtocolError on another one, OSError where there is no room."""
        index = len(self._store)
        if index >= len(self.grid) or self.grid[index] != (start, stop):
            raise ProtocolError(f"blocks {start}..{stop} are not the next of the sum")
        integers = self._codec.parse(payload, start, stop)
        self._store.append(payload)
        self._hash.update(np.ascontiguousarray(integers, "<i8").data)

    def digest(self) -> bytes:
        return self._hash.digest()

    def chunk(self, index: int) -> memoryview:
        return self._store.read(index)

    def read(self, index: int, start: int, stop: int, values: NDArray[Any]) -> None:
        """The integers of a chunk."""
        values[:] = self._codec.parse(self._store.read(index), start, stop)


class _SumSender:
    """Gives each receiver the announced sum, chunk by chunk."""

    def __init__(self, sum_: _AnnouncedSum, receivers: list[int], shape: Chunk) -> None:
        self._sum, self._shape = sum_, shape
        self._sent = dict.fromkeys(receivers, 0)

    def ready(self, receiver: int) -> bool:
        return self._sent.get(receiver, len(self._sum.grid)) < len(self._sum.grid)

    def pull(self, receiver: int) -> Piece:
        index = self._sent[receiver]
        self._sent[receiver] += 1
        body = replace(self._shape, payload=self._sum.chunk(index)).encode()
        return Piece(receiver, MessageType.SUM_CHUNK, *self._sum.grid[index], body)

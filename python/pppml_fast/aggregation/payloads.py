"""The bodies of messages: one frozen class per type, each with ``encode`` and a strict ``parse``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pppml_fast.aggregation.encoding import Reader, Writer, digest
from pppml_fast.errors import ProtocolError

__all__ = [
    "Abandon",
    "AbandonReason",
    "Announce",
    "Begin",
    "Chunk",
    "Deal",
    "Digest",
    "Hello",
    "RosterProposal",
    "ShareSum",
    "Statement",
]

MAX_RING_DIMENSION = 1 << 16
STANDING_LIMIT = 128 * 1024
_MIB = 1 << 20


@dataclass(frozen=True)
class RosterProposal:
    """A session over the members ``present``: the roster's canonical bytes, and the layout behind its fingerprint.

    ``nonce`` is 32 fresh bytes, so that no hello of another proposal counts for this one.
    """

    roster: bytes
    layout: bytes
    parties: int
    present: frozenset[int]
    nonce: bytes

    @property
    def id(self) -> bytes:
        """32 bytes that name the proposal."""
        return digest("pppml proposal v1", self.encode())

    def encode(self) -> bytes:
        writer = Writer().blob(self.roster).blob(self.layout)
        return writer.members(self.present, self.parties).raw(self.nonce).finish()

    @classmethod
    def parse(cls, data: bytes) -> RosterProposal:
        reader = Reader(data, "roster proposal")
        roster, layout = reader.blob(8 * _MIB), reader.blob(16 * _MIB)
        parties, present = reader.members()
        proposal = cls(roster, layout, parties, present, reader.raw(32))
        reader.finish()
        return proposal


@dataclass(frozen=True)
class Hello:
    """A party's fresh randomness and ephemeral public keys, with its signature over the roster.

    ``standing`` is an encoded `Standing`, or empty: what the party has kept from earlier sessions.
    """

    random: bytes
    x25519: bytes
    mlkem: bytes
    roster_signature: bytes
    standing: bytes = b""

    SIZES = (32, 32, 1184, 64)

    def encode(self) -> bytes:
        fixed = self.random + self.x25519 + self.mlkem + self.roster_signature
        return Writer().raw(fixed).blob(self.standing).finish()

    @classmethod
    def parse(cls, data: bytes) -> Hello:
        reader = Reader(data, "hello")
        random, x25519, mlkem, signature = (reader.raw(size) for size in cls.SIZES)
        standing = reader.blob(STANDING_LIMIT)
        reader.finish()
        return cls(random, x25519, mlkem, signature, standing)


@dataclass(frozen=True)
class Begin:
    """A party is ready for this attempt over these live parties (protocols that deal no shares)."""

    parties: int
    live: frozenset[int]

    def encode(self) -> bytes:
        return Writer().members(self.live, self.parties).finish()

    @classmethod
    def parse(cls, data: bytes) -> Begin:
        reader = Reader(data, "begin")
        parties, live = reader.members()
        reader.finish()
        return cls(parties, live)


@dataclass(frozen=True)
class Deal:
    """One party's share of another's key, with the view of the attempt it was dealt for."""

    parties: int
    live: frozenset[int]
    threshold: int
    group_check: bytes
    share: NDArray[np.int64]

    def encode(self) -> bytes:
        writer = Writer().members(self.live, self.parties).u16(self.threshold)
        return writer.raw(self.group_check).field_vector(self.share).finish()

    @classmethod
    def parse(cls, data: bytes) -> Deal:
        reader = Reader(data, "deal")
        parties, live = reader.members()
        deal = cls(parties, live, reader.u16(), reader.raw(32), reader.field_vector(MAX_RING_DIMENSION))
        reader.finish()
        return deal


@dataclass(frozen=True)
class Chunk:
    """Packed residues of a range of blocks and the parties whose terms they hold; parsed, ``payload`` is a view."""

    length: int
    parties: int
    contributors: frozenset[int]
    payload: bytes | memoryview
    body: bytes | memoryview = field(default=b"", compare=False, repr=False)

    def encode(self) -> bytes:
        return self._shape().raw(bytes(self.payload)).finish()

    @property
    def packed(self) -> memoryview:
        """The payload as a view."""
        return memoryview(self.payload)

    def _shape(self) -> Writer:
        return Writer().u64(self.length).members(self.contributors, self.parties)

    def shape(self) -> bytes:
        """What comes before the payload: as many bytes for every chunk of a session."""
        return self._shape().finish()

    @classmethod
    def parse(cls, data: bytes | memoryview) -> Chunk:
        shape = 10 + (int.from_bytes(data[8:10], "little") + 7) // 8
        reader = Reader(bytes(memoryview(data)[:shape]), "chunk")
        length = reader.u64()
        parties, contributors = reader.members()
        return cls(length, parties, contributors, memoryview(data)[shape:], data)


@dataclass(frozen=True)
class Statement:
    """What a party signs at the close: the live set U and the root over the chunks of B."""

    parties: int
    members: frozenset[int]
    root: bytes

    def encode(self) -> bytes:
        return Writer().members(self.members, self.parties).raw(self.root).finish()

    @classmethod
    def parse(cls, data: bytes) -> Statement:
        reader = Reader(data, "statement")
        parties, members = reader.members()
        statement = cls(parties, members, reader.raw(32))
        reader.finish()
        return statement


@dataclass(frozen=True)
class ShareSum:
    """The sum of the shares a party holds over the live set of one statement."""

    root: bytes
    values: NDArray[np.int64]

    def encode(self) -> bytes:
        return Writer().raw(self.root).field_vector(self.values).finish()

    @classmethod
    def parse(cls, data: bytes) -> ShareSum:
        reader = Reader(data, "sum of shares")
        share = cls(reader.raw(32), reader.field_vector(MAX_RING_DIMENSION))
        reader.finish()
        return share


class AbandonReason(IntEnum):
    """Why an attempt ended; coarse on purpose, the details stay in the local log."""

    PARTY_LOST = 1
    STATEMENTS_DIFFER = 2
    POLICY = 3
    REFUSED = 4
    STOPPED = 5
    PEER_ABANDONED = 6


@dataclass(frozen=True)
class Abandon:
    """The end of an attempt, with a signed statement of another party where that is the reason."""

    reason: AbandonReason
    evidence: bytes = b""

    def encode(self) -> bytes:
        return Writer().u8(self.reason).blob(self.evidence).finish()

    @classmethod
    def parse(cls, data: bytes) -> Abandon:
        reader = Reader(data, "abandon")
        code = reader.u8()
        evidence = reader.blob(32 * 1024)
        reader.finish()
        try:
            return cls(AbandonReason(code), evidence)
        except ValueError:
            raise ProtocolError(f"abandon names an unknown reason {code}") from None


@dataclass(frozen=True)
class Announce:
    """The initiator's signed sum: its contributors, length and hash; the integers follow in chunks."""

    parties: int
    contributors: frozenset[int]
    length: int
    digest: bytes

    def encode(self) -> bytes:
        return Writer().members(self.contributors, self.parties).u64(self.length).raw(self.digest).finish()

    @classmethod
    def parse(cls, data: bytes) -> Announce:
        reader = Reader(data, "announcement")
        parties, contributors = reader.members()
        announce = cls(parties, contributors, reader.u64(), reader.raw(32))
        reader.finish()
        return announce


@dataclass(frozen=True)
class Digest:
    """A bare 32-byte hash: of a sum, or of a model."""

    value: bytes

    def encode(self) -> bytes:
        return self.value

    @classmethod
    def parse(cls, data: bytes) -> Digest:
        reader = Reader(data, "hash")
        value = reader.raw(32)
        reader.finish()
        return cls(value)

"""The bytes of a ciphertext: a checked header, then residues packed to the width of their primes.

    offset  size  field
         0     4  magic "PPML"
         4     1  version, 1
         5     1  kind: 0 public, 1 secret with seed, 2 secret expanded, 3 collective
         6     2  reserved, 0
         8    16  parameter tag: the first half of the parameter set's id
        24     8  length in weights, little-endian
        32     4  terms: how many encryptions were added, little-endian
        36    32  context or seed; zero where the kind has none
        68     8  payload bytes, little-endian
        76     8  checksum: the first 8 bytes of SHA-256 of bytes 0 to 75
        84        payload: c0 (last block cut), then c1 (never cut) for kinds 0 and 2

Any change of a header bit is refused by the checksum. The payload carries none: transports authenticate it, and a
residue that is not below its prime is refused.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.errors import CiphertextError
from pppml_fast.params import CkksParams

__all__ = ["HEADER_BYTES", "Header", "Kind", "clear", "fill_wire", "fresh_kind", "payload_sizes", "split_wire"]

_MAGIC = b"PPML"
_VERSION = 1
_FIELDS = struct.Struct("<4sBBH16sQI32sQ")
_CHECKSUM_BYTES = 8
HEADER_BYTES = _FIELDS.size + _CHECKSUM_BYTES
_NO_CONTEXT = bytes(32)
# Far beyond any model, and far from where sizes in bytes would wrap around 2^64.
_MOST_WEIGHTS = 1 << 48


class Kind(IntEnum):
    """What a ciphertext consists of."""

    PUBLIC = 0
    SEEDED = 1
    EXPANDED = 2
    COLLECTIVE = 3


_KINDS_OF_MODE = {
    "public": (Kind.PUBLIC,),
    "secret": (Kind.SEEDED, Kind.EXPANDED),
    "collective": (Kind.COLLECTIVE,),
}


def fresh_kind(params: CkksParams) -> Kind:
    """The kind of what encryption makes under ``params``."""
    return _KINDS_OF_MODE[params.keys][0]


def payload_sizes(params: CkksParams, kind: Kind, length: int) -> list[int]:
    """Packed bytes of each polynomial of a ciphertext: c0, and c1 where the kind has one."""
    cuts = (True, False) if kind in (Kind.PUBLIC, Kind.EXPANDED) else (True,)
    blocks = params.block_count(length)
    return [int(params._scheme.packed_bytes(length, cut, 0, blocks)) for cut in cuts]


@dataclass(frozen=True)
class Header:
    """The header of one ciphertext."""

    kind: Kind
    tag: bytes
    length: int
    terms: int
    context: bytes | None
    payload_bytes: int

    @classmethod
    def of(cls, params: CkksParams, kind: Kind, length: int, terms: int, context: bytes | None) -> Header:
        """The header of a ciphertext under ``params``."""
        return cls(kind, params.id[:16], length, terms, context, sum(payload_sizes(params, kind, length)))

    def to_bytes(self) -> bytes:
        """The header, 84 bytes."""
        fields = _FIELDS.pack(
            _MAGIC,
            _VERSION,
            self.kind,
            0,
            self.tag,
            self.length,
            self.terms,
            self.context or _NO_CONTEXT,
            self.payload_bytes,
        )
        return fields + _checksum(fields)

    @classmethod
    def from_bytes(cls, params: CkksParams, data: bytes | memoryview) -> Header:
        """Parse and check a header against ``params``; raises CiphertextError that says what is wrong."""
        if len(data) < HEADER_BYTES:
            raise CiphertextError(f"{len(data)} bytes are no ciphertext: its header alone takes {HEADER_BYTES}")
        fields = bytes(data[: _FIELDS.size])
        magic, version, kind, reserved, tag, length, terms, context, payload = _FIELDS.unpack(fields)
        if magic != _MAGIC:
            raise CiphertextError(f"the bytes begin with {magic!r}, not {_MAGIC!r}: no ciphertext of this library")
        if bytes(data[_FIELDS.size : HEADER_BYTES]) != _checksum(fields):
            raise CiphertextError("the header's checksum does not match: it was altered or damaged; fetch it again")
        if version != _VERSION or reserved != 0:
            raise CiphertextError(f"wire version {version} is not {_VERSION}; update the older side")
        if tag != params.id[:16]:
            raise CiphertextError(
                f"the ciphertext was made under other parameters (tag {tag.hex()}) than {params.name} "
                f"(tag {params.id[:16].hex()}); all parties must use one set"
            )
        if kind not in _KINDS_OF_MODE[params.keys]:
            raise CiphertextError(f"kind {kind} does not occur under keys={params.keys!r}")
        if terms < 1:
            raise CiphertextError("a ciphertext of zero terms is no ciphertext")
        if terms > params.parties:
            raise CiphertextError(
                f"{terms} terms exceed the {params.parties} of the parameters (parties): forged or foreign"
            )
        if length > _MOST_WEIGHTS:
            raise CiphertextError(f"a length of {length} weights exceeds {_MOST_WEIGHTS}: damaged or forged")
        has_context = kind in (Kind.SEEDED, Kind.COLLECTIVE)
        if (kind == Kind.SEEDED and terms != 1) or (not has_context and context != _NO_CONTEXT):
            raise CiphertextError(f"terms or context do not occur with kind {kind}: damaged or forged")
        return cls(Kind(kind), tag, length, terms, context if has_context else None, payload)

    def check_payload(self, params: CkksParams) -> list[int]:
        """The sizes of the polynomials; raises CiphertextError unless they make up the announced payload."""
        sizes = payload_sizes(params, self.kind, self.length)
        if self.payload_bytes != sum(sizes):
            raise CiphertextError(
                f"{self.length} weights take {sum(sizes)} bytes; the header says {self.payload_bytes}"
            )
        return sizes


def split_wire(params: CkksParams, data: memoryview) -> tuple[Header, list[memoryview]]:
    """Header and packed polynomials of the bytes of one ciphertext; raises CiphertextError that says what is wrong."""
    header = Header.from_bytes(params, data)
    came = len(data) - HEADER_BYTES
    if came != header.payload_bytes:
        raise CiphertextError(f"the header announces {header.payload_bytes} payload bytes, {came} came: truncated")
    return header, _parts(data, header.check_payload(params))


@contextlib.contextmanager
def fill_wire(params: CkksParams, length: int, context: bytes | None, out: memoryview) -> Iterator[list[memoryview]]:
    """The places of the packed polynomials of one encryption in ``out``, to be filled in the block of a ``with``.

    The header follows once they are; after an exception ``out`` holds zeros.
    """
    kind = fresh_kind(params)
    try:
        yield _parts(out, payload_sizes(params, kind, length))
    except BaseException:
        clear(out)
        raise
    out[:HEADER_BYTES] = Header.of(params, kind, length, 1, context).to_bytes()


def clear(words: memoryview | NDArray[Any]) -> None:
    """Zero a contiguous buffer or an array in place."""
    np.asarray(words).fill(0)


def _parts(data: memoryview, sizes: list[int]) -> list[memoryview]:
    parts, at = [], HEADER_BYTES
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return parts


def _checksum(fields: bytes) -> bytes:
    import hashlib  # loads OpenSSL: not before it is needed

    return hashlib.sha256(fields).digest()[:_CHECKSUM_BYTES]

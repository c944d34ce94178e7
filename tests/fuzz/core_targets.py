"""Fuzz targets of the core's parsers: what reads the bytes of ciphertexts, public keys and tags.

An input begins with one byte that chooses the parameter set and one of flags; the bytes to parse follow. Whatever is
refused must be refused by an error of the library, and whatever is accepted must be written again as it came.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from json_edits import edited

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.cipher.expansion import expansion_key
from pppml_fast.cipher.wire import HEADER_BYTES, Header

CONTEXT = bytes(range(32))
CHECK_KEY = bytes(range(32, 64))
FIELD_BYTES = HEADER_BYTES - 8
SETS = ("p31", "p50", "p62", "compact")
MODES = ("collective", "secret", "public")
PARTIES = 2


class Sample(NamedTuple):
    """A parameter set, valid bytes under it, and what opens them."""

    params: pf.CkksParams
    wires: list[bytes]
    opener: Any
    public: bytes
    tags: list[bytes]


@contextlib.contextmanager
def fixed_randomness() -> Iterator[None]:
    """Within it the system's generator gives the same bytes in every process, so that the seeds are the same."""
    count = itertools.count()

    def drawn(size: int) -> bytes:
        return hashlib.shake_256(next(count).to_bytes(8, "little")).digest(size)

    with (
        mock.patch.object(os, "urandom", drawn),
        mock.patch.object(_native.StreamKey, "from_system", lambda: _native.StreamKey.from_bytes(drawn(32))),
    ):
        yield


@functools.cache
def sample(choice: int) -> Sample:
    """One of the combinations of set and key mode, with the bytes of a single ciphertext and of a sum.

    Nothing in it is random, so that a corpus and a finding mean the same in every process.
    """
    with fixed_randomness():
        return _sample(choice)


def _sample(choice: int) -> Sample:
    name, keys = SETS[choice % 4], MODES[choice // 4 % 3]
    params = pf.CkksParams.preset(name, parties=PARTIES, clip=1.0, keys=keys)  # type: ignore[arg-type]
    scheme, weights = params._scheme, np.linspace(-1.1, 1.1, 130, dtype=np.float32)
    secrets = [scheme.generate_secret(_stream(party)) for party in range(PARTIES)]
    if keys == "collective":
        parties = [pf.CollectiveKey(params, secret, _stream(10 + party)) for party, secret in enumerate(secrets)]
        terms = [key.encrypt(weights, CONTEXT) for key in parties]
        tags = [pf.sum_check_tag(term, CHECK_KEY) for term in terms]
        return Sample(params, _wires(terms), pf.CollectiveKey.sum(parties), b"", tags)
    secret = pf.SecretKey(params, secrets[0])
    if keys == "secret":
        return Sample(params, _wires([secret.encrypt(weights) for _ in range(PARTIES)]), secret, b"", [])
    residues = scheme.generate_public(secrets[0], _stream(20), expansion_key(params, CONTEXT))
    public = pf.PublicKey(params, residues, CONTEXT)
    return Sample(params, _wires([public.encrypt(weights) for _ in range(PARTIES)]), secret, public.to_bytes(), [])


def _stream(byte: int) -> Any:
    return _native.StreamKey.from_bytes(bytes([byte]) * 32)


def _wires(terms: list[pf.Ciphertext]) -> list[bytes]:
    return [terms[0].to_bytes(), pf.add(terms).to_bytes()]


def repaired(data: bytes) -> bytes:
    """``data`` with the header's checksum made right."""
    fields = data[:FIELD_BYTES]
    return fields + hashlib.sha256(fields).digest()[:8] + data[HEADER_BYTES:]


def _split(data: bytes) -> tuple[Sample, int, bytes]:
    head = data[:2].ljust(2, b"\0")
    body = data[2:]
    return sample(head[0] % 12), head[1], repaired(body) if head[1] & 1 else body


def _seeds(parts: str) -> list[bytes]:
    seeds = []
    for choice in range(12):
        found = getattr(sample(choice), parts)
        for part in [found] if isinstance(found, bytes) else found:
            if part:
                seeds += [bytes([choice, flags]) + part for flags in (0, 1)]
    return seeds


def wire_seeds() -> list[bytes]:
    """Ciphertexts of every set and mode."""
    return _seeds("wires")


def header_seeds() -> list[bytes]:
    """Their headers."""
    return [seed[: 2 + HEADER_BYTES] for seed in wire_seeds()]


def header(data: bytes) -> None:
    """A header that is accepted is written again as it came, and announces a payload that fits."""
    one, _, body = _split(data)
    try:
        parsed = Header.from_bytes(one.params, body)
        parsed.check_payload(one.params)
    except pf.CiphertextError:
        return
    assert parsed.to_bytes() == body[:HEADER_BYTES], "an accepted header has another canonical form"
    assert 1 <= parsed.terms <= one.params.parties


def wire(data: bytes) -> None:
    """A ciphertext that is accepted is written again as it came, in whole and by block ranges."""
    one, _, body = _split(data)
    try:
        parsed = pf.Ciphertext.from_bytes(one.params, body)
    except pf.CiphertextError:
        return
    assert parsed.to_bytes() == body, "an accepted ciphertext has another canonical form"
    assert parsed.nbytes == len(body)
    assert parsed.hop(parsed.pack(0, parsed.block_count), 0, parsed.block_count) == pf.Ciphertext.pack(
        pf.Ciphertext(parsed.params, parsed.kind, parsed.length, 1, *_doubled(parsed)), 0, parsed.block_count
    )


def _doubled(ciphertext: pf.Ciphertext) -> list[Any]:
    scheme, words = ciphertext.params._scheme, []
    for part, cut in ciphertext._polynomials():
        out = np.empty_like(part)
        scheme.add(ciphertext.length, cut, [part, part], out)
        words.append(out)
    return words


def _outcome(action: Any) -> Any:
    try:
        return action()
    except (pf.CiphertextError, pf.OpeningError) as error:
        return type(error)


def opening(data: bytes) -> None:
    """The three ways to open bytes accept the same ones and give the same sum."""
    one, flags, body = _split(data)
    straight = _outcome(lambda: one.opener.decrypt_bytes(body, integers=True).tobytes())
    stepwise = _outcome(lambda: one.opener.decrypt(pf.Ciphertext.from_bytes(one.params, body), integers=True).tobytes())
    assert straight == stepwise, "decrypt_bytes and decrypt disagree"
    if one.params.keys == "public":
        return
    pieces: list[bytes] = []
    cut = 1 + flags % 97

    def streamed() -> bytes:
        chunks = (body[at : at + cut] for at in range(0, len(body), cut))
        one.opener.decrypt_chunks(chunks, lambda piece: pieces.append(piece.tobytes()), np.int64, chunk_blocks=1)
        return b"".join(pieces)

    # A sum of seeded ciphertexts holds two polynomials, which are not streamed.
    expanded = one.params.keys == "secret" and len(body) > 5 and body[5] == 2
    in_pieces = _outcome(streamed)
    assert in_pieces == (pf.CiphertextError if expanded else straight) or (
        {in_pieces, straight} <= {pf.CiphertextError, pf.OpeningError}
    ), "decrypt_chunks and decrypt_bytes disagree"


def public_key_seeds() -> list[bytes]:
    """Public keys of every set."""
    return [seed for seed in _seeds("public") if seed[1] == 0]


def public_key(data: bytes) -> None:
    """A public key that is accepted is written again as it came."""
    choice = 8 + data[:1].ljust(1, b"\0")[0] % 4
    try:
        key = pf.PublicKey.from_bytes(sample(choice).params, data[2:])
    except pf.CiphertextError:
        return
    assert key.to_bytes() == data[2:], "an accepted public key has another canonical form"


def tag_seeds() -> list[bytes]:
    """Sum-check tags of every set."""
    return [seed for seed in _seeds("tags") if seed[1] == 0]


def tag(data: bytes) -> None:
    """A sum is accepted with the tags of its terms alone."""
    choice = data[:1].ljust(1, b"\0")[0] % 4
    one, body = sample(choice), data[2:]
    total = pf.Ciphertext.from_bytes(one.params, one.wires[1])
    try:
        pf.sum_check_verify(total, CHECK_KEY, [one.tags[0], body])
    except (pf.CiphertextError, pf.OpeningError):
        return
    assert body == one.tags[1], "a false tag is accepted"


def parameters_seeds() -> list[bytes]:
    """Literals of every set and mode."""
    whole = [json.dumps(sample(choice).params.to_dict()).encode() for choice in range(12)]
    return [*whole, *(bytes([0, choice, choice, choice]) for choice in range(12))]


def parameters(data: bytes) -> None:
    """A literal is refused, or gives a set that has it as its literal.

    After a byte 0 follow the number of a valid literal and edits of it.
    """
    if data[:1] == b"\0" and len(data) > 1:
        data = edited(sample(data[1] % 12).params.to_dict(), data[2:])
    try:
        literal = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(literal, dict):
        return
    try:
        params = pf.CkksParams.from_dict(literal)
    except pf.ParameterError:
        return
    assert pf.CkksParams.from_dict(json.loads(json.dumps(params.to_dict()))) == params
    assert len(params.id) == 32
    assert hash(params) == hash(pf.CkksParams.from_dict(params.to_dict()))

"""Frames and payloads: what is written reads back; anything else is a ProtocolError and nothing worse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pppml_fast.aggregation import Identity, Roster
from pppml_fast.aggregation.messages import HEADER_SIZE, SIGNED, Header, MessageType, parse_frame
from pppml_fast.aggregation.payloads import (
    Abandon,
    AbandonReason,
    Announce,
    Begin,
    Chunk,
    Deal,
    Digest,
    Hello,
    RosterProposal,
    ShareSum,
    Statement,
)
from pppml_fast.aggregation.roster import parse_layout
from pppml_fast.errors import ProtocolError

MEMBERS = frozenset({0, 2, 8})
VALUES = np.array([0, 1, 65535, 65536, 4711])
PAYLOADS: list[Any] = [
    RosterProposal(b"roster", b"layout", 5, frozenset({0, 2, 4}), bytes(32)),
    Hello(bytes(32), bytes(32), bytes(1184), bytes(64), b"standing"),
    Begin(9, MEMBERS),
    Deal(9, MEMBERS, 7, bytes(32), VALUES),
    Chunk(12345, 9, MEMBERS, b"residues"),
    Statement(9, MEMBERS, b"r" * 32),
    ShareSum(b"r" * 32, VALUES),
    Abandon(AbandonReason.POLICY, b"evidence"),
    Announce(9, MEMBERS, 77, b"h" * 32),
    Digest(b"d" * 32),
]
PARSERS = [type(payload) for payload in PAYLOADS]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: type(payload).__name__)
def test_payload_round_trip_and_every_truncation(payload: Any) -> None:
    data = payload.encode()
    again = type(payload).parse(data)
    assert again.encode() == data
    for size in range(len(data) if not isinstance(payload, Chunk) else 12):
        with pytest.raises(ProtocolError):
            type(payload).parse(data[:size])
    if not isinstance(payload, Chunk):
        with pytest.raises(ProtocolError):
            type(payload).parse(data + b"\0")


@given(data=st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_random_bytes_raise_nothing_but_protocol_errors(data: bytes) -> None:
    for parse in (parse_frame, Roster.parse, parse_layout, *(parser.parse for parser in PARSERS)):
        try:
            parse(data)
        except ProtocolError:
            continue


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_altered_payloads_raise_nothing_but_protocol_errors(data: st.DataObject) -> None:
    payload = data.draw(st.sampled_from(PAYLOADS))
    raw = bytearray(payload.encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        again = type(payload).parse(bytes(raw))
    except ProtocolError:
        return
    assert again.encode() == bytes(raw), "a second encoding of one value was accepted"


@given(
    kind=st.sampled_from(list(MessageType)),
    numbers=st.tuples(*[st.integers(0, 2**32 - 1)] * 2),
    ends=st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1)),
    sequence=st.integers(0, 2**64 - 1),
    blocks=st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=2).map(sorted),
)
@settings(deadline=None)
def test_header_round_trip(
    kind: MessageType, numbers: tuple[int, int], ends: tuple[int, int], sequence: int, blocks: list[int]
) -> None:
    header = Header(kind, b"s" * 32, *numbers, *ends, sequence, blocks[0], blocks[1])
    size = 0 if kind is MessageType.REFUSED else 32
    data = header.encode(size) + bytes(size) + (bytes(64) if kind in SIGNED else b"")
    frame = parse_frame(data)
    assert frame.header == header
    assert frame.prefix + frame.body + frame.signature == data


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, 0, "magic"),
        (4, 9, "protocol version 9"),
        (6, 99, "unknown message type"),
        (7, 1, "reserved"),
        (HEADER_SIZE - 1, 255, "over its limit"),
        (HEADER_SIZE - 9, 255, "backwards"),
    ],
)
def test_malformed_headers_are_named(at: int, value: int, reason: str) -> None:
    data = bytearray(Header(MessageType.STATEMENT, bytes(32), 1, 0, 0, 1, 0).encode(8) + bytes(8 + 64))
    data[at] = value
    with pytest.raises(ProtocolError, match=reason):
        parse_frame(bytes(data))


def test_wrong_frame_lengths_are_named() -> None:
    data = Header(MessageType.STATEMENT, bytes(32), 1, 0, 0, 1, 0).encode(8) + bytes(8 + 64)
    for wrong in (data[:-1], data + b"\0"):
        with pytest.raises(ProtocolError, match=r"should have"):
            parse_frame(wrong)
    with pytest.raises(ProtocolError, match=r"truncated"):
        parse_frame(data[: HEADER_SIZE - 1])
    short = Header(MessageType.CHUNK, bytes(32), 1, 0, 0, 1, 0).encode(3) + bytes(3)
    with pytest.raises(ProtocolError, match=r"shorter than its seal"):
        parse_frame(short)


@pytest.mark.parametrize("size", [b"1e999", b"Infinity", b"-Infinity", b"NaN"])
def test_numbers_beyond_all_integers_are_refused(size: bytes) -> None:
    """JSON admits them, `int` does not: they come before any signature is checked, so from anybody."""
    with pytest.raises(ProtocolError, match=r"layout cannot be read"):
        parse_layout(b'[["a",[' + size + b'],"float32"]]')
    member = b'{"identity":"' + b"0" * 64 + b'","name":"a","weight":1.0}'
    fields = (
        b'"layout":"","members":[' + member + b'],"options":{},"parameters":{},"relay":null',
        b'"sum_parameters":{}',
    )
    with pytest.raises(ProtocolError, match=r"roster cannot be read"):
        Roster.parse(b"{" + fields[0] + b',"rounding":"nearest",' + fields[1] + b',"version":' + size + b"}")


def test_field_values_outside_the_field_are_refused() -> None:
    data = bytearray(ShareSum(bytes(32), np.array([65536])).encode())
    data[36] = 1
    with pytest.raises(ProtocolError, match=r"outside F_65537"):
        ShareSum.parse(bytes(data))


def test_identities_sign_under_one_purpose_and_are_not_pickled() -> None:
    import pickle

    from pppml_fast.aggregation.identity import verify

    identity = Identity.generate("north")
    signature = identity.sign("roster", b"text")
    verify(identity.public, "roster", b"text", signature, "north")
    for domain, text in (("control message", b"text"), ("roster", b"test")):
        with pytest.raises(ProtocolError, match=r"signature of north"):
            verify(identity.public, domain, text, signature, "north")
    assert identity.public.hex() not in repr(identity) or len(repr(identity)) < 64
    with pytest.raises(TypeError, match=r"never pickled"):
        pickle.dumps(identity)

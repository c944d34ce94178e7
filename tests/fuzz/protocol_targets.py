"""Fuzz targets of the protocol's parsers: frames, bodies, rosters, layouts, journals, handshakes and whole rounds.

Whatever is refused must be refused by an error of the library, and whatever is accepted must be written again as it
came: then no two byte strings mean one message, and nothing signed can be read in two ways.
"""

from __future__ import annotations

import contextlib
import functools
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from json_edits import edited

import pppml_fast as pf
from pppml_fast.aggregation import Handshake, Identity, Member, Policy, Roster, SessionOptions, Terms, open_federation
from pppml_fast.aggregation.attempts import AttemptId, AttemptLedger
from pppml_fast.aggregation.journal import _MAGIC, MemoryStore, _framed
from pppml_fast.aggregation.journal import _checked as checked
from pppml_fast.aggregation.journal import _parse as parse_journal
from pppml_fast.aggregation.messages import (
    EVERYONE,
    SESSION_SCOPE,
    SIGNED,
    Header,
    MessageType,
    parse_frame,
)
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
from pppml_fast.aggregation.session import CONTROL, Gate

NAMES = ("north", "east", "south")
LAYOUT = pf.Layout.from_arrays({"stem": np.zeros((5, 8), np.float32), "head": np.zeros(300, np.float32)})
VALUES = np.array([0, 1, 65535, 65536, 4711])
MEMBERS = frozenset({0, 2, 8})
PAYLOADS: tuple[Any, ...] = (
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
)


# --- frames and bodies -----------------------------------------------------------------------------------------------


def frame_seeds() -> list[bytes]:
    """A frame of every type."""
    seeds = []
    for kind in MessageType:
        size = 0 if kind is MessageType.REFUSED else 40
        tail = bytes(64) if kind in SIGNED else b""
        seeds.append(Header(kind, bytes(range(32)), 3, 1, 0, 2, 7, 4, 9).encode(size) + bytes(size) + tail)
    return seeds


def frame(data: bytes) -> None:
    """An accepted frame is written again as it came."""
    try:
        parsed = parse_frame(data)
    except pf.ProtocolError:
        return
    assert parsed.prefix + parsed.body + parsed.signature == data
    assert parsed.header.encode(len(parsed.body)) == parsed.prefix, "an accepted header has another canonical form"


def body_seeds() -> list[bytes]:
    """A body of every type, behind the number of its class."""
    return [bytes([index]) + payload.encode() for index, payload in enumerate(PAYLOADS)]


def body(data: bytes) -> None:
    """An accepted body is written again as it came."""
    kind = type(PAYLOADS[data[:1].ljust(1, b"\0")[0] % len(PAYLOADS)])
    try:
        parsed = kind.parse(data[1:])
    except pf.ProtocolError:
        return
    assert parsed.encode() == data[1:], "an accepted body has another canonical form"


# --- rosters and layouts ---------------------------------------------------------------------------------------------


@functools.cache
def identities() -> dict[str, Identity]:
    """The same in every process."""
    keys = {name: bytes([index]) * 32 for index, name in enumerate((*NAMES, "relay"))}
    return {name: Identity(name, Ed25519PrivateKey.from_private_bytes(key)) for name, key in keys.items()}


def parameters() -> dict[str, Any]:
    return pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective", weights="public").to_dict()


def sample_roster(**changes: Any) -> Roster:
    """Three hospitals on a ring."""
    members = tuple(Member(name, identities()[name].public.hex(), 1 / 3) for name in NAMES)
    roster = Roster(members, parameters(), parameters(), LAYOUT.fingerprint.hex(), SessionOptions())
    return replace(roster, **changes)


def roster_seeds() -> list[bytes]:
    """A ring and a star."""
    star = sample_roster(
        options=SessionOptions(topology="star", sum_check=True, threshold=3),
        relay=Member("relay", identities()["relay"].public.hex()),
    )
    edits = [bytes([which, place, place]) for which in (0, 1) for place in range(0, 60, 4)]
    return [sample_roster().canonical_bytes(), star.canonical_bytes(), *edits]


def roster(data: bytes) -> None:
    """An accepted roster is canonical, and its signed text is what came.

    After a byte 0 or 1 follow edits of a valid roster; other inputs are read as they are.
    """
    if data[:1] in (b"\0", b"\1"):
        data = edited(json.loads(roster_seeds()[data[0]]), data[1:])
    try:
        parsed = Roster.parse(data)
    except pf.PppmlError:
        return
    assert parsed.canonical_bytes() == data
    assert len(parsed.everyone) == len({member.public for member in parsed.everyone})


def layout_seeds() -> list[bytes]:
    """Layouts of several tensors, of one and of none."""
    return [LAYOUT.canonical_bytes(), b'[["a",[],"float32"]]', b"[]", b"\0", b"\0\3\3"]


def layout(data: bytes) -> None:
    """An accepted layout is canonical, and its size is a number; after a byte 0 follow edits of a valid one."""
    if data[:1] == b"\0":
        data = edited(json.loads(LAYOUT.canonical_bytes()), data[1:])
    try:
        parsed = parse_layout(data)
    except pf.ProtocolError:
        return
    assert parsed.canonical_bytes() == data
    assert parsed.size == sum(tensor.size for tensor in parsed.tensors)
    assert len(parsed.fingerprint) == 32


# --- journals --------------------------------------------------------------------------------------------------------


class _File:
    """What the journal's parser needs of a path."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_bytes(self) -> bytes:
        return self._data


def _records() -> list[bytes]:
    store = MemoryStore()
    ledger = AttemptLedger(store)
    for number in range(3):
        attempt, update = AttemptId(bytes(range(32)), number, 0), bytes([number]) * 32
        ledger.begin(attempt, update)
        ledger.prepare(attempt, update, [(1, b"statement"), (2, b"share")], opens_without=number != 1)
        (ledger.release if number == 0 else ledger.abandon)(attempt)
    ledger.spend(AttemptId(bytes(32), 9, 9), b"u" * 32)
    return store.records()


def journal_seeds() -> list[bytes]:
    """Files of several records and of none, and the records alone; the first byte says which."""
    head = checked(_MAGIC + bytes(32))
    records = _records()
    whole = head + b"".join(_framed(record) for record in records)
    return [b"\0" + whole, b"\1" + head, *(b"\2" + record for record in records), b"\3" + b"\xff".join(records)]


def journal(data: bytes) -> None:
    """A journal that is read holds what it was written from, up to a record that its end cuts short."""
    form, content = data[:1].ljust(1, b"\0")[0] % 4, data[1:]
    if form >= 2:
        return _replay([content] if form == 2 else content.split(b"\xff"))
    if form == 1:
        content = _repaired(content)
    try:
        key, records, size = parse_journal(_File(content))  # type: ignore[arg-type]
    except pf.DataError:
        return None
    written = checked(_MAGIC + key) + b"".join(_framed(record) for record in records)
    assert written == content[:size], "an accepted journal is not what its records are written as"
    return _replay(records)


def _replay(records: list[bytes]) -> None:
    store = MemoryStore()
    store.replace(records)
    try:
        ledger = AttemptLedger(store)
    except (pf.DataError, pf.ProtocolError):
        return
    again = AttemptLedger(store)
    assert again._abandoned >= ledger._abandoned
    assert set(again._spent) >= set(ledger._spent), "reading a journal twice forgets a spent update"


def _repaired(content: bytes) -> bytes:
    """``content`` with every checksum made right, as far as its sizes go."""
    start = len(_MAGIC) + 32
    out, at = bytearray(checked(content[:start].ljust(start, b"\0"))), start + 4
    while at + 12 <= len(content):
        size = int.from_bytes(content[at : at + 2], "little")
        record = content[at + 12 : at + 12 + size]
        head = size.to_bytes(4, "little") + zlib.crc32(record).to_bytes(4, "little")
        out += checked(head) + record
        at += 12 + size
    return bytes(out)


# --- handshakes and rounds -------------------------------------------------------------------------------------------

_HANDSHAKE_TYPES = (MessageType.ROSTER, MessageType.HELLO, MessageType.ENCAPSULATION, MessageType.REFUSED)


def handshake_seeds() -> list[bytes]:
    """Bodies of the first messages, behind their type and sender; flags say whether they are signed rightly."""
    bodies = (_sample_proposal().encode(), PAYLOADS[1].encode(), bytes(1088), b"")
    return [bytes([kind, 0, flags]) + content for kind, content in enumerate(bodies) for flags in (0, 1)]


def handshake(data: bytes) -> None:
    """A party that opens a session drops what it refuses, whoever sent it, and raises nothing.

    The third member reads a message of its peer; with the flag set it has accepted the roster before.
    """
    head, content = data[:3].ljust(3, b"\0"), data[3:]
    kind, sender, flags = _HANDSHAKE_TYPES[head[0] % 4], head[1] % 4, head[2]
    terms = Terms(parameters(), parameters(), LAYOUT, SessionOptions())
    member = Handshake(identities()["south"], Policy(), terms)
    if flags & 1:
        proposal = _sample_proposal()
        member.receive(_signed(MessageType.ROSTER, 0, proposal.encode(), sample_roster().fingerprint))
        assert not member.refusals
        session = proposal.id
    else:
        try:
            session = Roster.parse(RosterProposal.parse(content).roster).fingerprint
        except pf.PppmlError:
            session = bytes(32)
    member.receive(_signed(kind, sender, content, session))
    assert member.session is None, "one message opened a session"


def _sample_proposal() -> RosterProposal:
    roster, everyone = sample_roster(), frozenset(range(len(sample_roster().members)))
    return RosterProposal(roster.canonical_bytes(), LAYOUT.canonical_bytes(), len(everyone), everyone, bytes(32))


def _signed(kind: MessageType, sender: int, content: bytes, session: bytes) -> bytes:
    prefix = Header(kind, session, SESSION_SCOPE, 0, sender, EVERYONE, 0).encode(len(content))
    signer = identities()[(*NAMES, "relay")[sender]]
    return prefix + content + signer.sign(CONTROL, prefix + content)


_SHAPES = (("collective", "ring"), ("collective", "star"), ("initiator", "ring"), ("plain", "ring"))


def round_seeds() -> list[bytes]:
    """A change of the first bytes of each of a member's first messages, in every protocol."""
    return [bytes([turn, shape, 0, 0, 0, 255]) for turn in range(9) for shape in range(len(_SHAPES))]


def whole_round(data: bytes) -> None:
    """A member that seals and signs false bodies ends a round, or changes its own part; it makes no machine raise.

    Input: which of its messages (1 byte), protocol and topology (1), offset (2), bytes cut off the body's end (1), and
    what is laid over the body from the offset on, by exclusive or.
    """
    head, edits = data[:5].ljust(5, b"\0"), data[5:]
    protocol, topology = _SHAPES[head[1] % len(_SHAPES)]
    keys = "public" if protocol == "initiator" else "collective"
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys=keys, weights="public")
    updates = {name: np.full(LAYOUT.size, 0.25 * index, np.float32) for index, name in enumerate(NAMES)}
    options: dict[str, Any] = {"protocol": protocol, "topology": topology, "params": params, "layout": LAYOUT}
    with (
        open_federation(NAMES, chunk_blocks=1, **options) as federation,
        _liar(head[0] % 16, int.from_bytes(head[2:4], "little"), head[4], edits),
        contextlib.suppress(pf.PppmlError),
    ):
        federation.aggregate(updates, round=0)


@contextlib.contextmanager
def _liar(turn: int, offset: int, shorter: int, edits: bytes) -> Iterator[None]:
    """The first member's message number ``turn`` of the round is changed before it is signed or sealed."""
    count = 0
    kept = Gate.sign, Gate.seal

    def changed(gate: Gate, content: bytes) -> bytes:
        nonlocal count
        if gate._session.index != 0:
            return content
        count += 1
        if count != turn + 1:
            return content
        lie = bytearray(content[: max(0, len(content) - shorter)])
        start = offset % (len(lie) + 1)
        for at, edit in enumerate(edits[: len(lie) - start], start):
            lie[at] ^= edit
        return bytes(lie)

    def sign(gate: Gate, receiver: int, type_: MessageType, content: bytes) -> bytes:
        return kept[0](gate, receiver, type_, changed(gate, content))

    def seal(gate: Gate, receiver: int, type_: MessageType, content: bytes, blocks: tuple[int, int] = (0, 0)) -> bytes:
        return kept[1](gate, receiver, type_, changed(gate, content), blocks)

    Gate.sign, Gate.seal = sign, seal  # type: ignore[method-assign]
    try:
        yield
    finally:
        Gate.sign, Gate.seal = kept  # type: ignore[method-assign]

"""An open session, and the gate every message of an attempt passes on its way in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pppml_fast.aggregation.base import NeverPickled
from pppml_fast.aggregation.encoding import digest
from pppml_fast.aggregation.identity import Identity, verify
from pppml_fast.aggregation.messages import EVERYONE, SEAL_SIZE, SESSION_SCOPE, Frame, Header, MessageType
from pppml_fast.aggregation.pairwise import Channel, SealedChannel, derive_key
from pppml_fast.aggregation.roster import Roster
from pppml_fast.errors import KeyReuseError, ProtocolError

__all__ = ["CONTROL", "Gate", "Message", "Session", "session_id"]

CONTROL = "control message"
"""Signature domain of control messages."""


@dataclass(frozen=True)
class Message:
    """A message whose sender, order and integrity are verified; ``data`` are its bytes as they came."""

    header: Header
    body: bytes
    data: bytes


def session_id(roster: Roster, proposal: bytes, present: int, hellos: Sequence[bytes], own: bytes) -> bytes:
    """H(roster ‖ id of the proposal ‖ the signed hello of everyone present, in roster order), 32 bytes.

    ``present`` counts them, relay included. Raises ProtocolError unless there is one hello for each and this party's
    own is among them: a session without its own fresh randomness could be a replayed one.
    """
    if len(hellos) != present:
        raise ProtocolError(f"{len(hellos)} hellos for {present} parties")
    if own not in hellos:
        raise ProtocolError("this party's own hello is not part of the session; it may be a replayed one")
    return digest("pppml session v2", roster.canonical_bytes(), proposal, *hellos)


class Session(NeverPickled):
    """Roster, identity and keys of one party in one session.

    ``group_key`` is None for a relay: the sum check and the sealed tags are out of its reach. ``present`` are the
    indices of the members that opened the session (all by default), ``standings`` what each said of itself.
    """

    def __init__(
        self,
        roster: Roster,
        identity: Identity,
        id: bytes,
        channels: Mapping[int, Channel],
        group_key: bytes | None,
        present: frozenset[int] | None = None,
        standings: Mapping[int, bytes] | None = None,
    ) -> None:
        self.roster = roster
        self.identity = identity
        self.id = id
        self.index = roster.index(identity.name)
        self.present = frozenset(range(len(roster.members))) if present is None else present
        self.standings = dict(standings or {})
        self._channels = dict(channels)
        self._group_key = group_key
        self._gated: set[tuple[int, int]] = set()

    def gate(self, round_: int, attempt: int) -> Gate:
        """The gate of one attempt; its sequence numbers start at 0 under keys of its own.

        Raises KeyReuseError on a second gate of one attempt: it would repeat the first one's keys and nonces.
        """
        if (round_, attempt) in self._gated:
            raise KeyReuseError(
                f"attempt {attempt} of round {round_} already has its keys in this session; use the next attempt"
            )
        self._gated.add((round_, attempt))
        channels = {peer: channel.scope(round_, attempt) for peer, channel in self._channels.items()}
        return Gate(self, round_, attempt, channels)

    @property
    def present_names(self) -> tuple[str, ...]:
        """Names of the members that opened the session, in ring order."""
        return tuple(name for index, name in enumerate(self.roster.names) if index in self.present)

    def join(self, group_key: bytes) -> None:
        """Take the members' common key, once every member's part of it is here."""
        self._group_key = group_key

    def group_key(self, label: str, *context: bytes) -> bytes:
        """32 bytes derived from the key that members share and relays lack. Raises ProtocolError on a relay."""
        if self._group_key is None:
            raise ProtocolError("a relay holds no group key")
        return derive_key(self._group_key, self.id, label.encode(), *context)

    def check_numbers(self, round_: int, attempt: int) -> None:
        """Raise ProtocolError on numbers no attempt may have; the highest round stands for the session itself."""
        if not (0 <= round_ < SESSION_SCOPE and 0 <= attempt < SESSION_SCOPE):
            raise ProtocolError(
                f"attempt {attempt} of round {round_} is out of range; number both from 0 to {SESSION_SCOPE - 1}"
            )

    def close(self) -> None:
        """Forget the session's keys."""
        self._channels.clear()
        self._group_key = None


class Gate(NeverPickled):
    """Signs, seals and checks the messages of one attempt.

    `accept` lets a message through only if it is of this session, round and attempt, addressed here, from
    another party of the roster, next in its stream, and carries a valid signature or seal.
    """

    def __init__(self, session: Session, round_: int, attempt: int, channels: dict[int, SealedChannel]) -> None:
        self._session = session
        self._round = round_
        self._attempt = attempt
        self._channels = channels
        self._signed_sent: dict[int, int] = {}
        self._signed_received: dict[tuple[int, int], int] = {}

    def sign(self, receiver: int, type_: MessageType, body: bytes) -> bytes:
        """A signed message to one party or to EVERYONE."""
        sequence = self._signed_sent.get(receiver, 0)
        self._signed_sent[receiver] = sequence + 1
        prefix = self._header(type_, receiver, sequence, (0, 0)).encode(len(body))
        return prefix + body + self._session.identity.sign(CONTROL, prefix + body)

    def seal(self, receiver: int, type_: MessageType, body: bytes, blocks: tuple[int, int] = (0, 0)) -> bytes:
        """A sealed message to one party, over a range of blocks."""
        channel = self._channel(receiver)
        header = self._header(type_, receiver, channel.next_sent, blocks)
        prefix = header.encode(len(body) + SEAL_SIZE)
        return prefix + channel.seal(prefix, header.sequence, body)

    def accept(self, frame: Frame) -> Message:
        """The verified message of a frame. Raises ProtocolError with the reason otherwise."""
        header = frame.header
        self._check_address(header)
        if not frame.signed:
            if header.receiver == EVERYONE:
                raise ProtocolError(f"{header.type.name} is sealed and cannot be addressed to everyone")
            body = self._channel(header.sender).open(frame.prefix, header.sequence, frame.body)
            return Message(header, body, b"")
        stream = (header.sender, header.receiver)
        expected = self._signed_received.get(stream, 0)
        if header.sequence != expected:
            kind = "replayed" if header.sequence < expected else "out of order"
            raise ProtocolError(f"{header.type.name} {header.sequence} is {kind}; the next is {expected}")
        self.check_signature(frame)
        self._signed_received[stream] = expected + 1
        return Message(header, frame.body, frame.prefix + frame.body + frame.signature)

    def check_signature(self, frame: Frame) -> None:
        """Raise ProtocolError unless a signed frame carries its sender's signature."""
        sender = self._session.roster.everyone[frame.header.sender]
        verify(sender.public, CONTROL, frame.prefix + frame.body, frame.signature, sender.name)

    def _check_address(self, header: Header) -> None:
        if header.session != self._session.id:
            raise ProtocolError("the message belongs to another session")
        if (header.round, header.attempt) != (self._round, self._attempt):
            raise ProtocolError(
                f"the message belongs to attempt {header.attempt} of round {header.round}, "
                f"not to attempt {self._attempt} of round {self._round}"
            )
        if header.sender >= len(self._session.roster.everyone) or header.sender == self._session.index:
            raise ProtocolError(f"sender {header.sender} is no other party of the roster")
        if header.receiver not in (self._session.index, EVERYONE):
            raise ProtocolError(f"the message is addressed to party {header.receiver}")

    def _header(self, type_: MessageType, receiver: int, sequence: int, blocks: tuple[int, int]) -> Header:
        session = self._session
        return Header(
            type_, session.id, self._round, self._attempt, session.index, receiver, sequence, blocks[0], blocks[1]
        )

    def _channel(self, peer: int) -> SealedChannel:
        if peer not in self._channels:
            raise ProtocolError(f"there is no channel to party {peer}")
        return self._channels[peer]

"""What members say of where they stand: signed by each, and kept as it was last heard over its own link."""

from __future__ import annotations

from pppml_fast.aggregation.identity import Identity, verify
from pppml_fast.aggregation.messages import EVERYONE, SESSION_SCOPE, Frame, Header, MessageType
from pppml_fast.aggregation.roster import Roster
from pppml_fast.aggregation.session import CONTROL
from pppml_fast.errors import ProtocolError
from pppml_fast.site.notices import Status

__all__ = ["MEMBERSHIP", "Statuses"]

MEMBERSHIP = 1
"""The attempt number, within the round that stands for a session, of messages about membership."""


class Statuses:
    """``heard`` holds the newest status by index of its member, of those that a link stands to."""

    def __init__(self, identity: Identity, roster: Roster) -> None:
        self.heard: dict[int, Status] = {}
        self._identity, self._roster = identity, roster
        self._sequence = 0

    def sign(self, status: Status) -> bytes:
        """This node's status as one message to everyone."""
        body, me = status.encode(), self._roster.index(self._identity.name)
        fingerprint, sequence = self._roster.fingerprint, self._sequence
        header = Header(MessageType.STATUS, fingerprint, SESSION_SCOPE, MEMBERSHIP, me, EVERYONE, sequence)
        self._sequence += 1
        prefix = header.encode(len(body))
        return prefix + body + self._identity.sign(CONTROL, prefix + body)

    def take(self, peer: str, frame: Frame) -> None:
        """Keep a status. Raises ProtocolError unless it is the peer's own, of this federation and well signed."""
        sender, members = frame.header.sender, self._roster.members
        if self._roster.index(peer) != sender or sender >= len(members):
            raise ProtocolError(f"a status of party {sender} came over the link to {peer!r}")
        if frame.header.session != self._roster.fingerprint:
            raise ProtocolError(f"{peer!r} is of another federation: its roster is not this one")
        member = members[sender]
        verify(member.public, CONTROL, frame.prefix + frame.body, frame.signature, member.name)
        status = Status.parse(frame.body)
        if status.parties != len(members):
            raise ProtocolError(f"{peer!r} counts {status.parties} members")
        self.heard[sender] = status

    def forget(self, index: int) -> None:
        """A link is gone: what came over it may be old."""
        self.heard.pop(index, None)

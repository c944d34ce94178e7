"""The adversaries of the README's table on the network: a star of real members and the real coordinator, over real TLS.

As in `tests/aggregation/test_adversaries.py`, each attempt has its counterpart: with what the adversary lacks, the same
tools open the sum.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("grpc")

sys.path.insert(0, str(Path(__file__).parents[1] / "aggregation"))

from loopback import RELAY, SIZE, Star
from test_adversaries import field_guesses, open_with, stays_shut

from pppml_fast import Ciphertext, ProtocolError, add, quantize
from pppml_fast.aggregation.attempts import AttemptId
from pppml_fast.aggregation.messages import SIGNED, MessageType, parse_frame
from pppml_fast.aggregation.pairwise import Channel
from pppml_fast.aggregation.payloads import Chunk, Deal, ShareSum
from pppml_fast.aggregation.session import Gate, Message, Session
from pppml_fast.aggregation.sharing import combine
from pppml_fast.site.events import EventKind

Integers = NDArray[np.int64]
PARTIES = 5


class Ended:
    """A star after its first round: what passed each gate, what was carried, the coordinator's keys as they were."""

    def __init__(self, star: Star, opened: dict[str, list[Message]], channels: dict[str, dict[int, Channel]]) -> None:
        self.star, self.opened, self.channels = star, opened, channels
        (session,) = {event.fields["session"] for event in star.kinds(EventKind.SESSION_OPENED)}
        self.attempt = AttemptId(bytes.fromhex(session), 0, 0)
        self.singles = [self._term(index) for index in range(PARTIES)]
        self.total = add(self.singles)

    def read(self, name: str, kind: MessageType) -> list[Message]:
        """What a node read of a kind, in the first attempt."""
        return [m for m in self.opened[name] if m.header.type is kind and (m.header.round, m.header.attempt) == (0, 0)]

    def _term(self, index: int) -> Ciphertext:
        term = Ciphertext.zeros(self.star.params, SIZE, 1, self.attempt.context)
        for message in self.read(RELAY, MessageType.CHUNK):
            if message.header.sender == index:
                term.load(message.header.start, message.header.stop, Chunk.parse(message.body).payload)
        return term

    def shares_of(self, dealer: int, holders: list[int]) -> dict[int, Integers]:
        """Shares of one member's key that these others were dealt."""
        found = {}
        for holder in holders:
            deals = self.read(self.star.names[holder], MessageType.DEAL)
            (deal,) = [Deal.parse(m.body) for m in deals if m.header.sender == dealer]
            found[holder + 1] = deal.share
        return found

    def integers(self, names: list[str]) -> Integers:
        total = np.zeros(SIZE, np.int64)
        for name in names:
            total += quantize(self.star.params, self.star.update(name), 1 / PARTIES)
        return total


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    opened: dict[str, list[Message]] = {}
    channels: dict[str, dict[int, Channel]] = {}
    accept, made = Gate.accept, Session.__init__

    def spy(self: Gate, frame: Any) -> Message:
        message = accept(self, frame)
        opened.setdefault(self._session.identity.name, []).append(message)
        return message

    def remember(self: Session, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        channels[self.identity.name] = dict(self._channels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gate, "accept", spy)
        patch.setattr(Session, "__init__", remember)
        star = Star(tmp_path_factory.mktemp("star"), PARTIES, tapped=True)
        try:
            star.run()
        finally:
            star.stop()
    yield Ended(star, opened, channels)


def test_the_real_coordinator_cannot_form_the_key_from_all_it_carried(ended: Ended) -> None:
    """Its transcript, its identity key and its session keys: no share is in clear, no update or sum opens."""
    star, carried = ended.star, ended.star.recording.carried
    assert len(star.kinds(EventKind.ROUND_FINISHED)) == PARTIES
    frames = [parse_frame(data) for data in carried]
    assert {MessageType.DEAL, MessageType.SHARE, MessageType.TAG, MessageType.CHUNK} <= {f.header.type for f in frames}
    everything = b"".join(carried)
    for name in star.names:
        for message in ended.read(name, MessageType.DEAL) + ended.read(name, MessageType.SHARE):
            assert message.body[40:140] not in everything, "a share travelled in clear"
    assert {m.header.type for m in ended.opened[RELAY]} <= {MessageType.READY, MessageType.CHUNK}

    keys = ended.channels[RELAY]
    assert set(keys) == set(range(PARTIES))
    tried = 0
    for frame in frames:
        if frame.header.type not in (MessageType.DEAL, MessageType.SHARE):
            continue
        for peer in keys:
            channel = keys[peer].scope(0, 0)
            channel.next_received = frame.header.sequence
            with pytest.raises(ProtocolError, match=r"altered"):
                channel.open(frame.prefix, frame.header.sequence, frame.content)
            tried += 1
    assert tried == 2 * PARTIES * (PARTIES - 1) * PARTIES

    guesses = [np.zeros(star.params.ring_dimension, np.int64), *field_guesses(carried, star.params.ring_dimension)]
    targets = [ended.total, *ended.singles]
    assert stays_shut(star.params, guesses[:60], targets) >= 6 * 20

    shares = {m.header.sender + 1: ShareSum.parse(m.body).values for m in ended.read("site0", MessageType.SHARE)}
    secret = combine(dict(sorted(shares.items())[:4]), 4)
    assert np.array_equal(open_with(star.params, secret, ended.total), ended.integers(list(star.names)))


def test_the_coordinator_with_one_member_opens_the_sum_and_no_update(ended: Ended) -> None:
    """The member adds what any member has: S, the sum, its own vector, one share of each other key of four."""
    star = ended.star
    shares = {m.header.sender + 1: ShareSum.parse(m.body).values for m in ended.read("site0", MessageType.SHARE)}
    secret = combine(dict(sorted(shares.items())[:4]), 4)
    opened = open_with(star.params, secret, ended.total)
    others = [name for name in star.names if name != "site0"]
    own = quantize(star.params, star.update("site0"), 1 / PARTIES)
    assert np.array_equal(opened - own, ended.integers(others)), "the sum of the others, as for every member"

    assert stays_shut(star.params, [secret], ended.singles) == PARTIES
    for victim in range(1, PARTIES):
        share = ended.shares_of(victim, [0])
        assert stays_shut(star.params, [combine(share, 1), secret - combine(share, 1)], [ended.singles[victim]]) == 2
    pooled = combine(ended.shares_of(1, [0, 2, 3, 4]), 4)
    assert np.array_equal(open_with(star.params, pooled, ended.singles[1]), ended.integers(["site1"])), "four would"


def test_an_eavesdropper_on_tls_reads_no_frame(ended: Ended) -> None:
    """Not even the headers that the coordinator sees: a tap between the members and it holds sizes and times."""
    star = ended.star
    assert star.tap is not None
    wire = b"".join(star.tap.carried)
    assert len(wire) > sum(map(len, star.recording.carried)) / 2
    assert b"PPML" not in wire
    for data in star.recording.carried:
        assert data[:48] not in wire
        assert data[-32:] not in wire
    assert all(star.identities[name].public not in wire for name in star.names)


def test_what_the_coordinator_may_know_is_in_its_own_words(ended: Ended) -> None:
    """Sizes, times, names and hashes: every signed message is readable, none of them holds an update or a share."""
    signed = [f for f in map(parse_frame, ended.star.recording.carried) if f.header.type in SIGNED]
    updates = [ended.star.update(name)[:4].tobytes() for name in ended.star.names]
    bodies = b"".join(frame.body for frame in signed)
    assert {MessageType.HELLO, MessageType.STATEMENT, MessageType.STATUS} <= {f.header.type for f in signed}
    assert not any(update in bodies for update in updates)

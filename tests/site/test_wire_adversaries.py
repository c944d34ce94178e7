"""The adversaries of the README's table on the network: a star of real members and the real coordinator, over real TLS,
once as threads of one process and once as processes, each with its own disk.

As in `tests/aggregation/test_adversaries.py`, each attempt has its counterpart: with what the adversary lacks, the same
tools open the sum.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("grpc")

sys.path.insert(0, str(Path(__file__).parents[1] / "aggregation"))
sys.path.append(str(Path(__file__).parents[1] / "faults"))

import paths  # noqa: F401  (before the modules it makes importable)
from attended import WAIT_S
from light_site import Vector, light_update
from loopback import RELAY, SIZE, Star, Tap
from real_federation import RealFederation
from spy import Seen, Spy
from test_adversaries import field_guesses, open_with, stays_shut

from pppml_fast import Ciphertext, CkksParams, ProtocolError, add, quantize
from pppml_fast.aggregation.attempts import AttemptId
from pppml_fast.aggregation.messages import SIGNED, MessageType, parse_frame
from pppml_fast.aggregation.pairwise import Channel
from pppml_fast.aggregation.payloads import Chunk, Deal, ShareSum
from pppml_fast.aggregation.session import Message
from pppml_fast.aggregation.sharing import combine
from pppml_fast.site.events import EventKind

Integers = NDArray[np.int64]
PARTIES = 5


class Ended:
    """A star after its first round: updates by member, everyone's public key, what was carried and what a tap between
    the members and the coordinator saw, what passed each gate, the coordinator's keys as they were."""

    def __init__(
        self,
        params: CkksParams,
        session: str,
        updates: dict[str, Vector],
        publics: list[bytes],
        carried: list[bytes],
        tapped: list[bytes],
        opened: dict[str, list[Message]],
        keys: dict[int, Channel],
    ) -> None:
        self.params, self.updates, self.publics, self.names = params, updates, publics, list(updates)
        self.carried, self.tapped, self.opened, self.keys = carried, tapped, opened, keys
        self.attempt = AttemptId(bytes.fromhex(session), 0, 0)
        self.singles = [self._term(index) for index in range(PARTIES)]
        self.total = add(self.singles)

    def read(self, name: str, kind: MessageType) -> list[Message]:
        """What a node read of a kind, in the first attempt."""
        return [m for m in self.opened[name] if m.header.type is kind and (m.header.round, m.header.attempt) == (0, 0)]

    def _term(self, index: int) -> Ciphertext:
        term = Ciphertext.zeros(self.params, SIZE, 1, self.attempt.context)
        for message in self.read(RELAY, MessageType.CHUNK):
            if message.header.sender == index:
                term.load(message.header.start, message.header.stop, Chunk.parse(message.body).payload)
        return term

    def shares_of(self, dealer: int, holders: list[int]) -> dict[int, Integers]:
        """Shares of one member's key that these others were dealt."""
        found = {}
        for holder in holders:
            deals = self.read(self.names[holder], MessageType.DEAL)
            (deal,) = [Deal.parse(m.body) for m in deals if m.header.sender == dealer]
            found[holder + 1] = deal.share
        return found

    def integers(self, names: list[str]) -> Integers:
        total = np.zeros(SIZE, np.int64)
        for name in names:
            total += quantize(self.params, self.updates[name], 1 / PARTIES)
        return total


def in_threads(folder: Path) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        spy = Spy(patch.setattr)
        star = Star(folder, PARTIES, tapped=True)
        try:
            star.run()
        finally:
            star.stop()
    assert len(star.kinds(EventKind.ROUND_FINISHED)) == PARTIES
    (session,) = {event.fields["session"] for event in star.kinds(EventKind.SESSION_OPENED)}
    updates = {name: star.update(name) for name in star.names}
    publics = [identity.public for identity in star.identities.values()]
    assert star.tap is not None
    keys = spy.channels[RELAY]
    return Ended(star.params, session, updates, publics, star.recording.carried, star.tap.carried, spy.opened, keys)


def in_processes(folder: Path) -> Ended:
    seen = folder / "seen"
    seen.mkdir()
    federation = RealFederation(folder / "federation", PARTIES, "star", SIZE, seed=1)
    tap = Tap(federation.ports[RELAY])
    for node in federation.nodes.values():
        node.config |= {"record": str(seen), "timing": {"patience": WAIT_S, "handshake": WAIT_S}, "grace_s": WAIT_S}
        if node.name != RELAY:
            node.config["addresses"] = {RELAY: f"127.0.0.1:{tap.port}"}
    try:
        federation.start()
        for node in federation.nodes.values():
            node.order(finish=1)
        assert all(node.reap(WAIT_S) for node in federation.nodes.values())
    finally:
        federation.close()
        tap.stop()
    federation.judge()
    assert (federation.checks.wrong, len(federation.checks.exact)) == ([], 1)
    (session,) = {line["session"] for node in federation.members for line in told(node.lines, "session_opened")}
    updates = {}
    for node in federation.members:
        (contributed,) = told(node.lines, "contributed")
        updates[node.name] = light_update(node.name, 0, contributed["salt"], SIZE)
    everyone = {name: Seen.load(seen, name) for name in federation.everyone}
    publics = [keys.identity.public for keys in federation.keys.values()]
    opened = {name: one.opened for name, one in everyone.items()}
    hub = everyone[RELAY]
    return Ended(
        federation.federation.params, session, updates, publics, hub.carried, tap.carried, opened, hub.channels
    )


def told(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["what"] == kind]


@pytest.fixture(scope="module", params=[in_threads, in_processes], ids=["threads", "processes"])
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    found: Ended = request.param(tmp_path_factory.mktemp("star"))
    return found


def test_the_real_coordinator_cannot_form_the_key_from_all_it_carried(ended: Ended) -> None:
    """Its transcript, its identity key and its session keys: no share is in clear, no update or sum opens."""
    carried = ended.carried
    frames = [parse_frame(data) for data in carried]
    assert {MessageType.DEAL, MessageType.SHARE, MessageType.TAG, MessageType.CHUNK} <= {f.header.type for f in frames}
    everything = b"".join(carried)
    for name in ended.names:
        for message in ended.read(name, MessageType.DEAL) + ended.read(name, MessageType.SHARE):
            assert message.body[40:140] not in everything, "a share travelled in clear"
    assert {m.header.type for m in ended.opened[RELAY]} <= {MessageType.READY, MessageType.CHUNK}

    keys = ended.keys
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

    guesses = [np.zeros(ended.params.ring_dimension, np.int64), *field_guesses(carried, ended.params.ring_dimension)]
    targets = [ended.total, *ended.singles]
    assert stays_shut(ended.params, guesses[:60], targets) >= 6 * 20

    shares = {m.header.sender + 1: ShareSum.parse(m.body).values for m in ended.read("site0", MessageType.SHARE)}
    secret = combine(dict(sorted(shares.items())[:4]), 4)
    assert np.array_equal(open_with(ended.params, secret, ended.total), ended.integers(list(ended.names)))


def test_the_coordinator_with_one_member_opens_the_sum_and_no_update(ended: Ended) -> None:
    """The member adds what any member has: S, the sum, its own vector, one share of each other key of four."""
    shares = {m.header.sender + 1: ShareSum.parse(m.body).values for m in ended.read("site0", MessageType.SHARE)}
    secret = combine(dict(sorted(shares.items())[:4]), 4)
    opened = open_with(ended.params, secret, ended.total)
    others = [name for name in ended.names if name != "site0"]
    own = quantize(ended.params, ended.updates["site0"], 1 / PARTIES)
    assert np.array_equal(opened - own, ended.integers(others)), "the sum of the others, as for every member"

    assert stays_shut(ended.params, [secret], ended.singles) == PARTIES
    for victim in range(1, PARTIES):
        share = ended.shares_of(victim, [0])
        assert stays_shut(ended.params, [combine(share, 1), secret - combine(share, 1)], [ended.singles[victim]]) == 2
    pooled = combine(ended.shares_of(1, [0, 2, 3, 4]), 4)
    assert np.array_equal(open_with(ended.params, pooled, ended.singles[1]), ended.integers(["site1"])), "four would"


def test_an_eavesdropper_on_tls_reads_no_frame(ended: Ended) -> None:
    """Not even the headers that the coordinator sees: a tap between the members and it holds sizes and times."""
    wire = b"".join(ended.tapped)
    assert len(wire) > sum(map(len, ended.carried)) / 2
    assert b"PPML" not in wire
    for data in ended.carried:
        assert data[:48] not in wire
        assert data[-32:] not in wire
    assert all(public not in wire for public in ended.publics)


def test_what_the_coordinator_may_know_is_in_its_own_words(ended: Ended) -> None:
    """Sizes, times, names and hashes: every signed message is readable, none of them holds an update or a share."""
    signed = [f for f in map(parse_frame, ended.carried) if f.header.type in SIGNED]
    updates = [update[:4].tobytes() for update in ended.updates.values()]
    bodies = b"".join(frame.body for frame in signed)
    assert {MessageType.HELLO, MessageType.STATEMENT, MessageType.STATUS} <= {f.header.type for f in signed}
    assert not any(update in bodies for update in updates)

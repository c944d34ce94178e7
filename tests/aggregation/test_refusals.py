"""Messages of a round that are replayed, reordered, altered, truncated, foreign or out of place: all refused."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from aggregation_support import NAMES, SIZE, federation, kind_of, sender_of, vectors

from pppml_fast import Ciphertext, CiphertextError, CollectiveKey, OpeningError, ProtocolError, add
from pppml_fast.aggregation import Federation, InitiatorParty, Relay, State
from pppml_fast.aggregation.messages import HEADER_SIZE, SESSION_SCOPE, Header, MessageType, parse_frame
from pppml_fast.aggregation.party import PartyMachine
from pppml_fast.aggregation.payloads import Announce, Chunk, Deal, ShareSum, Statement
from pppml_fast.aggregation.session import Gate
from pppml_fast.transport import Delivery, Outgoing

Change = Callable[[bytes], list[bytes]]


def tamper_once(fed: Federation, kind: MessageType, hop: str, change: Change, number: int = 0) -> None:
    """Change one message of a kind on its way to ``hop``."""
    seen: list[bytes] = []

    def tamper(delivery: Delivery) -> list[bytes]:
        if kind_of(delivery.data) is kind and delivery.hop == hop:
            seen.append(delivery.data)
            if len(seen) == number + 1:
                return change(delivery.data)
        return [delivery.data]

    fed.network.tamper = tamper


def flip(at: int) -> Change:
    def change(data: bytes) -> list[bytes]:
        altered = bytearray(data)
        altered[at] ^= 1
        return [bytes(altered)]

    return change


def refusals(fed: Federation, name: str) -> str:
    return " | ".join(str(error) for error in fed.members[name].refusals)


KINDS = [MessageType.DEAL, MessageType.CHUNK, MessageType.RETURN, MessageType.STATEMENT, MessageType.SHARE]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "at", [5, 6, 9, 43, 48, 50, 52, 61, 68, HEADER_SIZE, HEADER_SIZE + 7, -1], ids=lambda at: f"byte{at}"
)
def test_any_altered_byte_is_refused_and_nothing_opens(kind: MessageType, at: int) -> None:
    with federation() as fed:
        hop = "south" if kind is MessageType.CHUNK else "east"
        tamper_once(fed, kind, hop, flip(at))
        with pytest.raises(ProtocolError):
            fed.aggregate(vectors(), round=0)
        assert fed.members[hop].outcome is None
        assert fed.members[hop].refusals or fed.members[hop]._early


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_truncated_messages_are_refused(kind: MessageType) -> None:
    for cut in (
        lambda d: [d[:-1]],
        lambda d: [d[:HEADER_SIZE]],
        lambda d: [d[:20]],
        lambda d: [b""],
        lambda d: [d + b"x"],
    ):
        with federation() as fed:
            hop = "south" if kind is MessageType.CHUNK else "east"
            tamper_once(fed, kind, hop, cut)
            with pytest.raises(ProtocolError, match=r"did not finish"):
                fed.aggregate(vectors(), round=0)
            assert fed.members[hop].outcome is None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_replayed_messages_are_refused_and_change_nothing(kind: MessageType) -> None:
    with federation() as fed:
        hop = "south" if kind is MessageType.CHUNK else "east"
        tamper_once(fed, kind, hop, lambda data: [data, data])
        assert np.isfinite(fed.aggregate(vectors(), round=0).vector).all()
        assert "replayed" in refusals(fed, hop)


def test_replay_from_an_earlier_attempt_and_session_is_refused() -> None:
    recorded: list[Delivery] = []
    with federation(record=True) as fed:
        fed.aggregate(vectors(), round=0)
        recorded = [d for d in fed.network.transcript if d.hop == "east"]
        chunk = next(d.data for d in recorded if kind_of(d.data) is MessageType.CHUNK)
        tamper_once(fed, MessageType.CHUNK, "east", lambda data: [chunk, data])
        fed.aggregate(vectors(seed=1), round=1)
        assert "belongs to attempt 0 of round 0" in refusals(fed, "east")
    with federation() as fed:
        tamper_once(fed, MessageType.CHUNK, "east", lambda data: [chunk, data])
        fed.aggregate(vectors(), round=0)
        assert "another session" in refusals(fed, "east")


def test_reordered_chunks_are_refused() -> None:
    kept: list[bytes] = []

    def swap(delivery: Delivery) -> list[bytes]:
        if kind_of(delivery.data) is MessageType.CHUNK and delivery.hop == "south":
            if not kept:
                kept.append(delivery.data)
                return []
            if len(kept) == 1:
                kept.append(b"")
                return [delivery.data, kept[0]]
        return [delivery.data]

    with federation() as fed:
        fed.network.tamper = swap
        with pytest.raises(ProtocolError, match=r"out of order"):
            fed.aggregate(vectors(), round=0)


def test_message_for_another_party_is_refused() -> None:
    with federation() as fed:

        def misdeliver(delivery: Delivery) -> list[bytes]:
            if kind_of(delivery.data) is MessageType.DEAL and delivery.hop == "south":
                fed.network.nodes["east"].receive(delivery.data)
            return [delivery.data]

        fed.network.tamper = misdeliver
        fed.aggregate(vectors(), round=0)
        assert "addressed to party 2" in refusals(fed, "east")


def test_strangers_and_forged_senders_are_refused() -> None:
    with federation() as fed:
        fed.aggregate(vectors(), round=0)
        machine = fed.members["east"]
        forged = Header(MessageType.ABANDON, machine.session.id, 0, 0, 7, 0xFFFF, 0).encode(5) + bytes(5 + 64)
        machine.receive(forged)
        assert "sender 7 is no other party" in refusals(fed, "east")
        own = Header(MessageType.ABANDON, machine.session.id, 0, 0, 1, 0xFFFF, 0).encode(5) + bytes(5 + 64)
        machine.receive(own)
        assert "sender 1 is no other party" in refusals(fed, "east")
        unsigned = Header(MessageType.STATEMENT, machine.session.id, 0, 0, 2, 0xFFFF, 2).encode(5) + bytes(5 + 64)
        machine.receive(unsigned)
        assert "signature of south is not valid" in refusals(fed, "east")


def test_the_peer_learns_that_it_was_refused_but_not_why() -> None:
    with federation(record=True) as fed:
        tamper_once(fed, MessageType.CHUNK, "south", flip(-1))
        with pytest.raises(ProtocolError, match=r"altered"):
            fed.aggregate(vectors(), round=0)
        told = [d for d in fed.network.transcript if kind_of(d.data) is MessageType.REFUSED]
        assert told
        assert all(parse_frame(d.data).body == b"" for d in told)
        assert "south" in fed.members["east"].refused_by


# --- authenticated, but wrong -----------------------------------------------------------------------------------


def rewrite(monkeypatch: pytest.MonkeyPatch, party: str, kind: MessageType, change: Callable[[bytes], bytes]) -> None:
    """Let a member send another body than the protocol asks for, properly sealed."""
    seal = PartyMachine._sealed

    def sealed(
        self: PartyMachine, receiver: int, type_: MessageType, body: bytes, blocks: tuple[int, int] = (0, 0)
    ) -> Outgoing:
        return seal(self, receiver, type_, change(body) if self.name == party and type_ is kind else body, blocks)

    monkeypatch.setattr(PartyMachine, "_sealed", sealed)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda chunk: replace(chunk, length=chunk.length + 1), "all vectors must have one length"),
        (lambda chunk: replace(chunk, contributors=frozenset({0, 1, 2})), "cannot be the one before"),
        (lambda chunk: replace(chunk, contributors=frozenset({0})), "cannot be the one before"),
        (lambda chunk: replace(chunk, parties=4), "counts 4 parties"),
        (lambda chunk: replace(chunk, payload=chunk.payload[:-1]), "blocks"),
        (lambda chunk: replace(chunk, payload=b"\xff" * len(chunk.payload)), "not below its prime"),
    ],
)
def test_malformed_chunks_of_a_member_are_refused(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Chunk], Chunk], reason: str
) -> None:
    rewrite(monkeypatch, "east", MessageType.CHUNK, lambda body: change(Chunk.parse(body)).encode())
    with federation() as fed:
        with pytest.raises(ProtocolError, match=r"did not finish"):
            fed.aggregate(vectors(), round=0)
        assert reason in refusals(fed, "south")
        assert any(isinstance(error, ProtocolError | CiphertextError) for error in fed.members["south"].refusals)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda deal: replace(deal, threshold=2), "another live set or threshold"),
        (lambda deal: replace(deal, live=frozenset({0, 1})), "another live set or threshold"),
        (lambda deal: replace(deal, group_check=bytes(32)), "another group key"),
        (lambda deal: replace(deal, share=deal.share[:-1]), "2047 values"),
    ],
)
def test_wrong_deals_are_refused(monkeypatch: pytest.MonkeyPatch, change: Callable[[Deal], Deal], reason: str) -> None:
    rewrite(monkeypatch, "east", MessageType.DEAL, lambda body: change(Deal.parse(body)).encode())
    with federation() as fed, pytest.raises(ProtocolError, match=reason):
        fed.aggregate(vectors(), round=0)


def test_a_wrong_share_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(body: bytes) -> bytes:
        share = ShareSum.parse(body)
        return replace(share, values=(share.values + 1) % 65537).encode()

    with federation() as fed:
        original = Gate.seal

        def sealed(
            self: Gate, receiver: int, type_: MessageType, body: bytes, blocks: tuple[int, int] = (0, 0)
        ) -> bytes:
            lying = type_ is MessageType.SHARE and self._session.identity.name == "east"
            return original(self, receiver, type_, wrong(body) if lying else body, blocks)

        monkeypatch.setattr(Gate, "seal", sealed)
        with pytest.raises(OpeningError):
            fed.aggregate(vectors(), round=0)
        assert fed.members["north"].state is State.FAILED


# --- equivocation and tampered sums -----------------------------------------------------------------------------


def other_statement(fed: Federation, data: bytes) -> bytes:
    """A statement over another B, signed by its sender like the true one."""
    frame = parse_frame(data)
    statement = replace(Statement.parse(frame.body), root=b"?" * 32)
    body = statement.encode()
    identity = fed.members[NAMES[frame.header.sender]].session.identity
    return frame.prefix + body + identity.sign("control message", frame.prefix + body)


@pytest.mark.parametrize("parties", [3, 5])
def test_equivocation_is_noticed_and_leaves_evidence(parties: int) -> None:
    """With t = n nothing opens; with t < n the others may, but never against what north signed."""
    liar = NAMES[parties - 1]
    with federation(parties) as fed:

        def tamper(delivery: Delivery) -> list[bytes]:
            data = delivery.data
            if kind_of(data) is MessageType.STATEMENT and delivery.sender == liar and delivery.hop == "north":
                return [other_statement(fed, data)]
            return [data]

        fed.network.tamper = tamper
        with pytest.raises(ProtocolError, match=r"statements .* differ"):
            fed.aggregate(vectors(parties), round=0)
        assert fed.members["north"].state is State.ABANDONED
        assert fed.members["north"].outcome is None
        if parties == 3:
            assert all(machine.outcome is None for machine in fed.members.values())
        (pair,) = fed.members["east"].evidence
        frames = [parse_frame(data) for data in pair]
        assert [sender_of(data) for data in pair] == [liar, liar]
        assert frames[0].prefix == frames[1].prefix
        assert frames[0].body != frames[1].body
        for frame in frames:
            fed.members["east"]._now.gate.check_signature(frame)


def test_a_second_statement_is_evidence() -> None:
    with federation() as fed:

        def tamper(delivery: Delivery) -> list[bytes]:
            data = delivery.data
            if kind_of(data) is MessageType.STATEMENT and delivery.sender == "south" and delivery.hop == "north":
                frame = parse_frame(data)
                prefix = replace(frame.header, sequence=1).encode(len(frame.body))
                body = replace(Statement.parse(frame.body), root=b"?" * 32).encode()
                identity = fed.members["south"].session.identity
                return [data, prefix + body + identity.sign("control message", prefix + body)]
            return [data]

        fed.network.tamper = tamper
        fed.aggregate(vectors(), round=0)
        assert len(fed.members["north"].evidence) == 1
        assert "signs a second statement" in refusals(fed, "north")


def alter_sum(monkeypatch: pytest.MonkeyPatch, change: Callable[[Relay], None]) -> None:
    """Let the relay change the sum just before it gives it back."""
    give_back = Relay._return

    def altered(self: Relay) -> list[Outgoing]:
        now = self._round
        assert now is not None
        if now.total is not None and not now.returned and not set(now.live) - now.added - now.lost:
            change(self)
        return give_back(self)

    monkeypatch.setattr(Relay, "_return", altered)


def test_a_relay_that_shifts_the_sum_by_whole_steps_is_caught_by_the_sum_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding a multiple of Δ passes the residual check; without the sum check the wrong sum would open."""

    def shift(relay: Relay) -> None:
        total, params = relay._now.total, relay._now.params
        assert isinstance(total, Ciphertext)
        total.first[0] = (int(total.first[0]) + 1000 * params.scale) % params.primes[0]

    updates = vectors()
    alter_sum(monkeypatch, shift)
    with federation(topology="star") as fed:
        with pytest.raises(OpeningError, match=r"sum check fails"):
            fed.aggregate(updates, round=0)
        assert all(machine.outcome is None for machine in fed.members.values())
    with federation(topology="star", sum_check=False) as fed:
        shifted = fed.aggregate(updates, round=0).integers
    with federation(protocol="plain", params=fed.params) as plain:
        difference = shifted - plain.aggregate(updates, round=0).integers
    assert difference[0] == 1000
    assert not difference[1:].any()


@pytest.mark.parametrize("sum_check", [False, True])
@pytest.mark.parametrize("fault", ["missing", "doubled", "foreign"])
def test_missing_doubled_or_foreign_terms_never_open(
    monkeypatch: pytest.MonkeyPatch, fault: str, sum_check: bool
) -> None:
    keep = Relay._add

    def wrong(self: Relay, sender: int, term: Ciphertext) -> None:
        if sender == 1 and fault == "missing":
            term = Ciphertext.empty_like(term, 1)
        elif sender == 1 and fault == "doubled":
            term = add([term, term])
            term.terms = 1
        elif sender == 1:
            term = CollectiveKey.generate(term.params).encrypt(np.zeros(term.length), context=term.context, weight=0.1)
        keep(self, sender, term)

    monkeypatch.setattr(Relay, "_add", wrong)
    with federation(topology="star", sum_check=sum_check) as fed:
        with pytest.raises(OpeningError, match=r"sum check fails" if sum_check else "residual check"):
            fed.aggregate(vectors(), round=0)
        assert all(machine.state is State.FAILED for machine in fed.members.values())


def test_a_relay_that_tells_members_different_sums_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Gate.seal

    def sealed(self: Gate, receiver: int, type_: MessageType, body: bytes, blocks: tuple[int, int] = (0, 0)) -> bytes:
        if type_ is MessageType.RETURN and receiver == 1:
            chunk = Chunk.parse(body)
            body = replace(chunk, payload=bytes(len(chunk.payload))).encode()
        return original(self, receiver, type_, body, blocks)

    monkeypatch.setattr(Gate, "seal", sealed)
    with federation(topology="star") as fed:
        with pytest.raises(ProtocolError, match=r"differ"):
            fed.aggregate(vectors(), round=0)
        assert {machine.state for machine in fed.members.values()} == {State.ABANDONED}


def test_a_relay_cannot_leave_a_party_out_below_the_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Relay.begin
    monkeypatch.setattr(Relay, "begin", lambda self, r, a, live, p: begin(self, r, a, live[:2], p))
    with federation(topology="star") as fed, pytest.raises(ProtocolError, match=r"under the minimum of 3"):
        fed.aggregate(vectors(), round=0)


# --- the initiator's announcement -------------------------------------------------------------------------------


def test_initiator_that_announces_two_sums_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    with federation(protocol="initiator") as fed:

        def tamper(delivery: Delivery) -> list[bytes]:
            data, frame = delivery.data, parse_frame(delivery.data)
            if frame.header.type is MessageType.ANNOUNCE and delivery.hop == "south":
                body = replace(Announce.parse(frame.body), digest=b"?" * 32).encode()
                identity = fed.members["north"].session.identity
                return [frame.prefix + body + identity.sign("control message", frame.prefix + body)]
            return [data]

        fed.network.tamper = tamper
        with pytest.raises(OpeningError, match=r"not the one that was signed"):
            fed.aggregate(vectors(), round=0)
        assert isinstance(fed.members["south"], InitiatorParty)
        assert fed.members["south"].state is State.FAILED


def test_only_the_initiator_hands_out_a_key() -> None:
    with federation(protocol="initiator", record=True) as fed:
        fed.aggregate(vectors(), round=0)
        keys = [sender_of(d.data) for d in fed.network.transcript if kind_of(d.data) is MessageType.PUBLIC_KEY]
        assert set(keys) == {"north"}
        fed.aggregate(vectors(seed=1), round=1)
        keys = [sender_of(d.data) for d in fed.network.transcript if kind_of(d.data) is MessageType.PUBLIC_KEY]
        assert keys == ["north", "north", "east", "east"]
        machine = fed.members["south"]
        forged = fed.members["north"]._signed(2, MessageType.PUBLIC_KEY, b"key")
        machine.receive(forged.data)
        assert "is not this round's initiator" in refusals(fed, "south")


# --- bounds on what comes early ---------------------------------------------------------------------------------


def test_early_messages_are_held_within_bounds() -> None:
    with federation() as fed:
        machine = fed.members["east"]
        header = Header(MessageType.ABANDON, machine.session.id, 5, 0, 0, 1, 0)
        frame = header.encode(5) + bytes(5 + 64)
        for _ in range(8):
            machine.receive(frame)
        assert not machine.refusals
        machine.receive(frame)
        assert "too much of party 0" in refusals(fed, "east")
        for attempt in range(6):
            machine.receive(replace(header, attempt=attempt).encode(5) + bytes(5 + 64))
        assert "too many attempts" in refusals(fed, "east")


def test_a_relay_holds_nothing_of_attempts_that_it_did_not_begin() -> None:
    """An honest member hears of an attempt from the relay; its chunks of the next one are taken as ever."""
    with federation(topology="star") as fed:
        relay = fed.relay
        assert relay is not None
        fed.aggregate(vectors(), round=0)
        frames = [
            fed.members["north"].session.gate(7, attempt).seal(3, MessageType.CHUNK, bytes(1 << 12), (0, 2))
            for attempt in range(4)
        ]
        tracemalloc.start()
        try:
            for number in range(400):
                assert relay.receive(bytes(bytearray(frames[number % 4]))) == []  # each a buffer of its own
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(relay.refusals) == 400
        assert "chunk of attempt 3 of round 7, which this relay did not begin" in str(relay.refusals[-1])
        assert held < 400 * (1 << 10), "the refusals' own text"
        assert fed.aggregate(vectors(seed=1), round=1).members == NAMES[:3]


def test_begin_and_contribute_out_of_place_are_refused() -> None:
    with federation() as fed:
        machine = fed.members["east"]
        with pytest.raises(ProtocolError, match=r"no attempt was begun"):
            machine.contribute(np.zeros(3))
        with pytest.raises(ProtocolError, match=r"under the minimum"):
            machine.begin(0, 0, ["north", "east"], fed.params)
        with pytest.raises(ProtocolError, match=r"not in the roster"):
            machine.begin(0, 0, ["north", "east", "stranger"], fed.params)
        machine.begin(0, 0, NAMES[:3], fed.params)
        with pytest.raises(ProtocolError, match=r"still preparing"):
            machine.begin(0, 1, NAMES[:3], fed.params)
        machine.contribute(np.zeros(10))
        with pytest.raises(ProtocolError, match=r"cannot be handed in"):
            machine.contribute(np.ones(10))
        machine.abandon()
        with pytest.raises(ProtocolError, match=r"already begun"):
            machine.begin(0, 0, NAMES[:3], fed.params)
        with pytest.raises(ProtocolError, match=r"no new model"):
            machine.announce_model(bytes(32))


def test_a_relay_has_no_say_in_the_close() -> None:
    with federation(topology="star") as fed:
        fed.aggregate(vectors(), round=0)
        assert fed.relay is not None
        for kind, body in ((MessageType.STATEMENT, bytes(35)), (MessageType.ABANDON, b"\x01" + bytes(4))):
            fed.members["east"].receive(fed.relay._now.gate.sign(1, kind, body))
            assert f"{kind.name} of party 3 has no place" in refusals(fed, "east")


@pytest.mark.parametrize("numbers", [(SESSION_SCOPE, 0), (SESSION_SCOPE + 1, 0), (-1, 0), (0, SESSION_SCOPE), (0, -1)])
def test_numbers_of_the_session_itself_are_no_attempt(numbers: tuple[int, int]) -> None:
    with federation(topology="star") as fed:
        assert fed.relay is not None
        for machine in (fed.members["north"], fed.relay):
            with pytest.raises(ProtocolError, match=r"out of range; number both from 0 to 4294967294"):
                machine.begin(*numbers, NAMES[:3], fed.params)
        fed.aggregate(vectors(), round=0)
        with pytest.raises(ProtocolError, match=r"already begun"):
            fed.relay.begin(0, 0, NAMES[:3], fed.params)


@pytest.mark.parametrize("protocol", ["collective", "plain"])
@pytest.mark.parametrize("length", [1 << 63, 1 << 40, (1 << 28) + 1, 1 << 28, SIZE - 1, SIZE, 0])
def test_a_huge_announced_length_does_not_reach_the_relays_memory(
    protocol: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One member lies about the length of its first chunk, with a payload too short for it."""
    with federation(protocol=protocol, topology="star") as fed:
        relay = fed.relay
        assert relay is not None
        zeros, asked = Relay._zeros, list[int]()
        monkeypatch.setattr(Relay, "_zeros", lambda self, size: (asked.append(size), zeros(self, size))[1])
        relay.begin(0, 0, NAMES[:3], fed.params)
        gate = fed.members["north"].session.gate(0, 0)
        body = Chunk(length, 3, frozenset({0}), bytes(64)).encode()
        assert relay.receive(gate.seal(3, MessageType.CHUNK, body, (0, 2))) == []
        assert isinstance(relay.refusals[-1], ProtocolError)
        within = r"do not fit 64 bytes" if length == SIZE else r"announces \d+ values; the layout has 9000"
        expected = within if 0 < length <= 1 << 28 else r"announces \d+ values; this relay takes 1 to"
        assert re.search(expected, str(relay.refusals[-1]))
        assert max(asked, default=0) <= 2 * fed.params.block_weights
        assert relay._now.length == 0


def test_a_relay_out_of_memory_refuses_the_term(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Ciphertext:
        raise MemoryError

    with federation(topology="star") as fed:
        assert fed.relay is not None
        fed.relay.begin(0, 0, NAMES[:3], fed.params)
        monkeypatch.setattr(Ciphertext, "zeros", full)
        with pytest.raises(ProtocolError, match=r"no memory for a term of 9000 values"):
            fed.relay._zeros(9000)

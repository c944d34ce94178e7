"""Rosters, hellos, pairwise and group keys: what opens a session, and everything that must not."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from aggregation_support import LAYOUT, NAMES, kind_of, parameters

from pppml_fast import KeyReuseError, LayoutMismatchError, ProtocolError
from pppml_fast.aggregation import (
    Handshake,
    HandshakeState,
    Identity,
    Member,
    Policy,
    Roster,
    Session,
    SessionOptions,
    Terms,
)
from pppml_fast.aggregation.messages import HEADER_SIZE, SESSION_SCOPE, MessageType, parse_frame
from pppml_fast.aggregation.pairwise import EphemeralKeys, PairContext, SealedChannel, encapsulate
from pppml_fast.aggregation.payloads import Hello
from pppml_fast.aggregation.roster import check_policy
from pppml_fast.aggregation.session import session_id
from pppml_fast.transport import InProcessNetwork
from pppml_fast.transport.in_process import Tamper

PARTIES = NAMES[:3]


@dataclass
class World:
    """Three hospitals about to open a session; tests change what one of them brings."""

    options: SessionOptions = field(default_factory=SessionOptions)
    identities: dict[str, Identity] = field(default_factory=lambda: {n: Identity.generate(n) for n in PARTIES})
    relay: Identity | None = None

    def roster(self, **changes: Any) -> Roster:
        params = parameters(3).to_dict()
        members = tuple(Member(name, self.identities[name].public.hex(), 1 / 3) for name in PARTIES)
        relay = None if self.relay is None else Member("relay", self.relay.public.hex())
        roster = Roster(members, params, params, LAYOUT.fingerprint.hex(), self.options, relay)
        return replace(roster, **changes)

    def terms(self, **changes: Any) -> Terms:
        params = parameters(3).to_dict()
        return replace(Terms(params, params, LAYOUT, self.options), **changes)

    def pins(self) -> dict[str, bytes]:
        return {member.name: member.public for member in self.roster().everyone}

    def handshakes(self, roster: Roster | None = None, **per_party: Any) -> dict[str, Handshake]:
        """``east=(policy, terms)`` replaces what that party came with."""
        made = {}
        for name in PARTIES:
            policy, terms = per_party.get(name, (Policy(pinned=self.pins()), self.terms()))
            proposal = (roster or self.roster()) if name == PARTIES[0] else None
            made[name] = Handshake(self.identities[name], policy, terms, proposal)
        if self.relay is not None:
            made["relay"] = Handshake(self.relay, Policy(pinned=self.pins()), None)
        return made


def shake(handshakes: dict[str, Handshake], tamper: Tamper | None = None) -> InProcessNetwork:
    network = InProcessNetwork(handshakes, record=True)
    network.tamper = tamper
    network.post(PARTIES[0], handshakes[PARTIES[0]].start())
    network.run()
    return network


def sessions(handshakes: dict[str, Handshake]) -> list[Session]:
    opened = [handshake.session for handshake in handshakes.values()]
    assert all(handshake.state is HandshakeState.OPEN for handshake in handshakes.values())
    return [session for session in opened if session is not None]


@pytest.mark.parametrize("star", [False, True])
def test_all_parties_hold_one_session_and_no_ephemeral_key(star: bool) -> None:
    world = World(SessionOptions(topology="star"), relay=Identity.generate("relay")) if star else World()
    handshakes = world.handshakes()
    shake(handshakes)
    opened = sessions(handshakes)
    assert len({session.id for session in opened}) == 1
    assert len({session.group_key("a") for session in opened[:3]}) == 1
    assert opened[0].group_key("a") != opened[0].group_key("b")
    assert all(handshake.keys_deleted for handshake in handshakes.values())
    if star:
        with pytest.raises(ProtocolError, match=r"a relay holds no group key"):
            opened[3].group_key("a")
    gates = [session.gate(0, 0) for session in opened]
    frame = gates[0].seal(1, MessageType.SHARE, b"for party 1")
    assert gates[1].accept(parse_frame(frame)).body == b"for party 1"
    with pytest.raises(ProtocolError, match=r"addressed to party 1"):
        gates[2].accept(parse_frame(frame))


def test_an_attempt_gets_its_keys_once() -> None:
    """A second gate would seal other bodies under the same keys and nonces."""
    handshakes = World().handshakes()
    shake(handshakes)
    session = sessions(handshakes)[0]
    session.gate(0, 0)
    session.gate(0, 1)
    session.gate(1, 0)
    with pytest.raises(KeyReuseError, match=r"attempt 0 of round 0 already has its keys"):
        session.gate(0, 0)
    with pytest.raises(KeyReuseError, match=r"already has its keys"):
        session.gate(SESSION_SCOPE, 0)


def test_every_session_is_another_one() -> None:
    world = World()
    ids = set()
    for _ in range(3):
        handshakes = world.handshakes()
        shake(handshakes)
        ids.add(sessions(handshakes)[0].id)
    assert len(ids) == 3


def test_session_id_demands_the_own_hello() -> None:
    roster = World().roster()
    hellos = [b"one", b"two", b"three"]
    first = session_id(roster, b"proposal", 3, hellos, b"two")
    assert first == session_id(roster, b"proposal", 3, hellos, b"one")
    assert first != session_id(roster, b"proposal", 3, [b"one", b"two", b"other"], b"two")
    assert first != session_id(roster, b"another", 3, hellos, b"two")
    with pytest.raises(ProtocolError, match=r"own hello is not part"):
        session_id(roster, b"proposal", 3, hellos, b"mine")
    with pytest.raises(ProtocolError, match=r"2 hellos for 3"):
        session_id(roster, b"proposal", 3, hellos[:2], b"one")


def test_pairwise_keys_need_both_secrets_and_every_public_value() -> None:
    low, high = EphemeralKeys(), EphemeralKeys()
    secret, ciphertext = encapsulate(high.mlkem_public)
    assert high.decapsulate(ciphertext) == secret
    shared = low.agree(high.x25519_public)
    assert shared == high.agree(low.x25519_public)
    context = PairContext(b"s" * 32, 0, 1, low.x25519_public, high.x25519_public, high.mlkem_public, ciphertext)
    keys = {context.key(shared, secret, 0), context.key(shared, secret, 1)}
    keys |= {context.key(bytes(32), secret, 0), context.key(shared, bytes(32), 0)}
    for change in ("session", "low_x25519", "high_x25519", "high_mlkem", "ciphertext"):
        keys.add(replace(context, **{change: b"other"}).key(shared, secret, 0))
    keys.add(replace(context, high=2).key(shared, secret, 0))
    assert len(keys) == 10
    high.destroy()
    assert high.destroyed
    for use in (lambda: high.agree(low.x25519_public), lambda: high.decapsulate(ciphertext)):
        with pytest.raises(ProtocolError, match=r"already deleted"):
            use()


def test_invalid_public_values_are_refused() -> None:
    keys = EphemeralKeys()
    with pytest.raises(ProtocolError, match=r"degenerate"):
        keys.agree(bytes(32))
    with pytest.raises(ProtocolError, match=r"not valid"):
        encapsulate(b"\xff" * 1184)
    with pytest.raises(ProtocolError, match=r"cannot be read"):
        keys.decapsulate(b"short")
    with pytest.raises(TypeError, match=r"never pickled"):
        pickle.dumps(keys)


def test_sealed_channel_refuses_replay_reorder_and_change() -> None:
    sender, receiver = SealedChannel(b"a" * 32, b"b" * 32), SealedChannel(b"b" * 32, b"a" * 32)
    first, second = sender.seal(b"h0", 0, b"one"), sender.seal(b"h1", 1, b"two")
    with pytest.raises(ProtocolError, match=r"out of order"):
        receiver.open(b"h1", 1, second)
    with pytest.raises(ProtocolError, match=r"altered"):
        receiver.open(b"h1", 0, first)
    with pytest.raises(ProtocolError, match=r"altered"):
        receiver.open(b"h0", 0, first[:-1])
    assert receiver.open(b"h0", 0, first) == b"one"
    with pytest.raises(ProtocolError, match=r"replayed"):
        receiver.open(b"h0", 0, first)
    with pytest.raises(ProtocolError, match=r"altered"):
        sender.open(b"h0", 0, first)
    with pytest.raises(ProtocolError, match=r"break the order"):
        sender.seal(b"h1", 1, b"again")
    assert receiver.open(b"h1", 1, second) == b"two"


# --- rosters that a member refuses ------------------------------------------------------------------------------


def refusal(handshakes: dict[str, Handshake], who: str = "east") -> Exception:
    shake(handshakes)
    assert handshakes[who].state is HandshakeState.REFUSED
    assert handshakes[who].keys_deleted
    assert all(handshake.session is None for handshake in handshakes.values())
    failure = handshakes[who].failure
    assert failure is not None
    return failure


def test_puppets_are_refused_by_the_pinned_list() -> None:
    world = World()
    stranger = {name: key for name, key in world.pins().items() if name != "south"}
    failure = refusal(world.handshakes(east=(Policy(pinned=stranger), world.terms())))
    assert "'south' is not on this party's list of pinned identities" in str(failure)
    swapped = {**world.pins(), "south": Identity.generate("south").public}
    failure = refusal(world.handshakes(east=(Policy(pinned=swapped), world.terms())))
    assert "may be a puppet" in str(failure)


def test_the_proposer_hears_of_a_refusal_but_not_its_reason() -> None:
    world = World()
    handshakes = world.handshakes(east=(Policy(pinned={}), world.terms()))
    network = shake(handshakes)
    refusals = [d.data for d in network.transcript if kind_of(d.data) is MessageType.REFUSED]
    assert [parse_frame(data).body for data in refusals] == [b""]
    assert "'east' refused the roster" in str(handshakes["north"].failure)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"options": SessionOptions(protocol="plain")}, "options"),
        ({"options": SessionOptions(sum_check=True)}, "options"),
        ({"options": SessionOptions(threshold=2)}, "options"),
        ({"parameters": parameters(4).to_dict()}, "parameters"),
        ({"sum_parameters": parameters(3, name="p50").to_dict()}, "sum parameters"),
        ({"rounding": "stochastic"}, "rounding"),
        ({"version": 1}, "version"),
    ],
)
def test_a_roster_on_other_terms_is_refused(change: dict[str, Any], reason: str) -> None:
    """No member can be talked down to plain sums, other parameters or a lower threshold."""
    world = World()
    roster = world.roster(**change)
    with pytest.raises(ProtocolError, match=f"the roster's {reason}"):
        world.terms().check(roster, LAYOUT.canonical_bytes(), "east", world.identities["east"].public, Policy())


def test_layout_mismatch_names_the_first_tensor() -> None:
    world = World()
    mine = type(LAYOUT).from_arrays({"stem": np.zeros((50, 80), np.float32), "tail": np.zeros(5000, np.float32)})
    failure = refusal(world.handshakes(east=(Policy(pinned=world.pins()), world.terms(layout=mine))))
    assert isinstance(failure, LayoutMismatchError)
    assert "tensor 1 differs: expected tail[5000]:float32, the roster has head[5000]:float32" in str(failure)


def test_weights_are_checked_by_each_member_against_its_own_policy() -> None:
    world = World()

    def weighed(*weights: float) -> Roster:
        members = world.roster().members
        return world.roster(members=tuple(replace(m, weight=w) for m, w in zip(members, weights, strict=True)))

    for weights, reason in (
        ((1.0, 0.0, 0.0), "weight"),
        ((0.6, 0.2, 0.2), "holds 0.600"),
        ((0.4, 0.4, 0.4), "add up to 1.2"),
        ((0.5, 0.6, -0.1), "above 0|holds"),
    ):
        with pytest.raises(ProtocolError, match=reason):
            check_policy(weighed(*weights), Policy())
    check_policy(weighed(0.6, 0.2, 0.2), Policy(max_share=0.7))
    with pytest.raises(ProtocolError, match=r"it agreed to 0.2"):
        world.terms(weight=0.2).check(weighed(0.3, 0.3, 0.4), b"", "east", world.identities["east"].public, Policy())


def test_policy_minimum() -> None:
    assert [Policy().minimum(n) for n in (3, 4, 5, 6, 7, 16)] == [3, 3, 3, 4, 4, 9]
    assert Policy(min_parties=5).minimum(5) == 5
    assert Policy(min_parties=2).minimum(5) == 3
    assert Policy(min_parties=2, allow_two_parties=True).minimum(3) == 2
    assert Policy(allow_two_parties=True).minimum(2) == 2
    for parties in (0, 1):
        with pytest.raises(ProtocolError, match=r"too few"):
            Policy(allow_two_parties=True).minimum(parties)


def test_malformed_rosters_are_refused() -> None:
    roster = World().roster()
    data = roster.canonical_bytes()
    assert Roster.parse(data) == roster
    spaced = data.replace(b",", b", ", 1)
    with pytest.raises(ProtocolError, match=r"canonical"):
        Roster.parse(spaced)
    twice = replace(roster.members[0], name="east")
    with pytest.raises(ProtocolError, match=r"same name"):
        World().roster(members=(twice, *roster.members[1:]))
    with pytest.raises(ProtocolError, match=r"same identity"):
        World().roster(members=(replace(roster.members[1], name="x"), *roster.members[1:]))
    with pytest.raises(ProtocolError, match=r"not in the roster"):
        roster.index("stranger")
    for broken in (b"{}", b"[]", b"null", b"\xff", data[:-1], b"[" * 100000, data.replace(b"0.33", b"NaN", 1)):
        with pytest.raises(ProtocolError):
            Roster.parse(broken)


# --- messages of the handshake -----------------------------------------------------------------------------------


def flip(kind: MessageType, at: int, recipient: str = "east") -> Tamper:
    def tamper(delivery: Any) -> list[bytes]:
        data = bytearray(delivery.data)
        if kind_of(delivery.data) is kind and delivery.hop == recipient:
            data[at] ^= 1
        return [bytes(data)]

    return tamper


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        (MessageType.ROSTER, HEADER_SIZE + 20),
        (MessageType.HELLO, HEADER_SIZE + 3),
        (MessageType.HELLO, HEADER_SIZE + 40),
        (MessageType.HELLO, HEADER_SIZE + 300),
        (MessageType.HELLO, 20),
        (MessageType.HELLO, -1),
        (MessageType.ENCAPSULATION, HEADER_SIZE + 9),
        (MessageType.ENCAPSULATION, -3),
        (MessageType.READY, HEADER_SIZE + 2),
        (MessageType.READY, 60),
    ],
)
def test_an_altered_handshake_message_opens_nothing(kind: MessageType, at: int) -> None:
    handshakes = World().handshakes()
    shake(handshakes, flip(kind, at))
    assert handshakes["east"].session is None
    assert handshakes["east"].refusals


def test_hello_signed_by_another_identity_is_refused() -> None:
    world, other = World(), World()
    for name in ("north", "east"):
        other.identities[name] = world.identities[name]
    recorded = shake(other.handshakes()).transcript
    foreign = [d.data for d in recorded if kind_of(d.data) is MessageType.HELLO and d.sender == "south"]
    handshakes = world.handshakes()

    def tamper(delivery: Any) -> list[bytes]:
        replaced = kind_of(delivery.data) is MessageType.HELLO and delivery.sender == "south"
        return [foreign[0] if replaced else delivery.data]

    shake(handshakes, tamper)
    assert all(handshake.session is None for handshake in handshakes.values())
    assert any("another roster" in str(error) for error in handshakes["north"].refusals)


def test_replayed_hello_of_an_earlier_session_opens_no_session() -> None:
    """The roster is the same, the signature valid: but the replayer lacks the ephemeral keys."""
    world = World()
    recorded = shake(world.handshakes()).transcript
    old = next(d.data for d in recorded if kind_of(d.data) is MessageType.HELLO and d.sender == "south")
    handshakes = world.handshakes()

    def tamper(delivery: Any) -> list[bytes]:
        replaced = kind_of(delivery.data) is MessageType.HELLO and delivery.sender == "south"
        return [old if replaced else delivery.data]

    shake(handshakes, tamper)
    assert all(handshake.state is not HandshakeState.OPEN for handshake in handshakes.values())


def test_a_second_hello_is_refused() -> None:
    handshakes = World().handshakes()

    def tamper(delivery: Any) -> list[bytes]:
        return [delivery.data] * (2 if kind_of(delivery.data) is MessageType.HELLO else 1)

    shake(handshakes, tamper)
    sessions(handshakes)
    seen = [str(error) for handshake in handshakes.values() for error in handshake.refusals]
    assert seen
    assert all("second hello" in error or "handshake that is" in error for error in seen)


def test_equivocated_hello_splits_the_session_and_opens_none() -> None:
    """One party tells two others different hellos: their session ids differ and no key is agreed."""
    world = World()
    handshakes = world.handshakes()

    def tamper(delivery: Any) -> list[bytes]:
        frame = parse_frame(delivery.data)
        if frame.header.type is MessageType.HELLO and delivery.sender == "south" and delivery.hop == "east":
            hello = replace(Hello.parse(frame.body), random=b"z" * 32).encode()
            identity = world.identities["south"]
            return [frame.prefix + hello + identity.sign("control message", frame.prefix + hello)]
        return [delivery.data]

    shake(handshakes, tamper)
    assert all(handshake.session is None for handshake in handshakes.values())


def test_a_lost_party_ends_the_handshake() -> None:
    handshakes = World().handshakes()
    network = InProcessNetwork(handshakes)
    network.post("north", handshakes["north"].start())
    network.drop("south")
    network.run()
    assert "'south' was lost" in str(handshakes["north"].failure)


def test_sessions_are_never_pickled() -> None:
    handshakes = World().handshakes()
    shake(handshakes)
    for value in (sessions(handshakes)[0], sessions(handshakes)[0].gate(0, 0), handshakes["north"]):
        with pytest.raises(TypeError, match=r"never pickled"):
            pickle.dumps(value)

"""A member that lies: it is refused or found out, no rule is broken, and the others' rounds go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from liars import all_at, honest, kind_of, lie_in, models_of, refusals, rolled_back, signed_anew
from simulation import Simulation

from pppml_fast.aggregation.attempts import AttemptId
from pppml_fast.aggregation.messages import SESSION_SCOPE, Header, MessageType, parse_frame, parse_header
from pppml_fast.aggregation.payloads import Deal, Digest, ShareSum, Statement
from pppml_fast.aggregation.session import Gate
from pppml_fast.aggregation.sharing import FIELD
from pppml_fast.aggregation.standing import Standing, StateId
from pppml_fast.site.events import EventKind
from pppml_fast.site.member import Member
from pppml_fast.site.notices import Phase, Plan, PlanKind, StatePiece, Status

SHAPES = ("ring", "star")
LIAR = "site2"


def member(sim: Simulation, name: str) -> Member:
    node = sim.nodes[name]
    assert isinstance(node, Member)
    return node


# --- in a round --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", SHAPES)
def test_false_sums_of_shares_are_left_out_and_their_sender_is_named(
    tmp_path: Path, topology: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of five shares open: with five, the one that does not fit is found."""
    sim = Simulation(tmp_path, 5, topology, rounds=2)

    def lie(gate: Gate, receiver: int, type_: MessageType, body: bytes) -> bytes:
        if type_ is not MessageType.SHARE:
            return body
        part = ShareSum.parse(body)
        return ShareSum(part.root, (part.values + 1) % FIELD).encode()

    lie_in(monkeypatch, sim, LIAR, lie)
    assert sim.run(120, sim.finished)
    sim.check()
    assert len(models_of(sim, list(sim.names))) == 1
    assert any(LIAR in reason and "does not fit" in reason for reason in refusals(sim))


@pytest.mark.parametrize("topology", SHAPES)
@pytest.mark.parametrize("what", ["share", "live set", "group check"])
def test_altered_deals_stop_rounds_and_open_nothing_wrong(
    tmp_path: Path, topology: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = Simulation(tmp_path, 5, topology, rounds=2)

    def lie(gate: Gate, receiver: int, type_: MessageType, body: bytes) -> bytes:
        if type_ is not MessageType.DEAL or receiver != 0:
            return body
        deal = Deal.parse(body)
        if what == "share":
            return replace(deal, share=(deal.share + 12345) % FIELD).encode()
        if what == "live set":
            return replace(deal, live=frozenset({0, 1, 2, 3})).encode()
        return replace(deal, group_check=bytes(32)).encode()

    lie_in(monkeypatch, sim, LIAR, lie, until=15)
    sim.run(15)
    sim.check()
    assert sim.run(150, sim.finished)
    sim.check()
    assert len(models_of(sim, list(sim.names))) == 1


def test_statements_that_differ_are_evidence_once_each(tmp_path: Path) -> None:
    """The liar signs another root for one member alone: nobody opens, and both signatures are on record."""
    sim = Simulation(tmp_path, 5, rounds=2)
    lied: set[bytes] = set()

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        if sender != LIAR or hop != "site4" or kind_of(data) is not MessageType.STATEMENT or lied:
            return [data]
        statement = replace(Statement.parse(parse_frame(data).body), root=bytes(32))
        lied.add(data)
        return [signed_anew(sim, LIAR, data, statement.encode())]

    sim.tamper = tamper
    assert sim.run(150, sim.finished)
    sim.check()
    assert lied
    told = sim.kinds(EventKind.EVIDENCE)
    assert told
    assert {event.fields["peer"] for event in told} == {LIAR}
    assert all(len(set(event.fields["digests"])) == 2 for event in told)
    assert all(len(sim.kinds(EventKind.EVIDENCE, name)) <= 1 for name in sim.names)
    assert len(models_of(sim, list(sim.names))) == 1


def test_a_thousand_second_statements_are_two(tmp_path: Path) -> None:
    """Each is signed, in order, and differs: two are kept, the others refused."""
    sim = Simulation(tmp_path, 5, rounds=2)
    lied = 0

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        nonlocal lied
        if sender != LIAR or hop != "site4" or kind_of(data) is not MessageType.STATEMENT or lied:
            return [data]
        statement, sequence = Statement.parse(parse_frame(data).body), parse_header(data)[0].sequence
        out = [data]
        for number in range(1000):
            lied += 1
            other = replace(statement, root=number.to_bytes(32, "big")).encode()
            out.append(signed_anew(sim, LIAR, data, other, sequence=sequence + 1 + number))
        return out

    sim.tamper = tamper
    assert sim.run(150, sim.finished)
    sim.check()
    assert lied == 1000
    (told,) = sim.kinds(EventKind.EVIDENCE, "site4")
    assert told.fields["peer"] == LIAR
    assert member(sim, "site4")._machine is None or not member(sim, "site4")._machine.evidence  # type: ignore[union-attr]


@pytest.mark.parametrize("topology", SHAPES)
def test_a_false_hash_of_the_new_model_costs_a_session_each_time_and_no_round(
    tmp_path: Path, topology: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = Simulation(tmp_path, 5, topology, rounds=3)

    def lie(gate: Gate, receiver: int, type_: MessageType, body: bytes) -> bytes:
        return Digest(bytes(32)).encode() if type_ is MessageType.MODEL_HASH else body

    lie_in(monkeypatch, sim, LIAR, lie)
    assert sim.run(200, lambda: all_at(sim, honest(sim, LIAR), 3))
    sim.check()
    assert len(models_of(sim, honest(sim, LIAR))) == 1
    assert sim.kinds(EventKind.DRIFT)


# --- between rounds ----------------------------------------------------------------------------------------------


def false_standing(sim: Simulation, name: str, lie: Callable[[Standing], Standing]) -> None:
    node = member(sim, name)
    true = node._standing
    node._standing = lambda: lie(Standing.parse(true())).encode()  # type: ignore[method-assign]


@pytest.mark.parametrize("topology", SHAPES)
def test_false_witnesses_bring_about_fresh_draws_and_nothing_more(tmp_path: Path, topology: str) -> None:
    sim = Simulation(tmp_path, 5, topology)
    attempts = {index: (AttemptId(bytes(32), 2**32 - 1, 7),) for index in (0, 1, 3, 4)}
    false_standing(sim, LIAR, lambda standing: replace(standing, witnessed=attempts))
    assert sim.run(120, sim.finished)
    sim.check()
    assert len(models_of(sim, list(sim.names))) == 1
    assert {len(rolled_back(sim, name)) for name in honest(sim, LIAR)} == {1}
    salts = {name: {salt for _, salt in sim.applications[name].trained} for name in honest(sim, LIAR)}
    assert all(0 not in drawn for drawn in salts.values())


@pytest.mark.parametrize("topology", SHAPES)
def test_a_model_that_one_member_alone_claims_is_no_agreed_one(tmp_path: Path, topology: str) -> None:
    sim = Simulation(tmp_path, 5, topology)
    false_standing(sim, LIAR, lambda standing: replace(standing, states=(StateId(2**32 - 1, bytes(32)),)))
    names = honest(sim, LIAR)
    assert sim.run(200, lambda: all_at(sim, names, 3))
    sim.check()
    assert len(models_of(sim, names)) == 1


def catching_up(sim: Simulation, monkeypatch: pytest.MonkeyPatch, lie: Callable[[StatePiece], StatePiece]) -> None:
    """site4 misses rounds; the holder it asks first lies about every piece."""

    def changed(gate: Gate, receiver: int, type_: MessageType, body: bytes) -> bytes:
        return lie(StatePiece.parse(body)).encode() if type_ is MessageType.STATE else body

    lie_in(monkeypatch, sim, "site0", changed)
    sim.run(2)
    sim.crash("site4")
    assert sim.run(60, lambda: max(a.states[0].round for a in sim.applications.values()) >= 2)
    sim.start("site4")
    assert sim.run(120, sim.finished)
    sim.check()
    assert len(models_of(sim, list(sim.names))) == 1
    caught_up = sim.kinds(EventKind.CAUGHT_UP, "site4")
    assert caught_up and all(event.fields["peer"] != "site0" for event in caught_up)


@pytest.mark.parametrize("topology", SHAPES)
def test_a_wrong_model_is_not_adopted_and_another_holder_is_asked(
    tmp_path: Path, topology: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = Simulation(tmp_path, 5, topology, rounds=4)
    catching_up(sim, monkeypatch, lambda piece: replace(piece, data=bytes(len(piece.data))))
    assert any("does not hash" in reason for reason in refusals(sim, "site4"))


@pytest.mark.parametrize("what", ["endless", "empty", "short", "elsewhere"])
def test_a_holder_whose_model_never_ends_is_left_for_another(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(piece: StatePiece) -> StatePiece:
        if what == "endless":
            return replace(piece, total=1 << 40, data=bytes(1 << 20))
        if what == "elsewhere":
            return replace(piece, offset=piece.total, data=b"")
        return replace(piece, data=b"" if what == "empty" else piece.data[:1])

    sim = Simulation(tmp_path, 5, rounds=4)
    catching_up(sim, monkeypatch, lie)


# --- what it says of itself --------------------------------------------------------------------------------------


def false_status(sim: Simulation, name: str, lie: Callable[[Status], Status]) -> None:
    node = member(sim, name)
    true = node._announce_status
    node._announce_status = lambda status: true(lie(status))  # type: ignore[method-assign]


@pytest.mark.parametrize(("topology", "liar"), [("ring", "site1"), ("ring", "site4"), ("star", "site0")])
def test_who_says_that_it_reaches_few_is_left_out_at_most(tmp_path: Path, topology: str, liar: str) -> None:
    sim = Simulation(tmp_path, 5, topology)
    index = sim.roster.index(liar)
    false_status(sim, liar, lambda status: replace(status, reachable=frozenset({0, index})))
    names = honest(sim, liar)
    assert sim.run(120, lambda: all_at(sim, names, 3))
    sim.check()
    assert len(models_of(sim, names)) == 1


def test_a_member_that_reaches_the_lead_alone_keeps_nobody_from_going_on(tmp_path: Path) -> None:
    """No lie: its other links are cut."""
    sim = Simulation(tmp_path, 5)
    for other in ("site2", "site3", "site4"):
        sim.cut("site1", other)
    names = honest(sim, "site1")
    assert sim.run(120, lambda: all_at(sim, names, 3))
    sim.check()


@pytest.mark.parametrize("topology", SHAPES)
def test_a_false_state_in_its_status_does_not_keep_the_others_from_rounds(tmp_path: Path, topology: str) -> None:
    sim = Simulation(tmp_path, 5, topology)
    false_status(sim, LIAR, lambda status: replace(status, state=StateId(77, bytes(32))))
    names = honest(sim, LIAR)
    assert sim.run(200, lambda: all_at(sim, names, 3))
    sim.check()


@pytest.mark.parametrize("topology", SHAPES)
@pytest.mark.parametrize("phase", [Phase.FETCHING, Phase.OPENING, Phase.SUMMING, Phase.SEEKING, Phase.TRAINING])
def test_a_false_phase_in_its_status_does_not_keep_the_others_from_rounds(
    tmp_path: Path, topology: str, phase: Phase
) -> None:
    sim = Simulation(tmp_path, 5, topology)
    counted = iter(range(1 << 32))
    false_status(sim, LIAR, lambda status: replace(status, phase=phase, progress=next(counted)))
    names = honest(sim, LIAR)
    assert sim.run(200, lambda: all_at(sim, names, 3))
    sim.check()


# --- handshakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", SHAPES)
@pytest.mark.parametrize("kind", [MessageType.HELLO, MessageType.READY])
def test_the_others_go_on_without_one_that_never_answers_a_handshake(
    tmp_path: Path, topology: str, kind: MessageType
) -> None:
    sim = Simulation(tmp_path, 5, topology)
    index = sim.roster.index(LIAR)
    sim.tamper = lambda sender, hop, data: (
        [] if parse_header(data)[0].sender == index and kind_of(data) is kind else [data]
    )
    names = honest(sim, LIAR)
    assert sim.run(200, lambda: all_at(sim, names, 3))
    sim.check()
    assert len(models_of(sim, names)) == 1


def test_a_lead_that_proposes_over_and_over_does_no_more_than_stop_rounds(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 5)
    proposals: list[bytes] = []

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        if sender != "site0" or sim.now > 20:
            return [data]
        if kind_of(data) is MessageType.ROSTER:
            proposals.append(data)
        return [data, proposals[-1]] if sim.random.random() < 0.2 and proposals else [data]

    sim.tamper = tamper
    sim.run(20)
    sim.check()
    sim.tamper = None
    assert sim.run(200, sim.finished)
    sim.check()
    assert len(models_of(sim, list(sim.names))) == 1


@pytest.mark.parametrize("kind", [PlanKind.LEAVE, PlanKind.END, PlanKind.ATTEMPT])
def test_a_lead_whose_plans_differ_opens_nothing_with_them(tmp_path: Path, kind: PlanKind) -> None:
    """Some are told to leave, to end, or of another live set: nobody ends early, and no two sums are accepted."""
    sim = Simulation(tmp_path, 5, rounds=2)
    lied = 0

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        nonlocal lied
        if sender != "site0" or hop not in ("site1", "site2") or kind_of(data) is not MessageType.PLAN or sim.now > 20:
            return [data]
        plan = Plan.parse(parse_frame(data).body)
        if plan.kind is not PlanKind.ATTEMPT:
            return [data]
        lied += 1
        other = replace(plan, kind=kind, live=frozenset({0, 1, 2, 3}) if kind is PlanKind.ATTEMPT else plan.live)
        return [signed_anew(sim, "site0", data, other.encode())]

    sim.tamper = tamper
    sim.run(20)
    sim.check()
    assert lied
    assert not sim.accepted or kind is not PlanKind.ATTEMPT
    assert not any(sim.nodes[name].ended for name in sim.names)
    assert sim.run(200, sim.finished)
    sim.check()
    assert len(models_of(sim, list(sim.names))) == 1


# --- floods ------------------------------------------------------------------------------------------------------


def test_a_lead_that_plans_nonsense_and_goes_away_ends_nobody(tmp_path: Path) -> None:
    """The plan is held, as the lead keeps back its model's hash; it comes due when the link goes down."""
    sim = Simulation(tmp_path, 5)
    lied: set[str] = set()

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        if sender == "site0" and kind_of(data) is MessageType.MODEL_HASH:
            return []
        if sender == "site0" and kind_of(data) is MessageType.PLAN and all_at(sim, [hop], 1):
            lied.add(hop)
            plan = Plan.parse(parse_frame(data).body)
            return [signed_anew(sim, "site0", data, replace(plan, round=plan.round + 7).encode())]
        return [data]

    sim.tamper = tamper
    others = honest(sim, "site0")
    assert sim.run(30, lambda: len(lied) == 4)
    sim.run(0.5)
    assert all(member(sim, name)._held_plan for name in others)
    sim.crash("site0")
    assert all(any("is planned" in reason for reason in refusals(sim, name)) for name in others)
    assert sim.run(300, lambda: all_at(sim, others, 3))
    sim.check()


def test_a_malformed_chunk_that_is_held_is_refused_in_its_senders_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes in place of a deal, so that the others have to wait; it is looked at when its sender goes away."""
    sim = Simulation(tmp_path, 5)
    seal, others = Gate.seal, honest(sim, LIAR)

    def false_seal(
        self: Gate, receiver: int, type_: MessageType, body: bytes, blocks: tuple[int, int] = (0, 0)
    ) -> bytes:
        if self._session.identity.name == LIAR and type_ is MessageType.DEAL:
            return seal(self, receiver, MessageType.CHUNK, b"x" * 40, (0, 1))
        return seal(self, receiver, type_, body, blocks)

    monkeypatch.setattr(Gate, "seal", false_seal)

    def held() -> bool:
        machines = [member(sim, name)._machine for name in others]
        return all(machine is not None and machine._attempt and machine._now.held for machine in machines)

    assert sim.run(30, held)
    sim.run(1.5)  # all have contributed
    sim.crash(LIAR)
    told = sim.kinds(EventKind.REFUSED)
    assert {event.fields["peer"] for event in told} == {LIAR} and not sim.kinds(EventKind.FAILED)
    assert sim.run(300, lambda: all_at(sim, others, 3))
    sim.check()


def test_hashes_of_models_without_end_are_refused(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 3)
    sent = [0]

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        node = member(sim, LIAR)
        machine = node._machine
        if sender != LIAR or kind_of(data) is not MessageType.STATUS or machine is None or machine._attempt is None:
            return [data]
        sent[0] += 100
        receiver = sim.roster.index(hop)
        hashes = [machine._now.gate.sign(receiver, MessageType.MODEL_HASH, bytes(32)) for _ in range(100)]
        return [data, *hashes]

    sim.tamper = tamper
    sim.run(10)
    assert sent[0] > 100
    machines = [member(sim, name)._machine for name in honest(sim, LIAR)]
    models = [machine._now.models for machine in machines if machine is not None and machine._attempt is not None]
    assert max((len(hashes) for kept in models for hashes in kept.values()), default=0) <= 8
    assert any("already" in reason for reason in refusals(sim))


def flood(sim: Simulation, make: Callable[[bytes], list[bytes]]) -> None:
    """Beside every message of the liar go those that ``make`` gives."""
    sim.tamper = lambda sender, hop, data: [data, *make(data)] if sender == LIAR else [data]


def frames_of_attempts_to_come(sim: Simulation, data: bytes) -> list[bytes]:
    header = parse_header(data)[0]
    if header.round == SESSION_SCOPE or header.type is MessageType.STATUS:
        return []
    made = [replace(header, type=MessageType.DEAL, round=9000 + at, sequence=0) for at in range(10)]
    return [head.encode(1000) + bytes(1000) for head in made]


@pytest.mark.parametrize("topology", SHAPES)
def test_frames_of_attempts_that_never_come_use_up_nobody_elses_room(tmp_path: Path, topology: str) -> None:
    sim = Simulation(tmp_path, 5, topology)
    flood(sim, lambda data: frames_of_attempts_to_come(sim, data))
    assert sim.run(200, sim.finished)
    sim.check()
    assert len({event.fields["session"] for event in sim.kinds(EventKind.SESSION_OPENED)}) == 1
    assert not sim.kinds(EventKind.ABANDONED)


@pytest.mark.parametrize("topology", SHAPES)
def test_frames_in_the_name_of_others_are_refused_at_the_link(tmp_path: Path, topology: str) -> None:
    sim = Simulation(tmp_path, 5, topology)
    prefix = Header(MessageType.DEAL, bytes(32), 0, 0, 1, 3, 0).encode(40)
    flood(sim, lambda data: [prefix + bytes(40), b"garbage", b"", data[:-1]])
    assert sim.run(200, sim.finished)
    sim.check()
    assert not sim.kinds(EventKind.ABANDONED)
    victim = "relay" if topology == "star" else "site0"
    assert any("party 1 came over the link to 'site2'" in reason for reason in refusals(sim, victim))


def test_a_flood_of_valid_statuses_changes_nothing(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 5)
    flood(sim, lambda data: [data] * 5 if kind_of(data) is MessageType.STATUS else [])
    assert sim.run(200, sim.finished)
    sim.check()
    assert not sim.kinds(EventKind.ABANDONED)
    assert not sim.kinds(EventKind.REFUSED)

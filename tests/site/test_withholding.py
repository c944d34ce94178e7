"""Members that withhold what others need, the lead among them: the others' rounds go on, and nobody stays left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from liars import all_at, honest, kind_of, models_of, signed_anew
from simulation import Simulation

from pppml_fast.aggregation.messages import Header, MessageType
from pppml_fast.aggregation.payloads import Abandon, AbandonReason
from pppml_fast.site.events import EventKind
from pppml_fast.site.member import Member


def withhold(sim: Simulation, who: str, kind: MessageType, victims: tuple[str, ...]) -> None:
    """A member's messages of a kind never reach the victims."""
    sim.tamper = lambda sender, hop, data: [] if sender == who and hop in victims and kind_of(data) is kind else [data]


def member(sim: Simulation, name: str) -> Member:
    node = sim.nodes[name]
    assert isinstance(node, Member)
    return node


def turns_at(sim: Simulation, name: str) -> int:
    return member(sim, name)._leadership.turns


LEADS_MESSAGES = [MessageType.ROSTER, MessageType.HELLO, MessageType.ENCAPSULATION, MessageType.READY, MessageType.PLAN]
VICTIMS = [("site1", "site2", "site3", "site4"), ("site1",), ("site3",), ("site1", "site2"), ("site2", "site4")]


@pytest.mark.parametrize("victims", VICTIMS, ids="-".join)
@pytest.mark.parametrize("kind", LEADS_MESSAGES, ids=lambda kind: kind.name)
def test_a_lead_that_withholds_is_passed_over(tmp_path: Path, kind: MessageType, victims: tuple[str, ...]) -> None:
    sim = Simulation(tmp_path, 5)
    withhold(sim, "site0", kind, victims)
    names = honest(sim, "site0")
    assert sim.run(300, lambda: all_at(sim, names, 3))
    sim.check()
    assert len(models_of(sim, names)) == 1


@pytest.mark.parametrize("kind", LEADS_MESSAGES[1:4], ids=lambda kind: kind.name)
@pytest.mark.parametrize(("who", "victim"), [("site1", "site3"), ("site3", "site1")])
def test_who_withholds_from_one_alone_keeps_it_out_of_some_rounds_at_most(
    tmp_path: Path, who: str, victim: str, kind: MessageType
) -> None:
    sim = Simulation(tmp_path, 5, rounds=20)
    sim.training = (1.5, 3.0)
    withhold(sim, who, kind, (victim,))
    names = honest(sim, who)
    assert sim.run(600, lambda: all_at(sim, names, 20))
    sim.check()
    assert any(victim in sum_.live for sum_ in sim.accepted)
    assert len(models_of(sim, names)) == 1


@pytest.mark.parametrize(
    "kind", [MessageType.DEAL, MessageType.CHUNK, MessageType.STATEMENT], ids=lambda kind: kind.name
)
def test_who_says_nothing_in_rounds_is_left_out_of_them(tmp_path: Path, kind: MessageType) -> None:
    sim = Simulation(tmp_path, 5)
    withhold(sim, "site2", kind, tuple(honest(sim, "site2")))
    names = honest(sim, "site2")
    assert sim.run(300, lambda: all_at(sim, names, 3))
    sim.check()


def test_who_refuses_every_proposal_is_left_out(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 5)

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        if (sender, hop) != ("site2", "site0") or kind_of(data) is not MessageType.HELLO:
            return [data]
        return [signed_anew(sim, "site2", data, b"", type=MessageType.REFUSED, receiver=0)]

    sim.tamper = tamper
    names = honest(sim, "site2")
    assert sim.run(200, lambda: all_at(sim, names, 3))
    sim.check()


def test_whose_hello_says_nonsense_of_where_it_stands_is_left_out(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 5)
    sim.nodes["site2"]._standing = lambda: b"nonsense"  # type: ignore[method-assign]
    names = honest(sim, "site2")
    assert sim.run(200, lambda: all_at(sim, names, 3))
    sim.check()


def test_garbage_is_no_progress(tmp_path: Path) -> None:
    """An attempt that stands still does so too while one sends frames of it that everyone refuses."""
    sim = Simulation(tmp_path, 5)
    garbage = [0]

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        kind = kind_of(data)
        if sender == "site2" and kind is MessageType.DEAL:
            garbage.append(0)
            return [data[:-1] + bytes([data[-1] ^ 1])]
        if sender == "site2" and kind is MessageType.STATUS and len(garbage) > 1:
            node = member(sim, hop)
            if node.session is not None and node._plan is not None:
                about = Header(MessageType.DEAL, node.session.id, node._plan.round, node._plan.attempt, 2, 0, 0)
                return [data, about.encode(40) + bytes(40)]
        return [data]

    sim.tamper = tamper
    names = honest(sim, "site2")
    assert sim.run(300, lambda: all_at(sim, names, 3))
    sim.check()


@pytest.mark.parametrize("topology", ["ring", "star"])
@pytest.mark.parametrize("said", [MessageType.REFUSED, MessageType.MODEL_HASH, MessageType.ABANDON])
def test_what_may_be_said_at_any_time_is_no_progress(tmp_path: Path, said: MessageType, topology: str) -> None:
    """A member withholds its chunks and says one thing again and again, properly signed."""
    sim = Simulation(tmp_path, 5, topology)
    sim.training = (0.2, 0.5)
    bodies = {MessageType.REFUSED: b"", MessageType.MODEL_HASH: bytes(32)}
    body = bodies.get(said, Abandon(AbandonReason.STOPPED).encode())

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        kind, node = kind_of(data), sim.nodes.get("site2")
        if sender != "site2" or not isinstance(node, Member):
            return [data]
        if kind in (MessageType.CHUNK, MessageType.RETURN):
            return []
        machine = node._machine
        if kind is not MessageType.STATUS or machine is None or machine._attempt is None or node.session is None:
            return [data]
        receivers = [index for index in range(5) if index != 2] if topology == "star" else [sim.roster.index(hop)]
        return [data, *(machine._now.gate.sign(index, said, body) for index in receivers)]

    sim.tamper = tamper
    names = honest(sim, "site2")
    assert sim.run(300, lambda: all_at(sim, names, 3))
    sim.check()


def test_a_lead_that_trains_for_long_is_not_passed_over(tmp_path: Path) -> None:
    """Each round takes it several times what the others would wait for a lead that withholds."""
    sim = Simulation(tmp_path, 5)
    begin = sim._train

    def slow(name: str, round_: int, salt: int) -> None:
        sim.training = (90.0, 90.0) if name == "site0" else (0.2, 0.5)
        begin(name, round_, salt)

    sim._train = slow  # type: ignore[method-assign]
    assert sim.run(400, sim.finished)
    sim.check()
    assert {len(sum_.live) for sum_ in sim.accepted} == {5}
    assert not sim.kinds(EventKind.SESSION_FAILED)


def test_members_that_started_at_different_times_follow_one_lead(tmp_path: Path) -> None:
    """Each has waited for another time when a lead withholds; it is the turn of the same next one to all of them."""
    sim = Simulation(tmp_path, 5)
    withhold(sim, "site0", MessageType.READY, tuple(honest(sim, "site0")))
    for name in ("site3", "site1", "site4", "site2"):
        sim.run(6)
        sim.crash(name)
        sim.start(name)
    names = honest(sim, "site0")
    assert sim.run(200, lambda: all_at(sim, names, 3))
    sim.check()
    assert len(models_of(sim, names)) == 1
    assert len({turns_at(sim, name) for name in names}) == 1


@pytest.mark.parametrize("ahead", [("site1", "site2"), ("site2", "site4"), ("site0", "site1", "site2")], ids="-".join)
def test_members_that_count_other_turns_than_the_rest_come_together(tmp_path: Path, ahead: tuple[str, ...]) -> None:
    """Most forgot with a restart how many turns were over, or a few did."""
    sim = Simulation(tmp_path, 5)
    for name in ahead:
        leadership = member(sim, name)._leadership
        leadership.turns = leadership.told = 7
    assert sim.run(200, sim.finished)
    sim.check()


def test_few_members_take_a_turn_from_nobody(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 5)
    for name in ("site3", "site4"):
        member(sim, name)._leadership.told = 2**32 - 1
    assert sim.run(100, sim.finished)
    sim.check()
    assert {turns_at(sim, name) for name in ("site0", "site1", "site2")} == {0}
    assert not sim.kinds(EventKind.SESSION_FAILED)
    assert {event.fields["lead"] for event in sim.kinds(EventKind.SESSION_OPENED)} == {"site0"}

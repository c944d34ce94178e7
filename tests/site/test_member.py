"""Members and coordinators over links that fail, under a virtual clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from simulation import RELAY, Chaos, Simulation

from pppml_fast import DataError, SiteError
from pppml_fast.aggregation.base import Policy
from pppml_fast.aggregation.messages import MessageType, parse_header
from pppml_fast.aggregation.standing import Standing, StateId, agreed_state
from pppml_fast.site.events import EventKind

SHAPES = ("ring", "star")


def models(sim: Simulation) -> set[tuple[int, bytes]]:
    return {tuple(application.states[0]) for application in sim.applications.values()}


def crash_at(sim: Simulation, name: str, kind: MessageType, count: int = 1) -> None:
    """Let a node die at the moment it sends its ``count``-th message of a kind; the message is lost."""
    seen = 0

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        nonlocal seen
        header, _ = parse_header(data)
        if header.type is kind and header.sender == sim.roster.index(name) and sender == name:
            seen += 1
            if seen >= count and name in sim.nodes:
                sim.crash(name)
                return []
        return [data]

    sim.tamper = tamper


@pytest.mark.parametrize("topology", SHAPES)
@pytest.mark.parametrize("parties", [3, 5])
def test_a_federation_trains_to_its_end(tmp_path: Path, topology: str, parties: int) -> None:
    sim = Simulation(tmp_path, parties, topology)
    assert sim.run(60, sim.finished)
    sim.check()
    assert len(sim.accepted) == parties * 3
    assert len(models(sim)) == 1
    assert not sim.kinds(EventKind.REFUSED)
    assert not sim.kinds(EventKind.ABANDONED)
    assert len({event.fields["session"] for event in sim.kinds(EventKind.SESSION_OPENED)}) == 1


@pytest.mark.parametrize("topology", SHAPES)
@pytest.mark.parametrize("kind", [MessageType.DEAL, MessageType.CHUNK, MessageType.STATEMENT, MessageType.SHARE])
def test_a_member_that_dies_and_returns_ends_with_the_same_model(
    tmp_path: Path, topology: str, kind: MessageType
) -> None:
    """It comes back within the others' patience: no round is summed without it, but for one whose term a relay lost."""
    sim = Simulation(tmp_path, 5, topology)
    crash_at(sim, "site2", kind, count=2)
    assert sim.run(30, lambda: "site2" not in sim.nodes)
    sim.run(1.5)
    sim.tamper = None
    sim.start("site2")
    assert sim.run(90, sim.finished)
    sim.check()
    assert len(models(sim)) == 1
    left_out = {4} if topology == "star" and kind is MessageType.CHUNK else set()
    assert {len(sum_.live) for sum_ in sim.accepted} == {5} | left_out


@pytest.mark.parametrize("topology", SHAPES)
def test_the_others_go_on_without_a_member_that_stays_away_and_it_catches_up(tmp_path: Path, topology: str) -> None:
    sim = Simulation(tmp_path, 5, topology, rounds=4)
    sim.run(2)
    sim.crash("site4")
    assert sim.run(60, lambda: max(a.states[0].round for a in sim.applications.values()) >= 2)
    sim.start("site4")
    assert sim.run(90, sim.finished)
    sim.check()
    assert len(models(sim)) == 1
    assert sim.kinds(EventKind.CAUGHT_UP, "site4")
    assert {len(sum_.live) for sum_ in sim.accepted} == {4, 5}


def test_with_too_few_left_everyone_waits(tmp_path: Path) -> None:
    """Three of five are the fewest: with two, no round is summed however long it takes."""
    sim = Simulation(tmp_path, 5)
    sim.run(0.1)
    for name in ("site1", "site2", "site3"):
        sim.crash(name)
    sim.run(60)
    before = {(sum_.session, sum_.round) for sum_ in sim.accepted}
    assert all(round_ == 0 for _, round_ in before)
    sim.mend()
    assert sim.run(90, sim.finished)
    sim.check()
    assert len(models(sim)) == 1


@pytest.mark.parametrize("topology", SHAPES)
def test_all_die_at_once_and_return(tmp_path: Path, topology: str) -> None:
    sim = Simulation(tmp_path, 3, topology, rounds=4)
    assert sim.run(20, lambda: len(sim.accepted) >= 4)
    for name in list(sim.nodes):
        sim.crash(name)
    sim.mend()
    assert sim.run(90, sim.finished)
    sim.check()
    assert len(models(sim)) == 1


def test_a_disk_rolled_back_is_noticed_by_the_peers_and_nothing_is_drawn_twice(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 3, rounds=4)
    sim.run(0.1)
    backup = sim.backup("site1")
    assert sim.run(20, lambda: len(sim.accepted) >= 4)
    sim.crash("site1")
    sim.restore("site1", backup)
    sim.start("site1")
    assert sim.run(90, sim.finished)
    sim.check()
    assert len(models(sim)) == 1
    assert sim.kinds(EventKind.ROLLED_BACK, "site1")
    assert not sim.kinds(EventKind.ROLLED_BACK, "site0")


@pytest.mark.parametrize("topology", SHAPES)
def test_a_disk_rolled_back_while_all_who_know_better_are_away_draws_anew(tmp_path: Path, topology: str) -> None:
    """Three of five sum a round; one of them goes back to before it, and meets the two that were not there."""
    sim = Simulation(tmp_path, 5, topology)
    backup = sim.backup("site0")
    for name in ("site3", "site4"):
        sim.crash(name)
    assert sim.run(60, lambda: len(sim.accepted) >= 3)
    for name in ("site0", "site1", "site2"):
        sim.crash(name)
    sim.restore("site0", backup)
    for name in ("site0", "site3", "site4"):
        sim.start(name)
    assert sim.run(60, lambda: len(sim.accepted) >= 6)
    sim.mend()
    assert sim.run(120, sim.finished)
    sim.check()
    assert len(models(sim)) == 1


@pytest.mark.parametrize("topology", SHAPES)
@pytest.mark.parametrize("nth", [1, 5])
def test_a_lost_word_about_the_new_model_costs_a_session_and_no_more(tmp_path: Path, topology: str, nth: int) -> None:
    """In a star a member never hears that another one is gone: it must not wait for that one's word for ever."""
    sim = Simulation(tmp_path, 4, topology)
    seen = 0

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        nonlocal seen
        seen += parse_header(data)[0].type is MessageType.MODEL_HASH
        return [] if seen == nth and parse_header(data)[0].type is MessageType.MODEL_HASH else [data]

    sim.tamper = tamper
    assert sim.run(60, sim.finished)
    sim.check()
    assert len(models(sim)) == 1
    assert len(sim.accepted) == 4 * 3


def test_the_first_member_leads_again_when_it_returns(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 5, rounds=6)
    sim.run(0.5)
    sim.crash("site0")
    assert sim.run(60, lambda: any(len(sum_.live) == 4 for sum_ in sim.accepted))
    sim.start("site0")
    assert sim.run(90, sim.finished)
    sim.check()
    leads = [event.fields["lead"] for event in sim.kinds(EventKind.SESSION_OPENED, "site3")]
    assert leads[0] == "site0"
    assert "site1" in leads
    assert leads[-1] == "site0"


def test_a_pair_that_cannot_reach_each_other_does_not_stop_the_others(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 5)
    sim.cut("site3", "site4")
    assert sim.run(90, lambda: any(len(sum_.live) == 4 for sum_ in sim.accepted))
    sim.mend()
    assert sim.run(90, sim.finished)
    sim.check()
    assert len(models(sim)) == 1


@pytest.mark.parametrize("seed", range(12))
def test_whatever_fails_no_rule_is_broken_and_in_the_end_all_hold_one_model(tmp_path: Path, seed: int) -> None:
    parties, topology = 3 + seed % 3, SHAPES[seed // 3 % 2]
    sim = Simulation(tmp_path, parties, topology, rounds=4, seed=seed)
    chaos = Chaos(sim, seed, rate=(0.005, 0.02, 0.05)[seed % 3])
    chaos.run(30)
    assert sim.run(200, sim.finished), f"hung after {chaos.counts}"
    sim.check()
    assert len(models(sim)) == 1
    assert not sim.kinds(EventKind.FAILED), "nobody lied"


# --- nodes that lie ----------------------------------------------------------------------------------------------


def test_a_coordinator_that_shows_different_live_sets_opens_nothing_with_them(tmp_path: Path) -> None:
    """Deals name the live set: members that were told different ones never sum together."""
    from pppml_fast.aggregation.messages import EVERYONE
    from pppml_fast.site.notices import Plan

    sim = Simulation(tmp_path, 5, "star", rounds=2)
    relay = sim.nodes[RELAY]
    lied = 0

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        nonlocal lied
        header, size = parse_header(data)
        if header.type is MessageType.PLAN and hop in ("site0", "site1") and sim.now < 20:
            plan = Plan.parse(data[-64 - size : -64])
            smaller = Plan(plan.kind, plan.round, plan.attempt, plan.parties, frozenset({0, 1, 2, 3}))
            prefix = type(header)(
                header.type, header.session, header.round, header.attempt, header.sender, EVERYONE, header.sequence
            ).encode(len(smaller.encode()))
            lied += 1
            signed = sim.identities[RELAY].sign("control message", prefix + smaller.encode())
            return [prefix + smaller.encode() + signed]
        return [data]

    sim.tamper = tamper
    assert relay is not None
    sim.run(20)
    assert lied
    assert not sim.accepted
    assert sim.run(120, sim.finished)
    sim.check()
    assert len(models(sim)) == 1


@pytest.mark.parametrize("what", ["dropped", "doubled", "flipped"])
def test_a_coordinator_that_meddles_with_messages_stops_rounds_and_nothing_more(tmp_path: Path, what: str) -> None:
    sim = Simulation(tmp_path, 3, "star", rounds=2, seed=1)
    generator = np.random.default_rng(5)

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        if sender != RELAY or sim.now > 15 or generator.random() > 0.05:
            return [data]
        if what == "dropped":
            return []
        if what == "doubled":
            return [data, data]
        at = int(generator.integers(len(data)))
        return [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]]

    sim.tamper = tamper
    sim.run(15)
    assert sim.run(150, sim.finished)
    sim.check()
    assert len(models(sim)) == 1


def test_too_few_for_a_policy_wait_for_more(tmp_path: Path) -> None:
    """Three of five are enough by number, but each would weigh a third."""
    sim = Simulation(tmp_path, 5, rounds=3, policy=Policy(max_share=0.3))
    assert sim.run(60, lambda: len(sim.accepted) >= 5)
    for name in ("site3", "site4"):
        sim.crash(name)
    before = len(sim.accepted)
    sim.run(60)
    # Whoever had all shares of the sum that was under way may have opened it.
    assert len(sim.accepted) <= before + 5 and set(sim.nodes) == {"site0", "site1", "site2"}
    assert any("of the weight" in str(event.fields) for _, event in sim.events)
    sim.mend()
    assert sim.run(200, sim.finished)
    sim.check()
    assert len(models(sim)) == 1


@pytest.mark.parametrize("what", ["commit", "step_back"])
def test_what_the_own_disk_refuses_ends_the_site_and_blames_no_peer(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = Simulation(tmp_path, 3, rounds=3)

    def full(*_: object) -> None:
        raise DataError("the disk is full")

    monkeypatch.setattr(sim.applications["site1"], what, full)
    if what == "step_back":
        # The others lose the sum that this one opened: it has to go back to the model that they hold.
        alone = lambda sender, hop, data: (  # noqa: E731
            [] if hop != "site1" and parse_header(data)[0].type is MessageType.SHARE else [data]
        )
        sim.tamper = alone
    with pytest.raises(SiteError, match="cannot be kept here: the disk is full"):
        sim.run(100)
    assert not sim.kinds(EventKind.REFUSED)


def test_shares_that_do_not_come_end_an_attempt_without_an_accusation(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 3, rounds=2)

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        return [] if hop == "site1" and parse_header(data)[0].type is MessageType.SHARE else [data]

    sim.tamper = tamper
    assert sim.run(300, lambda: bool(sim.kinds(EventKind.DISCARDED, "site1")))
    sim.tamper = None
    assert sim.run(300, sim.finished)
    sim.check()
    assert len(models(sim)) == 1
    assert not sim.kinds(EventKind.FAILED), "nothing was wrong with any sum"


# --- what is agreed on -------------------------------------------------------------------------------------------


def _standings(*rounds: tuple[int, ...]) -> dict[int, Standing]:
    return {
        index: Standing(tuple(StateId(round_, bytes([round_]) * 32) for round_ in kept))
        for index, kept in enumerate(rounds)
    }


def test_the_agreed_model_is_the_newest_that_a_majority_keeps() -> None:
    assert agreed_state(_standings((4, 3), (3, 2), (3, 2)), 3) == StateId(3, bytes([3]) * 32)
    assert agreed_state(_standings((4, 3), (4, 3), (3, 2)), 3) == StateId(4, bytes([4]) * 32)
    assert agreed_state(_standings((7, 6), (2, 1), (2, 1)), 5) is None, "the two that are away may know better"
    assert agreed_state(_standings((7, 6), (2, 1), (2, 1)), 3) == StateId(2, bytes([2]) * 32)
    assert agreed_state(_standings((9,), (5,), (2,)), 3) == StateId(9, bytes([9]) * 32)
    assert agreed_state({}, 3) is None

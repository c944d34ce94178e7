"""A star's coordinator that lies: it stops rounds while it does, learns nothing, and no two members accept two sums."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from liars import honest, kind_of, models_of, refusals, signed_anew
from simulation import RELAY, Simulation, Tamper

from pppml_fast.aggregation import Identity
from pppml_fast.aggregation import Member as RosterMember
from pppml_fast.aggregation.messages import MessageType, parse_frame, parse_header
from pppml_fast.aggregation.payloads import RosterProposal
from pppml_fast.aggregation.roster import Roster
from pppml_fast.site.events import EventKind

LIES_UNTIL = 15.0
FIRST = ("site0", "site1")


def lied_to(sim: Simulation, lie: Callable[[str, bytes], list[bytes]]) -> Tamper:
    """A coordinator whose messages go through ``lie(hop, data)`` for a while."""
    return lambda sender, hop, data: lie(hop, data) if sender == RELAY and sim.now < LIES_UNTIL else [data]


def behaves_in_the_end(sim: Simulation) -> None:
    """While it lies no rule is broken; then all train to the end."""
    sim.run(LIES_UNTIL)
    sim.check()
    assert sim.run(200, sim.finished)
    sim.check()
    assert len(models_of(sim, list(sim.names))) == 1


def test_replayed_messages_count_once(tmp_path: Path) -> None:
    """Everything is sent again a while later, also what belongs to attempts and sessions that are over."""
    sim = Simulation(tmp_path, 3, "star", rounds=3)
    seen: dict[str, list[bytes]] = defaultdict(list)

    def lie(hop: str, data: bytes) -> list[bytes]:
        seen[hop].append(data)
        return [data, seen[hop][len(seen[hop]) // 2]]

    sim.tamper = lied_to(sim, lie)
    behaves_in_the_end(sim)
    assert any("replayed" in reason or "is not the next" in reason or "second" in reason for reason in refusals(sim))


def test_reordered_messages_are_refused(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 3, "star", rounds=3)
    kept: dict[str, bytes] = {}

    def lie(hop: str, data: bytes) -> list[bytes]:
        if hop in kept:
            return [data, kept.pop(hop)]
        if sim.random.random() < 0.1:
            kept[hop] = data
            return []
        return [data]

    sim.tamper = lied_to(sim, lie)
    behaves_in_the_end(sim)


def test_an_older_proposal_opens_no_session(tmp_path: Path) -> None:
    """One member gets the proposal and the hellos of an earlier session: its own fresh hello is not in that one."""
    sim = Simulation(tmp_path, 3, "star", rounds=2)
    old: list[bytes] = []
    recording = True

    def lie(hop: str, data: bytes) -> list[bytes]:
        if hop != "site0" or kind_of(data) not in (MessageType.ROSTER, MessageType.HELLO):
            return [data]
        if recording:
            old.append(data)
            return [data]
        return old if kind_of(data) is MessageType.ROSTER else []

    sim.tamper = lied_to(sim, lie)
    assert sim.run(10, lambda: bool(sim.kinds(EventKind.SESSION_OPENED, "site0")))
    recording = False
    before = len(sim.kinds(EventKind.SESSION_OPENED, "site0"))
    sim.crash("site0")
    sim.start("site0")
    sim.run(LIES_UNTIL - sim.now)
    assert len(sim.kinds(EventKind.SESSION_OPENED, "site0")) == before
    behaves_in_the_end(sim)


def mixed(sim: Simulation, change: Callable[[Roster], Roster]) -> Callable[[str, bytes], list[bytes]]:
    """Some members get a proposal of another roster, well signed by the coordinator."""

    def lie(hop: str, data: bytes) -> list[bytes]:
        if hop not in FIRST or kind_of(data) is not MessageType.ROSTER:
            return [data]
        proposal = RosterProposal.parse(parse_frame(data).body)
        roster = change(sim.roster)
        parties = len(roster.members)
        other = replace(proposal, roster=roster.canonical_bytes(), parties=parties, present=frozenset(range(parties)))
        return [signed_anew(sim, RELAY, data, other.encode(), session=roster.fingerprint, sender=parties)]

    return lie


PUPPET = Identity.generate("puppet")


def with_a_puppet(roster: Roster) -> Roster:
    members = (*roster.members, RosterMember("puppet", PUPPET.public.hex(), roster.members[0].weight))
    return replace(roster, members=members)


def with_a_puppet_in_a_members_place(roster: Roster) -> Roster:
    last = replace(roster.members[-1], identity=PUPPET.public.hex())
    return replace(roster, members=(*roster.members[:-1], last))


def with_other_weights(roster: Roster) -> Roster:
    first = replace(roster.members[0], weight=roster.members[0].weight * 1.5)
    return replace(roster, members=(first, *roster.members[1:]))


@pytest.mark.parametrize("change", [with_a_puppet, with_a_puppet_in_a_members_place, with_other_weights])
def test_another_roster_for_some_opens_nothing(tmp_path: Path, change: Callable[[Roster], Roster]) -> None:
    sim = Simulation(tmp_path, 5, "star", rounds=2)
    sim.tamper = lied_to(sim, mixed(sim, change))
    sim.run(LIES_UNTIL - 0.5)
    opened = {name for name in sim.names if sim.kinds(EventKind.SESSION_OPENED, name)}
    if change is not with_other_weights:
        assert not opened & set(FIRST), "whom it told of a stranger is in no session"
    behaves_in_the_end(sim)
    assert sim.kinds(EventKind.SESSION_FAILED)


@pytest.mark.parametrize("kind", [MessageType.HELLO, MessageType.ENCAPSULATION, MessageType.READY])
def test_withheld_handshakes_open_no_session_for_those(tmp_path: Path, kind: MessageType) -> None:
    sim = Simulation(tmp_path, 3, "star", rounds=2)
    sim.tamper = lied_to(sim, lambda hop, data: [] if hop in FIRST and kind_of(data) is kind else [data])
    sim.run(LIES_UNTIL - 0.5)
    assert not sim.accepted
    behaves_in_the_end(sim)


def test_statuses_in_the_coordinators_name_change_nothing(tmp_path: Path) -> None:
    """It makes up statuses, and hands members each other's: they plan nothing by them."""
    sim = Simulation(tmp_path, 3, "star", rounds=2)
    statuses: list[bytes] = []

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        if kind_of(data) is MessageType.STATUS:
            statuses.append(data)
        return [data, statuses[-1]] if sender == RELAY and statuses else [data]

    sim.tamper = tamper
    assert sim.run(100, sim.finished)
    sim.check()
    assert any("came over the link to 'relay'" in reason for reason in refusals(sim, "site0"))


def test_shares_of_an_older_session_open_nothing(tmp_path: Path) -> None:
    """After a member's restart the coordinator hands out every share it ever carried, again and again."""
    sim = Simulation(tmp_path, 3, "star", rounds=3)
    shares: list[tuple[str, bytes]] = []

    def tamper(sender: str, hop: str, data: bytes) -> list[bytes]:
        if sender == RELAY and kind_of(data) is MessageType.SHARE:
            shares.append((hop, data))
        return [data, *(old for to, old in shares if to == hop and old != data)] if sender == RELAY else [data]

    sim.tamper = tamper
    assert sim.run(60, lambda: len(sim.accepted) >= 3)
    sim.crash("site1")
    sim.start("site1")
    assert sim.run(150, sim.finished)
    sim.check()
    assert len({parse_header(data)[0].session for _, data in shares}) > 1
    assert len(models_of(sim, honest(sim))) == 1


def test_a_term_longer_than_the_model_is_refused_by_the_coordinator(tmp_path: Path) -> None:
    """The coordinator knows the layout: a member cannot make it hold room for 2^28 values."""
    sim = Simulation(tmp_path, 3, "star")
    sim.run(5, lambda: bool(sim.kinds(EventKind.SESSION_OPENED, RELAY)))
    relay = sim.nodes[RELAY]._relay  # type: ignore[attr-defined]
    assert relay is not None
    assert relay._layout == sim.layout

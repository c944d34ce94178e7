"""What a star's coordinator alone can see: its members have no links to each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from simulation import RELAY, Simulation

from pppml_fast.aggregation.messages import MessageType, parse_header
from pppml_fast.site.events import EventKind

PATIENCE = 500.0


class PatientStar(Simulation):
    """Waits for whoever is gone far longer than any test: what goes on, goes on because the member is back."""

    TIMING = replace(Simulation.TIMING, patience=PATIENCE)


@pytest.mark.parametrize("name", ["site2", RELAY])
def test_who_is_killed_in_training_and_returns_costs_no_patience(tmp_path: Path, name: str) -> None:
    sim = PatientStar(tmp_path, 5, "star")
    assert sim.run(30, lambda: len(sim.kinds(EventKind.TRAINING)) >= 7)
    sim.crash(name)
    sim.run(3.0)
    sim.mend()
    assert sim.run(PATIENCE / 5, sim.finished)
    sim.check()
    assert {len(sum_.live) for sum_ in sim.accepted} == {5}


def test_members_that_are_called_into_another_session_are_not_told_as_refused(tmp_path: Path) -> None:
    """Each gives its attempt up in the old one, which the coordinator has left already."""
    sim = PatientStar(tmp_path, 5, "star")
    assert sim.run(30, lambda: len(sim.kinds(EventKind.TRAINING)) >= 7)
    sim.crash("site2")
    sim.run(3.0)
    sim.mend()
    assert sim.run(PATIENCE / 5, sim.finished)
    assert sim.kinds(EventKind.ABANDONED)
    assert sim.kinds(EventKind.REFUSED, RELAY) == []


def test_what_is_under_way_when_its_session_is_left_is_not_told_as_refused(tmp_path: Path) -> None:
    """Over a slow link; what a member sends of it once it was heard in the next session is told."""
    sim = PatientStar(tmp_path, 5, "star")
    under_way: list[bytes] = []

    def slow(sender: str, hop: str, data: bytes) -> list[bytes]:
        kind = parse_header(data)[0].type
        if (sender, hop) == ("site0", RELAY):
            if kind is MessageType.DEAL:
                under_way.append(data)
                return []
            if kind is MessageType.HELLO and under_way:
                sim.tamper = None
                return [*under_way, data]
        return [data]

    sim.tamper = slow
    assert sim.run(30, lambda: len(under_way) == 4)
    sim.crash("site2")
    sim.run(3.0)
    sim.mend()
    assert sim.run(PATIENCE / 5, lambda: len(sim.accepted) > 0)
    assert sim.tamper is None
    assert sim.kinds(EventKind.REFUSED, RELAY) == []
    sim.nodes[RELAY].receive("site0", under_way[0])
    (told,) = sim.kinds(EventKind.REFUSED, RELAY)
    assert (told.fields["peer"], told.fields["reason"][:15]) == ("site0", "DEAL for party ")
    assert sim.run(PATIENCE / 5, sim.finished)
    sim.check()

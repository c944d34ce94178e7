"""Members and coordinators over links that fail, under a virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulation import RELAY, Simulation

from pppml_fast.aggregation.messages import MessageType, parse_header
from pppml_fast.site.events import EventKind

SHAPES = ("ring", "star")


def models(sim: Simulation) -> set[tuple[int, bytes]]:
    return {tuple(application.states[0]) for application in sim.applications.values()}


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

"""A finished site that starts again: it hands its model to whoever comes, and ends when nobody does."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulation import RELAY, Simulation

from pppml_fast.site.events import EventKind


@pytest.fixture(params=["ring", "star"])
def through(request: pytest.FixtureRequest, tmp_path: Path) -> Simulation:
    """A federation that is finished and gone."""
    sim = Simulation(tmp_path, 3, request.param)
    assert sim.run(60, sim.finished)
    for name in list(sim.nodes):
        sim.crash(name)
    return sim


def test_it_ends_after_its_linger_time(through: Simulation) -> None:
    through.start("site1")
    assert not through.run(through.TIMING.linger / 2, through.finished)
    assert through.run(through.TIMING.linger, through.finished)
    (told,) = through.kinds(EventKind.SESSION_FAILED, "site1")[-1:]
    assert "nobody asked for the finished model within 12 s" in told.fields["reason"]


def test_with_too_few_others_it_ends_as_well(through: Simulation) -> None:
    for name in ("site1", RELAY if through.roster.relay else "site2"):
        through.start(name)
    begun = through.now
    assert through.run(60, lambda: through.nodes["site1"].ended)
    assert through.now - begun >= through.TIMING.linger + through.TIMING.patience


def test_an_unfinished_site_waits_for_ever(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 3)
    for name in ("site0", "site2"):
        sim.crash(name)
    assert not sim.run(300, sim.finished)

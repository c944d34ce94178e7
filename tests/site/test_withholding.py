"""Members that withhold what others need, the lead among them: the others' rounds go on, and nobody stays left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from liars import all_at, honest, kind_of, models_of
from simulation import Simulation

from pppml_fast.aggregation.messages import MessageType


def withhold(sim: Simulation, who: str, kind: MessageType, victims: tuple[str, ...]) -> None:
    """A member's messages of a kind never reach the victims."""
    sim.tamper = lambda sender, hop, data: [] if sender == who and hop in victims and kind_of(data) is kind else [data]


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
    summed = {sum_.round for sum_ in sim.accepted if victim in sum_.live}
    assert len(summed) >= 4, "it took part in few of 20 rounds"
    assert len(models_of(sim, names)) == 1

"""From which draws a member trains after a restart: what its journal calls spent is not computed again, even nearly."""

from __future__ import annotations

from pathlib import Path

from simulation import Simulation

from pppml_fast.aggregation.attempts import AttemptId, AttemptLedger
from pppml_fast.aggregation.journal import MemoryStore
from pppml_fast.aggregation.standing import Standing, StateId
from pppml_fast.site.draws import Draws
from pppml_fast.site.events import Event, EventKind, Events

ROUND = 3
UPDATE = bytes([7]) * 32


def restarted(sim: Simulation, store: MemoryStore) -> tuple[Draws, list[Event]]:
    """The draws of a member that is started, and has heard all others of its session."""
    heard: list[Event] = []
    draws = Draws(AttemptLedger(store), sim.roster, 0, Events(lambda: 0.0, [heard.append]))
    draws.hear(dict.fromkeys(range(3), Standing((StateId(ROUND, bytes(32)),))))
    return draws, heard


def test_a_round_whose_update_was_released_is_trained_from_fresh_draws(tmp_path: Path) -> None:
    sim = Simulation(tmp_path, 3)
    store = MemoryStore()
    ledger, attempt = AttemptLedger(store), AttemptId(bytes(32), ROUND, 0)
    ledger.begin(attempt, UPDATE)
    ledger.prepare(attempt, UPDATE, [])
    ledger.release(attempt)
    draws, heard = restarted(sim, store)
    # Its journal knows the update by its bits alone: on a GPU the same draws would give others.
    assert draws.salt(ROUND) != 0
    assert [event.kind for event in heard] == [EventKind.SPENT] and heard[0].fields["round"] == ROUND
    assert draws.salt(ROUND + 1) == 0 and len(heard) == 1
    again, heard = restarted(sim, store)
    assert again.salt(ROUND) != 0 and heard == [], "it is on record"


def test_a_closed_attempt_that_others_can_open_spends_its_round(tmp_path: Path) -> None:
    store = MemoryStore()
    for opens_without in (False, True):
        ledger, attempt = AttemptLedger(store), AttemptId(bytes(32), ROUND + opens_without, 0)
        ledger.begin(attempt, UPDATE)
        ledger.prepare(attempt, UPDATE, [], opens_without=opens_without)
    draws, heard = restarted(Simulation(tmp_path, 3), store)
    assert draws.salt(ROUND) == 0 and heard == []
    assert draws.salt(ROUND + 1) != 0 and len(heard) == 1

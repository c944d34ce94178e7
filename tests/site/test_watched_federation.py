"""What whole federations tell: transcripts that agree, and a live state that ends where the federation does."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulation import RELAY, Simulation

from pppml_fast.site.live import LiveState, reduce
from pppml_fast.site.transcript import TranscriptFile
from pppml_fast.site.transcript_check import compare, read_transcript


@pytest.mark.parametrize("topology", ["ring", "star"])
def test_a_federation_with_a_restart(tmp_path: Path, topology: str) -> None:
    sim = Simulation(tmp_path / "sim", 3, topology)
    sim.run(60, lambda: len(sim.accepted) >= 3)
    gone = sim.names[1]
    sim.crash(gone)
    sim.run(2)
    sim.start(gone)
    assert sim.run(120, sim.finished)
    nodes = (*sim.names, *([RELAY] if topology == "star" else []))
    files = {name: TranscriptFile(tmp_path / name, sim.identities[name]) for name in nodes}
    state = LiveState()
    for name, event in sim.events:
        state = reduce(state, name, event)
        if name in files:
            files[name](event)
    for file in files.values():
        file.close()
    keys = {name: sim.identities[name].public for name in nodes}
    found = compare([read_transcript(tmp_path / name, keys) for name in nodes], sim.names)
    assert found.faults == () and found.summary == f"rounds=3 parties={len(nodes)} differing=0"
    told = {(row.session, row.round, row.attempt) for row in found.rows}
    assert {(kept.session, kept.round, kept.attempt) for kept in sim.accepted} <= told
    if topology == "star":
        # What the members finished, the coordinator saw: the same hash of the sum, signed by it.
        relayed = [row for row in found.rows if row.outcomes.get(RELAY) == "relayed"]
        assert {row.round for row in relayed} == {0, 1, 2}
        assert state.sites[RELAY].state == "finished"
    assert {state.sites[name].finished for name in sim.names} == {3}
    assert len({state.sites[name].model for name in sim.names}) == 1

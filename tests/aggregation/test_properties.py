"""Properties of whole rounds: losses at any moment, bytes changed anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from aggregation_support import NAMES, drop_when, expected_integers, federation, vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from pppml_fast import PppmlError
from pppml_fast.aggregation import State
from pppml_fast.transport import Delivery


@given(
    topology=st.sampled_from(["ring", "star"]),
    protocol=st.sampled_from(["collective", "collective", "initiator"]),
    losses=st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 160)), min_size=1, max_size=2),
)
@settings(max_examples=50, deadline=None)
def test_losses_at_any_moment_open_exact_sums_or_none(
    topology: str, protocol: str, losses: list[tuple[str, int]]
) -> None:
    """Whoever finishes holds the exact sum over one live set; no update is released in two attempts."""
    if protocol == "initiator":
        topology = "ring"
    updates = vectors(5)
    with federation(5, protocol, topology, chunk_blocks=3) as fed:
        count = 0

        def tamper(delivery: Delivery) -> list[bytes]:
            nonlocal count
            count += 1
            for party, moment in losses:
                if count == moment + 1:
                    fed.network.drop(party)
            return [] if delivery.sender in fed.network.dropped else [delivery.data]

        fed.network.tamper = tamper
        try:
            result = fed.aggregate(updates, round=0)
        except PppmlError:
            result = None
        finished = [m.outcome for m in fed.members.values() if m.outcome is not None]
        for outcome in finished:
            live = {NAMES[index]: updates[NAMES[index]] for index in outcome.members}
            assert np.array_equal(outcome.integers, expected_integers(fed.params, live, dict.fromkeys(live, 0.2)))
            assert len(live) >= 3
        assert len({outcome.members for outcome in finished}) <= 1
        if result is not None:
            assert set(fed.parties) <= set(result.members)
        for machine in fed.members.values():
            released = {attempt.attempt for attempt in machine._ledger._released}
            assert len(released) <= 1
            if machine.state is State.ABANDONED:
                assert machine._now.id.attempt not in released


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_no_bytes_make_a_machine_raise(data: st.DataObject) -> None:
    """Mangled copies of real messages reach a party in the middle of its round: refused, and the round is right."""
    updates = vectors()
    topology = data.draw(st.sampled_from(["ring", "star"]))
    moments = set(data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=4)))
    with federation(topology=topology) as fed:
        count = 0

        def tamper(delivery: Delivery) -> list[bytes]:
            nonlocal count
            count += 1
            if count not in moments:
                return [delivery.data]
            mangled = bytearray(delivery.data)
            for _ in range(data.draw(st.integers(1, 3))):
                at = data.draw(st.integers(0, len(mangled) - 1))
                mangled[at] ^= data.draw(st.integers(1, 255))
            size = data.draw(st.sampled_from([len(mangled), len(mangled) - 1, 70, 3]))
            return [bytes(mangled[:size]), delivery.data]

        fed.network.tamper = tamper
        result = fed.aggregate(updates, round=0)
        expected = expected_integers(fed.params, updates, dict.fromkeys(NAMES[:3], 1 / 3))
        assert np.array_equal(result.integers, expected)


@pytest.mark.parametrize("topology", ["ring", "star"])
def test_two_live_sets_of_one_update_never_both_open(topology: str) -> None:
    """However a retry comes about, each hospital's update is part of one opened sum at most."""
    updates = vectors(5)
    for moment in range(0, 120, 7):
        with federation(5, topology=topology, chunk_blocks=3) as fed:
            count = 0

            def condition(_: Delivery, moment: int = moment) -> bool:
                nonlocal count
                count += 1
                return count > moment

            drop_when(fed, "west", condition)
            sums = set()
            for round_ in range(2):
                try:
                    result = fed.aggregate({name: updates[name] for name in NAMES}, round=round_)
                    sums.add((result.members, result.integers.tobytes()))
                except PppmlError:
                    continue
            assert len(sums) <= 1

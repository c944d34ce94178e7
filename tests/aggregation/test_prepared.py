"""Pads made between the beginning of an attempt and its values: the same sum, the fraction told, nothing left over."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from aggregation_support import NAMES, SIZE, expected_integers, federation, vectors

from pppml_fast.aggregation import Federation
from pppml_fast.aggregation.attempt_state import State


def begin(fed: Federation, attempt: int = 0) -> None:
    for name in fed.parties:
        fed.network.post(name, fed.members[name].begin(0, attempt, fed.parties, fed.params))
    fed.network.run()


def finish(fed: Federation, values: Any) -> None:
    for name in fed.parties:
        fed.network.post(name, fed.members[name].contribute(values[name], fed.roster.weights[name]))
    fed.network.run()


def wait_until_prepared(machine: Any) -> None:
    end = time.monotonic() + 300  # they are made at the lowest priority: on a busy machine, seldom
    while machine._key.prepared_fraction < 1:
        assert time.monotonic() < end, "the pads did not come"
        time.sleep(0.001)


def test_prepared_parties_sum_the_same() -> None:
    fed, values = federation(), vectors()
    begin(fed)
    north, east, south = (fed.members[name] for name in NAMES[:3])
    north.prepare(SIZE)
    east.prepare(SIZE + 1)  # it was mistaken
    for machine in (north, east):
        wait_until_prepared(machine)
    finish(fed, values)
    assert [machine.meter.prepared for machine in (north, east, south)] == [1, 0, 0]
    expected = expected_integers(fed.params, values, fed.roster.weights)
    for machine in (north, east, south):
        assert machine.state is State.FINISHED and machine.outcome is not None
        assert np.array_equal(machine.outcome.integers, expected)
        machine.prepare(SIZE)  # too late: nothing happens


def test_the_pads_of_an_abandoned_attempt_are_destroyed() -> None:
    fed = federation()
    begin(fed)
    machine: Any = fed.members["north"]
    machine.prepare(SIZE)
    wait_until_prepared(machine)
    words = machine._key._pads._native.words()
    assert words.any()
    fed.network.post("north", machine.abandon())
    assert machine.state is State.ABANDONED and not words.any()
    fed.network.run()
    machine.prepare(SIZE)
    begin(fed, attempt=1)
    machine.prepare(SIZE)
    finish(fed, vectors())
    assert machine.state is State.FINISHED


@pytest.mark.parametrize("protocol", ["initiator", "plain"])
def test_protocols_without_pads_go_on_as_ever(protocol: str) -> None:
    fed, values = federation(protocol=protocol), vectors()
    begin(fed)
    for name in fed.parties:
        fed.members[name].prepare(SIZE)
    finish(fed, values)
    assert {fed.members[name].state for name in fed.parties} == {State.FINISHED}
    assert {fed.members[name].meter.prepared for name in fed.parties} == {0}

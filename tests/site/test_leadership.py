"""Whose turn it is to lead, as members count the turns that are over."""

from __future__ import annotations

import pytest

from pppml_fast.aggregation.standing import StateId
from pppml_fast.site.lead import Timing
from pppml_fast.site.leadership import Leadership
from pppml_fast.site.notices import NO_SESSION, Phase, Status

LARGEST = 2**32 - 1


def leadership() -> Leadership:
    return Leadership(me=0, members=5, minimum=3, timing=Timing())


def test_turns_go_round_among_those_who_are_present() -> None:
    counting, turns = leadership(), []
    for count in range(7):
        counting.turns = count
        turns.append((counting.turn({0, 1, 2, 3, 4}), counting.turn({0, 1, 4})))
    assert turns == [(0, 0), (1, 1), (2, 4), (3, 4), (4, 4), (0, 0), (1, 1)]


@pytest.mark.parametrize(
    ("told", "turns"),
    [
        ([], 0),
        ([LARGEST], 0),
        ([LARGEST, LARGEST, 0, 0], 0),
        ([1, 1, 0, 0], 0),
        ([1, 1, 1, 0], 1),
        ([LARGEST, 4, 4, 0], 4),
        ([9, 8, 7, 6], 7),
    ],
)
def test_a_turn_is_over_where_as_many_as_a_round_needs_say_so(told: list[int], turns: int) -> None:
    counting = leadership()
    counting.hear(told)
    assert (counting.turns, counting.told) == (turns, turns)


def test_its_own_word_counts_as_one_and_is_said_once() -> None:
    counting = leadership()
    assert counting.pass_over()
    assert not counting.pass_over()
    assert (counting.turns, counting.told) == (0, 1)
    counting.hear([1, 0, 0, 0])
    assert counting.turns == 0
    counting.hear([1, 1, 0, 0])
    assert (counting.turns, counting.told) == (1, 1)


def test_turns_are_never_taken_back() -> None:
    counting = leadership()
    counting.hear([6, 6, 6])
    counting.hear([0, 0, 0, 0])
    assert (counting.turns, counting.told) == (6, 6)


def test_the_last_turn_of_all_stays() -> None:
    counting = leadership()
    counting.hear([LARGEST] * 3)
    assert not counting.pass_over()
    assert counting.told == LARGEST


def test_a_proposal_out_of_turn_that_came_to_nothing_is_not_followed_again_at_once() -> None:
    counting = leadership()
    assert not counting.refuses(3, 100.0)
    counting.refuse(3, 100.0)
    assert counting.refuses(3, 159.0)
    assert not counting.refuses(3, 160.0)
    assert not counting.refuses(2, 100.0)


@pytest.mark.parametrize("claims_more", [False, True])
def test_who_claims_ever_newer_models_is_waited_for_no_more_often(claims_more: bool) -> None:
    """It says that it is ready and gets nowhere, for two thousand times the limit."""
    counting, everyone, blamed = leadership(), frozenset(range(4)), 0
    for step in range(2000):
        statuses = {
            index: Status(NO_SESSION, Phase.DONE, StateId(3, bytes(32)), 0, 0, 0, 5, everyone, 0) for index in range(3)
        }
        claimed = 3 + (step if claims_more else 0)
        statuses[3] = Status(NO_SESSION, Phase.READY, StateId(claimed, bytes(32)), 0, 0, 0, 5, everyone, 0)
        found = counting.watch(step * counting.limit, statuses, finished=False)
        if found is not None:
            blamed += 1
            counting.pass_over()
            counting.hear([counting.told] * 3)
    assert 1 <= blamed <= 100, "the limit doubles up to 32 times"

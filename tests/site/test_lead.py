"""What the lead decides from what it hears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pppml_fast.aggregation.standing import StateId
from pppml_fast.site.lead import Lead, Propose, Timing, View
from pppml_fast.site.notices import NO_SESSION, Phase, Status

EVERYONE = frozenset(range(5))


def status(phase: Phase, session: bytes = NO_SESSION, round_: int = 3) -> Status:
    return Status(session, phase, StateId(round_, bytes(32)), round_, 0, 7, 5, EVERYONE, 0)


def test_members_left_behind_in_a_session_of_the_past_are_called_into_the_next() -> None:
    """Two wait in an attempt for what the others will never send; the others alone keep failing to open a session."""
    lead = Lead(5, 3, 0, Timing(patience=4.0, retry=0.25))
    left_behind = status(Phase.SUMMING, b"s" * 32)
    proposed = []
    for tick in range(200):
        now = tick / 8
        statuses = {i: status(Phase.SEEKING, round_=tick) for i in range(3)} | {3: left_behind, 4: left_behind}
        decision = lead.decide(View(now, statuses))
        if isinstance(decision, Propose):
            proposed.append((now, decision.present))
            lead.session_failed(now, (), decision.present)
    assert all(present == (0, 1, 2, 3, 4) for now, present in proposed if now >= 4)
    assert any(now >= 4 for now, _ in proposed)


def test_members_whose_attempt_moves_on_are_not_disturbed() -> None:
    lead = Lead(5, 3, 0, Timing(patience=4.0, retry=0.25))
    for tick in range(100):
        moving = Status(b"s" * 32, Phase.SUMMING, StateId(3, bytes(32)), 3, 0, tick, 5, EVERYONE, 0)
        statuses = {i: status(Phase.SEEKING) for i in range(3)} | {3: moving, 4: moving}
        assert not isinstance(lead.decide(View(tick / 8, statuses)), Propose)


def test_a_lead_that_returns_does_not_disturb_a_long_training() -> None:
    lead = Lead(5, 3, 0, Timing(patience=4.0, retry=0.25))
    training = status(Phase.TRAINING, b"s" * 32)
    for tick in range(400):
        statuses = {0: status(Phase.SEEKING)} | dict.fromkeys(range(1, 5), training)
        assert lead.decide(View(tick / 8, statuses)) is None


def test_a_member_left_in_a_training_of_the_past_is_called_after_the_longest_training() -> None:
    lead = Lead(5, 3, 0, Timing(patience=4.0, training=20.0, retry=0.25))
    training = status(Phase.TRAINING, b"s" * 32)
    asked = []
    for tick in range(400):
        statuses = {i: status(Phase.SEEKING, round_=tick) for i in range(2)} | dict.fromkeys(range(2, 5), training)
        decision = lead.decide(View(tick / 8, statuses))
        if isinstance(decision, Propose):
            asked.append((tick / 8, decision.present))
            lead.session_failed(tick / 8, (), decision.present)
    assert asked and asked[0][0] >= 20.0 and asked[0][1] == (0, 1, 2, 3, 4)


# --- who is left out ---------------------------------------------------------------------------------------------


def tries(awaited: Callable[[tuple[int, ...]], frozenset[int]], seconds: float) -> list[tuple[float, tuple[int, ...]]]:
    """What a lead of six proposes while handshakes fail for want of ``awaited(present)``; empty: one opens."""
    lead, proposed, now = Lead(6, 4, 0, Timing(patience=4.0, handshake=2.0, retry=0.25)), [], 0.0
    everyone = frozenset(range(6))
    while now < seconds:
        statuses = {i: replace(status(Phase.SEEKING, round_=int(now * 8)), reachable=everyone) for i in range(6)}
        decision = lead.decide(View(now, statuses))
        if isinstance(decision, Propose):
            proposed.append((now, decision.present))
            missing = awaited(decision.present)
            now += 2.0 if missing else 4.0
            if missing:
                lead.session_failed(now, missing, decision.present)
        now += 0.125
    return proposed


def test_one_that_never_answers_is_left_out_at_once_and_later_alone() -> None:
    proposed = tries(lambda present: frozenset({2}) & frozenset(present), 300.0)
    opened = [present for _, present in proposed if 2 not in present]
    assert proposed[1][1] == (0, 1, 3, 4, 5)
    assert opened and set(opened) == {(0, 1, 3, 4, 5)}
    assert [present for _, present in proposed[-2:]] in (
        [tuple(range(6)), opened[0]],
        [opened[0]] * 2,
        [opened[0], tuple(range(6))],
    )


def test_of_two_that_keep_each_other_from_a_session_each_takes_part_in_turn() -> None:
    """4 withholds from 1: what the lead misses is the word of 1."""
    proposed = tries(lambda present: frozenset({1}) if {1, 4} <= set(present) else frozenset(), 200.0)
    opened = [present for _, present in proposed if not {1, 4} <= set(present)]
    assert {present for present in opened if 1 in present} == {(0, 1, 2, 3, 5)}
    assert {present for present in opened if 4 in present} == {(0, 2, 3, 4, 5)}

"""What the lead decides from what it hears."""

from __future__ import annotations

from pppml_fast.aggregation.standing import StateId
from pppml_fast.site.lead import Lead, Propose, Timing, View
from pppml_fast.site.notices import NO_SESSION, Phase, Status

EVERYONE = frozenset(range(5))


def status(phase: Phase, session: bytes = NO_SESSION, round_: int = 3) -> Status:
    return Status(session, phase, StateId(round_, bytes(32)), round_, 0, 7, 5, EVERYONE)


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
        moving = Status(b"s" * 32, Phase.SUMMING, StateId(3, bytes(32)), 3, 0, tick, 5, EVERYONE)
        statuses = {i: status(Phase.SEEKING) for i in range(3)} | {3: moving, 4: moving}
        assert not isinstance(lead.decide(View(tick / 8, statuses)), Propose)

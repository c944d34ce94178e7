"""A star's coordinator that lies, as a process over real TLS: no wrong sum is accepted, and honest rounds follow.

`tests/site/test_lying_coordinator.py` has more lies under a virtual clock; here processes, disks and network are real,
and the sum itself is lied about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import paths  # noqa: F401  (before the modules it makes importable)
import pytest

pytest.importorskip("grpc")

from attended import WAIT_S, Attended
from lying_relay import FIRST, LAST, LIES, VICTIM
from real_federation import RELAY, RealFederation

SIZE = 40_000
"""Weights: several chunks, so that a sum may end half way."""
PARTIES = 5


class Reaction(NamedTuple):
    """What every one of ``whom`` tells of an attempt that was lied about."""

    whom: tuple[str, ...]
    kind: str
    reason: str
    accepted_by: tuple[str, ...] = ()
    """Members that may accept the sum of the attempt all the same: it is exact."""


EVERYONE = tuple(f"site{index}" for index in range(PARTIES))
OTHERS = EVERYONE[:-1]
ALTERED = "the sum check fails: the summed ciphertext was altered on its way"
DIFFER = "the statements of .* differ; nobody opens this sum"
REACTIONS = {
    "alter": Reaction(EVERYONE, "failed", ALTERED),
    "leave_out": Reaction(EVERYONE, "failed", ALTERED),
    "leave_out_openly": Reaction((VICTIM,), "abandoned", "was stopped", accepted_by=OTHERS),
    "replay_sum": Reaction(EVERYONE, "failed", ALTERED),
    "two_sums": Reaction(EVERYONE, "abandoned", DIFFER),
    "two_live_sets": Reaction(EVERYONE, "abandoned", DIFFER),
    "withhold": Reaction(EVERYONE, "abandoned", "was stopped"),
    "replay": Reaction(EVERYONE, "refused", "replayed|belongs to", accepted_by=EVERYONE),
    "two_plans": Reaction(("site1", "site2", *LAST), "refused", "deals for another live set"),
    "two_rosters": Reaction(FIRST, "session_failed", f"the identity of '{VICTIM}' is not the pinned one"),
}
SPENT = ("alter", "leave_out", "replay_sum", "two_sums")
"""Lies that the members meet after they signed: each trains the round anew, from other draws."""


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attended]:
    federation = RealFederation(tmp_path_factory.mktemp("lies") / "star", PARTIES, "star", SIZE, seed=1)
    federation.checks.expected = frozenset({"failed"})  # a sum that does not open is what a lie comes to
    for node in federation.nodes.values():
        node.config["timing"] = {"handshake": 2.0}
    attended = Attended(federation)
    try:
        attended.start()
        attended.reach(2)
        yield attended
        attended.finish()
    finally:
        federation.close()


def where(line: dict[str, Any]) -> tuple[Any, ...]:
    return line.get("session"), line.get("round"), line.get("attempt")


def reacted(star: Attended, lie: str) -> bool:
    """Whether all told what this lie makes them tell, of attempts that were lied about where they tell which."""
    whom, kind, reason, _ = REACTIONS[lie]
    lied = {where(line) for line in star.told(RELAY, "lie")}
    heard = {name: [line for line in star.told(name, kind) if re.search(reason, line["reason"])] for name in whom}
    told = all(any(line.get("session") is None or where(line) in lied for line in lines) for lines in heard.values())
    return told and (lie != "leave_out_openly" or bool(live_sets(star, lied)))


def live_sets(star: Attended, lied: set[tuple[Any, ...]]) -> set[tuple[str, ...]]:
    """Over whom the others than the victim accept sums of these attempts."""
    return {tuple(line["live"]) for name in OTHERS for line in star.told(name, "accepted") if where(line) in lied}


def spoiled(star: Attended, lie: str, name: str) -> set[tuple[Any, ...]]:
    """Attempts that were lied about in which a member told what the lie made it tell."""
    lied = {where(line) for line in star.told(RELAY, "lie")}
    kind, reason = REACTIONS[lie].kind, REACTIONS[lie].reason
    return {where(line) for line in star.told(name, kind) if re.search(reason, line["reason"])} & lied


def added_up_with(star: Attended, name: str) -> set[str]:
    """Sessions in which those who were lied to accept sums that name this member."""
    return {line["session"] for who in FIRST for line in star.told(who, "accepted") if name in line["live"]}


def opened(star: Attended, name: str) -> set[str]:
    """All sessions that a member was ever in."""
    return {line["session"] for line in star.federation.nodes[name].lines if line["what"] == "session_opened"}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_and_honest_rounds_follow(star: Attended, lie: str) -> None:
    star.mark()
    relay = star.federation.nodes[RELAY]
    relay.order(lie=lie)
    if lie == "two_rosters":  # there is a session to be opened where a member comes back
        victim = star.federation.nodes[VICTIM]
        victim.order(stop=1)
        assert victim.reap(WAIT_S)
        victim.start()
    star.wait(lambda: star.told(RELAY, "lie") and reacted(star, lie), f"nobody minds {lie!r}")
    relay.order(lie="")
    star.reach(star.newest + 1)

    star.check()
    lied = {where(line) for line in star.told(RELAY, "lie")}
    for name in star.names:
        accepted = [line for line in star.told(name, "accepted") if where(line) in lied]
        assert not accepted or name in REACTIONS[lie].accepted_by
    if lie == "leave_out_openly":
        assert live_sets(star, lied) == {OTHERS}, "a sum over those who are named, whatever the reason"
    if lie == "two_rosters":
        # A session's id commits to the roster. site2 was told the truth: who adds up with it is in its session.
        star.wait(lambda: added_up_with(star, "site2"), "no more sums")
        star.wait(lambda: added_up_with(star, "site2") <= opened(star, "site2"), "site2 was in no such session")
    if lie in SPENT:  # the share was released, or the others can do without it
        for name in star.names:
            # What a slow machine abandons before anybody signed is no lie's doing, and may be used again.
            contributed = star.told(name, "contributed")
            ended = [at for at, line in enumerate(contributed) if where(line) in spoiled(star, lie, name)]
            assert ended
            for at in ended:
                spent, *later = ((line["round"], line["salt"]) for line in contributed[at:])
                assert spent not in later, f"{name} encrypted one update twice"
            assert star.told(name, "spent")

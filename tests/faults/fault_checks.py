"""What must hold whatever fails, judged from what the parties told (light_party.py) by one who knows all salts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
from light_site import light_update

from pppml_fast import CkksParams, quantize
from pppml_fast.aggregation.sharing import attempt_threshold
from pppml_fast.quantize import dequantize

__all__ = ["Checks", "Where"]

Where = tuple[str, int, int]
"""Session in hex, round, attempt."""
Update = tuple[str, int, int]
"""Party, round, salt: what a party trained, and may be part of one sum at most."""


def expected_mean(
    params: CkksParams, weights: Mapping[str, float], round_: int, salts: Mapping[str, int], size: int
) -> bytes:
    """float32 (size,) as bytes: the weighted mean over a live set, summed openly in the integers of the scheme."""
    total = np.zeros(size, np.int64)
    for name, salt in salts.items():
        total += quantize(params, light_update(name, round_, salt, size), weights[name])
    if len(salts) == len(weights):
        return np.asarray(dequantize(params, total), np.float32).tobytes()
    divisor = sum(weights[name] for name in salts)
    return (np.asarray(dequantize(params, total, np.float64)) / divisor).astype(np.float32).tobytes()


@dataclass
class Checks:
    """Takes the lines of all parties in the order each told them. ``wrong`` and ``double_share`` say what broke a rule.

    ``weights`` by name, of all members; ``expected`` are kinds of lines that count as wrong unless somebody lies. One
    party's lines may be ahead of another's: a sum whose terms are not told yet waits for them, until `settle`.
    """

    params: CkksParams
    weights: Mapping[str, float]
    size: int
    wrong: list[str] = field(default_factory=list)
    double_share: list[str] = field(default_factory=list)
    expected: frozenset[str] = frozenset()
    exact: set[Where] = field(default_factory=set)
    attempts: set[Where] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._names = list(self.weights)
        self._salts: dict[tuple[str, Where], int] = {}
        self._sums: dict[Where, tuple[tuple[str, ...], str]] = {}
        self._digests: dict[Where, tuple[str, str]] = {}
        self._opened: dict[Update, set[Where]] = defaultdict(set)
        self._shares: dict[tuple[str, Where, int], set[str]] = defaultdict(set)
        self._senders: dict[tuple[Where, int], set[str]] = defaultdict(set)
        self._committed: dict[Where, str] = {}
        self._thresholds: dict[Where, int] = {}
        self._bad: set[str] = set()
        self._early: list[tuple[str, Where, tuple[str, ...], str]] = []

    @property
    def abandoned(self) -> int:
        """Attempts that updates went into and that nobody opened."""
        return len(self.attempts - self.exact)

    def take(self, name: str, line: Mapping[str, Any]) -> None:
        """One line of a party."""
        what = line["what"]
        if what in ("drift", "evidence", "failed") and what not in self.expected:
            self._complain(f"{name} tells {what}: {dict(line)}")
        if "attempt" not in line or "session" not in line:
            return
        where = (str(line["session"]), int(line["round"]), int(line["attempt"]))
        if what == "contributed":
            self._salts[name, where] = int(line["salt"])
            self.attempts.add(where)
            self._resume(where)
        elif what == "attempt_began":
            self._thresholds[where] = attempt_threshold(len(line["live"]), len(self._names), None)
        elif what == "share":
            self._share(name, where, int(line["receiver"]), str(line["sha"]))
        elif what == "accepted":
            self._accepted(name, where, tuple(line["live"]), str(line["mean"]))
        elif what == "committed":
            self._same(self._committed, where, str(line["hash"]), name)
        elif what == "round_finished":
            self._same(self._digests, where, (str(line["transcript"]), str(line["root"])), name)

    def settle(self) -> None:
        """All have told everything: what still waits for somebody's term was added up without one."""
        for name, where, live, _ in self._early:
            missing = [member for member in live if (member, where) not in self._salts]
            self._complain(f"{name} accepts a sum of {live} for {where}; {missing} put nothing in")
        self._early.clear()

    def _resume(self, where: Where) -> None:
        """A term of an attempt is known: judge the sums that others told of before."""
        early = [sum_ for sum_ in self._early if sum_[1] == where]
        self._early = [sum_ for sum_ in self._early if sum_[1] != where]
        for sum_ in early:
            self._judge_sum(*sum_)

    def _share(self, name: str, where: Where, receiver: int, digest: str) -> None:
        frames = self._shares[name, where, receiver]
        frames.add(digest)
        if len(frames) > 1:
            self.double_share.append(f"{name} sends {len(frames)} share frames to party {receiver} for {where}")
        senders = self._senders[where, receiver]
        senders.add(name)
        # The receiver could add its own share to those that came, whether or not it ever releases it: to it the sum is
        # open, and with it the update of everyone else.
        if len(senders) + 1 >= self._thresholds.get(where, len(self._names)):
            others = [member for index, member in enumerate(self._names) if index != receiver]
            self._open(where, [member for member in others if (member, where) in self._salts])

    def _accepted(self, name: str, where: Where, live: tuple[str, ...], mean: str) -> None:
        self._same(self._sums, where, (live, mean), name)
        self._judge_sum(name, where, live, mean)

    def _judge_sum(self, name: str, where: Where, live: tuple[str, ...], mean: str) -> None:
        if where in self.exact:
            return
        if any((member, where) not in self._salts for member in live):
            self._early.append((name, where, live, mean))
            return
        salts = {member: self._salts[member, where] for member in live}
        right = sha256(expected_mean(self.params, self.weights, where[1], salts, self.size)).hexdigest()
        if right != mean:
            self._complain(f"{name} accepts a wrong sum for {where} over {live}")
            return
        self.exact.add(where)
        self._open(where, list(live))

    def _open(self, where: Where, live: list[str]) -> None:
        for member in live:
            update = (member, where[1], self._salts[member, where])
            self._opened[update].add(where)
            if len(self._opened[update]) > 1:
                self._complain(f"the update {update} is open in {sorted(self._opened[update])}")

    def _same(self, known: dict[Where, Any], where: Where, value: Any, name: str) -> None:
        if known.setdefault(where, value) != value:
            self._complain(f"{name} has another sum of {where} than others: {value} is not {known[where]}")

    def _complain(self, text: str) -> None:
        if text not in self._bad:
            self._bad.add(text)
            self.wrong.append(text)

"""A star's coordinator that lies on order: the real one, but for what it does with what it adds up and passes on.

Each lie is told, once per attempt that it meets, as a line {"what": "lie", "kind": ...}.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pppml_fast import Ciphertext, add
from pppml_fast.aggregation import Identity
from pppml_fast.aggregation.messages import MessageType, parse_frame, parse_header
from pppml_fast.aggregation.payloads import RosterProposal
from pppml_fast.aggregation.relay import Relay
from pppml_fast.aggregation.session import CONTROL, Session
from pppml_fast.aggregation.standing import Standing, StateId
from pppml_fast.aggregation.streams import chunk_grid
from pppml_fast.layout import Layout
from pppml_fast.site.coordinator import Coordinator
from pppml_fast.site.notices import Plan, PlanKind
from pppml_fast.transport.base import Outgoing

__all__ = ["FIRST", "LAST", "LIES", "VICTIM", "Lies", "LyingCoordinator"]

LIES = {
    "alter": "changes one residue of the sum",
    "leave_out": "leaves a member's term out of the sum and names it a contributor",
    "leave_out_openly": "leaves a member's term out and says so to all",
    "replay_sum": "hands out the sum of the round before",
    "two_sums": "hands one member another sum than the others",
    "two_live_sets": "hands some the sum over all, others the sum without one",
    "withhold": "keeps the last chunks of the sum from one member",
    "replay": "sends everything again, a while later",
    "two_plans": "plans an attempt over all with some, over fewer with others",
    "two_rosters": "proposes a session to some in which a puppet stands in a member's place",
}
"""What a coordinator can be ordered to do."""
FIRST, LAST = ("site0", "site1"), ("site3", "site4")
"""Those who are shown one thing, and those who are shown another."""
VICTIM = "site4"
"""The last of five, whom the lies about one member are about."""
_PUPPET = Identity.generate("puppet")
_Term = Any


class Lies:
    """The lie of the moment, "" for none; ``tell(what, **fields)`` hears of it."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self.now = ""
        self._tell = tell
        self._told: set[tuple[str, bytes, int, int]] = set()

    def told(self, kind: str, session: bytes, round_: int, attempt: int) -> None:
        """A lie went into this attempt."""
        where = (kind, session, round_, attempt)
        if where not in self._told:
            self._told.add(where)
            self._tell("lie", kind=kind, session=session.hex(), round=round_, attempt=attempt)


class LyingRelay(Relay):
    """Does with the sum what the lie of the moment in which the attempt began says, to its end."""

    def __init__(self, session: Session, lies: Lies, layout: Layout, past: list[bytes]) -> None:
        super().__init__(session, layout=layout)
        self._lies, self._past = lies, past
        self._lie = ""
        self._other: Ciphertext | None = None  # the sum that only some are shown
        self._fewer: frozenset[int] = frozenset()
        self._victim = len(session.roster.members) - 1

    def begin(self, *arguments: Any) -> list[Outgoing]:
        self._other, self._lie = None, self._lies.now
        return super().begin(*arguments)

    def pull(self, hop: str) -> Outgoing | None:
        now, lie = self._round, self._lie
        if now is None or now.total is None or not now.returned:
            return super().pull(hop)
        if lie == "withhold" and hop == self.session.roster.names[self._victim] and now.sent.get(self._victim, 0) > 0:
            self._told()
            return None
        shown = {"two_sums": FIRST[:1], "two_live_sets": LAST}.get(lie, ())
        if hop not in shown or self._other is None:
            return super().pull(hop)
        self._told()
        kept = now.total, now.packed, now.added, now.hashes
        now.total, now.packed, now.hashes = self._other, (-1, b""), []
        if lie == "two_live_sets":
            now.added = set(self._fewer)
        message = super().pull(hop)
        ended = now.total is None
        now.total, now.packed, now.added, now.hashes = kept
        if ended:
            now.total, now.packed = None, (-1, b"")
        return message

    def _add(self, sender: int, term: _Term) -> None:
        now, lie = self._now, self._lie
        if lie == "leave_out" and len(now.added) == 1:
            now.added.add(sender)
            self._told()
            return
        if lie == "leave_out_openly" and sender == self._victim:
            now.lost.add(sender)
            self._told()
            return
        if lie == "two_live_sets" and sender != 0:
            copy = Ciphertext.from_bytes(term.params, term.to_bytes())
            self._other = copy if self._other is None else add([self._other, copy])
            self._fewer = frozenset(now.added - {0}) | {sender}
        super()._add(sender, term)

    def _return(self) -> list[Outgoing]:
        now = self._now
        before = now.returned
        out = super()._return()
        if now.returned and not before and isinstance(now.total, Ciphertext):
            self._spoil(now.total)
        return out

    def _spoil(self, total: Ciphertext) -> None:
        grid = chunk_grid(total.block_count, self.session.roster.options.chunk_blocks)
        if self._lie == "alter":
            _alter(total, grid[-1])
            self._told()
        elif self._lie == "two_sums":
            self._other = Ciphertext.from_bytes(total.params, total.to_bytes())
            _alter(self._other, grid[-1])
        elif self._lie == "replay_sum" and self._past:
            for blocks, payload in zip(grid, self._past, strict=True):
                total.load(*blocks, payload)
            self._told()
        else:
            self._past[:] = [bytes(total.pack(*blocks)) for blocks in grid]

    def _told(self) -> None:
        id_ = self._now.id
        self._lies.told(self._lie, id_.session, id_.round, id_.attempt)


class LyingCoordinator(Coordinator):
    """Honest until `Lies.now` says otherwise."""

    def __init__(self, lies: Lies, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lies = lies
        self._sums: list[bytes] = []
        self._sent: dict[str, deque[bytes]] = defaultdict(lambda: deque(maxlen=40))

    def outgoing(self) -> list[Outgoing]:
        return [Outgoing(out.hop, data) for out in super().outgoing() for data in self._said(out)]

    def pull(self, hop: str) -> Outgoing | None:
        message = super().pull(hop)
        if message is not None:
            self._sent[hop].append(message.data)
        return message

    def _on_session(self, session: Session, standings: dict[int, Standing], agreed: StateId) -> None:
        super()._on_session(session, standings, agreed)
        self._relay = LyingRelay(session, self._lies, self.layout, self._sums)

    def _said(self, out: Outgoing) -> list[bytes]:
        """What goes out in place of a message."""
        lie, data = self._lies.now, out.data
        header, _ = parse_header(data)
        past = self._sent[out.hop]
        past.append(data)
        if lie == "replay":
            self._lies.told(lie, header.session, header.round, header.attempt)
            return [data, past[len(past) // 2], past[0]]
        if lie == "two_plans" and header.type is MessageType.PLAN and out.hop in LAST:
            return [self._another_plan(data)]
        if lie == "two_rosters" and header.type is MessageType.ROSTER and out.hop in FIRST:
            self._lies.told(lie, header.session, header.round, header.attempt)
            return [self._another_roster(data)]
        return [data]

    def _another_plan(self, data: bytes) -> bytes:
        plan = Plan.parse(parse_frame(data).body)
        if plan.kind is not PlanKind.ATTEMPT or len(plan.live) < len(self.roster.members):
            return data
        self._lies.told("two_plans", self._session_id(), plan.round, plan.attempt)
        return self._signed_anew(data, replace(plan, live=plan.live - {0}).encode())

    def _another_roster(self, data: bytes) -> bytes:
        """One in which a puppet stands in the last member's place."""
        proposal = RosterProposal.parse(parse_frame(data).body)
        *others, last = self.roster.members
        roster = replace(self.roster, members=(*others, replace(last, identity=_PUPPET.public.hex())))
        other = replace(proposal, roster=roster.canonical_bytes())
        return self._signed_anew(data, other.encode(), session=roster.fingerprint)

    def _signed_anew(self, data: bytes, body: bytes, **changes: Any) -> bytes:
        prefix = replace(parse_header(data)[0], **changes).encode(len(body))
        return prefix + body + self.identity.sign(CONTROL, prefix + body)


def _alter(total: Ciphertext, blocks: tuple[int, int]) -> None:
    """Change one residue of these blocks."""
    payload = bytearray(total.pack(*blocks))
    payload[0] ^= 1  # the lowest bit of a residue: it stays in range, but for one value in 2^30
    total.load(*blocks, bytes(payload))

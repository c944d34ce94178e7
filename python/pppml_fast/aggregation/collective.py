"""The `collective` protocol: nobody holds the key. One member's state machine.

Deal shares of a one-time key, add up encrypted vectors (ring or star), close by identical signed statements, and only
then open the sum from the sums of shares. protocol.md, "collective".
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from pppml_fast.aggregation.attempt_state import ENDED_WITHOUT_SUM, State
from pppml_fast.aggregation.messages import MessageType, parse_frame
from pppml_fast.aggregation.party import PartyMachine, Source
from pppml_fast.aggregation.payloads import AbandonReason, Deal, ShareSum, Statement
from pppml_fast.aggregation.session import Message
from pppml_fast.aggregation.sharing import FIELD, candidates, share
from pppml_fast.aggregation.streams import RingPass, StarPass, StreamBrokenError, sum_root
from pppml_fast.aggregation.sum_tags import SumTags
from pppml_fast.aggregation.terms import EncryptedTerm
from pppml_fast.cipher import CollectiveKey, Kind, OpeningKey
from pppml_fast.cipher.wire import Header
from pppml_fast.errors import DeviceError, OpeningError, PppmlError, ProtocolError, SiteError
from pppml_fast.transport.base import Outgoing

__all__ = ["CollectiveParty"]

_PAD_BYTES = 1 << 26
"""Most bytes of what `prepare` makes ahead."""


class CollectiveParty(PartyMachine):
    """One member of a collective session; see `PartyMachine` for how to drive it.

    Its memory, besides the vector: a window of chunks, 64 MiB of what `prepare` makes ahead, one share per member, and
    the returned sum unless there is a ``spool``.
    """

    def _set_up(self) -> None:
        self._key: CollectiveKey | None = None
        self._term: EncryptedTerm | None = None
        self._tags: SumTags | None = None
        self._stream_pass: RingPass | StarPass | None = None
        self._shares: dict[int, NDArray[np.int64]] = {}
        self._share_sums: dict[int, NDArray[np.int64]] = {}
        self._statements: dict[int, tuple[Statement, bytes]] = {}
        self._accused: set[int] = set()
        self._opens_later = False
        self._mine: Statement | None = None
        self._handlers |= {
            MessageType.DEAL: self._on_deal,
            MessageType.CHUNK: self._on_stream,
            MessageType.RETURN: self._on_stream,
            MessageType.TAG: self._on_tag,
            MessageType.STATEMENT: self._on_statement,
            MessageType.SHARE: self._on_share,
        }

    # --- 1. deal ------------------------------------------------------------------------------------------

    def _on_begin(self) -> list[Outgoing]:
        now = self._now
        self._term = self._stream_pass = self._mine = None
        self._opens_later = False
        for kept in (self._shares, self._share_sums, self._statements, self._accused):
            kept.clear()
        self._tags = SumTags(self.session, now.id.context) if self.session.roster.options.checks_sum else None
        self._key = CollectiveKey.generate(now.params)
        secret = self._key._secret_coefficients()
        shares = share(secret, [index + 1 for index in now.live], now.threshold)
        secret.fill(0)
        out = []
        for index in now.live:
            if index == self.session.index:
                self._shares[index] = shares[index + 1]
                continue
            body = self._deal(shares[index + 1]).encode()
            out.append(self._sealed(index, MessageType.DEAL, body))
            shares[index + 1].fill(0)
        return out

    def _deal(self, values: NDArray[np.int64]) -> Deal:
        parties = len(self.session.roster.members)
        check = self.session.group_key("group check", self._now.id.context)
        return Deal(parties, frozenset(self._now.live), self._now.threshold, check, values)

    def _on_deal(self, message: Message) -> list[Outgoing]:
        sender, deal, now = message.header.sender, Deal.parse(message.body), self._now
        expected = self._deal(deal.share)
        name = self.session.roster.everyone[sender].name
        if (deal.parties, deal.live, deal.threshold) != (expected.parties, expected.live, expected.threshold):
            raise ProtocolError(f"{name!r} deals for another live set or threshold than this party")
        if deal.group_check != expected.group_check:
            raise ProtocolError(f"{name!r} holds another group key; somebody sent different parts of it")
        if sender in self._shares or deal.share.size != now.params.ring_dimension:
            raise ProtocolError(f"the deal of {name!r} is a second one or has {deal.share.size} values")
        self._shares[sender] = deal.share
        now.ready.add(sender)
        return self._advance()

    # --- 2. add up ----------------------------------------------------------------------------------------

    def _on_length(self, length: int) -> None:
        if self._key is not None:
            self._key.prepare(self._now.id.context, length, limit_bytes=_PAD_BYTES)

    def _on_values(self) -> list[Outgoing]:
        now, key = self._now, self._key
        if key is None or now.vector is None:
            raise ProtocolError(f"{now.id} holds no key to encrypt under")
        began = self._clock()
        pieces = now.vector.encrypt_in_pieces(key, now.id.context, now.weight)
        self._term = EncryptedTerm(key, pieces, now.params, None if self._tags is None else self._tags.key)
        now.meter.encrypt_s += self._clock() - began
        now.meter.prepared = pieces.prepared
        now.vector = None
        return self._advance()

    def _on_stream(self, message: Message) -> list[Outgoing]:
        if self.state is State.PREPARING:
            return self._hold(message)
        if self.state is not State.STREAMING or self._stream_pass is None:
            return self._ignore_or_refuse(message)
        return self._stream(self._stream_pass, message) + self._advance()

    def _begin_streaming(self) -> list[Outgoing]:
        if self._term is None:
            raise ProtocolError(f"{self._now.id} has nothing to stream")
        observer = None if self._tags is None else self._tags.observer(self._now.params, self._now.length)
        self._stream_pass = self._new_pass(self._term, observer=observer)
        self.state = State.STREAMING
        return self._take_held(self._on_stream)

    def _source(self) -> Source | None:
        return self._stream_pass if self.state is State.STREAMING else None

    # --- 3. close -----------------------------------------------------------------------------------------

    def _close(self, stream: RingPass | StarPass) -> list[Outgoing]:
        """Store the message that opens, then sign the statement that commits to it."""
        now, me, members = self._now, self.session.index, stream.members
        if self._term is not None:
            now.meter.clipped = self._term.clipped
        now.meter.encrypt_s += stream.write_seconds
        unheard = (members & now.lost) - set(self._statements)
        if unheard:
            raise StreamBrokenError(f"party {min(unheard)} was lost after its term went in and before it signed")
        try:
            self._check_live_set(members)
            self._check_can_open(members)
        except ProtocolError as error:
            return self._give_up(AbandonReason.POLICY, error)
        parties = len(self.session.roster.members)
        root = sum_root(now.id.context, now.length, parties, members, stream.hashes)
        own = np.zeros(now.params.ring_dimension, np.int64)
        for index in members:
            own = (own + self._shares[index]) % FIELD
        body = ShareSum(root, own).encode()
        frames = []
        for peer in sorted(members - {me}):
            frames.append((peer, now.gate.seal(peer, MessageType.SHARE, body)))
        self._share_sums[me] = own
        self._wipe_shares()
        out = self._send_tag(self._tags, root)
        self._ledger.prepare(now.id, now.update, frames, opens_without=now.threshold < len(members))
        self._mine = Statement(parties, members, root)
        self.state = State.CLOSING
        out += self._broadcast(MessageType.STATEMENT, self._mine.encode())
        return out + self._advance()

    def _send_tag(self, tags: SumTags | None, root: bytes) -> list[Outgoing]:
        """This party's term of the sum check.

        It leaves with the statement, not with the share: a party lost between the two must not stop the
        opening.
        """
        if tags is None or self._term is None:
            return []
        return self._broadcast(MessageType.TAG, tags.seal(self._term.tag(), root))

    def _on_tag(self, message: Message) -> list[Outgoing]:
        if self._tags is None:
            raise ProtocolError(f"a tag of party {message.header.sender} is not expected: there is no sum check")
        self._tags.take(message.header.sender, message.body)
        return []

    def _check_can_open(self, members: frozenset[int]) -> None:
        missing = members - set(self._shares)
        if missing:
            raise ProtocolError(f"no share of party {min(missing)} arrived; its term cannot be opened here")
        if len(members) < self._now.threshold:
            raise ProtocolError(f"{len(members)} parties cannot open with a threshold of {self._now.threshold}")

    def _on_statement(self, message: Message) -> list[Outgoing]:
        sender, statement = message.header.sender, Statement.parse(message.body)
        if sender in self._statements:
            if self._statements[sender][0] != statement:
                self._accuse(sender, self._statements[sender][1], message.data)
            raise ProtocolError(f"party {sender} signs a second statement for {self._now.id}")
        self._statements[sender] = (statement, message.data)
        return self._advance()

    def _agreed(self) -> bool:
        """Whether every member of U signed this party's statement; raises _DifferingError on another one."""
        mine = self._mine
        if mine is None:
            return False
        for statement, data in self._statements.values():
            if statement != mine:
                raise _DifferingError(data)
        return mine.members - {self.session.index} <= set(self._statements)

    def _examine(self, evidence: bytes) -> None:
        if not evidence:
            return
        frame = parse_frame(evidence)
        now, header = self._now.id, frame.header
        if header.type is not MessageType.STATEMENT or header.sender >= len(self.session.roster.members):
            raise ProtocolError("the evidence attached to an abandon is no statement")
        if (header.session, header.round, header.attempt) != (now.session, now.round, now.attempt):
            raise ProtocolError("the evidence attached to an abandon is of another attempt")
        self._now.gate.check_signature(frame)
        held = self._statements.get(header.sender)
        if held is not None and held[0] != Statement.parse(frame.body):
            self._accuse(header.sender, held[1], evidence)

    def _accuse(self, sender: int, one: bytes, other: bytes) -> None:
        """Keep two statements that a party signed for this attempt; two are enough, however many it signs."""
        if sender not in self._accused:
            self._accused.add(sender)
            self.evidence.append((one, other))

    # --- 4. open ------------------------------------------------------------------------------------------

    def _release(self) -> list[Outgoing]:
        members = self._mine.members if self._mine is not None else frozenset()
        signers = [self.session.roster.members[index].name for index in sorted(members)]
        frames = self._ledger.release(self._now.id, signers)
        self.state = State.OPENING
        # Opening a long vector takes long, and others may wait for these: they leave first.
        self._opens_later = True
        return [self._routed(peer, MessageType.SHARE, data) for peer, data in frames]

    @property
    def has_work(self) -> bool:
        return self._opens_later and self.state is State.OPENING

    def work(self) -> list[Outgoing]:
        if not self.has_work:
            return []
        self._opens_later = False
        return self._guarded(self._advance)

    def _on_share(self, message: Message) -> list[Outgoing]:
        sender = message.header.sender
        if self.state is State.FINISHED or self.state in ENDED_WITHOUT_SUM:
            return []
        part = ShareSum.parse(message.body)
        if self._mine is None or part.root != self._mine.root or sender not in self._mine.members:
            raise ProtocolError(f"party {sender} sends shares of another sum than the one closed here")
        if sender in self._share_sums or part.values.size != self._now.params.ring_dimension:
            raise ProtocolError(f"the sum of shares of party {sender} is a second one or of wrong size")
        self._share_sums[sender] = part.values
        return self._advance()

    def _open(self, stream: RingPass | StarPass) -> list[Outgoing]:
        """Open what B names, once the shares give a key; only now, the update being spent, is ``out`` written.

        Raises SiteError where the stored sum cannot be read.
        """
        now, mine, store = self._now, self._mine, self._store
        if mine is None or store is None:
            raise ProtocolError(f"{now.id} has no closed sum to open")
        began = self._clock()
        header = Header.of(now.params, Kind.COLLECTIVE, now.length, len(mine.members), now.id.context)
        try:
            if self._tags is not None:
                self._tags.verify(mine.members, mine.root)
            opened = self._opened_sum(mine.members)
            found = self._opening_key(mine, lambda key: opened.try_first(key, header, stream.grid, store.read))
            if found is None:
                return []
            key, opening = found
            opened.open_all(key, header, stream.grid, store.read)
        except (PppmlError, OSError) as error:
            if now.opened is not None:
                now.opened.wipe()
            if isinstance(error, OSError):
                # No check failed: this party's own spool cannot be read.
                own = SiteError(f"the sum of {now.id} cannot be read back from {self._spool}: {error}; mend that disk")
                self._end(State.DISCARDED, own)
                raise own from error
            if isinstance(error, DeviceError):
                # Nor is anybody's share to blame where this party's own device has no room.
                return self._end(State.DISCARDED, error)
            return self._fail(error if isinstance(error, OpeningError) else OpeningError(f"no sum opens: {error}"))
        now.meter.open_s += self._clock() - began
        self._ledger.finish(now.id)
        self._finish(mine.members, opened, mine.root, opening)
        return []

    def _opening_key(self, mine: Statement, try_: Callable[[OpeningKey], None]) -> tuple[OpeningKey, bytes] | None:
        """The key of B and its coefficients' bytes; None while more shares may come than those that open nothing.

        ``try_`` opens the first chunk: a false share, however small the lie, fails its residual check. With one share
        more than are needed the liar is found, named in ``refusals``, and left out.
        """
        now = self._now
        points = {index + 1: values for index, values in self._share_sums.items()}
        reason: PppmlError = ProtocolError("the shares do not fit together")
        for liar, coefficients in candidates(points, now.threshold):
            try:
                key = OpeningKey.from_coefficients(now.params, coefficients, terms=len(mine.members))
                try_(key)
            except DeviceError:
                coefficients.fill(0)
                raise
            except PppmlError as error:
                reason = error
                coefficients.fill(0)
                continue
            opening = sha256(coefficients.astype("<i4").data).digest()
            coefficients.fill(0)
            if liar is not None:
                name = self.session.roster.everyone[liar - 1].name
                self.refusals.append(ProtocolError(f"the sum of shares of {name!r} does not fit the others'"))
            return key, opening
        if set(self._share_sums) >= mine.members:
            raise reason
        self.failure = OpeningError(f"the shares so far open nothing: {reason}; waiting for another one")
        return None

    # --- states -------------------------------------------------------------------------------------------

    def _advance(self) -> list[Outgoing]:
        """Take the next step whose conditions hold; at most one, as each step calls this again."""
        step = self._next_step()
        try:
            return step() if step is not None else []
        except _DifferingError as difference:
            error = ProtocolError(f"the statements of {self._now.id} differ; nobody opens this sum")
            return self._give_up(AbandonReason.STATEMENTS_DIFFER, error, difference.data)

    def _next_step(self) -> Callable[[], list[Outgoing]] | None:
        stream = self._stream_pass
        if self.state is State.PREPARING and self._term is not None and self._everyone_ready():
            return self._begin_streaming
        if self.state is State.STREAMING and stream is not None and stream.complete:
            return lambda: self._close(stream)
        if self.state is State.CLOSING:
            return lambda: self._release() if self._agreed() else []
        if self.state is State.OPENING and stream is not None and len(self._share_sums) >= self._now.threshold:
            return lambda: self._open(stream)
        return None

    def _on_lost(self, index: int) -> list[Outgoing]:
        now = self._now
        if self.state is State.OPENING:
            return self._check_enough_left()
        if self.state is State.CLOSING:
            signed = self._mine is None or index not in self._mine.members or index in self._statements
            if not signed:
                raise StreamBrokenError(f"party {index} was lost before it signed the sum it is part of")
            return []
        least = max(now.threshold, self._policy.minimum(len(self.session.roster.members)))
        if len([i for i in now.remaining if i < len(self.session.roster.members)]) < least:
            raise StreamBrokenError(f"after the loss of party {index} too few are left: {least} are needed")
        if self._stream_pass is not None:
            self._stream_pass.lost(index)
        return self._advance()

    def _check_enough_left(self) -> list[Outgoing]:
        """After a release there is no way back: the party waits for shares that may come later, or discards."""
        members = self._mine.members if self._mine is not None else frozenset()
        possible = set(self._share_sums) | (members - self._now.lost)
        if len(possible) >= self._now.threshold:
            return []
        self.failure = ProtocolError(
            f"only {len(possible)} of {self._now.threshold} shares can arrive for {self._now.id}; the update is spent: "
            "wait until the missing ones are fetched, or discard it and train anew"
        )
        return []

    def _ignore_or_refuse(self, message: Message) -> list[Outgoing]:
        if self.state in ENDED_WITHOUT_SUM:
            return []
        raise ProtocolError(f"{message.header.type.name} arrived while {self._now.id} is {self.state.value}")

    def _wipe_shares(self) -> None:
        for values in self._shares.values():
            if values.flags.writeable:
                values.fill(0)
        self._shares.clear()

    def _wipe(self) -> None:
        super()._wipe()
        if self._term is not None:
            self._term.close()
        self._wipe_shares()
        for values in self._share_sums.values():
            values.fill(0)
        self._share_sums.clear()
        if self._key is not None:
            self._key.destroy()
            self._key = None
        if self._tags is not None:
            self._tags.close()
        self._term = self._stream_pass = None


class _DifferingError(Exception):
    """A signed statement that is not this party's."""

    def __init__(self, data: bytes) -> None:
        super().__init__("statements differ")
        self.data = data

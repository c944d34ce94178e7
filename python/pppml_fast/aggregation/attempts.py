"""The rules about attempts: abandoned is recorded first, and a spent update is never encrypted again.

Two sums over live sets that differ by one party give that party away. So an update takes part in one attempt at
a time; it may move to another only after this party recorded that it will never release its share in the
first, and once the share is released the update is spent for good. Where fewer shares open the sum than its live set
has parties, the others do not need this one's: there the update is already spent when the attempt is closed, as the
signature that follows may be all they lack. All of it survives a restart.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

from pppml_fast.aggregation.base import Values
from pppml_fast.aggregation.encoding import Reader, Writer, digest
from pppml_fast.aggregation.journal import Store
from pppml_fast.aggregation.vectors import Vector, vector_of
from pppml_fast.errors import DataError, KeyReuseError, ProtocolError

__all__ = ["AttemptId", "AttemptLedger", "Outgoing"]

_FRAME_LIMIT = 1 << 24
_TAGGED_AT_ONCE = 1 << 16
_NAME_LIMIT = 1 << 12
_SETTLED_LIMIT = 1 << 20
"""Bytes of settled messages in the store, from which on it is rewritten without them."""
Outgoing = tuple[int, bytes]
"""A stored message: the roster index of its receiver and its bytes."""


@dataclass(frozen=True)
class AttemptId:
    """One attempt: session id (32 bytes), round, attempt."""

    session: bytes
    round: int
    attempt: int

    @property
    def context(self) -> bytes:
        """32 bytes naming the attempt, from which the common polynomials a_j are expanded."""
        numbers = self.round.to_bytes(4, "little") + self.attempt.to_bytes(4, "little")
        return digest("pppml attempt v1", self.session, numbers)

    def __str__(self) -> str:
        return f"attempt {self.attempt} of round {self.round} in session {self.session.hex()[:8]}"


class _Kind(IntEnum):
    PREPARED = 1
    RELEASED = 2
    ABANDONED = 3
    SPENT = 4
    SETTLED = 5
    WITNESSED = 6
    REDRAW = 7


@dataclass(frozen=True)
class _Prepared:
    """A closed attempt: its update, the messages that release the share, and whether others can open without them."""

    update: bytes
    frames: list[Outgoing]
    opens_without: bool

    def encode(self, attempt: AttemptId) -> bytes:
        writer = _record(_Kind.PREPARED, attempt).raw(self.update).u8(self.opens_without).u16(len(self.frames))
        for receiver, frame in self.frames:
            writer.u16(receiver).blob(frame)
        return writer.finish()

    @classmethod
    def parse(cls, reader: Reader) -> _Prepared:
        update, flag = reader.raw(32), reader.u8()
        if flag > 1:
            raise ProtocolError(f"a flag of {flag}")
        return cls(update, [(reader.u16(), reader.blob(_FRAME_LIMIT)) for _ in range(reader.u16())], bool(flag))


class AttemptLedger:
    """What a party did in its attempts, backed by a durable store.

    Opening a ledger ends what a crash left open: an attempt that was closed but not released is abandoned, on
    record. Whether all its statements agreed is not known any more, so its share may never leave.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._prepared: dict[AttemptId, _Prepared] = {}
        self._released: set[AttemptId] = set()
        self._abandoned: set[AttemptId] = set()
        self._spent: dict[bytes, AttemptId] = {}
        self._active: dict[bytes, AttemptId] = {}
        self._kept: dict[AttemptId, _Prepared] = {}
        self._settled_bytes = 0
        self._witnessed: dict[str, tuple[AttemptId, ...]] = {}
        self._redrawn = -1
        for record in store.records():
            self._replay(record)
        for attempt in [attempt for attempt in self._prepared if attempt not in self._released]:
            self.abandon(attempt)

    def update_id(self, values: Values | Vector) -> bytes:
        """32 bytes that identify an update: a keyed hash of its float32 values, useless without the store.

        Pieces of the values are tagged with AES-GMAC, their tags hashed: a fourth of the time of one hash over all. The
        key makes tags nothing that anyone could aim at; two updates with one id would only be trained anew. Raises
        InputError on values that are not finite.
        """
        key = hmac.new(self._store.key, b"pppml update pieces v2", sha256).digest()
        state = hmac.new(self._store.key, b"pppml update v2", sha256)
        for tag in vector_of(values).tags(key, _TAGGED_AT_ONCE):
            state.update(tag)
        return state.digest()

    def begin(self, attempt: AttemptId, update: bytes) -> None:
        """Bind an update to an attempt. Raises KeyReuseError when it is spent or bound elsewhere."""
        if update in self._spent:
            raise KeyReuseError(
                f"this update is spent: it was part of {self._spent[update]}, and that sum may be open; keep the sum, "
                "or discard the update and train anew"
            )
        holder = self._active.get(update)
        if holder is not None and holder != attempt:
            raise KeyReuseError(f"this update is still part of {holder}; that attempt must be abandoned first")
        if attempt in self._abandoned:
            raise ProtocolError(f"{attempt} was abandoned; begin the next attempt")
        if attempt in self._active.values():
            raise KeyReuseError(f"{attempt} already holds another update")
        self._active[update] = attempt

    def prepare(
        self, attempt: AttemptId, update: bytes, frames: Sequence[Outgoing], *, opens_without: bool = True
    ) -> None:
        """Store the messages that release this party's share, before it signs. Durable on return.

        ``opens_without``: whether the others' shares alone open the sum (threshold < parties of the live set). Then
        abandoning the attempt spends the update.
        """
        if attempt in self._abandoned or attempt in self._prepared:
            raise ProtocolError(f"{attempt} was already closed by this party; it cannot be closed again")
        if self._active.get(update) != attempt:
            raise ProtocolError(f"{attempt} does not hold this update")
        prepared = _Prepared(update, list(frames), opens_without)
        self._store.append(prepared.encode(attempt))
        self._prepared[attempt] = prepared

    def release(self, attempt: AttemptId, signers: Sequence[str] = ()) -> list[Outgoing]:
        """The stored messages, for sending; the update is spent from here on. Again after a restart.

        Call it first once every statement of the live set agrees; ``signers`` are its members. Raises
        ProtocolError when the attempt was abandoned (also by a restart before the first release) or never prepared:
        then no share may leave.
        """
        if attempt in self._abandoned:
            raise ProtocolError(f"{attempt} was abandoned; its share is never released")
        if attempt not in self._prepared:
            raise ProtocolError(f"{attempt} was not closed by this party; there is no share to release")
        prepared = self._prepared[attempt]
        if attempt not in self._released:
            if signers:
                # Before the release: whoever is rolled back to before its own signature must hear of it from here.
                self.witness(attempt, signers)
            self._store.append(_record(_Kind.RELEASED, attempt).finish())
            self._mark_spent(attempt, prepared.update)
            self._kept[attempt] = prepared
        return list(prepared.frames)

    def spend(self, attempt: AttemptId, update: bytes) -> None:
        """Record an update as spent the moment it leaves (protocols in which a key holder can open it)."""
        self._store.append(_record(_Kind.SPENT, attempt).raw(update).finish())
        self._mark_spent(attempt, update)

    def abandon(self, attempt: AttemptId) -> None:
        """Record that this attempt's share is never released. Raises ProtocolError when it already was.

        The update is free for another attempt, unless this one was closed and the others can open it without
        this share: then it is spent.
        """
        if attempt in self._released:
            raise ProtocolError(f"the share of {attempt} is already released; finish it or discard the update")
        if attempt in self._abandoned:
            return
        self._store.append(_record(_Kind.ABANDONED, attempt).finish())
        self._mark_abandoned(attempt)

    def pending(self) -> tuple[AttemptId, ...]:
        """Released attempts that are not finished: their stored messages may be sent again."""
        return tuple(attempt for attempt in self._prepared if attempt in self._released)

    def is_released(self, attempt: AttemptId) -> bool:
        """Whether this party's share of the attempt has left."""
        return attempt in self._released

    def is_spent(self, update: bytes) -> bool:
        """Whether an update may never be encrypted again."""
        return update in self._spent

    def has_spent(self, round: int) -> bool:
        """Whether an update of this party's for a round may never be encrypted again."""
        return any(attempt.round == round for attempt in self._spent.values())

    def finish(self, attempt: AttemptId) -> None:
        """An attempt's sum is open here: it is pending no longer, until a restart; what is spent stays on record.

        Its messages stay among the `unsettled`, for those who lack them.
        """
        self._prepared.pop(attempt, None)

    def unsettled(self) -> dict[AttemptId, list[Outgoing]]:
        """The stored messages of all attempts whose share was released, for sending again, until they are settled."""
        return {attempt: list(prepared.frames) for attempt, prepared in self._kept.items()}

    def settle(self, round: int) -> None:
        """Forget for good the stored messages of rounds before ``round``.

        A member that still waits for one of them takes over the others' model instead.
        """
        for attempt in [attempt for attempt in self._kept if attempt.round < round]:
            self.settle_attempt(attempt)

    def settle_attempt(self, attempt: AttemptId) -> None:
        """The same for one attempt. Now and then the store is rewritten without what was settled.

        Raises SiteError where that leaves the store unusable.
        """
        if attempt not in self._kept:
            return
        self._store.append(_record(_Kind.SETTLED, attempt).finish())
        self._mark_settled(attempt)
        if self._settled_bytes >= _SETTLED_LIMIT:
            try:
                self.compact()
            except OSError:
                # Where there is no room to write it aside, the store stays as it is. Where it is not known which
                # version is in place, it can be used no more, and says so: nothing may go on without it.
                self._store.records()

    def witness(self, attempt: AttemptId, names: Sequence[str]) -> None:
        """Record that these members signed the sum of an attempt: seen here, or heard of from another member."""
        self._store.append(_witness(attempt, names))
        self._mark_witnessed(attempt, names)

    @property
    def witnessed(self) -> dict[str, tuple[AttemptId, ...]]:
        """By name: attempts whose sums a member has signed; the last one on record, and that of the highest round."""
        return dict(self._witnessed)

    def _mark_witnessed(self, attempt: AttemptId, names: Sequence[str]) -> None:
        for name in names:
            older = [kept for kept in self._witnessed.get(name, ()) if kept.round > attempt.round]
            self._witnessed[name] = (attempt, *older[-1:])

    def knows(self, attempt: AttemptId) -> bool:
        """Whether this party closed the attempt, or abandoned it, as far as its journal tells."""
        return attempt in self._released or attempt in self._abandoned or attempt in self._prepared

    def redraw(self, round: int) -> None:
        """Record that the updates of this round and all before it may be spent without being on record here.

        They must not be computed again from the same draws: `needs_fresh_draws` says so from now on.
        """
        if round > self._redrawn:
            self._store.append(Writer().u8(_Kind.REDRAW).u32(round).finish())
            self._redrawn = round

    def needs_fresh_draws(self, round: int) -> bool:
        """Whether the update of a round must be trained from other draws than its first."""
        return round <= self._redrawn

    def compact(self) -> None:
        """Rewrite the store with what still matters: messages that are not settled, spent updates, abandoned attempts,
        witnesses. Raises what the store does; OSError leaves it as it was, or unusable."""
        records = [_record(_Kind.ABANDONED, attempt).finish() for attempt in self._abandoned]
        records += [_record(_Kind.SPENT, attempt).raw(update).finish() for update, attempt in self._spent.items()]
        for attempt, prepared in {**self._kept, **self._prepared}.items():
            records.append(prepared.encode(attempt))
            if attempt in self._released:
                records.append(_record(_Kind.RELEASED, attempt).finish())
        records += [_witness(one, [name]) for name, seen in self._witnessed.items() for one in reversed(seen)]
        if self._redrawn >= 0:
            records.append(Writer().u8(_Kind.REDRAW).u32(self._redrawn).finish())
        self._store.replace(records)
        self._settled_bytes = 0

    def _mark_spent(self, attempt: AttemptId, update: bytes) -> None:
        if attempt not in self._abandoned:
            self._released.add(attempt)
        self._spent[update] = attempt
        self._active.pop(update, None)

    def _mark_settled(self, attempt: AttemptId) -> None:
        self._prepared.pop(attempt, None)
        settled = self._kept.pop(attempt, None)
        self._settled_bytes += 0 if settled is None else sum(len(data) for _, data in settled.frames)

    def _mark_abandoned(self, attempt: AttemptId) -> None:
        self._abandoned.add(attempt)
        prepared = self._prepared.pop(attempt, None)
        if prepared is not None and prepared.opens_without:
            self._spent[prepared.update] = attempt
        self._active = {update: holder for update, holder in self._active.items() if holder != attempt}

    def _replay(self, record: bytes) -> None:
        reader = Reader(record, "journal record")
        try:
            kind = _Kind(reader.u8())
            if kind is _Kind.REDRAW:
                self._redrawn = max(self._redrawn, reader.u32())
                reader.finish()
                return
            attempt = AttemptId(reader.raw(32), reader.u32(), reader.u32())
            update = reader.raw(32) if kind is _Kind.SPENT else b""
            prepared = _Prepared.parse(reader) if kind is _Kind.PREPARED else None
            names = [reader.blob(_NAME_LIMIT).decode() for _ in range(reader.u16())] if kind is _Kind.WITNESSED else []
            reader.finish()
        except (ProtocolError, ValueError) as error:
            raise DataError(f"the journal holds a record that cannot be read: {error}") from None
        if prepared is not None:
            self._prepared[attempt] = prepared
            self._active[prepared.update] = attempt
        elif kind is _Kind.RELEASED:
            if attempt not in self._prepared:
                raise DataError(f"the journal releases {attempt} without ever preparing it")
            self._mark_spent(attempt, self._prepared[attempt].update)
            self._kept[attempt] = self._prepared[attempt]
        elif kind is _Kind.SPENT:
            self._mark_spent(attempt, update)
        elif kind is _Kind.WITNESSED:
            self._mark_witnessed(attempt, names)
        elif kind is _Kind.SETTLED:
            self._mark_settled(attempt)
        else:
            self._mark_abandoned(attempt)


def _witness(attempt: AttemptId, names: Sequence[str]) -> bytes:
    writer = _record(_Kind.WITNESSED, attempt).u16(len(names))
    for name in names:
        writer.blob(name.encode())
    return writer.finish()


def _record(kind: _Kind, attempt: AttemptId) -> Writer:
    return Writer().u8(kind).raw(attempt.session).u32(attempt.round).u32(attempt.attempt)

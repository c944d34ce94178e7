"""What the parties of all protocols share: one attempt at a time, its states, its gate and its log of refusals."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from pppml_fast.aggregation.attempt_state import (
    ACTIVE,
    AttemptState,
    HeldMessageError,
    Outcome,
    PeerAbandonedError,
    State,
    divisor,
)
from pppml_fast.aggregation.attempts import AttemptId, AttemptLedger
from pppml_fast.aggregation.base import Policy, Values
from pppml_fast.aggregation.encoding import digest
from pppml_fast.aggregation.intake import Intake
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.aggregation.opened import OpenedSum
from pppml_fast.aggregation.payloads import Abandon, AbandonReason, Begin, Chunk
from pppml_fast.aggregation.session import Message, Session
from pppml_fast.aggregation.sharing import attempt_threshold
from pppml_fast.aggregation.spool import SumStore, remove_leftovers
from pppml_fast.aggregation.streams import (
    Clock,
    Observer,
    Piece,
    Progress,
    RingPass,
    Setting,
    StarPass,
    StreamBrokenError,
    default_window,
    no_clock,
)
from pppml_fast.aggregation.terms import Term
from pppml_fast.aggregation.vectors import Vector, vector_of
from pppml_fast.errors import InputError, PppmlError, ProtocolError, SiteError
from pppml_fast.params import CkksParams
from pppml_fast.transport.base import Outgoing

__all__ = ["PartyMachine"]

_HELD_PER_INTEGER = 32
"""Bytes of a chunk per integer in it, at most: two polynomials, two primes, eight bytes each."""
_HELD_EXTRA = 1 << 10


class Source(Protocol):
    """Makes bulk messages when they are asked for."""

    def ready(self, receiver: int) -> bool:
        """Whether there is one for ``receiver``, an index of the roster."""

    def pull(self, receiver: int) -> Piece:
        """The next one, where `ready`."""


class PartyMachine(Intake):
    """One member's state machine for the rounds of a session: bytes in, bytes out, no socket, no clock.

    Drive it with `begin`, `contribute`, `receive` and `lost`; send what they return, and what `pull` gives whenever a
    link has room; then call `work` where it `has_work`. A refused message changes nothing: its reason goes to
    ``refusals``, its sender gets a refusal without one. The result of an attempt is ``outcome``; the reason it has none
    is ``failure``.

    ``spool`` is an existing folder for the returned sum, which else lies in memory, packed. ``window`` bounds the
    chunks that a ring's head is ahead of what came back, and those held before this party streams; the same for all
    members.
    """

    _opens_on_host = False
    """Whether sums are opened on the host, wherever their means go."""

    def __init__(
        self,
        session: Session,
        ledger: AttemptLedger,
        policy: Policy,
        clock: Clock = no_clock,
        *,
        spool: Path | None = None,
        window: int | None = None,
    ) -> None:
        super().__init__(session)
        if window is not None and window < 1:
            raise InputError(f"a window of {window} chunks lets nothing pass; give 1 or more, or None")
        self._spool, self._window = spool, window
        self._store: SumStore | None = None
        self._moving: RingPass | StarPass | None = None
        self._moved: Progress | None = None
        self._urgent: deque[Outgoing] = deque()
        if spool is not None:
            remove_leftovers(spool)
        self.state = State.IDLE
        self.outcome: Outcome | None = None
        self.failure: PppmlError | None = None
        self.evidence: list[tuple[bytes, bytes]] = []
        self._ledger, self._policy, self._clock = ledger, policy, clock
        self._handlers[MessageType.ABANDON] = self._on_abandon
        self._set_up()

    @property
    def progress(self) -> Progress | None:
        """How far the stream of the newest attempt is, or was at its end; None before it."""
        return self._moved if self._moving is None else self._moving.progress

    @property
    def update_spent(self) -> bool:
        """Whether the update of the current attempt may never be encrypted again."""
        return self._ledger.is_spent(self._now.update)

    # --- local events -------------------------------------------------------------------------------------

    def begin(self, round_: int, attempt: int, live: Sequence[str], params: CkksParams) -> list[Outgoing]:
        """Open an attempt over the live parties. Raises ProtocolError when rule or policy forbids it."""
        if self.drift is not None:
            raise self.drift
        if params.insecure_for_comparison:
            raise ProtocolError(f"parameter set {params.name!r} is for comparison only; no data is summed under it")
        if self.state in ACTIVE:
            raise ProtocolError(f"{self._now.id} is still {self.state.value}; finish or abandon it first")
        self.session.check_numbers(round_, attempt)
        if (round_, attempt) in self._seen:
            raise ProtocolError(f"attempt {attempt} of round {round_} was already begun in this session")
        roster = self.session.roster
        order = tuple(sorted(roster.index(name) for name in live))
        if self.session.index not in order or order[-1] >= len(roster.members):
            raise ProtocolError(f"the live set {', '.join(live)} leaves {self.name!r} out or adds strangers")
        if not set(order) <= self.session.present:
            raise ProtocolError(f"the live set {', '.join(live)} names a party that is not present in this session")
        self._policy.check_live(live, len(roster.members), self._weights(params))
        threshold = attempt_threshold(len(order), len(roster.members), roster.options.threshold)
        if threshold > len(order):
            raise ProtocolError(f"{len(order)} live parties cannot open with a threshold of {threshold}")
        identity = AttemptId(self.session.id, round_, attempt)
        self._attempt = AttemptState(identity, self.session.gate(round_, attempt), params, order, threshold)
        self._seen.add((round_, attempt))
        self.outcome = self.failure = self._moved = None
        self.state = State.PREPARING
        out = self._on_begin()
        for data in self._early.take((round_, attempt)):
            out += self.receive(data)
        return out

    def prepare(self, length: int) -> None:
        """Tell how many values `contribute` will hand in, once the attempt has begun: what encryption needs no values
        for is then made in the background, while they are still being computed.

        The result does not depend on it; another length, or an attempt that ends before, only wastes the work.
        """
        if self.state is State.PREPARING and not self._now.length:
            self._on_length(length)

    def contribute(self, values: Values | Vector, weight: float = 1.0, *, out: Any = None) -> list[Outgoing]:
        """Hand in this party's vector for the attempt.

        The values are read as their chunks leave: they must stay as they are until the attempt ends. Tensors of a CUDA
        device are encrypted there, and must be complete on its current stream. ``out``, float32 (length,) or tensors
        of the device, takes the mean, and may be the very memory that holds the values: it is written once the update
        is spent, and holds zeros where the sum does not open; ``Outcome.integers`` is then None. Raises InputError on
        values that cannot be summed or an ``out`` that does not fit, KeyReuseError on a spent update; the attempt
        then waits for another vector.
        """
        now = self._now
        if self.state is not State.PREPARING or now.length:
            raise ProtocolError(f"a vector cannot be handed in while {now.id} is {self.state.value}")
        vector = vector_of(values)
        opened = vector.opened(now.params, out, by_host=self._opens_on_host)
        now.update = self._bind_update(vector)
        now.vector, now.opened, now.weight, now.length = vector, opened, weight, vector.length
        return self._guarded(self._on_values)

    def pull(self, hop: str) -> Outgoing | None:
        """The next bulk message for a hop, made and sealed now; None while there is none.

        Call it while the link to ``hop`` has room: what it gives must be sent, in order.
        """
        urgent = next((message for message in self._urgent if message.hop == hop), None)
        if urgent is not None:
            self._urgent.remove(urgent)
            return urgent
        source, receiver = self._source(), self.session.roster.index(hop)
        if source is None or not source.ready(receiver):
            return None
        try:
            (message,) = self._send_pieces([source.pull(receiver)])
        except SiteError:
            raise
        except PppmlError as error:
            self._urgent.extend(self._give_up(AbandonReason.STOPPED, error))
            return self.pull(hop)
        return message

    @property
    def has_work(self) -> bool:
        """Whether something was put off until what this party gave out so far is on its way: then call `work`."""
        return False

    def work(self) -> list[Outgoing]:
        """Do what was put off, and return what to send."""
        return []

    def lost(self, name: str) -> list[Outgoing]:
        """The transport cannot reach a party (or the relay) any more."""
        index = self.session.roster.index(name)
        if self._attempt is None or index in self._attempt.lost:
            return []
        self._attempt.lost.add(index)
        if self.state not in ACTIVE:
            return []
        return self._guarded(lambda: self._on_lost(index))

    def abandon(self) -> list[Outgoing]:
        """Give the attempt up. Raises ProtocolError once this party's share is released."""
        if self.state not in ACTIVE:
            return []
        return self._give_up(AbandonReason.STOPPED, ProtocolError(f"{self._now.id} was stopped by this party"))

    def check_live(self, live: Sequence[str]) -> None:
        """Raise ProtocolError when this party's policy forbids a sum over ``live``."""
        roster = self.session.roster
        self._policy.check_live(live, len(roster.members), self._weights(self._now.params))

    def discard(self) -> None:
        """Stop waiting for shares after this party's own was released; the update stays spent.

        Where enough are here the sum is opened first.
        """
        self.work()
        if self.state is State.OPENING:
            error = ProtocolError(f"{self._now.id} was discarded; its update is spent")
            self._end(State.DISCARDED, self.failure or error)

    @property
    def awaited(self) -> AttemptId | None:
        """The attempt whose sum this party may still open; None where it has it, gave it up, or began none."""
        return self._now.id if self.state in ACTIVE else None

    def settle(self, awaited: Collection[AttemptId]) -> None:
        """Forget for good the messages that released this party's shares in the session, but for ``awaited`` attempts.

        Only where each member of the other attempts' sums has them, or gave up: see each one's `awaited`.
        """
        for attempt in self._ledger.unsettled():
            if attempt.session == self.session.id and attempt not in {*awaited, self.awaited}:
                self._ledger.settle_attempt(attempt)

    def announce_model(self, hash_: bytes) -> list[Outgoing]:
        """Compare the hash of the new model (32 bytes) with the others'; drift stops the next round."""
        if self.state is not State.FINISHED:
            raise ProtocolError(f"there is no new model while {self._now.id} is {self.state.value}")
        return self._tell_model(hash_)

    # --- what a protocol fills in -------------------------------------------------------------------------

    @abstractmethod
    def _set_up(self) -> None:
        """What a new machine of this protocol holds, and the messages it takes besides the common ones."""

    @abstractmethod
    def _on_begin(self) -> list[Outgoing]:
        """First messages of an attempt."""

    def _on_length(self, length: int) -> None:
        """The length of this party's vector is known before its values; protocols that can prepare override this."""

    @abstractmethod
    def _on_values(self) -> list[Outgoing]:
        """This party's vector is here."""

    @abstractmethod
    def _source(self) -> Source | None:
        """What makes this party's bulk messages now."""

    @abstractmethod
    def _on_lost(self, index: int) -> list[Outgoing]:
        """A party was lost during an active attempt."""

    @abstractmethod
    def _advance(self) -> list[Outgoing]:
        """Take the next step whose conditions hold, if there is one."""

    # --- shared steps -------------------------------------------------------------------------------------

    def _weights(self, params: CkksParams) -> dict[str, float]:
        roster = self.session.roster
        return roster.weights if params.weights == "public" else dict.fromkeys(roster.names, 1.0)

    def _tell_begin(self) -> list[Outgoing]:
        """Tell the others the live set, where no deal does."""
        parties = len(self.session.roster.members)
        return self._broadcast(MessageType.BEGIN, Begin(parties, frozenset(self._now.live)).encode())

    def _on_peer_begins(self, message: Message) -> list[Outgoing]:
        if Begin.parse(message.body).live != frozenset(self._now.live):
            raise ProtocolError(f"party {message.header.sender} begins over another live set")
        self._now.ready.add(message.header.sender)
        return self._advance()

    def _everyone_ready(self) -> bool:
        others = set(self._now.remaining) - {self.session.index}
        return others <= self._now.ready

    def _check_live_set(self, members: frozenset[int]) -> None:
        """Raise ProtocolError when this party's policy forbids a sum over ``members``."""
        roster = self.session.roster
        names = [roster.members[index].name for index in sorted(members)]
        self._policy.check_live(names, len(roster.members), self._weights(self._now.params))

    def _new_pass(self, term: Term, order: Sequence[int] = (), observer: Observer | None = None) -> RingPass | StarPass:
        now, roster = self._now, self.session.roster
        me, parties, blocks = self.session.index, len(roster.members), roster.options.chunk_blocks
        try:
            self._store = SumStore(self._spool)
        except OSError as error:
            raise StreamBrokenError(f"the sum has no place in {self._spool}: {error}") from None
        setting = Setting(now.length, parties, blocks, self._store, self._clock, observer)
        if roster.relay is not None:
            self._moving = StarPass(me, parties, now.live, term, setting)
        else:
            self._moving = RingPass(me, order or now.live, term, setting, bool(order), now.lost, self._window)
        return self._moving

    def _hold(self, message: Message) -> list[Outgoing]:
        """Keep a chunk that came before this party streams.

        Raises StreamBrokenError on what no head's window allows.
        """
        now = self._now
        window = self._window or default_window(len(now.live))
        size = self.session.roster.options.chunk_blocks * now.params.ring_dimension * _HELD_PER_INTEGER
        if len(now.held) >= window or len(message.body) > size + _HELD_EXTRA:
            raise StreamBrokenError(
                f"party {message.header.sender} sends more than the window of {window} chunks before this party streams"
            )
        now.held.append(message)
        return []

    def _take_held(self, take: Callable[[Message], list[Outgoing]]) -> list[Outgoing]:
        """Let ``take`` have what was held. What it refuses is its sender's fault, not whoever's message comes now."""
        out = []
        held, self._now.held = self._now.held, []
        for message in held:
            try:
                out += take(message)
            except (StreamBrokenError, SiteError):
                raise
            except PppmlError as error:
                self.refusals.append(HeldMessageError(message.header.sender, error))
        return out

    def _stream(self, stream: RingPass | StarPass, message: Message) -> list[Outgoing]:
        chunk = Chunk.parse(message.body)
        if chunk.parties != len(self.session.roster.members):
            raise ProtocolError(f"a chunk counts {chunk.parties} parties")
        header = message.header
        take = stream.on_chunk if header.type is MessageType.CHUNK else stream.on_return
        return self._send_pieces(take(header.sender, (header.start, header.stop), chunk))

    def _send_pieces(self, pieces: Sequence[Piece]) -> list[Outgoing]:
        return [self._sealed(piece.receiver, piece.type, piece.body, (piece.start, piece.stop)) for piece in pieces]

    def _guarded(self, step: Callable[[], list[Outgoing]]) -> list[Outgoing]:
        """Run a step; a broken stream ends the attempt."""
        try:
            return step()
        except StreamBrokenError as error:
            return self._give_up(AbandonReason.PARTY_LOST, error)

    def _give_up(self, reason: AbandonReason, error: PppmlError, evidence: bytes = b"") -> list[Outgoing]:
        """End the attempt: record first, then tell the others. Raises ProtocolError after a release."""
        self._ledger.abandon(self._now.id)
        self.state = State.ABANDONED
        self.failure = error
        if self.update_spent:
            self.failure = type(error)(
                f"{error}; this party had signed, and the others can open without its share: the update is spent, "
                "discard it and train anew"
            )
        self._wipe()
        return self._broadcast(MessageType.ABANDON, Abandon(reason, evidence).encode())

    def _on_abandon(self, message: Message) -> list[Outgoing]:
        abandon = Abandon.parse(message.body)
        self._now.lost.add(message.header.sender)
        self._examine(abandon.evidence)
        if self.state not in ACTIVE:
            return []
        if self._ledger.is_released(self._now.id):
            return self._on_lost(message.header.sender)
        name = self.session.roster.everyone[message.header.sender].name
        error = PeerAbandonedError(f"party {name!r} abandoned {self._now.id}: {abandon.reason.name.lower()}")
        return self._give_up(AbandonReason.PEER_ABANDONED, error)

    def _bind_update(self, vector: Vector) -> bytes:
        """Bind this party's update to the attempt, and return its identity. Raises InputError unless it is finite."""
        update = self._ledger.update_id(vector)
        self._ledger.begin(self._now.id, update)
        return update

    def _examine(self, evidence: bytes) -> None:
        """Look at a statement that another party attached; protocols that sign statements override this."""

    def _wipe(self) -> None:
        """Forget the secrets of the attempt."""
        self._moved, self._moving = self.progress, None
        self._now.vector = self._now.opened = None
        self._now.held.clear()
        if self._store is not None:
            self._store.close()
            self._store = None

    def _fail(self, error: PppmlError) -> list[Outgoing]:
        return self._end(State.FAILED, error)

    def _end(self, state: State, error: PppmlError) -> list[Outgoing]:
        """The attempt is over without a sum."""
        self.state = state
        self.failure = error
        self._wipe()
        return []

    def _opened_sum(self, members: frozenset[int]) -> OpenedSum:
        """Where the sum over ``members`` goes, divided by the sum of their weights."""
        now = self._now
        if now.opened is None:
            raise ProtocolError(f"{now.id} has no vector")
        now.opened.divisor = divisor(now.id.round, now.params, self.session.roster, members)
        return now.opened

    def _finish(self, members: frozenset[int], opened: OpenedSum, root: bytes, opening: bytes = b"") -> None:
        """The attempt is over. ``root`` and ``opening``, the key that opened what it names, determine the sum: the
        transcript needs no more of it."""
        now = self._now
        numbers = now.id.round.to_bytes(4, "little") + now.id.attempt.to_bytes(4, "little")
        live = bytes(int(index in members) for index in range(len(self.session.roster.members)))
        key = digest("pppml opening v1", opening)
        transcript = digest("pppml transcript v2", self.session.id, numbers, live, root, key)
        self.outcome = Outcome(members, now.length, opened.mean, opened.integers, root, transcript)
        self.failure = None
        self.state = State.FINISHED
        self._wipe()

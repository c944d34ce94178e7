"""What the parties of all protocols share: one attempt at a time, its states, its gate and its log of refusals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.aggregation.attempt_state import ACTIVE, AttemptState, Meter, Outcome, PeerAbandonedError, State
from pppml_fast.aggregation.attempts import AttemptId, AttemptLedger
from pppml_fast.aggregation.base import NeverPickled, Policy, Values, check_finite, value_parts
from pppml_fast.aggregation.encoding import digest
from pppml_fast.aggregation.handshake import route
from pppml_fast.aggregation.messages import EVERYONE, Frame, Header, MessageType, parse_frame
from pppml_fast.aggregation.payloads import Abandon, AbandonReason, Chunk, Digest
from pppml_fast.aggregation.session import Message, Session
from pppml_fast.aggregation.sharing import attempt_threshold
from pppml_fast.aggregation.streams import Clock, Piece, RingPass, StarPass, StreamBrokenError, no_clock
from pppml_fast.errors import PppmlError, ProtocolError
from pppml_fast.params import CkksParams
from pppml_fast.quantize import count_clipped
from pppml_fast.transport.base import Outgoing

__all__ = ["PartyMachine"]

_EARLY_PER_PARTY = 8
_EARLY_ATTEMPTS = 4
_EARLY_SIZE = 1 << 20


class PartyMachine(NeverPickled, ABC):
    """One member's state machine for the rounds of a session: bytes in, bytes out, no socket, no clock.

    Drive it with `begin`, `contribute`, `receive` and `lost`; send what they return. A refused message changes
    nothing: its reason goes to ``refusals``, its sender gets a refusal without one. The result of an attempt
    is ``outcome``; the reason it has none is ``failure``.
    """

    def __init__(self, session: Session, ledger: AttemptLedger, policy: Policy, clock: Clock = no_clock) -> None:
        self.session = session
        self.state = State.IDLE
        self.outcome: Outcome | None = None
        self.failure: PppmlError | None = None
        self.drift: ProtocolError | None = None
        self.refusals: list[PppmlError] = []
        self.refused_by: list[str] = []
        self.evidence: list[tuple[bytes, bytes]] = []
        self._ledger, self._policy, self._clock = ledger, policy, clock
        self._seen: set[tuple[int, int]] = set()
        self._early: dict[tuple[int, int], list[bytes]] = {}
        self._attempt: AttemptState | None = None
        self._handlers: dict[MessageType, Callable[[Message], list[Outgoing]]] = {
            MessageType.ABANDON: self._on_abandon,
            MessageType.MODEL_HASH: self._on_model,
        }

    @property
    def name(self) -> str:
        """This party's name."""
        return self.session.identity.name

    @property
    def meter(self) -> Meter:
        """Costs of the current attempt."""
        return self._now.meter

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
        self.outcome = self.failure = None
        self.state = State.PREPARING
        out = self._on_begin()
        for data in self._early.pop((round_, attempt), []):
            out += self.receive(data)
        return out

    def prepare(self, length: int) -> None:
        """Tell how many values `contribute` will hand in, once the attempt has begun: what encryption needs no values
        for is then made in the background, while they are still being computed.

        The result does not depend on it; another length, or an attempt that ends before, only wastes the work.
        """
        if self.state is State.PREPARING and not self._now.length:
            self._on_length(length)

    def contribute(self, values: Values, weight: float = 1.0) -> list[Outgoing]:
        """Hand in this party's vector for the attempt.

        Raises InputError on values that cannot be summed and KeyReuseError on a spent update; the attempt then
        waits for another vector.
        """
        now = self._now
        if self.state is not State.PREPARING or now.length:
            raise ProtocolError(f"a vector cannot be handed in while {now.id} is {self.state.value}")
        parts = value_parts(values)
        check_finite(parts)
        now.update = self._bind_update(parts)
        now.parts, now.weight = parts, weight
        now.length = sum(part.size for part in parts)
        now.meter.clipped = count_clipped(now.params, parts)
        return self._guarded(self._on_values)

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
        """Stop waiting for shares after this party's own was released; the update stays spent."""
        if self.state is State.OPENING:
            self._fail(self.failure or ProtocolError(f"{self._now.id} was discarded; its update is spent"))

    def announce_model(self, hash_: bytes) -> list[Outgoing]:
        """Compare the hash of the new model (32 bytes) with the others'; drift stops the next round."""
        if self.state is not State.FINISHED:
            raise ProtocolError(f"there is no new model while {self._now.id} is {self.state.value}")
        self._now.models.setdefault(self.session.index, []).append(hash_)
        self._compare_models()
        return self._broadcast(MessageType.MODEL_HASH, Digest(hash_).encode())

    @property
    def unconfirmed(self) -> frozenset[str]:
        """Names of the other members of the open sum that have not told the hash of their new model yet."""
        members = frozenset() if self.outcome is None else self.outcome.members
        names = self.session.roster.names
        return frozenset(names[index] for index in members - set(self._now.models) - {self.session.index})

    def pull(self, hop: str) -> Outgoing | None:
        """TEMPORARY."""
        return None

    def mean(self) -> NDArray[np.float32]:
        """TEMPORARY."""
        import math

        from pppml_fast.aggregation.federation import _restore

        outcome, now = self.outcome, self._now
        assert outcome is not None
        roster = self.session.roster
        divisor = 1.0
        if now.params.weights == "free":
            divisor = float(len(outcome.members))
        elif len(outcome.members) < len(roster.members):
            divisor = math.fsum(roster.members[i].weight for i in outcome.members)
        return _restore(now.params, outcome, divisor)

    # --- messages -----------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Outgoing]:
        """Take one message; a refused one changes nothing."""
        frame: Frame | None = None
        try:
            frame = parse_frame(data)
            if self._keep_for_later(frame.header, data):
                return []
            message = self._now.gate.accept(frame)
            return self._guarded(lambda: self._dispatch(message))
        except PppmlError as error:
            self.refusals.append(error)
            return self._refusal(frame)

    def _dispatch(self, message: Message) -> list[Outgoing]:
        kind = message.header.type
        if kind is MessageType.REFUSED:
            self.refused_by.append(self.session.roster.everyone[message.header.sender].name)
            return []
        if kind not in self._handlers or message.header.sender not in self._senders_of(kind):
            raise ProtocolError(f"{kind.name} of party {message.header.sender} has no place in {self._now.id}")
        return self._handlers[kind](message)

    def _senders_of(self, kind: MessageType) -> set[int]:
        """Live members may send anything; a relay nothing of its own but sums."""
        relay = self.session.roster.relay is not None and kind is MessageType.RETURN
        return {*self._now.live, len(self.session.roster.members)} if relay else set(self._now.live)

    def _keep_for_later(self, header: Header, data: bytes) -> bool:
        """Hold a message of an attempt that this party has not begun yet, within bounds."""
        key = (header.round, header.attempt)
        if header.session != self.session.id or key in self._seen:
            return False
        if key not in self._early and len(self._early) >= _EARLY_ATTEMPTS:
            raise ProtocolError("messages of too many attempts that did not begin")
        kept = self._early.setdefault(key, [])
        if len(kept) >= _EARLY_PER_PARTY * len(self.session.roster.everyone) or len(data) > _EARLY_SIZE:
            raise ProtocolError("too much arrived for an attempt that did not begin")
        kept.append(data)
        return True

    def _refusal(self, frame: Frame | None) -> list[Outgoing]:
        if frame is None or frame.header.type is MessageType.REFUSED or self._attempt is None:
            return []
        if frame.header.sender in self._attempt.live and frame.header.sender != self.session.index:
            return [self._signed(frame.header.sender, MessageType.REFUSED, b"")]
        return []

    # --- what a protocol fills in -------------------------------------------------------------------------

    @abstractmethod
    def _on_begin(self) -> list[Outgoing]:
        """First messages of an attempt."""

    def _on_length(self, length: int) -> None:
        """The length of this party's vector is known before its values; protocols that can prepare override this."""

    @abstractmethod
    def _on_values(self) -> list[Outgoing]:
        """This party's vector is here."""

    @abstractmethod
    def _on_lost(self, index: int) -> list[Outgoing]:
        """A party was lost during an active attempt."""

    # --- shared steps -------------------------------------------------------------------------------------

    @property
    def _now(self) -> AttemptState:
        if self._attempt is None:
            raise ProtocolError("no attempt was begun yet")
        return self._attempt

    def _weights(self, params: CkksParams) -> dict[str, float]:
        roster = self.session.roster
        return roster.weights if params.weights == "public" else dict.fromkeys(roster.names, 1.0)

    def _everyone_ready(self) -> bool:
        others = set(self._now.remaining) - {self.session.index}
        return others <= self._now.ready

    def _check_live_set(self, members: frozenset[int]) -> None:
        """Raise ProtocolError when this party's policy forbids a sum over ``members``."""
        roster = self.session.roster
        names = [roster.members[index].name for index in sorted(members)]
        self._policy.check_live(names, len(roster.members), self._weights(self._now.params))

    def _new_pass(self, own: Any, make_total: Callable[[int], Any], order: Sequence[int] = ()) -> RingPass | StarPass:
        now, roster = self._now, self.session.roster
        me, size = self.session.index, roster.options.chunk_blocks
        if roster.relay is not None:
            return StarPass(me, len(roster.members), now.live, own, now.length, size, make_total)
        closed = bool(order)
        return RingPass(me, order or now.live, own, now.length, size, make_total, self._clock, closed, now.lost)

    def _stream(self, stream: RingPass | StarPass, message: Message) -> list[Outgoing]:
        chunk = Chunk.parse(message.body)
        if chunk.parties != len(self.session.roster.members):
            raise ProtocolError(f"a chunk counts {chunk.parties} parties")
        header = message.header
        take = stream.on_chunk if header.type is MessageType.CHUNK else stream.on_return
        pieces = take(header.sender, (header.start, header.stop), chunk)
        self.meter.add_s = getattr(stream, "add_seconds", 0.0)
        return self._send_pieces(pieces)

    def _send_pieces(self, pieces: Sequence[Piece]) -> list[Outgoing]:
        parties = len(self.session.roster.members)
        out = []
        for piece in pieces:
            body = Chunk(self._now.length, parties, piece.contributors, piece.payload).encode()
            out.append(self._sealed(piece.receiver, piece.type, body, (piece.start, piece.stop)))
        return out

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

    def _bind_update(self, parts: list[NDArray[Any]]) -> bytes:
        """Bind this party's update to the attempt, and return its identity."""
        update = self._ledger.update_id(parts)
        self._ledger.begin(self._now.id, update)
        return update

    def _examine(self, evidence: bytes) -> None:
        """Look at a statement that another party attached; protocols that sign statements override this."""

    def _wipe(self) -> None:
        """Forget the secrets of the attempt."""
        self._now.parts = None
        self._now.held.clear()

    def _fail(self, error: PppmlError) -> list[Outgoing]:
        self.state = State.FAILED
        self.failure = error
        self._wipe()
        return []

    def _finish(self, members: frozenset[int], integers: NDArray[np.int64], root: bytes) -> None:
        now = self._now
        numbers = now.id.round.to_bytes(4, "little") + now.id.attempt.to_bytes(4, "little")
        live = bytes(int(index in members) for index in range(len(self.session.roster.members)))
        values = digest("pppml integers v1", np.ascontiguousarray(integers, "<i8").tobytes())
        transcript = digest("pppml transcript v1", self.session.id, numbers, live, root, values)
        self.outcome = Outcome(members, now.length, integers, root, transcript)
        self.failure = None
        self.state = State.FINISHED
        self._wipe()

    def _on_model(self, message: Message) -> list[Outgoing]:
        hash_ = Digest.parse(message.body).value
        self._now.models.setdefault(message.header.sender, []).append(hash_)
        self._compare_models()
        return []

    def _compare_models(self) -> None:
        models = self._now.models
        mine = models.get(self.session.index, [])
        for sender, theirs in models.items():
            if any(a != b for a, b in zip(mine, theirs, strict=False)):
                name = self.session.roster.everyone[sender].name
                self.drift = ProtocolError(
                    f"the model of {name!r} differs from this party's after round {self._now.id.round}; "
                    "find the cause and open a new session from a common model"
                )

    def _sealed(self, receiver: int, type_: MessageType, body: bytes, blocks: tuple[int, int] = (0, 0)) -> Outgoing:
        return self._routed(receiver, type_, self._now.gate.seal(receiver, type_, body, blocks))

    def _signed(self, receiver: int, type_: MessageType, body: bytes) -> Outgoing:
        return self._routed(receiver, type_, self._now.gate.sign(receiver, type_, body))

    def _routed(self, receiver: int, type_: MessageType, data: bytes) -> Outgoing:
        self.meter.count(type_, len(data))
        return route(self.session.roster, self.session.index, receiver, data)

    def _broadcast(self, type_: MessageType, body: bytes) -> list[Outgoing]:
        """The same signed bytes to every live party; one upload where a relay passes them on."""
        data = self._now.gate.sign(EVERYONE, type_, body)
        if self.session.roster.relay is not None:
            return [self._routed(EVERYONE, type_, data)]
        others = [index for index in self._now.live if index != self.session.index]
        return [self._routed(index, type_, data) for index in others]

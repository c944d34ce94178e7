"""A federation in one process: rounds driven over every member's state machine with the bytes of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pppml_fast.aggregation.attempt_state import SUM_ROUNDS, PeerAbandonedError, State
from pppml_fast.aggregation.base import (
    AggregateResult,
    AggregationCosts,
    Aggregator,
    Values,
)
from pppml_fast.aggregation.encoding import digest
from pppml_fast.aggregation.party import PartyMachine
from pppml_fast.aggregation.relay import Relay
from pppml_fast.aggregation.rendezvous import Rendezvous
from pppml_fast.aggregation.vectors import HostVector, Vector, vector_of
from pppml_fast.cuda import DeviceArray
from pppml_fast.errors import InputError, OpeningError, PppmlError, ProtocolError
from pppml_fast.layout import Layout
from pppml_fast.params import CkksParams
from pppml_fast.transport.in_process import InProcessNetwork

__all__ = ["RELAY", "Federation", "FederationAggregator"]

RELAY = "relay"


class Federation:
    """An open session of several parties in one process.

    ``aggregators`` holds each party's blocking handle, ``members`` the state machines, ``network`` the transport
    with its faults and transcript. Use it as a context manager, or `close` it, to forget the session keys.
    """

    def __init__(
        self,
        network: InProcessNetwork,
        members: dict[str, PartyMachine],
        relay: Relay | None,
        params: CkksParams,
        sum_params: CkksParams,
        layout: Layout | None,
        clock: Callable[[], float],
    ) -> None:
        self.network, self.members, self.relay = network, members, relay
        self.params, self.sum_params, self.layout = params, sum_params, layout
        self.roster = next(iter(members.values())).session.roster
        self._clock = clock
        self._attempts: dict[int, int] = {}
        self._finished: set[int] = set()
        self._sums = 0
        self._models = dict.fromkeys(members, b"")
        self._meeting = Rendezvous(tuple(members))
        self.aggregators: dict[str, FederationAggregator] = {name: FederationAggregator(self, name) for name in members}

    def __enter__(self) -> Federation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the session's keys; no further round can begin."""
        for machine in self.members.values():
            machine.session.close()
        if self.relay is not None:
            self.relay.session.close()

    @property
    def parties(self) -> tuple[str, ...]:
        """Names of the parties that can be reached, in ring order."""
        return tuple(name for name in self.members if name not in self.network.dropped)

    @property
    def next_round(self) -> int:
        """The number after the last training round that finished here."""
        return max((number for number in self._finished if number < SUM_ROUNDS), default=-1) + 1

    def aggregate(self, updates: Mapping[str, Values], round: int) -> AggregateResult:
        """The weighted mean of the clipped updates: sum of p_i * clip(x_i), divided by the live weights.

        ``updates`` are float arrays, or tensors of a CUDA device, or lists of either in layout order, one per party.
        Those of a device are encrypted there, and the mean is opened there. Raises InputError on values that are not
        finite (by tensor name) or of wrong length; ProtocolError when the round was refused or could not finish;
        OpeningError when the sum failed its checks; KeyReuseError on a spent update.
        """
        names = self.layout.names if self.layout is not None else None
        vectors = {name: self._checked(updates, name, names) for name in self.parties}
        if self.layout is not None:
            for name, own in vectors.items():
                if own.length != self.layout.size:
                    raise InputError(f"the update of {name!r} has {own.length} values, the layout {self.layout.size}")
        if not 0 <= round < SUM_ROUNDS:
            raise InputError(f"round {round} is out of range; number rounds from 0")
        result = self._run(round, vectors, self.params)
        self._announce_results()
        return result

    def sum(self, vectors: Mapping[str, Values]) -> AggregateResult:
        """The exact unweighted sum of anything additive. Raises what `aggregate` does.

        Values beyond ``sum_params.clip`` are refused, not clipped: a metric must not come out wrong in silence.
        """
        checked = {name: self._checked(vectors, name, None) for name in self.parties}
        limit = self.sum_params.clip
        for name, own in checked.items():
            if not isinstance(own, HostVector):
                raise InputError(
                    f"the vector of {name!r} lies on a device; plain sums are of host memory: copy it there"
                )
            largest = max(float(np.abs(part).max(initial=0)) for part in own.parts)
            if largest > limit:
                raise InputError(
                    f"the vector of {name!r} reaches {largest:g}; sums hold up to {limit:g} per party: scale it, or "
                    "open the federation with a larger sum_clip"
                )
        self._sums += 1
        return self._run(SUM_ROUNDS + self._sums - 1, checked, self.sum_params)

    def compare_models(self, hashes: Mapping[str, bytes]) -> None:
        """Compare the 32-byte hashes of the parties' new models after a round.

        Raises ProtocolError when they drift; every later round is then refused too.
        """
        for name in self.parties:
            self.network.post(name, self.members[name].announce_model(hashes[name]))
        self.network.run()
        for name in self.parties:
            drift = self.members[name].drift
            if drift is not None:
                raise drift

    # --- one round ----------------------------------------------------------------------------------------

    def _run(self, round_: int, vectors: Mapping[str, Vector], params: CkksParams) -> AggregateResult:
        """Attempts over shrinking live sets until one finishes."""
        if round_ in self._finished:
            raise ProtocolError(f"round {round_} is already finished in this session; use the next number")
        began = self._clock()
        while True:
            live = self.parties
            attempt = self._attempts.get(round_, 0)
            self._attempts[round_] = attempt + 1
            self._drive(round_, attempt, live, vectors, params)
            failure = self._failure(live)
            self._settle()
            if failure is None:
                self._finished.add(round_)
                return self._result(round_, attempt, self._clock() - began)
            if not self._can_retry(live):
                raise failure

    def _drive(
        self,
        round_: int,
        attempt: int,
        live: tuple[str, ...],
        vectors: Mapping[str, Vector],
        params: CkksParams,
    ) -> None:
        weights = self.roster.weights if params.weights == "public" else dict.fromkeys(live, 1.0)
        if self.relay is not None:
            self.network.post(RELAY, self.relay.begin(round_, attempt, live, params))
        try:
            for name in live:
                self.members[name].discard()
                self.network.post(name, self.members[name].begin(round_, attempt, live, params))
            self.network.run()
            for name in self.parties:
                machine = self.members[name]
                if machine.state is State.PREPARING:
                    self.network.post(name, machine.contribute(vectors[name], weights[name]))
            self.network.run()
        except PppmlError:
            self._abandon_all()
            raise

    def _failure(self, live: tuple[str, ...]) -> PppmlError | None:
        """None when every reachable party finished with the same transcript, else what stopped them."""
        machines = [self.members[name] for name in live if name not in self.network.dropped]
        outcomes = [machine.outcome for machine in machines]
        finished = [outcome for outcome in outcomes if outcome is not None]
        if machines and len(finished) == len(machines):
            if len({outcome.transcript for outcome in finished}) == 1:
                return None
            return ProtocolError("the parties opened different sums")
        failures = [machine.failure for machine in machines if machine.failure is not None]
        opening = [error for error in failures if isinstance(error, OpeningError)]
        told = [error for error in failures if isinstance(error, PeerAbandonedError)]
        found = [error for error in failures if error not in told]
        refused = [error for machine in machines for error in machine.refusals]
        refused += [] if self.relay is None else self.relay.refusals
        self._abandon_all()
        if opening:
            return opening[0]
        signed = [machine for machine in machines if machine.state is State.ABANDONED and machine.update_spent]
        spent = [machine.failure for machine in signed if machine.failure is not None]
        reasons = [str(error) for error in (*spent, *found, *refused, *told)]
        return ProtocolError("the round did not finish: " + (reasons[0] if reasons else "messages were lost"))

    def _settle(self) -> None:
        """Let the journals forget what released the shares of sums that nobody waits for any more."""
        awaited = [machine.awaited for machine in self.members.values() if machine.awaited is not None]
        for machine in self.members.values():
            machine.settle(awaited)

    def _abandon_all(self) -> None:
        """Stop whoever is still waiting; a party that released its share stays as it is."""
        for name in self.parties:
            machine = self.members[name]
            if machine.state is not State.OPENING:
                self.network.post(name, machine.abandon())
        self.network.run()

    def _can_retry(self, live: tuple[str, ...]) -> bool:
        """A smaller live set may try again if all of it recorded the attempt as abandoned, and no update is spent."""
        left = self.parties
        machines = [self.members[name] for name in left]
        if any(machine.state is not State.ABANDONED or machine.update_spent for machine in machines):
            return False
        if len(left) == len(live):
            return False
        try:
            for name in left:
                self.members[name].check_live(left)
        except ProtocolError:
            return False
        return True

    def _result(self, round_: int, attempt: int, seconds: float) -> AggregateResult:
        machines = [self.members[name] for name in self.parties]
        outcome = machines[0].outcome
        if outcome is None:
            raise ProtocolError(f"round {round_} has no outcome")
        members = tuple(self.roster.names[index] for index in sorted(outcome.members))
        meters = [machine.meter for machine in machines]
        ring = max(meter.bytes_ring for meter in meters)
        relay_add = 0.0 if self.relay is None else self.relay.add_s
        costs = AggregationCosts(
            encrypt_s=max(meter.encrypt_s for meter in meters),
            add_s=max(relay_add, *(meter.add_s for meter in meters)),
            open_s=max(meter.open_s for meter in meters),
            ring_s=seconds,
            bytes_ring=ring,
            bytes_shares=max(meter.bytes_shares for meter in meters),
            bytes_control=max(meter.bytes_control for meter in meters),
            bytes_per_weight=ring / outcome.length,
            clipped={machine.name: machine.meter.clipped for machine in machines},
        )
        transcript = outcome.transcript.hex()
        return AggregateResult(outcome.mean, outcome.integers, costs, transcript, members, round_, attempt)

    def _announce_results(self) -> None:
        """Every party tells the hash of the model it would now have: all updates so far, in order."""
        for name in self.parties:
            outcome = self.members[name].outcome
            if outcome is not None:
                mean = outcome.mean.to_host() if isinstance(outcome.mean, DeviceArray) else outcome.mean
                self._models[name] = digest("pppml model v1", self._models[name], mean.view(np.uint8).data)
        for name in self.parties:
            self.network.post(name, self.members[name].announce_model(self._models[name]))
        self.network.run()

    def _checked(self, values: Mapping[str, Values], name: str, tensors: Sequence[str] | None) -> Vector:
        if name not in values:
            raise InputError(f"party {name!r} handed in nothing; every reachable party takes part in a round")
        vector = vector_of(values[name])
        try:
            vector.check_finite(tensors)
        except InputError as error:
            raise InputError(f"party {name!r}: {error}") from None
        return vector


class FederationAggregator(Aggregator):
    """One party's blocking handle on a federation in this process, for use from a thread of its own."""

    def __init__(self, federation: Federation, party: str) -> None:
        self._federation = federation
        self._party = party

    @property
    def party(self) -> str:
        return self._party

    def sum(self, vector: Values, weight: float | None = None) -> Any:
        if weight is None:
            return self._meet("sum", vector).vector
        own = self._federation.roster.weights[self._party]
        if not math.isclose(weight, own, rel_tol=1e-9):
            raise ProtocolError(f"weight {weight} of {self._party!r} is not the roster's {own}")
        return self._meet("aggregate", vector).vector

    def aggregate(self, vector: Values, round: int) -> AggregateResult:
        """The weighted mean of a training round; blocks until every party called."""
        return self._meet(f"round {round}", vector, round)

    def _meet(self, kind: str, vector: Values, round_: int | None = None) -> AggregateResult:
        federation = self._federation

        def together(vectors: Mapping[str, Any]) -> AggregateResult:
            if kind == "sum":
                return federation.sum(vectors)
            number = federation.next_round if round_ is None else round_
            return federation.aggregate(vectors, round=number)

        return federation._meeting.meet(self._party, kind, vector, together)

"""Found a federation in this process: identities, roster, handshake, and one state machine per member."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pppml_fast.aggregation.attempts import AttemptLedger
from pppml_fast.aggregation.base import (
    Policy,
)
from pppml_fast.aggregation.collective import CollectiveParty
from pppml_fast.aggregation.federation import RELAY, Federation
from pppml_fast.aggregation.handshake import Handshake, HandshakeState
from pppml_fast.aggregation.identity import Identity
from pppml_fast.aggregation.initiator import InitiatorParty
from pppml_fast.aggregation.journal import MemoryStore, Store
from pppml_fast.aggregation.parameters import check_parameters, sum_parameters
from pppml_fast.aggregation.party import PartyMachine
from pppml_fast.aggregation.plain import PlainParty
from pppml_fast.aggregation.relay import Relay
from pppml_fast.aggregation.roster import Member, Roster, SessionOptions, Terms
from pppml_fast.aggregation.session import Session
from pppml_fast.aggregation.streams import no_clock
from pppml_fast.errors import InputError, ProtocolError
from pppml_fast.layout import Layout
from pppml_fast.params import CkksParams
from pppml_fast.privacy import PrivacyTerms
from pppml_fast.transport.in_process import InProcessNetwork

__all__ = ["machine_of", "open_federation"]

_MACHINES: dict[str, type[PartyMachine]] = {
    "collective": CollectiveParty,
    "initiator": InitiatorParty,
    "plain": PlainParty,
}


def open_federation(
    parties: Sequence[str],
    *,
    params: CkksParams,
    layout: Layout | None = None,
    protocol: str = "collective",
    topology: str = "ring",
    weights: Mapping[str, float] | None = None,
    policy: Policy | Mapping[str, Policy] | None = None,
    sum_check: bool | None = None,
    threshold: int | None = None,
    allow_two_parties: bool = False,
    sum_clip: float | None = None,
    chunk_blocks: int = 64,
    layouts: Mapping[str, Layout] | None = None,
    stores: Mapping[str, Store] | None = None,
    identities: Mapping[str, Identity] | None = None,
    record: bool = False,
    clock: Callable[[], float] = time.perf_counter,
    privacy: PrivacyTerms | None = None,
) -> Federation:
    """Open a session of all parties in this process and return it.

    ``weights`` are public shares with sum 1 (equal by default; params.weights must be "public" to give any);
    ``policy`` one for all, or each member's own; ``sum_clip`` the range of `Federation.sum` (default: 1 or the
    clip, whichever is larger); ``layouts`` each member's own layout where they are not taken to be the same;
    ``stores`` durable journals by name; ``record`` keeps every message in ``network.transcript``;
    ``privacy`` the noise that all agree on: each member hands in what `PrivacyPlan.privatise` gives it (the machines
    sum what they get and add none), and ``layout`` is then needed.
    Raises ProtocolError when a member's policy refuses the roster, LayoutMismatchError on another model,
    ParameterError on parameters that do not fit the protocol.
    """
    names = list(parties)
    options = SessionOptions(protocol, topology, sum_check, threshold, chunk_blocks, privacy)
    check_parameters(params, options, len(names), weights)
    policies = {name: _policy_of(policy, name, allow_two_parties) for name in names}
    for own in policies.values():
        own.minimum(len(names))
    keys = {name: (identities or {}).get(name) or Identity.generate(name) for name in names}
    relay = Identity.generate(RELAY) if topology == "star" else None
    shared = layout if layout is not None else Layout(())
    own_layouts = {name: (layouts or {}).get(name, shared) for name in names}
    sum_params = sum_parameters(params, sum_clip)
    roster = Roster(
        members=tuple(Member(name, keys[name].public.hex(), _weight(params, names, weights, name)) for name in names),
        parameters=params.to_dict(),
        sum_parameters=sum_params.to_dict(),
        layout=own_layouts[names[0]].fingerprint.hex(),
        options=options,
        relay=None if relay is None else Member(relay.name, relay.public.hex()),
    )
    pinned = {member.name: member.public for member in roster.everyone}
    policies = {name: own if own.pinned is not None else replace(own, pinned=pinned) for name, own in policies.items()}
    handshakes = _handshakes(roster, keys, policies, own_layouts)
    if relay is not None:
        handshakes[RELAY] = Handshake(relay, replace(policies[names[0]], pinned=pinned), None)
    network = InProcessNetwork(handshakes, record=record)
    _shake_hands(network, handshakes, names[0])
    machines = {}
    for name in names:
        ledger = AttemptLedger((stores or {}).get(name) or MemoryStore())
        machines[name] = _MACHINES[protocol](_session(handshakes[name]), ledger, policies[name], clock)
    adder = Relay(_session(handshakes[RELAY]), clock, layout=shared) if relay is not None else None
    network.nodes = {**machines, **({} if adder is None else {RELAY: adder})}
    return Federation(network, machines, adder, params, sum_params, layout, clock)


def machine_of(
    roster: Roster,
    ledger: AttemptLedger,
    policy: Policy,
    clock: Callable[[], float] | None = None,
    spool: Path | None = None,
) -> Callable[[Session], PartyMachine]:
    """Makes the state machine of the roster's protocol for a session."""
    kind = _MACHINES[roster.options.protocol]
    return lambda session: kind(session, ledger, policy, clock or no_clock, spool=spool)


def _handshakes(
    roster: Roster, keys: Mapping[str, Identity], policies: Mapping[str, Policy], layouts: Mapping[str, Layout]
) -> dict[str, Handshake]:
    made = {}
    for name in roster.names:
        terms = Terms(roster.parameters, roster.sum_parameters, layouts[name], roster.options)
        proposal = roster if name == roster.names[0] else None
        made[name] = Handshake(keys[name], policies[name], terms, proposal)
    return made


def _session(handshake: Handshake) -> Session:
    if handshake.session is None:
        raise ProtocolError(f"the handshake is still {handshake.state.value}")
    return handshake.session


def _shake_hands(network: InProcessNetwork, handshakes: Mapping[str, Handshake], proposer: str) -> None:
    network.post(proposer, handshakes[proposer].start())
    network.run()
    failures = [shake.failure for shake in handshakes.values() if shake.failure is not None]
    told = [error for error in failures if "refused the roster" not in str(error)]
    if failures:
        raise (told or failures)[0]
    for name, shake in handshakes.items():
        if shake.state is not HandshakeState.OPEN:
            reason = shake.refusals[0] if shake.refusals else "messages were lost"
            raise ProtocolError(f"{name!r} is still {shake.state.value}: {reason}")


def _weight(params: CkksParams, names: Sequence[str], weights: Mapping[str, float] | None, name: str) -> float:
    if params.weights == "free":
        return 1.0
    if weights is None:
        return 1.0 / len(names)
    if set(weights) != set(names):
        raise InputError(f"weights name {sorted(weights)}, the parties are {sorted(names)}")
    return float(weights[name])


def _policy_of(policy: Policy | Mapping[str, Policy] | None, name: str, allow_two_parties: bool) -> Policy:
    own = policy if isinstance(policy, Policy) else (policy or {}).get(name, Policy())
    return replace(own, allow_two_parties=own.allow_two_parties or allow_two_parties)

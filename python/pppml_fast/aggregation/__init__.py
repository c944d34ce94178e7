"""Aggregation: sessions and protocols as state machines without I/O, behind one interface.

`open_federation` runs all parties in one process; `CollectiveParty`, `InitiatorParty`, `PlainParty` and `Relay` are
the machines that any transport can drive. Needs NumPy and ``cryptography``.
"""

from __future__ import annotations

from pppml_fast.aggregation.attempt_state import State
from pppml_fast.aggregation.attempts import AttemptId, AttemptLedger
from pppml_fast.aggregation.base import AggregateResult, AggregationCosts, Aggregator, Policy
from pppml_fast.aggregation.collective import CollectiveParty
from pppml_fast.aggregation.federation import Federation, FederationAggregator
from pppml_fast.aggregation.founding import open_federation
from pppml_fast.aggregation.handshake import Handshake, HandshakeState
from pppml_fast.aggregation.identity import Identity
from pppml_fast.aggregation.initiator import InitiatorParty
from pppml_fast.aggregation.journal import FileStore, MemoryStore, Store
from pppml_fast.aggregation.party import PartyMachine
from pppml_fast.aggregation.plain import PlainParty
from pppml_fast.aggregation.relay import Relay
from pppml_fast.aggregation.roster import Member, Roster, SessionOptions, Terms
from pppml_fast.aggregation.session import Session

__all__ = [
    "AggregateResult",
    "AggregationCosts",
    "Aggregator",
    "AttemptId",
    "AttemptLedger",
    "CollectiveParty",
    "Federation",
    "FederationAggregator",
    "FileStore",
    "Handshake",
    "HandshakeState",
    "Identity",
    "InitiatorParty",
    "Member",
    "MemoryStore",
    "PartyMachine",
    "PlainParty",
    "Policy",
    "Relay",
    "Roster",
    "Session",
    "SessionOptions",
    "State",
    "Store",
    "Terms",
    "open_federation",
]

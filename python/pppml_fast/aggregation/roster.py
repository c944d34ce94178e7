"""The roster: who sums what, under which rules. Canonical bytes, signed by every member.

Each member checks a proposed roster against its own `Terms` and its own `Policy`; nothing is taken on trust
from the proposer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pppml_fast.aggregation.base import Policy
from pppml_fast.aggregation.encoding import MAX_PARTIES, digest
from pppml_fast.aggregation.messages import PROTOCOL_VERSION
from pppml_fast.aggregation.sharing import attempt_threshold, check_threshold
from pppml_fast.errors import LayoutMismatchError, PppmlError, ProtocolError
from pppml_fast.layout import Layout, TensorSpec
from pppml_fast.params import CkksParams
from pppml_fast.privacy import PrivacyPlan, PrivacyTerms, tolerated_colluders

__all__ = ["PROTOCOLS", "Member", "Roster", "SessionOptions", "Terms", "parse_layout"]

PROTOCOLS = ("collective", "initiator", "plain")
TOPOLOGIES = ("ring", "star")
MAX_NAME = 64


@dataclass(frozen=True)
class SessionOptions:
    """The shape of a session. ``sum_check`` None means: on in a star, off in a ring; ``threshold`` None: the rule.

    ``privacy`` is the noise that every member adds to its updates in training rounds; None: none.
    """

    protocol: str = "collective"
    topology: str = "ring"
    sum_check: bool | None = None
    threshold: int | None = None
    chunk_blocks: int = 64
    privacy: PrivacyTerms | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ProtocolError(f"protocol {self.protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
        if self.topology not in TOPOLOGIES:
            raise ProtocolError(f"topology {self.topology!r} is unknown; choose one of {', '.join(TOPOLOGIES)}")
        if self.protocol == "initiator" and self.topology == "star":
            raise ProtocolError(
                "the initiator protocol needs a ring: on a star one relay would see every prefix the initiator can "
                "open; use topology='ring' or protocol='collective'"
            )
        if type(self.chunk_blocks) is not int or not 0 < self.chunk_blocks <= 1 << 16:
            raise ProtocolError(f"chunk_blocks {self.chunk_blocks!r} is out of range; choose 1..65536")
        if not isinstance(self.sum_check, bool | None) or not isinstance(self.threshold, int | None):
            raise ProtocolError(
                f"sum_check {self.sum_check!r} and threshold {self.threshold!r} must be true or false, and a whole "
                "number, or left open"
            )
        if self.privacy is not None and not isinstance(self.privacy, PrivacyTerms):
            raise ProtocolError(f"privacy = {self.privacy!r} is neither PrivacyTerms nor None")
        if self.privacy is not None and self.protocol != "collective":
            raise ProtocolError(
                f"protocol {self.protocol!r} shows partial sums with one member's noise alone; privacy terms need "
                "protocol='collective'"
            )

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> SessionOptions:
        """The options of their plain form in a roster. Raises TypeError or PppmlError on anything else."""
        privacy = values["privacy"]
        return cls(**{**values, "privacy": None if privacy is None else PrivacyTerms.from_dict(privacy)})

    @property
    def checks_sum(self) -> bool:
        """Whether the sum check runs."""
        wanted = self.topology == "star" if self.sum_check is None else self.sum_check
        return wanted and self.protocol == "collective"


@dataclass(frozen=True)
class Member:
    """One party: its name, its Ed25519 public key (hex) and its public weight (1.0 where weights are free)."""

    name: str
    identity: str
    weight: float = 1.0

    @property
    def public(self) -> bytes:
        """The 32 bytes of the public key."""
        return bytes.fromhex(self.identity)

    def check(self) -> None:
        """Raise ProtocolError unless name and identity are in the form that a roster takes."""
        if not 0 < len(self.name) <= MAX_NAME or not self.name.isprintable():
            raise ProtocolError(f"party name {self.name!r} must be 1..{MAX_NAME} printable characters")
        if len(self.identity) != 64 or not set(self.identity) <= set("0123456789abcdef"):
            raise ProtocolError(f"the identity of {self.name!r} is not 32 bytes of lower-case hex")


@dataclass(frozen=True)
class Roster:
    """Parties, parameters, quantiser, weights, layout and options of one session.

    ``parameters`` and ``sum_parameters`` are `CkksParams.to_dict()` of the training rounds and of plain sums;
    ``relay`` is a star's keyless adder, which is no member.
    """

    members: tuple[Member, ...]
    parameters: Mapping[str, Any]
    sum_parameters: Mapping[str, Any]
    layout: str
    options: SessionOptions = field(default_factory=SessionOptions)
    relay: Member | None = None
    rounding: str = "nearest"
    version: int = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        everyone = self.everyone
        if not 0 < len(self.members) <= MAX_PARTIES:
            raise ProtocolError(f"a roster of {len(self.members)} parties is out of range; the limit is {MAX_PARTIES}")
        for member in everyone:
            member.check()
        for what in ("name", "identity"):
            if len({getattr(member, what) for member in everyone}) != len(everyone):
                raise ProtocolError(f"two parties of the roster have the same {what}; each party appears once")
        if (self.relay is not None) != (self.options.topology == "star"):
            raise ProtocolError("a star roster names one relay, a ring roster none")
        if self.options.threshold is not None:
            check_threshold(self.options.threshold, len(self.members))
        if self.options.privacy is not None:
            self._check_colluders(self.options.privacy)

    def _check_colluders(self, privacy: PrivacyTerms) -> None:
        """Noise that assumes more honest members than the encryption does would be noise for nothing."""
        parties = len(self.members)
        threshold = attempt_threshold(parties, parties, self.options.threshold)
        most = tolerated_colluders(parties, threshold)
        if privacy.colluders > most:
            raise ProtocolError(
                f"privacy terms tolerate {privacy.colluders} colluders, the encryption of {parties} members with "
                f"threshold {threshold} only {most}; lower them"
            )

    @property
    def everyone(self) -> tuple[Member, ...]:
        """The members, then the relay where there is one: an index into this names a sender."""
        return self.members if self.relay is None else (*self.members, self.relay)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members, in ring order."""
        return tuple(member.name for member in self.members)

    @property
    def weights(self) -> dict[str, float]:
        """Public weight of every member."""
        return {member.name: member.weight for member in self.members}

    def index(self, name: str) -> int:
        """Index of a member or the relay. Raises ProtocolError for a stranger."""
        for index, member in enumerate(self.everyone):
            if member.name == name:
                return index
        raise ProtocolError(f"{name!r} is not in the roster; members: {', '.join(self.names)}")

    def canonical_bytes(self) -> bytes:
        """The roster as canonical JSON, the same on every machine."""
        return _canonical(asdict(self))

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the canonical bytes, 32 bytes."""
        return digest("pppml roster v1", self.canonical_bytes())

    @classmethod
    def parse(cls, data: bytes) -> Roster:
        """The roster of its canonical bytes. Raises ProtocolError on anything that is not exactly that."""
        try:
            fields = json.loads(data)
            roster = cls(
                members=tuple(_member(row) for row in fields["members"]),
                parameters=dict(fields["parameters"]),
                sum_parameters=dict(fields["sum_parameters"]),
                layout=str(fields["layout"]),
                options=SessionOptions.parse(fields["options"]),
                relay=None if fields["relay"] is None else _member(fields["relay"]),
                rounding=str(fields["rounding"]),
                version=int(fields["version"]),
            )
            canonical = roster.canonical_bytes()
        except PppmlError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise ProtocolError(f"the roster cannot be read: {type(error).__name__}: {error}") from None
        if canonical != data:
            raise ProtocolError("the roster is not in canonical form; it may have been altered")
        return roster


@dataclass(frozen=True)
class Terms:
    """What one member came to do; a roster that asks for anything else is refused.

    ``weight`` is this member's own weight, or None where it accepts the roster's.
    """

    parameters: Mapping[str, Any]
    sum_parameters: Mapping[str, Any]
    layout: Layout
    options: SessionOptions
    weight: float | None = None

    def check(self, roster: Roster, layout: bytes, me: str, identity: bytes, policy: Policy) -> None:
        """Raise ProtocolError (LayoutMismatchError for another model) unless the roster is acceptable."""
        mine = roster.everyone[roster.index(me)]
        if mine.public != identity:
            raise ProtocolError(f"the roster lists another identity for {me!r} than its own key")
        _check_layout(roster, layout, self.layout)
        for what, ours, theirs in (
            ("version", PROTOCOL_VERSION, roster.version),
            ("rounding", "nearest", roster.rounding),
            ("options", asdict(self.options), asdict(roster.options)),
            ("parameters", dict(self.parameters), dict(roster.parameters)),
            ("sum parameters", dict(self.sum_parameters), dict(roster.sum_parameters)),
        ):
            if _canonical(ours) != _canonical(theirs):
                raise ProtocolError(f"the roster's {what} are {theirs!r}, this party agreed to {ours!r}")
        if self.weight is not None and self.weight != mine.weight:
            raise ProtocolError(f"the roster gives {me!r} weight {mine.weight}, it agreed to {self.weight}")
        self._check_privacy(roster)
        check_policy(roster, policy)

    def _check_privacy(self, roster: Roster) -> None:
        """The agreed noise must fit the agreed parameters and model."""
        terms = roster.options.privacy
        if terms is None:
            return
        try:
            params = CkksParams.from_dict(dict(roster.parameters))
            PrivacyPlan.of(terms, params, parties=len(roster.members), length=self.layout.size)
        except PppmlError as error:
            raise ProtocolError(f"the roster's privacy terms do not fit: {error}") from None


def check_policy(roster: Roster, policy: Policy) -> None:
    """Raise ProtocolError when the roster breaks a member's policy: pins, size, weights."""
    if policy.pinned is not None:
        for member in roster.everyone:
            pinned = policy.pinned.get(member.name)
            if pinned is None:
                raise ProtocolError(f"party {member.name!r} is not on this party's list of pinned identities")
            if pinned != member.public:
                raise ProtocolError(f"the identity of {member.name!r} is not the pinned one; it may be a puppet")
    names = roster.names
    policy.check_live(names, len(names), roster.weights)
    total = math.fsum(roster.weights.values())
    if roster.parameters.get("weights") == "public" and not math.isclose(total, 1.0, rel_tol=1e-9):
        raise ProtocolError(f"the public weights of the roster add up to {total:.6f}, expected 1")


def parse_layout(data: bytes) -> Layout:
    """The layout of its canonical bytes. Raises ProtocolError on anything that is not exactly that."""
    try:
        rows = json.loads(data)
        layout = Layout(tuple(TensorSpec(str(n), tuple(int(k) for k in s), str(d)) for n, s, d in rows))
    except PppmlError as error:
        raise ProtocolError(f"the proposed layout is refused: {error}") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"the proposed layout cannot be read: {type(error).__name__}: {error}") from None
    if layout.canonical_bytes() != data:
        raise ProtocolError("the proposed layout is not in canonical form")
    for tensor in layout.tensors:
        if min(tensor.shape, default=0) < 0:
            raise ProtocolError(f"the proposed layout holds {tensor}; no side of a tensor is below 0")
    return layout


def _check_layout(roster: Roster, data: bytes, mine: Layout) -> None:
    if roster.layout == mine.fingerprint.hex():
        return
    theirs = parse_layout(data)
    mine.check_same(theirs, "the roster")
    raise LayoutMismatchError(
        f"the roster's layout fingerprint {roster.layout[:16]} belongs to no model it sent; "
        f"this party's is {mine.fingerprint.hex()[:16]}"
    )


def _member(row: Mapping[str, Any]) -> Member:
    weight = row["weight"]
    if not isinstance(weight, float) or not math.isfinite(weight):
        raise ProtocolError(f"weight {weight!r} of party {row['name']!r} is not a finite number")
    if set(row) != {"name", "identity", "weight"}:
        raise ProtocolError(f"a roster entry holds the fields {sorted(row)}; expected name, identity, weight")
    if not isinstance(row["name"], str) or not isinstance(row["identity"], str):
        raise ProtocolError("a roster entry's name and identity must be text")
    return Member(row["name"], row["identity"], weight)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()

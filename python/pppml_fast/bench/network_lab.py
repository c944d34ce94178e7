"""Where the parties of a network benchmark live: one network namespace each, behind links shaped to a rate.

A bridge in a namespace of its own joins the parties' virtual Ethernet pairs; a token bucket at either end of a pair
(`tc` tbf) holds what a party sends and what it receives to the rate. Needs root on Linux, `ip` and `tc`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from pppml_fast.errors import ConfigError
from pppml_fast.site.addresses import free_addresses

__all__ = ["Lab", "namespaces_refused"]

_BURST = "256kb"  # several of the kernel's largest segments, and a small part of what a second carries
_LATENCY = "40ms"  # what a queue may hold before it drops: a router's buffer
_DEVICE = "eth0"


class Lab(AbstractContextManager["Lab"]):
    """Places for ``parties``: `command` puts a program into one, `addresses` says where they listen.

    ``mbit`` None: all share one loopback device, in a namespace of their own where ``isolated``, so that its counters
    are theirs alone. Raises ConfigError where the system refuses.
    """

    def __init__(self, parties: Sequence[str], mbit: float | None, isolated: bool) -> None:
        if mbit is not None and not isolated:
            raise ConfigError("links of a given rate need network namespaces; run as root, or over loopback alone")
        self.mbit, self._isolated, self._parties = mbit, isolated, list(parties)
        self._prefix = f"pppml{os.getpid()}"
        self._made: list[str] = []

    def __enter__(self) -> Lab:
        try:
            if self.mbit is not None:
                self._build_bridge()
            elif self._isolated:
                self._namespace("shared")
        except ConfigError:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def command(self, party: str, command: Sequence[str]) -> list[str]:
        """A command line that runs ``command`` where ``party`` lives."""
        if not self._isolated:
            return list(command)
        return ["ip", "netns", "exec", self._name("shared" if self.mbit is None else party), *command]

    def addresses(self, port: int) -> dict[str, str]:
        """Where each party listens: its own host at ``port``, or one host from ``port`` on.

        Where that host is this machine's own, which others use too: at ports that nobody listens at now.
        """
        if self.mbit is not None:
            return {name: f"{_host(index)}:{port}" for index, name in enumerate(self._parties)}
        if not self._isolated:
            return dict(zip(self._parties, free_addresses(len(self._parties)), strict=True))
        return {name: f"127.0.0.1:{port + index}" for index, name in enumerate(self._parties)}

    @property
    def device(self) -> str:
        """The network device whose counters, as a party sees them, tell its traffic."""
        return "lo" if self.mbit is None else _DEVICE

    def _name(self, what: str) -> str:
        return f"{self._prefix}-{what}"

    def _namespace(self, what: str) -> str:
        name = self._name(what)
        _run("ip", "netns", "add", name)
        self._made.append(name)
        _run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def _build_bridge(self) -> None:
        hub = self._namespace("hub")
        _run("ip", "-n", hub, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", hub, "link", "set", "bridge", "up")
        for index, party in enumerate(self._parties):
            place, port = self._namespace(party), f"port{index}"
            pair = ["type", "veth", "peer", "name", port, "netns", hub]
            _run("ip", "-n", place, "link", "add", _DEVICE, *pair)
            _run("ip", "-n", place, "address", "add", f"{_host(index)}/24", "dev", _DEVICE)
            _run("ip", "-n", hub, "link", "set", port, "master", "bridge")
            for namespace, device in ((place, _DEVICE), (hub, port)):
                _run("ip", "-n", namespace, "link", "set", device, "up")
                shape = ["rate", f"{self.mbit:g}mbit", "burst", _BURST, "latency", _LATENCY]
                _run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", *shape)

    def _remove(self) -> None:
        for name in reversed(self._made):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        self._made.clear()


def namespaces_refused() -> str:
    """Why there can be no network namespaces here, in words; empty where there can."""
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} of iproute2 cannot be found"
    try:
        with Lab(["a", "b"], 1000.0, True):
            return ""
    except ConfigError as error:
        return str(error)


def _host(index: int) -> str:
    return f"10.99.0.{index + 1}"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{' '.join(command)}: {done.stderr.strip() or f'exit status {done.returncode}'}")

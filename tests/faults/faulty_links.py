"""Faults inside one process: at every message boundary of its links, and at every write to its disk.

A `Rule` says at which message or write (counted from when it is armed) what goes wrong, once. What went wrong is told
before it does, as nothing can be told after a SIGKILL.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pppml_fast.aggregation.messages import MessageType, parse_header
from pppml_fast.errors import ProtocolError
from pppml_fast.transport.base import LinkEvents, Links

__all__ = ["MUTATIONS", "Faults", "FaultyLinks", "Rule", "kind_of"]

Tell = Callable[..., None]
MUTATIONS = ("delay", "duplicate", "reorder", "truncate", "flip", "replay")
"""What happens to a message; everything else happens to the process."""
_SWAP_S = 0.5  # a message to be swapped with the next leaves after this if there is none
_SMALL = 16384


@dataclass
class Rule:
    """``action`` at the ``count``-th message of type ``kind`` ("": any) that is sent or received, or at the
    ``count``-th write ("JOURNAL", "MODEL"). ``seconds``: of a delay; ``limit``: bytes a file may have from then on."""

    action: str
    kind: str = ""
    where: str = "send"
    count: int = 1
    seconds: float = 0.0
    limit: int = 0


class Faults:
    """The rules of one process; each fires once. ``tell(event, **fields)`` hears of it first."""

    def __init__(self, tell: Tell, seed: int = 0) -> None:
        self.tell, self.random = tell, random.Random(seed)
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def arm(self, rule: Rule) -> None:
        with self._lock:
            self._rules.append(rule)

    def calm(self) -> None:
        """Nothing more goes wrong."""
        with self._lock:
            self._rules.clear()

    def due(self, where: str, kind: str) -> Rule | None:
        """The rule whose moment this is; it is gone then."""
        with self._lock:
            found = None
            for rule in list(self._rules):
                if rule.where == where and rule.kind in ("", kind):
                    rule.count -= 1
                    if rule.count <= 0 and found is None:
                        self._rules.remove(rule)
                        found = rule
            return found

    def strike(self, rule: Rule, kind: str) -> None:
        """Do to this process what the rule says."""
        self.tell("fault", kind=rule.action, point=f"{rule.where} {kind}", seconds=rule.seconds)
        if rule.action.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif rule.action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif rule.action == "disk_full":
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (rule.limit, hard))

    def around_write(self, kind: str, path: Path, write: Callable[[], None]) -> None:
        """A write to the disk, with what goes wrong at it. A full disk cuts it short."""
        rule = self.due("write", kind)
        if rule is not None and rule.action == "disk_full" and kind == "JOURNAL":
            rule.limit = path.stat().st_size + self.random.randrange(64) if path.exists() else 8
        if rule is not None and rule.action != "kill_after":
            self.strike(rule, kind)
        write()
        if rule is not None and rule.action == "kill_after":
            self.strike(rule, kind)


class FaultyLinks:
    """`Links` that do to messages what the rules say, and tell of the shares of this node, ``index`` in the roster."""

    def __init__(self, links: Links, faults: Faults, index: int) -> None:
        self._links, self._faults, self._index = links, faults, index
        self._lock = threading.RLock()
        self._held: dict[str, list[bytes]] = {}
        self._swapped: dict[str, bytes] = {}
        self._past: dict[str, deque[bytes]] = {}

    def start(self, events: LinkEvents) -> None:
        self._links.start(_Receiving(events, self._faults, self._forget))

    def room(self, peer: str) -> bool:
        return self._links.room(peer)

    def stop(self) -> None:
        self._links.stop()

    def send(self, peer: str, data: bytes) -> None:
        kind = kind_of(data)
        rule = self._faults.due("send", kind)
        if rule is not None and rule.action not in (*MUTATIONS, "kill_after"):
            self._faults.strike(rule, kind)
        self._tell_share(data)
        self._remember(peer, data)
        if rule is not None and rule.action in MUTATIONS:
            self._faults.tell("fault", kind=rule.action, point=f"send {kind} to {peer}", seconds=rule.seconds)
            self._meddle(peer, data, rule)
        else:
            self._pass(peer, data)
        if rule is not None and rule.action == "kill_after":
            self._faults.strike(rule, kind)

    def _tell_share(self, data: bytes) -> None:
        header = header_of(data)
        if header is not None and header.type is MessageType.SHARE and header.sender == self._index:
            about = {"session": header.session.hex(), "round": header.round, "attempt": header.attempt}
            self._faults.tell("share", **about, receiver=header.receiver, sha=sha256(data).hexdigest())

    def _remember(self, peer: str, data: bytes) -> None:
        if len(data) <= _SMALL or self._faults.random.random() < 0.05:
            self._past.setdefault(peer, deque(maxlen=400)).append(data)

    def _pass(self, peer: str, data: bytes) -> None:
        with self._lock:
            if peer in self._held:
                self._held[peer].append(data)
                return
            self._links.send(peer, data)
            swapped = self._swapped.pop(peer, None)
            if swapped is not None:
                self._links.send(peer, swapped)

    def _meddle(self, peer: str, data: bytes, rule: Rule) -> None:
        draw = self._faults.random
        if rule.action == "delay":
            self._hold(peer, data, rule.seconds)
        elif rule.action == "duplicate":
            self._pass(peer, data)
            self._pass(peer, data)
        elif rule.action == "reorder":
            with self._lock:
                self._swapped[peer] = data
            self._later(_SWAP_S, lambda: self._unswap(peer, data))
        elif rule.action == "truncate":
            self._pass(peer, data[: draw.randrange(len(data))])
        elif rule.action == "flip":
            at = draw.randrange(len(data))
            self._pass(peer, data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :])
        else:
            self._pass(peer, data)
            self._pass(peer, draw.choice(self._earlier(peer, data)))

    def _earlier(self, peer: str, data: bytes) -> list[bytes]:
        """What went to this peer before, of an earlier round if there is one, of the same kind if there is one."""
        past, header = list(self._past[peer]), header_of(data)
        if header is None:
            return past
        headers = [(header_of(old), old) for old in past]
        older = [old for h, old in headers if h is not None and (h.session, h.round) != (header.session, header.round)]
        same = [old for old in older if kind_of(old) == header.type.name]
        return same or older or past

    def _hold(self, peer: str, data: bytes, seconds: float) -> None:
        """This message waits, and with it all that come after it."""
        with self._lock:
            if peer in self._held:
                self._held[peer].append(data)
                return
            self._held[peer] = [data]
        self._later(seconds, lambda: self._let_go(peer))

    def _let_go(self, peer: str) -> None:
        with self._lock:
            for data in self._held.pop(peer, []):
                self._links.send(peer, data)

    def _unswap(self, peer: str, data: bytes) -> None:
        with self._lock:
            if self._swapped.get(peer) is data:
                self._links.send(peer, self._swapped.pop(peer))

    def _forget(self, peer: str) -> None:
        """The link is down: what was under way is lost."""
        with self._lock:
            self._held.pop(peer, None)
            self._swapped.pop(peer, None)

    @staticmethod
    def _later(seconds: float, action: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()


class _Receiving:
    """The node's `LinkEvents`, with faults before and after it takes a message."""

    def __init__(self, events: LinkEvents, faults: Faults, forget: Callable[[str], None]) -> None:
        self._events, self._faults, self._forget = events, faults, forget

    def on_message(self, peer: str, data: bytes) -> None:
        kind = kind_of(data)
        rule = self._faults.due("receive", kind)
        if rule is not None and rule.action != "kill_after":
            self._faults.strike(rule, kind)
        self._events.on_message(peer, data)
        if rule is not None and rule.action == "kill_after":
            self._faults.strike(rule, kind)

    def on_up(self, peer: str, incarnation: bytes) -> None:
        self._events.on_up(peer, incarnation)

    def on_down(self, peer: str) -> None:
        self._forget(peer)
        self._events.on_down(peer)

    def on_room(self, peer: str) -> None:
        self._events.on_room(peer)


def header_of(data: bytes) -> Any:
    """The header of a message; None where it has none any more."""
    try:
        return parse_header(data)[0]
    except ProtocolError:
        return None


def kind_of(data: bytes) -> str:
    """The name of a message's type."""
    header = header_of(data)
    return "" if header is None else str(header.type.name)

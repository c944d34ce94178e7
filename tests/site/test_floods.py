"""Floods over an authenticated link: the others' rounds go on, and memory stays bounded."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pppml_fast.errors import PppmlError
from pppml_fast.site import runtime as runtime_module
from pppml_fast.site.runtime import Runtime
from pppml_fast.transport.base import LinkEvents, Outgoing

MIB = 1 << 20


class Listener:
    """A node that notes what it is given."""

    ended = False
    peers = ("liar", "honest")

    def __init__(self) -> None:
        self.got: list[str] = []
        self.out: list[Outgoing] = []
        self.reasons: list[str] = []

    def receive(self, peer: str, data: bytes) -> None:
        self.got.append(peer)

    def refused(self, peer: str, error: PppmlError) -> None:
        self.reasons.append(f"{peer}: {error}")

    def tick(self, now: float) -> None:
        pass

    def pull(self, hop: str) -> Outgoing | None:
        return None

    def outgoing(self) -> list[Outgoing]:
        out, self.out = self.out, []
        return out


class FullLinks:
    """Links on which nobody takes anything."""

    def __init__(self) -> None:
        self.queued = 0
        self.full = True

    def start(self, events: LinkEvents) -> None:
        pass

    def send(self, peer: str, data: bytes) -> None:
        self.queued += len(data)

    def room(self, peer: str) -> bool:
        return not self.full

    def stop(self) -> None:
        pass


def runtime_of(node: Any, links: Any) -> Runtime:
    return Runtime(node, links)


def test_peers_take_turns() -> None:
    """A thousand messages of one wait; the other's first is second, and each one's stay in order."""
    node = Listener()
    driven = runtime_of(node, FullLinks())
    for _ in range(1000):
        driven.on_message("liar", b"x")
    for _ in range(3):
        driven.on_message("honest", b"y")
    for _ in range(8):
        action = driven._next_action()
        assert action is not None
        action()
    assert node.got == ["liar", "honest"] * 3 + ["liar"] * 2


@pytest.mark.parametrize("size", [0, 100, MIB])
def test_one_that_sends_faster_than_the_node_works_is_held_up_alone(size: int) -> None:
    driven = runtime_of(Listener(), FullLinks())
    sent = 0

    def send() -> None:
        nonlocal sent
        while not driven._stopped:
            driven.on_message("liar", bytes(size))
            sent += 1

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(0.5)
    bound = runtime_module._WAITING_LIMIT // (size + runtime_module._COST) + 2
    assert thread.is_alive()
    assert sent <= bound
    driven.on_message("honest", b"y")
    driven.stop()
    thread.join(300)
    assert not thread.is_alive()


def test_who_takes_nothing_fills_no_memory() -> None:
    """As an answer of 1 MiB to each request would, of a member that never reads."""
    node, links = Listener(), FullLinks()
    driven = runtime_of(node, links)
    for _ in range(200):
        node.out.append(Outgoing("liar", bytes(MIB)))
        driven._send()
    assert links.queued == 64 * MIB
    assert len(node.reasons) == 200 - 64 and "does not take" in node.reasons[0]
    links.full = False
    node.out.append(Outgoing("liar", bytes(MIB)))
    driven._send()
    assert links.queued == 65 * MIB


@pytest.mark.parametrize(("what", "least"), [("bulk", 10), ("small", 500), ("empty", 500)])
def test_rounds_go_on_beside_a_member_that_sends_garbage_at_line_rate(tmp_path: Path, what: str, least: int) -> None:
    """Four real members, the real coordinator, one process: nothing is abandoned, and it grows by less than 160 MiB."""
    pytest.importorskip("grpc")
    script = Path(__file__).with_name("flooded_star.py")
    run = subprocess.run(
        [sys.executable, str(script), str(tmp_path), what, str(least)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    report = json.loads(run.stdout.splitlines()[-1])
    assert report["rounds"] == [report["end"]] and report["end"] >= 6
    assert report["abandoned"] == 0
    assert report["messages"] >= least, report
    assert report["refused"] >= least // 2, report
    assert report["grew"] < 160 * MIB, report

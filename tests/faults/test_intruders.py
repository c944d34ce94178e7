"""Who knocks at a node's port while a federation of real processes trains: the rounds go on, and they are exact.

In the star the coordinator is attacked, in the ring a member. All that reaches a node beyond TLS is told in its log
once; what fails in the handshake is seen by nobody (docs/operations.md).
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import paths  # noqa: F401  (before the modules it makes importable)
import pytest

pytest.importorskip("grpc")

import grpc
from attended import WAIT_S, Attended
from intruders import PREFACE, Credentials, Door, Flood, control_flood, noise, opening, reset_flood
from real_federation import RELAY, RealFederation

from pppml_fast.site.authority import TrialAuthority
from pppml_fast.site.keys import SiteKeys

MIB = 1 << 20
PARTIES, SIZE = 4, 9000
LEAST_ROUNDS = 2
"""Rounds that all finish under each attack."""
FILES = 256
"""Files that the attacked process may open, as if there were few: half of them may be connections."""
FLOODS: tuple[Flood, ...] = (noise, control_flood, reset_flood)
MEMBER = "site3"
"""Whose credentials are stolen."""


class Attacked(Attended):
    """A federation one of whose nodes, ``name``, can be reached at a ``door``."""

    def __init__(self, folder: Path, topology: str) -> None:
        super().__init__(RealFederation(folder / "federation", PARTIES, topology, SIZE, seed=1))
        self.name = RELAY if topology == "star" else "site0"
        self.folder, self.topology = folder, topology
        keys, authority = self.federation.keys, self.federation.authority
        for node in self.federation.nodes.values():
            # As at a hospital: nothing is given up for an attack that takes the processors for a while.
            node.config |= {"timing": {"patience": 20.0, "handshake": 60.0}, "grace_s": 30.0, "keepalive_s": 30.0}
        self.node.config["files"] = FILES
        public = keys[self.name].identity.public
        self.door = Door(self.name, self.federation.ports[self.name], public, authority.certificate, folder)
        self.member = Credentials.of(keys[MEMBER])
        self.stranger = SiteKeys.create(folder / "stranger", "stranger")
        self.admitted = Credentials.issued(authority, self.stranger)

    @property
    def node(self) -> Any:
        return self.federation.nodes[self.name]

    @contextlib.contextmanager
    def unimpressed(self, *refusals: tuple[str, str], others: bool = True) -> Iterator[None]:
        """What happens inside disturbs no round: all are exact, none is abandoned, nothing grows.

        ``refusals`` are (peer, pattern of the reason) of what the node tells, once each. With ``others`` all members
        take part in every round.
        """
        self.mark()
        self.watch_memory(self.name)
        rounds = self.newest
        yield
        self.reach(rounds + LEAST_ROUNDS)
        self.check()
        assert self.grown(self.name) < 64 * MIB
        for name in self.federation.everyone:
            disturbed = self.told(name, "abandoned", "failed", "session_failed", "link_down", "died")
            assert not (others and disturbed), f"{name} is disturbed"
        told = [(line["peer"], line["reason"]) for line in self.told(self.name, "link_refused")]
        assert len(told) == len(refusals), told
        for peer, reason in refusals:
            assert sum(who == peer and re.search(reason, why) is not None for who, why in told) == 1, told
        if others:
            assert not self.told(self.name, "refused")


def attacked_in(folder: Path, topology: str) -> Iterator[Attacked]:
    found = Attacked(folder, topology)
    try:
        found.start()
        yield found
        found.finish()
    finally:
        found.federation.close()


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    yield from attacked_in(tmp_path_factory.mktemp("star"), "star")


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    yield from attacked_in(tmp_path_factory.mktemp("ring"), "ring")


@pytest.fixture(params=["star", "ring"])
def attacked(request: pytest.FixtureRequest) -> Attacked:
    found: Attacked = request.getfixturevalue(request.param)
    return found


# --- certificates ------------------------------------------------------------------------------------------------


def test_who_holds_a_good_certificate_is_answered(attacked: Attacked) -> None:
    """Else none of the following would show anything."""
    with attacked.unimpressed():
        assert attacked.door.answered(attacked.member)[3:4] == b"\4", "settings, with which HTTP/2 begins"


def test_strangers_without_a_good_certificate_hear_nothing(attacked: Attacked, tmp_path: Path) -> None:
    """None, a foreign authority's in a member's name, an expired one; nothing of it reaches the node."""
    authority = attacked.federation.authority
    foreign = TrialAuthority.create(tmp_path / "foreign")
    expired = Credentials.issued(authority, attacked.stranger, ended_days_ago=3)
    member = attacked.federation.keys[MEMBER]
    late = Credentials.issued(authority, member, ended_days_ago=1)
    with attacked.unimpressed():
        for _ in range(5):
            for credentials in (None, Credentials.issued(foreign, member), expired, late):
                assert attacked.door.answered(credentials) == b""


def test_who_is_not_in_the_roster_is_refused_and_told_once(attacked: Attacked) -> None:
    with attacked.unimpressed((r"ipv4:127.0.0.1", "its certificate has not the name of exactly one peer")):
        for name in (MEMBER, "stranger", MEMBER):
            code = attacked.door.call(attacked.admitted, [opening(name, attacked.name)])
            assert code is grpc.StatusCode.PERMISSION_DENIED


def test_a_member_that_poses_as_another_is_refused_and_told_once(attacked: Attacked) -> None:
    with attacked.unimpressed((MEMBER, f"an opening names b'site1' where the certificate says '{MEMBER}'")):
        for _ in range(5):
            code = attacked.door.call(attacked.member, [opening("site1", attacked.name)])
            assert code is grpc.StatusCode.PERMISSION_DENIED


# --- garbage -----------------------------------------------------------------------------------------------------


def test_floods_of_bytes_that_are_no_link_harm_nobody(attacked: Attacked) -> None:
    """All at once: no TLS; and below good certificates what is no HTTP/2, or HTTP/2 that keeps a server busy. Nothing
    of it reaches the node."""
    floods = [(noise, None)]
    floods += [(data, who) for data in FLOODS for who in (attacked.member, attacked.admitted)]
    with attacked.unimpressed(), ThreadPoolExecutor(len(floods)) as pool:
        sent = [pool.submit(attacked.door.flood, data, 3.0, who) for data, who in floods]
        assert all(flood.result() > 0 for flood in sent)


def test_frames_that_are_no_opening_are_refused_and_told_once(attacked: Attacked) -> None:
    with attacked.unimpressed((MEMBER, "does not begin with an opening")):
        for frames in ([b"garbage"] * 50, [bytes(2 * MIB)] * 20, [os.urandom(2 * MIB)] * 20, [b""]):
            assert attacked.door.call(attacked.member, frames) is grpc.StatusCode.PERMISSION_DENIED


def test_the_rounds_of_the_others_go_on_while_a_members_keys_send_garbage(star: Attacked) -> None:
    """The member's machine is taken over: after a good opening its link carries messages that are none, at line rate.

    The others go on without it, and with it once it is itself again. Of what came no more than 32 MiB and a message
    wait at a time; what the allocator keeps of them, connection after connection, is the rest of the bound.
    """
    others = [name for name in star.names if name != MEMBER]
    victim = star.federation.nodes[MEMBER]
    victim.order(stop=1)
    assert victim.reap(WAIT_S)
    star.mark()
    star.watch_memory(star.name)
    try:
        with Garbage(star) as garbage:
            star.wait(lambda: star.told(star.name, "refused") and garbage.sent > 512 * MIB, "no garbage comes")
            star.reach(star.newest + LEAST_ROUNDS, others)
        assert star.grown(star.name) < 256 * MIB
        assert [line for line in star.told(star.name, "refused", "link_refused") if line["peer"] != MEMBER] == []
    finally:
        victim.start()
    star.reach(star.newest + 1)
    star.check()


class Garbage:
    """A thread that sends messages which are none over the member's link, again and again, while it is entered."""

    def __init__(self, attacked: Attacked) -> None:
        self.sent = 0
        self._attacked, self._ended = attacked, threading.Event()
        self._thread = threading.Thread(target=self._flood, daemon=True)

    def __enter__(self) -> Garbage:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _flood(self) -> None:
        while not self._ended.is_set():
            self._attacked.door.call(self._attacked.member, self._frames())

    def _frames(self) -> Iterator[bytes]:
        yield opening(MEMBER, self._attacked.name)
        data = os.urandom(MIB)
        while not self._ended.is_set():
            yield data
            self.sent += len(data)


# --- connections that are held -------------------------------------------------------------------------------------


def test_connections_on_which_nothing_is_said_are_bounded_and_end(ring: Attacked) -> None:
    """More of every kind than the process may open files: silent, half a greeting, TLS and no more, no stream, no
    opening. They are let go after 10 s each; journal and models are written all the while."""
    door = ring.door
    before = ring.files(ring.name)
    with ring.unimpressed(), contextlib.ExitStack() as held:
        for number in range(FILES + 100):
            connection = held.enter_context(door.connect())
            if number % 2:
                with contextlib.suppress(OSError):  # closed already, as there are too many
                    connection.sendall(b"\x16\x03\x01\x02")
        for credentials in (ring.member, ring.admitted):
            for preface in (b"", PREFACE, PREFACE + b"\0\0\0\4\0\0\0\0\0"):
                with contextlib.suppress(OSError):
                    tls = held.enter_context(door.handshake(credentials))
                    tls.sendall(preface)
        held.enter_context(door.silent_calls(ring.member, 5))
        assert ring.files(ring.name) < FILES * 3 // 4
        ring.wait(lambda: ring.files(ring.name) <= before + 12, "connections are held for ever")
        assert door.answered(ring.member), "there is room again"

"""Links over gRPC on loopback with real certificates: what honest nodes get, and what intruders do not."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc")

import grpc
from certificates import Authority, Credentials, public_key
from proxy import Proxy
from recorder import PATIENCE_S, Recorder

from pppml_fast.errors import ConfigError, InputError
from pppml_fast.transport.grpc_links import GrpcLinks
from pppml_fast.transport.grpc_settings import METHOD, channel_options
from pppml_fast.transport.tls_names import tls_name

MIB = 1 << 20


class Field:
    """Nodes of one authority that a test starts, stopped when it ends."""

    def __init__(self) -> None:
        self.authority = Authority()
        self.stack = ExitStack()
        self.ports: dict[str, int] = {}

    def node(
        self,
        name: str,
        peers: str,
        *,
        credentials: Credentials | None = None,
        dials: dict[str, int] | None = None,
        **kw: Any,
    ) -> tuple[GrpcLinks, Recorder]:
        """A started node; ``dials`` maps peers to ports, and a node without it listens."""
        recorder = Recorder()
        pem = credentials or self.authority.issue(name)
        links = GrpcLinks(
            name,
            kw.pop("incarnation", os.urandom(16)),
            {peer: public_key(peer) for peer in peers.split()},
            key=pem.key,
            certificate=pem.certificate,
            authorities=kw.pop("authorities", pem.authorities),
            listen=None if dials else kw.pop("listen", "127.0.0.1:0"),
            addresses={peer: f"127.0.0.1:{port}" for peer, port in (dials or {}).items()},
            on_refused=recorder.on_refused,
            **kw,
        )
        links.start(recorder)
        self.stack.callback(links.stop)
        return links, recorder


@pytest.fixture
def field() -> Iterator[Field]:
    found = Field()
    with found.stack:
        yield found
    # `stop` waits for threads that may be in a node's hands for a while only; each ends all the same.
    left = [thread for thread in threading.enumerate() if thread.name.startswith(("link ", "dial ", "read "))]
    for thread in left:
        thread.join(PATIENCE_S)
    assert [thread.name for thread in left if thread.is_alive()] == []


class Hub:
    """A coordinator ``c`` with the members a and b; ``check`` sees that b still gets and gives."""

    def __init__(self, field: Field, member: dict[str, Any] | None = None, **kw: Any) -> None:
        self.links, self.heard = field.node("c", "a b", **kw)
        self.member, self.member_heard = field.node("b", "c", dials={"c": self.links.port}, **(member or {}))
        self.member_heard.wait_up("c")
        self.heard.wait_up("b")
        self._checks = 0

    def check(self) -> None:
        self._checks += 1
        self.member.send("c", b"to the hub")
        self.links.send("b", b"from the hub")
        self.heard.wait_messages("b", self._checks)
        self.member_heard.wait_messages("c", self._checks)
        assert self.heard.events.count(("down", "b")) == 0

    def wait_refused(self, reason: str) -> str:
        self.heard.wait(lambda: any(reason in found for _, found in self.heard.refused), f"nothing about {reason!r}")
        return next(who for who, found in self.heard.refused if reason in found)


# --- honest nodes ----------------------------------------------------------------------------------------------------


def test_messages_of_all_sizes_cross_both_ways_in_order(field: Field) -> None:
    hub = Hub(field)
    sizes = [0, 1, 62, 63, 64, 65, MIB, 2 * MIB, 2 * MIB + 1, 5 * MIB, 3]
    sent = [os.urandom(size) for size in sizes]
    for data in sent:
        hub.member.send("c", data)
        hub.links.send("b", data)
    assert hub.heard.wait_messages("b", len(sent)) == sent
    assert hub.member_heard.wait_messages("c", len(sent)) == sent


def test_of_two_that_listen_the_later_name_dials_and_a_ring_of_three_stands(field: Field) -> None:
    ports = [_free_port() for _ in range(3)]
    addresses = {name: f"127.0.0.1:{port}" for name, port in zip("abc", ports, strict=True)}
    heard = {}
    for name in "abc":
        pem, heard[name] = field.authority.issue(name), Recorder()
        others = {peer: public_key(peer) for peer in "abc" if peer != name}
        known = {peer: addresses[peer] for peer in others}
        links = GrpcLinks(
            name, os.urandom(16), others, **pem._asdict(), listen=addresses[name], addresses=known, grace_s=PATIENCE_S
        )
        links.start(heard[name])
        field.stack.callback(links.stop)
    for name, recorder in heard.items():
        for peer in set("abc") - {name}:
            recorder.wait_up(peer)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_room_ends_while_the_peers_node_takes_nothing(field: Field) -> None:
    hub = Hub(field, window=4 * MIB)
    hub.member_heard.gate.clear()
    sent = 0
    while hub.links.room("b"):
        hub.links.send("b", bytes(MIB))
        sent += 1
    assert sent == 4
    hub.member_heard.gate.set()
    hub.heard.wait(lambda: hub.links.room("b"), "no room again")
    assert len(hub.member_heard.wait_messages("c", sent)) == sent


def test_a_stream_that_is_cut_again_and_again_arrives_whole(field: Field) -> None:
    links, heard = field.node("c", "b")
    with Proxy(("127.0.0.1", links.port)) as proxy:
        member, member_heard = field.node("b", "c", dials={"c": proxy.port}, grace_s=PATIENCE_S)
        member_heard.wait_up("c")
        heard.wait_up("b")
        sent = [bytes((number,)) * (MIB // 2 + number) for number in range(60)]
        for number, data in enumerate(sent):
            member_heard.wait(lambda: member.room("c"), "no room")
            if number % 15 == 5:
                proxy.cut_after(MIB)
            member.send("c", data)
            links.send("b", data)
        assert heard.wait_messages("b", len(sent)) == sent
        assert member_heard.wait_messages("c", len(sent)) == sent
        assert proxy.cuts >= 3
        assert heard.events == [("up", "b")] and member_heard.events == [("up", "c")]
        member.stop()


def test_a_partition_beyond_the_grace_time_is_a_loss_at_both_ends_and_then_heals(field: Field) -> None:
    links, heard = field.node("c", "b", grace_s=0.2)
    with Proxy(("127.0.0.1", links.port)) as proxy:
        member, member_heard = field.node("b", "c", dials={"c": proxy.port}, grace_s=0.2)
        member_heard.wait_up("c")
        heard.wait_up("b")
        proxy.refuse()
        for recorder, peer in ((heard, "b"), (member_heard, "c")):
            recorder.wait(lambda r=recorder, p=peer: ("down", p) in r.events, "not down")  # type: ignore[misc]
        assert not member.room("c")
        member.send("c", b"dropped")
        proxy.refuse(False)
        member_heard.wait_up("c", 2)
        heard.wait_up("b", 2)
        member.send("c", b"after")
        assert heard.wait_messages("b", 1) == [b"after"]
        member.stop()


def test_a_restarted_member_is_down_then_up_with_its_new_incarnation(field: Field) -> None:
    hub = Hub(field, grace_s=PATIENCE_S)
    hub.member.stop()
    field.node("b", "c", dials={"c": hub.links.port}, incarnation=b"n" * 16)
    hub.heard.wait_up("b", 2)
    assert hub.heard.events == [("up", "b"), ("down", "b"), ("up", "b")]
    assert hub.heard.incarnations[-1] == b"n" * 16


def test_a_coordinator_that_comes_back_on_its_port_is_found_again(field: Field) -> None:
    hub = Hub(field)
    address = f"127.0.0.1:{hub.links.port}"
    hub.links.stop()
    field.node("c", "a b", listen=address, incarnation=b"n" * 16)
    hub.member_heard.wait_up("c", 2)
    assert hub.member_heard.incarnations[-1] == b"n" * 16


def test_what_was_sent_before_stop_is_taken(field: Field) -> None:
    hub = Hub(field, member={"linger_s": PATIENCE_S})
    hub.member.send("c", b"goodbye")
    hub.member.stop()
    assert hub.heard.messages["b"] == [b"goodbye"]


def test_a_newer_connection_of_a_peer_replaces_the_older(field: Field) -> None:
    hub = Hub(field)
    field.node("b", "c", dials={"c": hub.links.port}, incarnation=b"n" * 16)
    hub.heard.wait(lambda: b"n" * 16 in hub.heard.incarnations, "the newer did not come up")


MEMBER = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from certificates import public_key
from recorder import Recorder
from pppml_fast.transport.grpc_links import GrpcLinks
pem = dict(zip(("key", "certificate", "authorities"), sys.stdin.read().split("|"), strict=True))
pem = {name: text.encode() for name, text in pem.items()}
links = GrpcLinks("b", b"b" * 16, {"c": public_key("c")}, **pem, addresses={"c": sys.argv[2]}, grace_s=0.2)
links.start(Recorder())
threading.Event().wait()
"""


def test_a_peer_that_hangs_is_found_by_its_silence_and_heard_again_when_it_goes_on(field: Field) -> None:
    links, heard = field.node("c", "b", keepalive_s=0.3, grace_s=0.2)
    command = [sys.executable, "-c", MEMBER, str(Path(__file__).parent), f"127.0.0.1:{links.port}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(b"|".join(field.authority.issue("b")))
            process.stdin.close()
            heard.wait_up("b")
            process.send_signal(signal.SIGSTOP)
            heard.wait(lambda: ("down", "b") in heard.events, "the silence was not noticed")
            process.send_signal(signal.SIGCONT)
            heard.wait_up("b", 2)
        finally:
            process.kill()


FORGETFUL = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from certificates import Authority, public_key
from recorder import Recorder
from pppml_fast.transport.grpc_links import GrpcLinks
authority, heard = Authority(), [Recorder(), Recorder()]
hub = GrpcLinks("c", b"c" * 16, {"b": public_key("b")}, **authority.issue("c")._asdict(), listen="127.0.0.1:0")
hub.start(heard[0])
known = {"c": f"127.0.0.1:{hub.port}"}
member = GrpcLinks("b", b"b" * 16, {"c": public_key("c")}, **authority.issue("b")._asdict(), addresses=known)
member.start(heard[1])
heard[0].wait_up("b")
heard[1].wait_up("c")
print("ends", flush=True)
"""


def test_a_process_that_ends_without_stopping_its_links_does_end_and_quietly() -> None:
    command = [sys.executable, "-c", FORGETFUL, str(Path(__file__).parent)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "ends\n", "")


# --- intruders -------------------------------------------------------------------------------------------------------


def test_strangers_are_refused_in_the_handshake_and_learn_it_and_the_hub_goes_on(field: Field) -> None:
    hub = Hub(field)
    expired = field.authority.issue("a", first_day=-5, last_day=-1)
    foreign = Authority().issue("a")
    for credentials in (expired, foreign):
        _, heard = field.node(
            "a", "c", dials={"c": hub.links.port}, credentials=credentials, authorities=field.authority.pem
        )
        heard.wait(lambda h=heard: len(h.refused) > 0, "the intruder was told nothing")  # type: ignore[misc]
        assert heard.events == []
        hub.check()
    assert ("up", "a") not in hub.heard.events


def test_a_client_without_a_certificate_gets_nowhere(field: Field) -> None:
    hub = Hub(field)
    credentials = grpc.ssl_channel_credentials(field.authority.pem)
    options = channel_options(tls_name(public_key("c")), 10)
    with grpc.secure_channel(f"127.0.0.1:{hub.links.port}", credentials, options=options) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            next(channel.stream_stream(METHOD)(iter([b"hello"]), timeout=PATIENCE_S))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    hub.check()
    assert hub.heard.refused == []


def test_a_member_that_is_not_in_the_roster_is_refused_once(field: Field) -> None:
    hub = Hub(field)
    _, heard = field.node("x", "c", dials={"c": hub.links.port})
    assert hub.wait_refused("not the name of exactly one peer").startswith("ipv4:127.0.0.1")
    heard.wait(lambda: heard.refused == [("c", "refused")], "the stranger was not told")
    hub.check()
    assert len(hub.heard.refused) == 1


def test_a_member_that_gives_itself_out_as_another_is_refused(field: Field) -> None:
    hub = Hub(field)
    field.node("b", "c", dials={"c": hub.links.port}, credentials=field.authority.issue("a"))
    assert hub.wait_refused("an opening names b'b' where the certificate says 'a'") == "a"
    hub.check()
    assert ("up", "a") not in hub.heard.events


def test_a_coordinator_with_another_members_certificate_is_refused_by_the_member(field: Field) -> None:
    links, _ = field.node("c", "a", credentials=field.authority.issue("b"))
    _, heard = field.node("a", "c", dials={"c": links.port})
    heard.wait(lambda: len(heard.refused) > 0, "nothing was refused")
    assert heard.refused[0][0] == "c" and heard.refused[0][1].startswith("TLS: ")
    assert heard.events == []


@pytest.mark.parametrize("frames", [[b"garbage"] * 50, [bytes(2 * MIB)] * 50, [b""], []])
def test_garbage_of_a_member_is_refused_and_the_others_go_on(field: Field, frames: list[bytes]) -> None:
    hub = Hub(field)
    pem = field.authority.issue("a")
    credentials = grpc.ssl_channel_credentials(pem.authorities, pem.key, pem.certificate)
    options = channel_options(tls_name(public_key("c")), 10)
    for _ in range(5):
        with grpc.secure_channel(f"127.0.0.1:{hub.links.port}", credentials, options=options) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                next(channel.stream_stream(METHOD)(iter(frames), timeout=PATIENCE_S))
            assert refused.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)
        hub.check()
    assert len(hub.heard.refused) <= 1, "the same is told once"


def test_bytes_that_are_no_tls_at_line_rate_harm_nobody(field: Field) -> None:
    hub = Hub(field)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", hub.links.port)) as raw:
            try:
                raw.sendall(os.urandom(MIB))
            except OSError:
                continue  # closed in its face
    hub.check()


def test_many_silent_connections_leave_room_for_members(field: Field) -> None:
    hub = Hub(field)
    with ExitStack() as idle:
        for _ in range(200):
            idle.enter_context(socket.create_connection(("127.0.0.1", hub.links.port)))
        hub.check()
        field.node("a", "c", dials={"c": hub.links.port})
        hub.heard.wait_up("a")


def test_a_member_that_opens_many_streams_holds_no_more_than_its_share(field: Field) -> None:
    hub = Hub(field)
    pem = field.authority.issue("a")
    credentials = grpc.ssl_channel_credentials(pem.authorities, pem.key, pem.certificate)
    options = channel_options(tls_name(public_key("c")), 10)
    silent = threading.Event()
    refused = threading.Semaphore(0)

    def nothing() -> Iterator[bytes]:
        silent.wait(PATIENCE_S)
        yield from ()

    with ExitStack() as channels:
        channels.callback(silent.set)
        for _ in range(30):
            target = f"127.0.0.1:{hub.links.port}"
            channel = channels.enter_context(grpc.secure_channel(target, credentials, options=options))
            call = channel.stream_stream(METHOD)(nothing())
            call.add_done_callback(lambda call: refused.release())
        for _ in range(28):
            assert refused.acquire(timeout=PATIENCE_S)
        hub.check()


# --- settings --------------------------------------------------------------------------------------------------------


def test_a_node_that_nobody_can_reach_is_not_built(field: Field) -> None:
    with pytest.raises(ConfigError, match="a neither listens nor knows an address of c"):
        GrpcLinks("a", bytes(16), {"c": bytes(32)}, **field.authority.issue("a")._asdict())


def test_an_address_that_is_taken_is_named(field: Field) -> None:
    links, _ = field.node("c", "a")
    second = GrpcLinks(
        "c", bytes(16), {"a": bytes(32)}, **field.authority.issue("c")._asdict(), listen=f"127.0.0.1:{links.port}"
    )
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{links.port}"):
        second.start(Recorder())
    second.stop()


def test_a_stranger_is_no_destination(field: Field) -> None:
    links, _ = field.node("c", "a")
    with pytest.raises(InputError, match="x is no peer of this node; there are a"):
        links.send("x", b"")


def test_old_tls_is_refused(field: Field, tmp_path: Path) -> None:
    hub, pem = Hub(field), field.authority.issue("a")
    for name, data in pem._asdict().items():
        (tmp_path / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(tmp_path / "authorities")
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", hub.links.port)) as raw, pytest.raises(OSError):
        context.wrap_socket(raw)
    hub.check()

"""The link protocol alone: exactly once and in order through every interleaving, and nothing believed that is wrong."""

from __future__ import annotations

import random
from collections import deque
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pppml_fast.errors import InputError, ProtocolError
from pppml_fast.transport.link import SMALL, Down, Link, Message, Room, Up

WINDOW, LIMIT, FRAGMENT = 700, 1500, 200
A, B = b"a" * 16, b"b" * 16
LENGTHS = (8, 62, 63, 64, 65, 66, FRAGMENT, FRAGMENT + 1, FRAGMENT + SMALL, FRAGMENT + SMALL + 1, 3 * FRAGMENT, LIMIT)


def link(name: str, incarnation: bytes) -> Link:
    peer = {"a": "b", "b": "a"}[name]
    return Link(name, peer, incarnation, accepts=name == "a", window=WINDOW, limit=LIMIT, fragment=FRAGMENT)


class Wire:
    """One connection: what either end wrote and the other has not read, and how each end numbers it."""

    def __init__(self, dialler: Link) -> None:
        self.numbers = {"b": dialler.connect()}
        self.under_way: dict[str, deque[bytes]] = {"a": deque(), "b": deque()}  # by sender

    def write(self, end: Link) -> bool:
        number = self.numbers.get(end.name)
        frame = None if number is None else end.next_frame(number)
        if frame is None:
            return False
        assert len(frame) <= FRAGMENT + SMALL
        self.under_way[end.name].append(frame)
        return True

    def read(self, end: Link) -> bool:
        arriving = self.under_way[end.peer]
        if not arriving:
            return False
        frame = arriving.popleft()
        if end.name == "a" and "a" not in self.numbers:
            self.numbers["a"] = end.accept(frame)
            return True
        end.receive(self.numbers[end.name], frame)
        return True


class Pair:
    """Two ends, and the connection that was made last."""

    def __init__(self) -> None:
        self.ends = {"a": link("a", A), "b": link("b", B)}
        self.wire = Wire(self.ends["b"])
        self.heard: dict[str, list[Up | Down | Room | Message]] = {"a": [], "b": []}

    def dial(self) -> None:
        self.wire = Wire(self.ends["b"])

    def move(self) -> bool:
        """One frame each way, written and read."""
        wrote = [self.wire.write(end) for end in self.ends.values()]
        return any([*wrote, *(self.wire.read(end) for end in self.ends.values())])

    def hear(self) -> None:
        for name, end in self.ends.items():
            while (happened := end.take()) is not None:
                self.heard[name].append(happened)
                if isinstance(happened, Message):
                    end.taken(happened)

    def settle(self) -> None:
        while self.move():
            self.hear()
        self.hear()
        if self.move():
            self.settle()

    def messages(self, name: str) -> list[bytes]:
        return [happened.data for happened in self.heard[name] if isinstance(happened, Message)]


@pytest.fixture
def pair() -> Pair:
    found = Pair()
    found.settle()
    return found


# --- the quiet way ---------------------------------------------------------------------------------------------------


def test_both_ends_come_up_and_learn_the_other_incarnation(pair: Pair) -> None:
    assert pair.heard == {"a": [Up(B)], "b": [Up(A)]}
    assert pair.ends["a"].room() and pair.ends["b"].room()


@pytest.mark.parametrize("length", [0, 1, *LENGTHS])
def test_a_message_of_any_length_arrives(pair: Pair, length: int) -> None:
    data = random.Random(length).randbytes(length)
    for end in pair.ends.values():
        end.send(data)
    pair.settle()
    assert pair.messages("a") == pair.messages("b") == [data]


def test_a_message_of_one_frame_is_not_copied(pair: Pair) -> None:
    data = bytes(FRAGMENT)
    pair.ends["a"].send(data)
    pair.settle()
    assert pair.messages("b")[0] is data


def test_too_long_a_message_is_refused_before_it_is_queued(pair: Pair) -> None:
    with pytest.raises(InputError, match="1501 bytes is above the link's limit of 1500"):
        pair.ends["a"].send(bytes(LIMIT + 1))
    assert pair.ends["a"].flush()


def test_what_is_sent_before_the_node_knows_of_the_session_is_dropped() -> None:
    pair = Pair()
    pair.ends["a"].send(b"early")
    pair.settle()
    assert pair.messages("b") == []


def test_room_ends_at_the_window_and_is_announced_when_the_peer_took_enough(pair: Pair) -> None:
    sender = pair.ends["a"]
    sent = 0
    while sender.room():
        sender.send(bytes(100))
        sent += 1
    assert sent == -(-WINDOW // 164)
    while pair.move():
        pass
    assert not sender.room(), "the peer's node took nothing yet"
    pair.settle()
    assert sender.room() and pair.heard["a"].count(Room()) == 1


def test_a_peer_whose_node_takes_nothing_is_sent_no_more_than_window_and_one_message(pair: Pair) -> None:
    for _ in range(50):
        pair.ends["a"].send(bytes(FRAGMENT))
    moved = 0
    while pair.move():
        moved += 1
    assert moved * FRAGMENT < WINDOW + FRAGMENT


def test_flush_asks_for_the_last_acknowledgement(pair: Pair) -> None:
    sender = pair.ends["b"]
    sender.send(b"few bytes")
    pair.settle()
    assert not sender.flush(), "so few bytes are not acknowledged unasked"
    pair.settle()
    assert sender.flush()


# --- breaks ----------------------------------------------------------------------------------------------------------


def test_a_message_cut_in_its_middle_is_sent_again_whole(pair: Pair) -> None:
    data = random.Random(1).randbytes(LIMIT)
    pair.ends["a"].send(data)
    for _ in range(3):
        pair.move()
    pair.dial()
    pair.settle()
    assert pair.messages("b") == [data]
    assert pair.heard["b"].count(Up(A)) == 1


def test_messages_written_into_a_broken_connection_are_sent_again_in_order(pair: Pair) -> None:
    sent = [bytes((number,)) * 70 for number in range(5)]
    for data in sent:
        pair.ends["a"].send(data)
    while pair.wire.write(pair.ends["a"]):
        pass
    pair.wire.read(pair.ends["b"])
    pair.dial()
    pair.settle()
    assert pair.messages("b") == sent


def test_what_the_peer_received_is_not_sent_again_although_it_was_not_acknowledged(pair: Pair) -> None:
    pair.ends["a"].send(b"one")
    while pair.move():
        pass
    pair.dial()
    pair.settle()
    assert pair.messages("b") == [b"one"]


def test_a_restarted_peer_goes_down_then_up_and_gets_nothing_of_before(pair: Pair) -> None:
    pair.ends["a"].send(b"for the one before")
    pair.ends["b"] = link("b", b"B" * 16)
    pair.dial()
    pair.settle()
    assert pair.heard["a"][1:] == [Down(), Up(b"B" * 16)]
    assert pair.messages("b") == []
    pair.ends["a"].send(b"for this one")
    pair.settle()
    assert pair.messages("b") == [b"for this one"]


@pytest.mark.parametrize("who", ["a", "b"])
def test_both_ends_leave_a_session_that_one_gave_up(pair: Pair, who: str) -> None:
    pair.ends[who].send(b"lost")
    pair.ends[who].leave()
    pair.dial()
    pair.settle()
    for name, incarnation in (("a", B), ("b", A)):
        assert pair.heard[name][1:] == [Down(), Up(incarnation)]
    assert pair.messages("a") == pair.messages("b") == []


def test_a_node_that_was_told_of_a_session_sends_nothing_into_the_next_unawares(pair: Pair) -> None:
    pair.ends["b"] = link("b", b"B" * 16)
    pair.dial()
    while pair.move():
        pass
    assert not pair.ends["a"].room()
    pair.ends["a"].send(b"for the one before")
    pair.settle()
    assert pair.messages("b") == []


def test_frames_of_a_replaced_connection_count_no_more(pair: Pair) -> None:
    old = pair.wire
    pair.ends["b"].send(b"again")
    old.write(pair.ends["b"])
    pair.dial()
    while pair.move():
        pass
    assert not pair.ends["a"].receive(old.numbers["a"], b"\xff")
    pair.settle()
    assert pair.messages("a") == [b"again"]


# --- lies ------------------------------------------------------------------------------------------------------------


def number(kind: int, value: int) -> bytes:
    return bytes((kind,)) + value.to_bytes(8, "big")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([b""], "kind 0"),
        ([b"\x07"], "kind 7"),
        ([b"\x03"], "kind 3"),
        ([bytes(FRAGMENT + 1)], "the limit is 200"),
        ([number(3, 1)], "acknowledged 1 messages; between 0 and 0"),
        ([number(2, LIMIT + 1)], "1501 bytes; the limit is 1500"),
        ([number(2, 1 << 63)], "the limit is 1500"),
        ([number(2, FRAGMENT)], "fit in one frame"),
        ([number(2, 500), bytes(100)], "100 bytes where a fragment of 200 was due"),
        ([number(2, 500), b"\x01short"], "where a fragment of 200 was due"),
        ([number(2, 500), number(2, 500)], "where a fragment of 200 was due"),
        ([bytes(FRAGMENT)] * 4, "beyond the window of 700 bytes"),
        ([b"\x01"] * 20, "beyond the window of 700 bytes"),
    ],
)
def test_frames_no_honest_peer_sends_are_refused(pair: Pair, frames: list[bytes], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        for frame in frames:
            pair.ends["a"].receive(pair.wire.numbers["a"], frame)
    if "window" in message:
        pair.ends["b"].leave()  # the ends differ in what was received: they agree again when the grace time is over
    pair.dial()
    pair.settle()
    pair.ends["b"].send(b"still there")
    pair.settle()
    assert pair.messages("a")[-1] == b"still there"


def opening(
    name: str = "b", incarnation: bytes = B, window: int = 9, session: bytes = bytes(24), count: int = 0
) -> bytes:
    text = name.encode()
    numbers = window.to_bytes(8, "big") + session + count.to_bytes(8, "big")
    return b"pppmlL01" + incarnation + numbers + bytes((len(text),)) + text


def test_openings_of_the_right_form_are_taken_and_all_others_leave_the_link_as_it_was(pair: Pair) -> None:
    end, session = pair.ends["a"], A + (1).to_bytes(8, "big")
    wrong = {
        "does not begin with an opening": [b"", b"\x00" * 80, opening()[:40], b"pppmlL02" + opening()[8:]],
        "where the certificate says 'b'": [opening("c"), opening() + b"x", opening()[:-1]],
        "a window of 0 bytes": [opening(window=0)],
        "another incarnation": [opening(session=session, incarnation=b"c" * 16)],
        "received 5 messages, not 0 to 0": [opening(session=session, count=5)],
    }
    for message, frames in wrong.items():
        for frame in frames:
            with pytest.raises(ProtocolError, match=message):
                end.accept(frame)
    pair.ends["b"].send(b"as it was")
    pair.settle()
    assert pair.messages("a") == [b"as it was"]
    assert end.accept(opening(session=session)) == end.connection


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (opening("a", A), "without a session"),
        (opening("a", A, session=b"s" * 24, count=1), "received 1 messages in a session that begins"),
        (opening("b", A, session=b"s" * 24), "certificate says 'a'"),
        (b"\x01hello", "does not begin with an opening"),
    ],
)
def test_a_wrong_answer_to_an_opening_is_refused(answer: bytes, message: str) -> None:
    end = link("b", B)
    connection = end.connect()
    with pytest.raises(ProtocolError, match=message):
        end.receive(connection, answer)


@pytest.mark.parametrize("settings_", [{"window": 0}, {"limit": 0}, {"fragment": SMALL}])
def test_a_link_is_not_built_with_settings_that_cannot_work(settings_: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must be positive"):
        Link("a", "b", A, accepts=True, **settings_)
    with pytest.raises(InputError, match="16 random bytes, not 3"):
        Link("a", "b", b"abc", accepts=True)


# --- every interleaving ----------------------------------------------------------------------------------------------


class Era(NamedTuple):
    """A time a node heard its link up: the life it was in, and how often it had come up in that life."""

    life: int
    ups: int


class Interleavings(RuleBasedStateMachine):
    """Frames, breaks that one end notices late, reconnects, late connections, lost sessions and restarts, at random.

    Every message carries its sender's era and its number within it; whatever happens, what a node hears in one era must
    be the first messages of one era of its peer, in order, each once; when all is quiet, all of them.
    """

    @initialize()
    def begin(self) -> None:
        self.ends = {"a": link("a", A), "b": link("b", B)}
        self.lives = {"a": 0, "b": 0}
        self.ups = {"a": 0, "b": 0}
        self.is_up = {"a": False, "b": False}
        self.sent: dict[str, int] = {"a": 0, "b": 0}  # in the sender's era
        self.heard: dict[str, list[bytes]] = {"a": [], "b": []}  # in the receiver's era
        self.wires = [Wire(self.ends["b"])]
        self.run(3, True)

    def era(self, name: str) -> Era:
        return Era(self.lives[name], self.ups[name])

    names = st.sampled_from(["a", "b"])

    @rule(name=names, lengths=st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=6))
    def send(self, name: str, lengths: list[int]) -> None:
        for length in lengths:
            self.send_one(name, length)

    def send_one(self, name: str, length: int) -> None:
        if not self.is_up[name]:
            return
        end = self.ends[name]
        head = bytes((*self.era(name), self.sent[name] >> 8, self.sent[name] & 255))
        if self.would_keep(end):
            self.sent[name] += 1
        end.send(head.ljust(length, name.encode()))

    @staticmethod
    def would_keep(end: Link) -> bool:
        """Whether the node's view is the link's: what is sent between a session's end and its being told is dropped."""
        before = end._outstanding
        end.send(b"")
        kept = end._outstanding > before
        if kept:  # take the probe back
            end._unsent.pop()
            end._outstanding = before
        return kept

    @rule(steps=st.lists(st.sampled_from(["write a", "write b", "read a", "read b", "hear a", "hear b"]), max_size=40))
    def flow(self, steps: list[str]) -> None:
        """The newest connection carries frames, both ends doing a little at a time."""
        for step in steps:
            what, name = step.split()
            if what == "write":
                self.wires[-1].write(self.ends[name])
            elif what == "read":
                self.read_one(self.wires[-1], name)
            else:
                self.hear_one(name)

    @rule(rounds=st.integers(1, 12), hears=st.booleans())
    def run(self, rounds: int, hears: bool) -> None:
        """The same in step, with nodes that listen or do not."""
        for _ in range(rounds):
            self.flow(["write a", "write b", "read a", "read b", *(["hear a", "hear b"] if hears else [])])

    @rule(name=names, frames=st.integers(1, 6))
    def write(self, name: str, frames: int) -> None:
        for _ in range(frames):
            self.wires[-1].write(self.ends[name])

    @rule(name=names, frames=st.integers(1, 6), which=st.integers(0, 3))
    def read(self, name: str, frames: int, which: int) -> None:
        wire = self.wires[-1 - min(which // 2, len(self.wires) - 1)]  # mostly the newest, sometimes the one before
        for _ in range(frames):
            self.read_one(wire, name)

    def read_one(self, wire: Wire, name: str) -> bool:
        try:
            return wire.read(self.ends[name])
        except ProtocolError:
            assert wire is not self.wires[-1], "the newest connection carries nothing wrong"
            wire.under_way = {"a": deque(), "b": deque()}
            return False

    @rule(name=names, count=st.integers(1, 5))
    def hear(self, name: str, count: int) -> None:
        for _ in range(count):
            self.hear_one(name)

    def hear_one(self, name: str) -> bool:
        end = self.ends[name]
        happened = end.take()
        if isinstance(happened, Up):
            assert not self.is_up[name]
            self.is_up[name], self.sent[name], self.heard[name] = True, 0, []
            self.ups[name] += 1
        elif isinstance(happened, Down):
            assert self.is_up[name]
            self.is_up[name] = False
        elif isinstance(happened, Message):
            assert self.is_up[name]
            self.heard[name].append(happened.data)
            end.taken(happened)
        return happened is not None

    @rule(stands=st.booleans())
    def dial(self, stands: bool = True) -> None:
        """A new connection; the ends need not have noticed that the last one is gone, and its frames may come late."""
        self.wires = [*self.wires[-1:], Wire(self.ends["b"])]
        if stands:
            self.flow(["write b", "read a", "write a", "read b"])

    @rule(name=names)
    def notice(self, name: str) -> None:
        number = self.wires[-1].numbers.get(name)
        if number is not None:
            self.ends[name].disconnect(number)
            self.wires[-1].under_way[name].clear()

    @rule(name=names, keep=st.integers(0, 2))
    def cut(self, name: str, keep: int) -> None:
        """The connection breaks after ``keep`` more frames of one direction."""
        arriving = self.wires[-1].under_way[name]
        while len(arriving) > keep:
            arriving.pop()
        self.dial()

    @rule(name=names, count=st.integers(2, 8), written=st.integers(0, 8), arrived=st.integers(0, 8))
    def burst(self, name: str, count: int, written: int, arrived: int) -> None:
        """Several messages, of which some are written and fewer arrive before the connection breaks."""
        self.send(name, [8] * count)
        self.write(name, written + 1)
        for _ in range(min(arrived, written)):
            self.read_one(self.wires[-1], "a" if name == "b" else "b")
        self.dial(stands=True)
        self.run(2, True)

    @precondition(lambda self: sum(self.lives.values()) < 6)
    @rule(name=names)
    def leave(self, name: str) -> None:
        self.ends[name].leave()
        self.dial()

    @precondition(lambda self: sum(self.lives.values()) < 4)
    @rule(name=names)
    def restart(self, name: str) -> None:
        self.lives[name] += 1
        self.ends[name] = link(name, name.encode() * 15 + bytes((self.lives[name],)))
        self.is_up[name] = False
        self.ups[name] = 0
        self.wires = [Wire(self.ends["b"])]

    @invariant()
    def exactly_once_and_in_order(self) -> None:
        if not hasattr(self, "ends"):
            return
        for name in self.ends:
            heard = self.heard[name]
            assert len({data[:2] for data in heard}) <= 1, "messages of one era of the peer"
            assert [int.from_bytes(data[2:4], "big") for data in heard] == list(range(len(heard)))
            assert self.ends[name]._held <= WINDOW + LIMIT + 64

    def teardown(self) -> None:
        """All heals: a connection that lasts, and nodes that listen."""
        if not hasattr(self, "ends"):
            return
        self.wires = [Wire(self.ends["b"])]
        moved = True
        while moved:
            moved = False
            for name, end in self.ends.items():
                moved |= self.wires[0].write(end)
                moved |= self.read_one(self.wires[0], name)
                moved |= self.hear_one(name)
        for name, peer in (("a", "b"), ("b", "a")):
            assert self.is_up[name]
            assert len(self.heard[name]) == self.sent[peer]
            assert {data[:2] for data in self.heard[name]} <= {bytes(self.era(peer))}


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=200, stateful_step_count=30)

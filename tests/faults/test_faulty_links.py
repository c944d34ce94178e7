"""Messages are meddled with as the rules say, once, and all others pass."""

from __future__ import annotations

import time
from typing import Any

import pytest
from faulty_links import Faults, FaultyLinks, Rule

from pppml_fast.aggregation.messages import Header, MessageType

PEER = "site1"


class Wire:
    """`Links` that keep what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.events: Any = None

    def start(self, events: Any) -> None:
        self.events = events

    def send(self, peer: str, data: bytes) -> None:
        self.sent.append(data)

    def room(self, peer: str) -> bool:
        return True

    def stop(self) -> None:
        pass


def message(sequence: int, kind: MessageType = MessageType.DEAL, round_: int = 0) -> bytes:
    return Header(kind, bytes(32), round_, 0, 0, 1, sequence).encode(20) + bytes(20)


def make(rule: Rule) -> tuple[Wire, FaultyLinks, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    faults = Faults(lambda what, **fields: told.append({"what": what, **fields}), seed=1)
    wire = Wire()
    links = FaultyLinks(wire, faults, 0)
    faults.arm(rule)
    return wire, links, told


def test_a_rule_waits_for_its_message_and_strikes_once() -> None:
    wire, links, told = make(Rule("duplicate", "DEAL", count=2))
    sent = [message(0), message(1, MessageType.STATEMENT), message(2), message(3)]
    for data in sent:
        links.send(PEER, data)
    assert wire.sent == [sent[0], sent[1], sent[2], sent[2], sent[3]]
    assert [line["kind"] for line in told] == ["duplicate"]


def test_reordered_is_swapped_with_the_next() -> None:
    wire, links, _ = make(Rule("reorder", "DEAL"))
    for sequence in range(3):
        links.send(PEER, message(sequence))
    assert wire.sent == [message(1), message(0), message(2)]


@pytest.mark.parametrize("action", ["flip", "truncate"])
def test_altered_is_one_message_and_the_next_is_whole(action: str) -> None:
    wire, links, _ = make(Rule(action, "DEAL"))
    links.send(PEER, message(0))
    links.send(PEER, message(1))
    assert wire.sent[0] != message(0)
    assert wire.sent[1] == message(1)
    if action == "flip":
        pairs = zip(wire.sent[0], message(0), strict=True)
        assert sum((one ^ two).bit_count() for one, two in pairs) == 1
    else:
        assert message(0).startswith(wire.sent[0])


def test_replayed_comes_from_an_earlier_round() -> None:
    wire, links, _ = make(Rule("replay", "DEAL", count=3))
    for sequence, round_ in enumerate((0, 1, 1)):
        links.send(PEER, message(sequence, round_=round_))
    assert wire.sent[3] == message(0)


def test_a_delay_keeps_the_order_and_a_link_that_goes_down_drops_what_waits() -> None:
    wire, links, _ = make(Rule("delay", "DEAL", seconds=0.1))
    links.send(PEER, message(0))
    links.send(PEER, message(1))
    assert wire.sent == []
    deadline = time.monotonic() + 10
    while len(wire.sent) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert wire.sent == [message(0), message(1)]


def test_own_shares_are_told_and_those_passed_on_are_not() -> None:
    wire, links, told = make(Rule("flip", "CHUNK"))
    links.send(PEER, message(0, MessageType.SHARE))
    passed_on = Header(MessageType.SHARE, bytes(32), 0, 0, 2, 1, 0).encode(20) + bytes(20)
    links.send(PEER, passed_on)
    assert len(wire.sent) == 2
    assert [(line["what"], line["receiver"]) for line in told] == [("share", 1)]

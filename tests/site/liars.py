"""Nodes of a simulation that lie: what they sign, seal or say is changed before it leaves, with their own keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from simulation import Simulation

from pppml_fast.aggregation.messages import SIGNED, Frame, Header, MessageType, parse_frame, parse_header
from pppml_fast.aggregation.session import CONTROL, Gate
from pppml_fast.site.events import Event, EventKind

Lie = Callable[[Gate, int, MessageType, bytes], bytes]


def lie_in(monkeypatch: pytest.MonkeyPatch, sim: Simulation, liar: str, lie: Lie, until: float = float("inf")) -> None:
    """Let ``lie(gate, receiver, type, body)`` give the bodies that a node signs and seals, until a time."""
    sign, seal = Gate.sign, Gate.seal

    def changed(gate: Gate, receiver: int, type_: MessageType, body: bytes) -> bytes:
        if gate._session.identity.name != liar or sim.now >= until:
            return body
        return lie(gate, receiver, type_, bytes(body))

    def false_sign(self: Gate, receiver: int, type_: MessageType, body: bytes) -> bytes:
        return sign(self, receiver, type_, changed(self, receiver, type_, body))

    def false_seal(
        self: Gate, receiver: int, type_: MessageType, body: bytes, blocks: tuple[int, int] = (0, 0)
    ) -> bytes:
        return seal(self, receiver, type_, changed(self, receiver, type_, body), blocks)

    monkeypatch.setattr(Gate, "sign", false_sign)
    monkeypatch.setattr(Gate, "seal", false_seal)


def signed_anew(sim: Simulation, signer: str, data: bytes, body: bytes, **changes: int | bytes) -> bytes:
    """A signed frame of ``signer`` with another body, and other header fields where they are given."""
    header: Header = replace(parse_header(data)[0], **changes)  # type: ignore[arg-type]
    assert header.type in SIGNED
    prefix = header.encode(len(body))
    return prefix + body + sim.identities[signer].sign(CONTROL, prefix + body)


def frame_of(data: bytes) -> Frame:
    return parse_frame(data)


def kind_of(data: bytes) -> MessageType:
    return parse_header(data)[0].type


def refusals(sim: Simulation, name: str = "") -> list[str]:
    """Reasons of what was refused, by one node or all."""
    return [str(event.fields["reason"]) for event in sim.kinds(EventKind.REFUSED, name)]


def honest(sim: Simulation, *liars: str) -> list[str]:
    return [name for name in sim.names if name not in liars]


def models_of(sim: Simulation, names: list[str]) -> set[tuple[int, bytes]]:
    return {tuple(sim.applications[name].states[0]) for name in names}


def all_at(sim: Simulation, names: list[str], round_: int) -> bool:
    """Whether these members hold a model of so many rounds, or a later one."""
    return all(sim.applications[name].states[0].round >= round_ for name in names)


def rolled_back(sim: Simulation, name: str = "") -> list[Event]:
    return sim.kinds(EventKind.ROLLED_BACK, name)

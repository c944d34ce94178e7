"""Sums in pieces: windows, terms made once, stored sums, means opened in place; the bits and the bounds of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aggregation_support import LAYOUT, NAMES, SIZE, expected_integers, federation, kind_of, parameters, vectors
from numpy.typing import NDArray

from pppml_fast import CkksParams, InputError, KeyReuseError, OpeningError, SiteError, dequantize
from pppml_fast.aggregation import Federation, PartyMachine, State
from pppml_fast.aggregation.messages import MessageType, parse_frame
from pppml_fast.aggregation.payloads import Chunk
from pppml_fast.aggregation.plain import FloatParty
from pppml_fast.aggregation.spool import SumStore
from pppml_fast.aggregation.streams import Piece, RingPass, default_window
from pppml_fast.cipher.symmetric import SymmetricMessage
from pppml_fast.transport import Delivery

SHAPES = [("collective", "ring"), ("collective", "star"), ("plain", "ring"), ("plain", "star"), ("initiator", "ring")]
BULK = (MessageType.CHUNK, MessageType.RETURN, MessageType.SUM_CHUNK)


def begin(fed: Federation, live: tuple[str, ...], attempt: int = 0) -> None:
    if fed.relay is not None:
        fed.network.post("relay", fed.relay.begin(0, attempt, live, fed.params))
    for name in live:
        fed.network.post(name, fed.members[name].begin(0, attempt, live, fed.params))
    fed.network.run()


def contribute(fed: Federation, values: Any, outs: dict[str, NDArray[np.float32]], live: tuple[str, ...]) -> None:
    weights = fed.roster.weights if fed.params.weights == "public" else dict.fromkeys(live, 1.0)
    for name in live:
        fed.network.post(name, fed.members[name].contribute(values[name], weights[name], out=outs.get(name)))
    fed.network.run()


def narrow(fed: Federation, window: int = 2) -> None:
    for machine in fed.members.values():
        machine._window = window


def stores(fed: Federation, folder: Path) -> None:
    for machine in fed.members.values():
        machine._spool = folder


# --- the same bits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spooled", [False, True])
@pytest.mark.parametrize("weights", ["public", "free"])
@pytest.mark.parametrize(("protocol", "topology"), SHAPES)
def test_means_in_place_have_the_bits_of_those_in_memory(
    protocol: str, topology: str, weights: str, spooled: bool, tmp_path: Path
) -> None:
    """North gets its mean into the memory of its update, east into other memory, the rest as new arrays."""
    params, updates = parameters(5, protocol, weights), vectors(5)
    with federation(5, protocol, topology, params=params) as fed:
        if spooled:
            stores(fed, tmp_path)
        live = NAMES if topology == "ring" else NAMES[:4]  # four of five: divided by their weights
        outs = {"north": updates["north"].copy(), "east": np.full(SIZE, 7, np.float32)}
        begin(fed, live)
        contribute(fed, {**updates, "north": outs["north"]}, outs, live)
        outcomes = {name: fed.members[name].outcome for name in live}
        shares = dict.fromkeys(live, 0.2 if weights == "public" else 1.0)
        expected = expected_integers(params, {name: updates[name] for name in live}, shares)
        divisor = {"public": 0.8 if topology == "star" else 1.0, "free": float(len(live))}[weights]
        if divisor == 1.0:
            mean = dequantize(params, expected, length=SIZE)
        else:
            mean = (dequantize(params, expected, np.float64, length=SIZE) / divisor).astype(np.float32)
        for name, outcome in outcomes.items():
            assert outcome is not None, fed.members[name].failure
            assert outcome.mean.dtype == np.float32
            assert np.array_equal(outcome.mean, mean)
            assert (outcome.integers is None) == (name in outs)
            assert name not in outs or outcome.mean is outs[name]
            assert outcome.integers is None or np.array_equal(outcome.integers, expected)
            assert fed.members[name].meter.clipped == int((np.abs(updates[name]) > 1).sum())
        assert len({outcome.transcript for outcome in outcomes.values() if outcome is not None}) == 1


@pytest.mark.parametrize("name", ["p50", "p62", "compact", "slots"])
@pytest.mark.parametrize("topology", ["ring", "star"])
def test_every_parameter_set_opens_in_place(name: str, topology: str, tmp_path: Path) -> None:
    if name == "slots":
        params = CkksParams.preset("p50", parties=5, clip=1.0, keys="collective", weights="public", packing="slots")
    else:
        params = parameters(5, name=name)
    updates = vectors(5)
    with federation(5, topology=topology, params=params, sum_check=True) as fed:
        stores(fed, tmp_path)
        outs = {"west": updates["west"].copy()}
        begin(fed, NAMES[:4])
        contribute(fed, {**updates, "west": outs["west"]}, outs, NAMES[:4])
        north = fed.members["north"].outcome
        assert north is not None and fed.members["west"].outcome is not None
        assert north.integers is not None and north.integers.size == params.integer_count(SIZE)
        assert np.array_equal(north.mean, outs["west"])
        mean = sum(np.clip(updates[name], -1, 1).astype(np.float64) for name in NAMES[:4]) / 4
        assert np.abs(north.mean - mean).max() < 1e-3


def test_outs_that_do_not_fit_are_refused_and_another_may_follow() -> None:
    with federation() as fed:
        begin(fed, NAMES[:3])
        machine, values = fed.members["north"], vectors()["north"]
        double = np.zeros(2 * SIZE, np.float32)
        double[:SIZE] = values
        locked = np.zeros(SIZE, np.float32)
        locked.flags.writeable = False
        for out in (np.zeros(SIZE), np.zeros(SIZE - 1, np.float32), double[::2], locked):
            with pytest.raises(InputError, match="contiguous writeable float32 array"):
                machine.contribute(values, 1 / 3, out=out)
        with pytest.raises(InputError, match="overlaps the values"):
            machine.contribute(double[:SIZE], 1 / 3, out=double[1 : SIZE + 1])
        with pytest.raises(InputError, match="overlaps the values"):
            machine.contribute([double[:4000], double[4000:SIZE]], 1 / 3, out=double[:SIZE])
        machine.contribute(values, 1 / 3, out=np.zeros(SIZE, np.float32))


def test_values_stay_until_the_share_is_released_and_a_refused_sum_leaves_zeros() -> None:
    """A sum that does not open: the shares of one party are wrong, so that no key comes out."""
    updates = vectors()
    for reaches_opening in (False, True):
        with federation() as fed:
            outs = {name: updates[name].copy() for name in NAMES[:3]}
            begin(fed, NAMES[:3])

            def tamper(delivery: Delivery, fed: Federation = fed, stop: bool = not reaches_opening) -> list[bytes]:
                if kind_of(delivery.data) is MessageType.STATEMENT and stop:
                    return []
                for machine in fed.members.values():
                    if machine.state is State.CLOSING and machine._store is not None:  # B is damaged where it lies
                        machine._store._chunks[1] = memoryview(bytes(len(machine._store._chunks[1])))
                return [delivery.data]

            fed.network.tamper = tamper
            contribute(fed, outs, outs, NAMES[:3])
            for name in NAMES[:3]:
                machine = fed.members[name]
                if reaches_opening:
                    assert machine.state is State.FAILED and not outs[name].any()
                    assert "residual check" in str(machine.failure)
                else:
                    assert machine.state is State.CLOSING and np.array_equal(outs[name], updates[name])
                    machine.abandon()
                    assert np.array_equal(outs[name], updates[name])


# --- windows --------------------------------------------------------------------------------------------------------


def flights(fed: Federation, head: str, back: str) -> Iterator[int]:
    """How far the head is ahead of what came back to it, at each delivery."""
    ahead = 0
    for delivery in fed.network.transcript:
        kind = kind_of(delivery.data)
        if kind is MessageType.CHUNK and delivery.sender == head:
            ahead += 1
        if delivery.hop == head and kind in (MessageType.RETURN, MessageType.CHUNK):
            ahead -= 1
        yield ahead


@pytest.mark.parametrize("protocol", ["collective", "plain", "initiator"])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_a_ring_never_holds_more_than_the_window(protocol: str, window: int) -> None:
    updates = vectors()
    with federation(protocol=protocol, chunk_blocks=1, record=True) as fed:
        narrow(fed, window)
        result = fed.aggregate(updates, round=0)
        assert np.array_equal(result.integers, expected_integers(fed.params, updates, dict.fromkeys(updates, 1 / 3)))
        ahead = list(flights(fed, "north", "east"))
        assert 1 <= max(ahead) <= min(window, fed.params.block_count(SIZE))
        assert ahead[-1] == 0


def test_bulk_is_made_only_when_it_is_pulled() -> None:
    with federation(topology="star") as fed:
        begin(fed, NAMES[:3])
        machine, updates = fed.members["north"], vectors()
        grid = -(-fed.params.block_count(SIZE) // 2)
        sent = [machine.contribute(updates["north"], 1 / 3)]
        assert not any(kind_of(message.data) in BULK for message in sent[0])
        assert machine.pull("east") is None
        pulled = [machine.pull("relay") for _ in range(grid)]
        assert {kind_of(message.data) for message in pulled if message is not None} == {MessageType.CHUNK}
        assert None not in pulled and machine.pull("relay") is None
        assert fed.relay is not None and fed.relay.pull("north") is None


def test_more_than_the_window_before_a_party_streams_ends_the_attempt() -> None:
    with federation() as fed:
        begin(fed, NAMES[:3])
        east, north = fed.members["east"], fed.members["north"]
        for _ in range(default_window(3)):
            body = Chunk(SIZE, 3, frozenset({0}), bytes(64)).encode()
            assert east.receive(north._sealed(1, MessageType.CHUNK, body, (0, 2)).data) == []
        out = east.receive(north._sealed(1, MessageType.CHUNK, body, (0, 2)).data)
        assert {kind_of(message.data) for message in out} == {MessageType.ABANDON}
        assert east.state is State.ABANDONED and "more than the window of 16" in str(east.failure)
        assert not east._now.held


def test_one_chunk_before_a_party_streams_is_no_larger_than_a_chunk() -> None:
    with federation() as fed:
        begin(fed, NAMES[:3])
        body = Chunk(SIZE, 3, frozenset({0}), bytes(1 << 20)).encode()
        fed.members["east"].receive(fed.members["north"]._sealed(1, MessageType.CHUNK, body, (0, 2)).data)
        assert fed.members["east"].state is State.ABANDONED


def test_refusals_are_answered_so_many_times_and_no_more() -> None:
    with federation() as fed:
        begin(fed, NAMES[:3])
        east, north = fed.members["east"], fed.members["north"]
        answers = [east.receive(north._signed(1, MessageType.SUM_HASH, bytes(32)).data) for _ in range(40)]
        assert [len(answer) for answer in answers] == [1] * 16 + [0] * 24
        assert len(east.refusals) == 40


@pytest.mark.parametrize("topology", ["ring", "star"])
def test_losses_at_every_message_with_windows_smaller_than_the_grid(topology: str) -> None:
    """Whoever finishes holds the exact sum; values of a party that did not release are as they were."""
    updates = vectors(5)
    shares = dict.fromkeys(NAMES, 0.2)
    for moment in range(0, 140, 3):
        with federation(5, topology=topology, chunk_blocks=1) as fed:
            narrow(fed)
            count = 0

            def tamper(delivery: Delivery, fed: Federation = fed, moment: int = moment) -> list[bytes]:
                nonlocal count
                count += 1
                if count == moment + 1:
                    fed.network.drop(NAMES[moment % 5])
                return [] if delivery.sender in fed.network.dropped else [delivery.data]

            outs = {name: updates[name].copy() for name in NAMES}
            begin(fed, NAMES)
            fed.network.tamper = tamper
            contribute(fed, outs, outs, NAMES)
            for name, machine in fed.members.items():
                if machine.outcome is not None:
                    live = {NAMES[index]: updates[NAMES[index]] for index in machine.outcome.members}
                    integers = expected_integers(fed.params, live, shares)
                    divisor = 1.0 if len(live) == 5 else 0.2 * len(live)
                    mean = (dequantize(fed.params, integers, np.float64) / divisor).astype(np.float32)
                    assert np.allclose(outs[name], mean, rtol=1e-6, atol=1e-7)
                elif not machine._ledger.is_released(machine._now.id):
                    assert np.array_equal(outs[name], updates[name])


# --- terms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["ring", "star"])
def test_each_block_of_a_term_is_encrypted_once(topology: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[int, list[tuple[int, int]]] = {}
    write = SymmetricMessage.write

    def spy(self: SymmetricMessage, start: int, stop: int, *rest: Any) -> None:
        written.setdefault(id(self), []).append((start, stop))
        write(self, start, stop, *rest)

    monkeypatch.setattr(SymmetricMessage, "write", spy)
    with federation(topology=topology) as fed:
        begin(fed, NAMES[:3])
        contribute(fed, vectors(), {}, NAMES[:3])
        blocks = fed.params.block_count(SIZE)
        grid = [(at, min(at + 2, blocks)) for at in range(0, blocks, 2)]
        assert list(written.values()) == [grid] * 3
        assert all(machine.outcome is not None for machine in fed.members.values())


def test_a_term_that_is_abandoned_half_way_loses_its_key_and_the_next_has_another() -> None:
    updates = vectors()
    with federation(chunk_blocks=1) as fed:
        narrow(fed, 1)
        begin(fed, NAMES[:3])
        machine: Any = fed.members["north"]
        for name in NAMES[:3]:
            fed.network.post(name, fed.members[name].contribute(updates[name], 1 / 3))
        assert machine.pull("east") is not None
        term, key = machine._term, machine._key
        assert machine.pull("east") is None, "the window is one"
        fed.network.post("north", machine.abandon())
        with pytest.raises(KeyReuseError, match="destroyed"):
            term.write(1, 2, memoryview(bytearray(term.packed_size(1, 2))))
        assert key._secret is None and machine._term is None and machine.pull("east") is None
        fed.network.run()
        begin(fed, NAMES[:3], attempt=1)
        contribute(fed, updates, {}, NAMES[:3])
        assert machine.state is State.FINISHED


@pytest.mark.parametrize("party", ["north", "east", "south"])
@pytest.mark.parametrize("topology", ["ring", "star"])
def test_values_that_turn_bad_while_they_stream_end_the_attempt(party: str, topology: str) -> None:
    updates = vectors()
    with federation(topology=topology, chunk_blocks=1) as fed:
        narrow(fed, 1)
        begin(fed, NAMES[:3])
        for name in NAMES[:3]:
            fed.network.post(name, fed.members[name].contribute(updates[name], 1 / 3))
        updates[party][-1] = np.nan
        fed.network.run()
        assert {machine.state for machine in fed.members.values()} == {State.ABANDONED}
        for name, machine in fed.members.items():
            expected = "term cannot be made: tensor 0, element 8999 is NaN" if name == party else "abandoned"
            assert expected in str(machine.failure)


# --- stored sums ------------------------------------------------------------------------------------------------------


def handles(machine: PartyMachine) -> list[Any]:
    return [] if machine._store is None else [machine._store._file]


def test_stored_sums_leave_no_file_behind(tmp_path: Path) -> None:
    updates = vectors()
    for abandoned in (False, True):
        with federation(chunk_blocks=1) as fed:
            stores(fed, tmp_path)
            begin(fed, NAMES[:3])
            files: list[Any] = []

            def tamper(
                delivery: Delivery, fed: Federation = fed, files: list[Any] = files, stop: bool = abandoned
            ) -> list[bytes]:
                files.extend(file for machine in fed.members.values() for file in handles(machine))
                assert list(tmp_path.iterdir()) == [], "the file has no name"
                stopped = stop and kind_of(delivery.data) is MessageType.STATEMENT
                return [] if stopped else [delivery.data]

            fed.network.tamper = tamper
            contribute(fed, updates, {}, NAMES[:3])
            for machine in fed.members.values():
                machine.abandon()
                assert machine.state is (State.ABANDONED if abandoned else State.FINISHED)
                assert machine._store is None
            assert files and all(file.closed for file in files)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_removed_and_a_full_disk_ends_the_attempt(tmp_path: Path) -> None:
    with federation() as fed:
        (tmp_path / "pppml-sum-0123").write_bytes(b"left")
        (tmp_path / "other").write_bytes(b"kept")
        east = fed.members["east"]
        machine = type(east)(east.session, east._ledger, east._policy, spool=tmp_path)
        with pytest.raises(InputError, match="window of 0 chunks"):
            type(east)(east.session, east._ledger, east._policy, window=0)
        assert [path.name for path in tmp_path.iterdir()] == ["other"]
        assert machine._spool == tmp_path
        stores(fed, tmp_path / "nowhere")
        begin(fed, NAMES[:3])
        contribute(fed, vectors(), {}, NAMES[:3])
        assert {member.state for member in fed.members.values()} == {State.ABANDONED}
        assert any("has no place in" in str(member.failure) for member in fed.members.values())


def test_a_chunk_that_finds_no_room_ends_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: SumStore, chunk: memoryview) -> None:
        raise OSError("no space left")

    with federation() as fed:
        begin(fed, NAMES[:3])
        monkeypatch.setattr(SumStore, "append", full)
        contribute(fed, vectors(), {}, NAMES[:3])
        assert {member.state for member in fed.members.values()} == {State.ABANDONED}
        assert any("no space left; give spool= a folder" in str(member.failure) for member in fed.members.values())


def test_what_ends_a_party_while_it_makes_a_chunk_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: RingPass, receiver: int) -> Piece:
        raise SiteError("the disk is gone")

    with federation() as fed:
        begin(fed, NAMES[:3])
        monkeypatch.setattr(RingPass, "pull", failing)
        with pytest.raises(SiteError, match="the disk is gone"):
            contribute(fed, vectors(), {}, NAMES[:3])
        assert all(machine.failure is None for machine in fed.members.values())


@pytest.mark.parametrize("read", [1, 3])
def test_a_spool_that_cannot_be_read_ends_the_party_and_fails_no_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    """At the first chunk, which finds the key, or when the mean is partly written."""
    keep, reads = SumStore.read, list[int]()

    def failing(self: SumStore, index: int) -> memoryview:
        reads.append(index)
        if len(reads) == read:
            raise OSError("input/output error")
        return keep(self, index)

    outs = {name: np.full(SIZE, 7, np.float32) for name in NAMES[:3]}
    with federation() as fed:
        stores(fed, tmp_path)
        begin(fed, NAMES[:3])
        monkeypatch.setattr(SumStore, "read", failing)
        with pytest.raises(SiteError, match=r"cannot be read back from .*: input/output error; mend that disk"):
            contribute(fed, vectors(), outs, NAMES[:3])
        (ended,) = [name for name in NAMES[:3] if fed.members[name].state is State.DISCARDED]
        assert isinstance(fed.members[ended].failure, SiteError) and fed.members[ended].update_spent
        assert not outs[ended].any()
        assert not any(machine.refusals for machine in fed.members.values())


# --- shares that lie -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("liar", ["north", "west", "centre"])
def test_a_party_whose_shares_do_not_fit_is_named_and_the_others_open(liar: str) -> None:
    """Five parties, four shares: with the fifth the false one is found, whenever it came."""
    updates = vectors(5)
    with federation(5) as fed:
        machine: Any = fed.members[liar]
        begin(fed, NAMES)
        dealt = machine._shares[machine.session.index]
        dealt[:] = (dealt + 1) % 65537
        contribute(fed, updates, {}, NAMES)
        expected = expected_integers(fed.params, updates, dict.fromkeys(NAMES, 0.2))
        for name in NAMES:
            member = fed.members[name]
            assert member.outcome is not None and member.outcome.integers is not None
            assert np.array_equal(member.outcome.integers, expected)
            for error in member.refusals:
                assert f"shares of {liar!r} does not fit" in str(error)
        assert any(fed.members[name].refusals for name in NAMES)


def test_shares_that_lie_where_all_are_needed_open_nothing() -> None:
    with federation() as fed:
        machine: Any = fed.members["east"]
        begin(fed, NAMES[:3])
        machine._shares[1][:] = (machine._shares[1] + 1) % 65537
        contribute(fed, vectors(), {}, NAMES[:3])
        assert {member.state for member in fed.members.values()} == {State.FAILED}
        assert all(isinstance(member.failure, OpeningError) for member in fed.members.values())


# --- the yardstick ----------------------------------------------------------------------------------------------------


def test_plain_floats_take_four_bytes_per_weight() -> None:
    updates = vectors()
    with federation(protocol="plain", record=True) as fed:
        for name in NAMES[:3]:
            old = fed.members[name]
            fed.members[name] = FloatParty(old.session, old._ledger, old._policy)
        fed.network.nodes = dict(fed.members)
        outs = {"north": updates["north"].copy()}
        begin(fed, NAMES[:3])
        contribute(fed, {**updates, "north": outs["north"]}, outs, NAMES[:3])
        third = np.float32(1 / 3)
        total = updates["south"] * third + (updates["east"] * third + updates["north"] * third)
        for name in NAMES[:3]:
            outcome = fed.members[name].outcome
            assert outcome is not None and np.array_equal(outcome.mean, total)
        chunks = [d for d in fed.network.transcript if kind_of(d.data) is MessageType.CHUNK and d.sender == "north"]
        payload = sum(len(parse_frame(d.data).content) - 16 - 11 for d in chunks)
        assert payload == 4 * SIZE


def test_the_layouts_length_is_what_a_relay_takes() -> None:
    with federation(topology="star") as fed:
        assert LAYOUT.size == SIZE
        begin(fed, NAMES[:3])
        contribute(fed, dict.fromkeys(NAMES[:3], np.ones(SIZE - 1, np.float32)), {}, NAMES[:3])
        assert fed.relay is not None
        assert "the layout has 9000" in str(fed.relay.refusals[0])
        assert not any(machine.outcome for machine in fed.members.values())

"""A device that fails or is full: an attempt ends by its own party's hand, nobody else is blamed, nothing hangs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mlkem")

from aggregation_support import NAMES, SIZE, federation, parameters, vectors
from test_aggregation import begin, contribute, on_device
from test_pieces import CONTEXT, make, twins, weights, written

from pppml_fast import DeviceError, DeviceMemoryError, InputError, KeyReuseError, OpeningError, _native, cuda
from pppml_fast.aggregation import State
from pppml_fast.aggregation.plain import FloatParty
from pppml_fast.cuda import DeviceArray

LIVE = NAMES[:3]


def failing(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, fails: Callable[[int], bool], kind: Any) -> None:
    """Let call number n (from 0) of a function fail where ``fails`` says so."""
    whole, calls = getattr(where, name), iter(range(10**6))

    def spy(*args: Any, **options: Any) -> Any:
        if fails(next(calls)):
            raise kind("cudaMallocAsync: out of memory")
        return whole(*args, **options)

    monkeypatch.setattr(where, name, spy)


def noted(monkeypatch: pytest.MonkeyPatch, name: str, order: list[str]) -> None:
    """Enter every call of a function of the core in ``order``."""
    whole = getattr(_native.cuda, name)

    def spy(*args: Any) -> None:
        order.append(name)
        whole(*args)

    monkeypatch.setattr(_native.cuda, name, spy)


# --- encryption in pieces -----------------------------------------------------------------------------------------


def test_a_range_is_given_out_where_the_next_one_finds_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    params = make()
    x, one, other = weights(params), *twins(params)
    ours, theirs = cuda.encrypt_in_pieces(one, DeviceArray.from_host(x), CONTEXT), other.encrypt_in_pieces(x, CONTEXT)
    # Of the six copies, those that read ahead (1 and 4) and the first of the second range (2) find no room.
    failing(monkeypatch, _native.cuda, "queue_to_host", {1, 2, 4}.__contains__, _native.cuda.DeviceMemoryError)
    assert written(ours, 0, 2) == written(theirs, 0, 2)
    out = bytearray(b"\xff" * ours.packed_bytes(2, 4))
    with pytest.raises(DeviceMemoryError, match="out of memory"):
        ours.write(2, 4, memoryview(out))
    assert not any(out)
    assert written(ours, 2, 4) == written(theirs, 2, 4)
    assert written(ours, 4, 6) == written(theirs, 4, 6)
    assert ours.finished
    with pytest.raises(KeyReuseError):
        written(ours, 4, 6)


def test_a_place_is_not_filled_again_while_a_copy_may_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    params = make()
    x, one, other = weights(params), *twins(params)
    ours, theirs = cuda.encrypt_in_pieces(one, DeviceArray.from_host(x), CONTEXT), other.encrypt_in_pieces(x, CONTEXT)
    order: list[str] = []
    for name in ("to_device", "synchronize"):
        noted(monkeypatch, name, order)
    failing(monkeypatch, _native.cuda, "queue_to_host", {0}.__contains__, _native.cuda.DeviceError)
    incoming = bytes(ours.packed_bytes(0, 2))
    with pytest.raises(DeviceError):
        written(ours, 0, 2, incoming)
    assert order == ["to_device", "synchronize"]
    assert written(ours, 0, 2, incoming) == written(theirs, 0, 2, incoming)


def test_what_came_in_may_lie_where_the_sum_goes() -> None:
    params = make()
    x, one, other = weights(params), *twins(params)
    ours, theirs = cuda.encrypt_in_pieces(one, DeviceArray.from_host(x), CONTEXT), other.encrypt_in_pieces(x, CONTEXT)
    incoming = bytearray(ours.packed_bytes(0, 2))
    incoming[::2] = b"\x01" * len(incoming[::2])
    expected = written(theirs, 0, 2, bytes(incoming))
    ours.write(0, 2, memoryview(incoming), memoryview(incoming))
    assert bytes(incoming) == expected


# --- attempts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "topology"), [("collective", "ring"), ("collective", "star")])
def test_a_term_that_a_device_cannot_make_ends_the_attempt(
    monkeypatch: pytest.MonkeyPatch, protocol: str, topology: str
) -> None:
    """South's device alone fails, when a chunk of the others comes in: whoever sent it did no wrong."""
    updates = vectors()
    with federation(3, protocol, topology) as fed:
        begin(fed, LIVE)
        failing(monkeypatch, _native.cuda, "queue_to_host", lambda _: True, _native.cuda.DeviceError)
        contribute(fed, {**updates, "south": on_device(updates["south"])}, {}, LIVE)
        south = fed.members["south"]
        assert south.state is State.ABANDONED and not south.update_spent
        assert "cannot be made: cudaMallocAsync" in str(south.failure)
        assert not any(fed.members[name].refusals for name in LIVE)


def test_a_term_that_a_device_cannot_make_ends_the_initiators_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = vectors()
    with federation(3, "initiator") as fed:
        begin(fed, LIVE)
        failing(monkeypatch, cuda, "encrypt", lambda _: True, DeviceMemoryError)
        contribute(fed, {**updates, "south": on_device(updates["south"])}, {}, LIVE)
        south = fed.members["south"]
        assert south.state is State.ABANDONED and not south.update_spent
        assert "cannot be made: cudaMallocAsync" in str(south.failure)
        assert not any(fed.members[name].refusals for name in LIVE)


@pytest.mark.parametrize("calls", [0, 1])
def test_a_sum_that_a_device_has_no_room_for_is_no_failed_check(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Neither where the first chunk tells whether the key is right, nor later: the others have their sum."""
    updates = vectors()
    with federation(3) as fed:
        own = on_device(updates["south"])
        begin(fed, LIVE)
        failing(monkeypatch, cuda, "decrypt_range", lambda call: call >= calls, DeviceMemoryError)
        contribute(fed, {**updates, "south": own}, {"south": own}, LIVE)
        south = fed.members["south"]
        assert south.state is State.DISCARDED and isinstance(south.failure, DeviceMemoryError)
        assert south.update_spent and not south.refusals
        assert not own.to_host().any()
        assert {fed.members[name].state for name in ("north", "east")} == {State.FINISHED}


def test_a_device_that_cannot_be_cleared_hides_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    with federation(3) as fed:
        begin(fed, LIVE)
        for machine in fed.members.values():
            machine._shares = {index: (share + 1) % 65537 for index, share in machine._shares.items()}
        failing(monkeypatch, cuda, "wipe", lambda _: True, DeviceError)
        contribute(fed, {name: on_device(vector) for name, vector in vectors().items()}, {}, LIVE)
        for name in LIVE:
            assert fed.members[name].state is State.FAILED
            assert isinstance(fed.members[name].failure, OpeningError)


@pytest.mark.parametrize("protocol", ["plain", "initiator"])
def test_a_mean_that_a_device_does_not_take_ends_the_attempt(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    updates = vectors()
    with federation(3, protocol) as fed:
        own = on_device(updates["south"])
        begin(fed, LIVE)
        failing(monkeypatch, _native.cuda, "to_device", lambda _: protocol == "plain", _native.cuda.DeviceError)
        if protocol == "initiator":
            failing(monkeypatch, cuda.arrays.DeviceTensors, "take", lambda _: True, DeviceError)
        contribute(fed, {**updates, "south": own}, {"south": own}, LIVE)
        south = fed.members["south"]
        assert south.state is (State.DISCARDED if protocol == "initiator" else State.ABANDONED)
        assert "cudaMallocAsync" in str(south.failure) and not south.refusals
        assert not own.to_host().any()


# --- what is told before --------------------------------------------------------------------------------------------


def test_an_update_lies_in_one_place() -> None:
    halves = np.split(vectors()["north"], 2)
    with federation(3) as fed:
        begin(fed, LIVE)
        for mixed in ([halves[0], on_device(halves[1])], [on_device(halves[0]), halves[1]]):
            with pytest.raises(InputError, match=r"in one place|host memory"):
                fed.members["north"].contribute(mixed, 1 / 3)
        assert fed.members["north"].state is State.PREPARING


@pytest.mark.parametrize("protocol", ["plain", "initiator"])
def test_a_mean_of_another_type_than_the_hosts_is_refused_before_an_update_is_spent_on_it(protocol: str) -> None:
    updates = vectors()
    with federation(3, protocol) as fed:
        begin(fed, LIVE)
        wide = on_device(np.zeros(SIZE))
        with pytest.raises(InputError, match="tensor 0 is float64"):
            fed.members["north"].contribute(on_device(updates["north"]), 1 / 3, out=wide)
        contribute(fed, {name: on_device(vector) for name, vector in updates.items()}, {}, LIVE)
        assert {fed.members[name].state for name in LIVE} == {State.FINISHED}


def test_plain_floats_of_a_device_are_refused_at_once() -> None:
    updates = vectors()
    with federation(3, "plain") as fed:
        for name in fed.parties:
            old = fed.members[name]
            fed.members[name] = FloatParty(old.session, old._ledger, old._policy)
        fed.network.nodes = dict(fed.members)
        begin(fed, LIVE)
        with pytest.raises(InputError, match="host's memory alone"):
            fed.members["north"].contribute(on_device(updates["north"]), 1 / 3)
        contribute(fed, updates, {}, LIVE)
        assert {fed.members[name].state for name in LIVE} == {State.FINISHED}


# --- order between streams ------------------------------------------------------------------------------------------


def test_what_is_written_from_the_host_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads have other streams: means and zeros are there when the call returns, not only in its order."""
    order: list[str] = []
    for name in ("to_device", "zero", "synchronize"):
        noted(monkeypatch, name, order)
    params = parameters(3, "plain")
    with federation(3, "plain", params=params) as fed:
        mean = fed.aggregate({name: on_device(vector) for name, vector in vectors().items()}, 0).vector
    assert mean.size == SIZE and order[-2:] == ["to_device", "synchronize"]
    cuda.wipe(mean)
    assert order[-2:] == ["zero", "synchronize"] and not mean.to_host().any()


@pytest.mark.played_device  # where any number is a stream
def test_a_new_mean_is_given_back_in_the_order_of_the_updates_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of PyTorch do not wait for the default one: memory given back there would be taken while they read."""
    side = 7
    with federation(3) as fed:
        values = {name: on_device(vector) for name, vector in vectors().items()}
        expected = fed.aggregate(values, 0).vector.to_host()
        values = {name: on_device(np.roll(vector, 1)) for name, vector in vectors().items()}
        monkeypatch.setattr(
            cuda.arrays, "current_stream", lambda device, items, stream: stream or (side if items else 0)
        )
        mean = fed.aggregate(values, 1).vector
    assert mean._stream == side
    assert np.array_equal(mean.to_host(), np.roll(expected, 1))

"""Sums over updates that lie on a device: the bits, transcripts and refusals of sums over their copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import Bfloat16

pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mlkem")

from aggregation_support import NAMES, SIZE, expected_integers, federation, kind_of, parameters, vectors

from pppml_fast import (
    CkksParams,
    InputError,
    KeyReuseError,
    OpeningError,
    ParameterError,
    _native,
    cuda,
    dequantize,
)
from pppml_fast.aggregation import Federation, State
from pppml_fast.aggregation.attempts import AttemptLedger
from pppml_fast.aggregation.journal import MemoryStore
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.cuda import DeviceArray
from pppml_fast.transport import Delivery

SHAPES = [("collective", "ring"), ("collective", "star"), ("plain", "ring"), ("plain", "star"), ("initiator", "ring")]


def on_device(values: np.ndarray) -> DeviceArray:
    return DeviceArray.from_host(values)


def in_tensors(values: np.ndarray) -> list[DeviceArray]:
    """The layout's two tensors."""
    return [on_device(values[:4000]), on_device(values[4000:])]


def begin(fed: Federation, live: tuple[str, ...]) -> None:
    if fed.relay is not None:
        fed.network.post("relay", fed.relay.begin(0, 0, live, fed.params))
    for name in live:
        fed.network.post(name, fed.members[name].begin(0, 0, live, fed.params))
    fed.network.run()


def contribute(fed: Federation, values: dict[str, Any], outs: dict[str, Any], live: tuple[str, ...]) -> None:
    weights = fed.roster.weights if fed.params.weights == "public" else dict.fromkeys(live, 1.0)
    for name in live:
        fed.network.post(name, fed.members[name].contribute(values[name], weights[name], out=outs.get(name)))
    fed.network.run()


@pytest.mark.parametrize(("protocol", "topology"), SHAPES)
def test_a_round_over_devices_gives_the_bits_of_one_over_their_copies(protocol: str, topology: str) -> None:
    """Transcripts are those of rounds of which nobody can tell where their parties' updates lay."""
    params, updates = parameters(3, protocol), vectors()
    with federation(3, protocol, topology, params=params) as fed:
        on_host = fed.aggregate(updates, 0)
        moved = {name: in_tensors(np.roll(vector, 1)) for name, vector in updates.items()}
        result = fed.aggregate(moved, 1)
        assert isinstance(result.vector, DeviceArray) and result.vector.dtype == np.float32
        assert np.array_equal(result.vector.to_host(), np.roll(on_host.vector, 1))
        assert result.costs.clipped == on_host.costs.clipped


@pytest.mark.parametrize("name", ["p31", "p50", "p62", "compact"])
@pytest.mark.parametrize("weights", ["public", "free"])
@pytest.mark.parametrize("topology", ["ring", "star"])
def test_means_are_scattered_where_they_are_wanted(topology: str, weights: str, name: str, tmp_path: Path) -> None:
    """North's mean goes into its update, east's into tensors of other types, south stays with the host."""
    params, updates = parameters(5, weights=weights, name=name), vectors(5)
    live = NAMES if topology == "ring" else NAMES[:4]  # four of five: divided by their weights
    with federation(5, topology=topology, params=params, sum_check=True) as fed:
        for machine in fed.members.values():
            machine._spool = tmp_path
        own = in_tensors(updates["north"])
        typed = [
            on_device(np.full(1001, 7, np.float16)),
            Bfloat16(np.full(2999, 7, np.float32)),
            on_device(np.full(5000, 7, np.float64)),
        ]
        values = {**{name: on_device(vector) for name, vector in updates.items()}, "north": own}
        values["south"] = updates["south"]
        begin(fed, live)
        contribute(fed, values, {"north": own, "east": typed}, live)
        expected = expected_integers(
            params, {name: updates[name] for name in live}, dict.fromkeys(live, 0.2 if weights == "public" else 1.0)
        )
        divisor = {"public": 0.8 if topology == "star" else 1.0, "free": float(len(live))}[weights]
        exact = np.asarray(dequantize(params, expected, np.float64, length=SIZE)) / divisor
        outcomes = {name: fed.members[name].outcome for name in live}
        for party, outcome in outcomes.items():
            assert outcome is not None, fed.members[party].failure
            assert fed.members[party].meter.clipped == int((np.abs(updates[party]) > 1).sum())
        assert len({outcome.transcript for outcome in outcomes.values()}) == 1
        assert outcomes["north"].mean is own
        assert np.array_equal(np.concatenate([t.to_host() for t in own]), exact.astype(np.float32))
        assert np.array_equal(outcomes["west"].mean.to_host(), exact.astype(np.float32))
        assert np.array_equal(outcomes["south"].mean, exact.astype(np.float32))
        assert np.array_equal(typed[0].to_host(), exact[:1001].astype(np.float16))
        assert np.array_equal(typed[1].bits(), Bfloat16(exact[1001:4000].astype(np.float32)).bits())
        assert np.array_equal(typed[2].to_host(), exact[4000:])


def test_an_update_has_one_identity_wherever_it_lies() -> None:
    ledger, update = AttemptLedger(MemoryStore()), np.random.default_rng(3).normal(size=200_000).astype(np.float32)
    update[5] = -0.0
    identity = ledger.update_id(update)
    assert ledger.update_id(on_device(update)) == identity
    assert ledger.update_id([on_device(part) for part in np.split(update, [7, 150_001])]) == identity
    assert ledger.update_id(on_device(update.astype(np.float64))) == identity
    halves = update.astype(np.float16)
    assert ledger.update_id(on_device(halves)) == ledger.update_id(halves)
    narrow = Bfloat16(update)
    assert ledger.update_id(narrow) == ledger.update_id(narrow.values())
    update[199_999] += 1
    assert ledger.update_id(on_device(update)) != identity


def test_a_spent_update_is_refused_from_the_other_memory() -> None:
    updates = vectors()
    with federation() as fed:
        fed.aggregate(updates, 0)
        again = {**{name: np.roll(vector, 1) for name, vector in updates.items()}, "east": on_device(updates["east"])}
        with pytest.raises(KeyReuseError, match="spent"):
            fed.aggregate(again, 1)


@pytest.mark.parametrize(("protocol", "topology"), SHAPES)
def test_what_is_not_finite_is_named_and_costs_nothing(protocol: str, topology: str) -> None:
    updates = vectors()
    broken = updates["south"].copy()
    broken[4007] = np.inf
    with federation(3, protocol, topology) as fed:
        with pytest.raises(InputError, match="party 'south': tensor 'head' holds NaN or Inf at flat index 7"):
            fed.aggregate({**updates, "south": in_tensors(broken)}, 0)
        result = fed.aggregate({name: on_device(vector) for name, vector in updates.items()}, 0)
        assert len(result.vector) == SIZE


def test_what_cannot_be_summed_is_refused_before_anything_is_bound() -> None:
    updates = vectors()
    with federation() as fed:
        begin(fed, NAMES[:3])
        machine, values = fed.members["north"], on_device(updates["north"])
        short, integers = on_device(updates["north"][1:]), on_device(np.zeros(SIZE, np.int32))
        with pytest.raises(InputError, match=f"out holds {SIZE - 1} values"):
            machine.contribute(values, 1 / 3, out=short)
        with pytest.raises(InputError, match="dtype int32"):
            machine.contribute(values, 1 / 3, out=integers)
        with pytest.raises(InputError, match="host memory"):
            machine.contribute(values, 1 / 3, out=np.zeros(SIZE, np.float32))
        with pytest.raises(InputError, match="host memory"):
            machine.contribute([values, updates["north"]], 1 / 3)
        with pytest.raises(InputError, match="no values"):
            machine.contribute([on_device(np.zeros(0, np.float32))], 1 / 3)
        machine.contribute(values, 1 / 3, out=values)
        with pytest.raises(InputError, match="lies on a device; plain sums"):
            fed.sum({name: on_device(vector) for name, vector in updates.items()})


def test_slots_are_refused_with_a_way_out() -> None:
    params = CkksParams.preset("p50", parties=3, clip=1.0, keys="collective", weights="public", packing="slots")
    with federation(params=params) as fed:
        begin(fed, NAMES[:3])
        with pytest.raises(ParameterError, match="packing='coefficients'"):
            fed.members["north"].contribute(on_device(vectors()["north"]), 1 / 3)
        fed.members["north"].contribute(vectors()["north"], 1 / 3)


@pytest.mark.parametrize("topology", ["ring", "star"])
def test_a_refused_sum_leaves_zeros(topology: str) -> None:
    """A sum that does not open: all shares but the own one are wrong, so that no key comes out."""
    updates, live = vectors(), NAMES[:3]
    with federation(topology=topology) as fed:
        values = {name: on_device(vector) for name, vector in updates.items()}
        out = [on_device(np.ones(1000, np.float32)), on_device(np.ones(SIZE - 1000, np.float64))]
        begin(fed, live)
        for machine in fed.members.values():
            shares = machine._shares
            machine._shares = {index: (share + 1) % 65537 for index, share in shares.items()}
        contribute(fed, values, {"north": out, "east": values["east"]}, live)
        assert {fed.members[name].state for name in live} == {State.FAILED}
        assert isinstance(fed.members["north"].failure, OpeningError)
        for tensor in (*out, values["east"]):
            assert not tensor.to_host().any()


def test_only_ciphertext_leaves_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied to the host during a round are packed chunks, each shorter than an update."""
    copied: list[int] = []
    waited, queued = _native.cuda.to_host, _native.cuda.queue_to_host

    def to_host(device: int, stream: int, out: Any, address: int) -> None:
        copied.append(out.nbytes)
        waited(device, stream, out, address)

    def queue_to_host(device: int, stream: int, out: Any, address: int, nbytes: int) -> None:
        copied.append(nbytes)
        queued(device, stream, out, address, nbytes)

    updates, live = vectors(), NAMES[:3]
    with federation() as fed:
        values = {name: on_device(vector) for name, vector in updates.items()}
        begin(fed, live)
        blocks, step = fed.params.block_count(SIZE), fed.members["north"].session.roster.options.chunk_blocks
        chunks = {
            int(fed.params._scheme.packed_bytes(SIZE, True, start, min(start + step, blocks)))
            for start in range(0, blocks, step)
        }
        monkeypatch.setattr(_native.cuda, "to_host", to_host)
        monkeypatch.setattr(_native.cuda, "queue_to_host", queue_to_host)
        contribute(fed, values, dict(values), live)
        assert {fed.members[name].state for name in live} == {State.FINISHED}
        assert set(copied) == chunks and max(chunks) < 4 * SIZE


def test_an_attempt_that_comes_to_nothing_leaves_the_update() -> None:
    """No chunk arrives: nothing was released, and the update may be encrypted anew."""
    updates, live = vectors(), NAMES[:3]
    with federation() as fed:
        values = {name: on_device(vector) for name, vector in updates.items()}
        begin(fed, live)

        def tamper(delivery: Delivery) -> list[bytes]:
            return [] if kind_of(delivery.data) is MessageType.CHUNK else [delivery.data]

        fed.network.tamper = tamper
        contribute(fed, values, dict(values), live)
        for name in live:
            fed.members[name].abandon()
        fed.network.tamper = None
        assert not any(fed.members[name].update_spent for name in live)
        assert np.array_equal(values["north"].to_host(), updates["north"])


def test_what_lies_on_a_device_is_known_as_such() -> None:
    update = vectors()["north"]
    assert cuda.is_device_value(in_tensors(update)) and cuda.is_device_value(on_device(update))
    assert cuda.is_device_value(Bfloat16(update))
    assert not any(cuda.is_device_value(other) for other in (update, [update], [], None, 3.0))

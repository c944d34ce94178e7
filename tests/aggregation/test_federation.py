"""All protocols and shapes against plain integers; losses, retries, sums, threads, costs."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from aggregation_support import (
    LAYOUT,
    NAMES,
    SIZE,
    drop_when,
    expected_integers,
    federation,
    kind_of,
    parameters,
    sender_of,
    vectors,
)

from pppml_fast import InputError, KeyReuseError, LayoutMismatchError, ParameterError, ProtocolError
from pppml_fast.aggregation import Federation, PartyMachine, Policy, State, open_federation
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.transport import Delivery, Outgoing

SHAPES = [("collective", "ring"), ("collective", "star"), ("initiator", "ring"), ("plain", "ring"), ("plain", "star")]


@pytest.mark.parametrize("parties", [3, 5])
@pytest.mark.parametrize(("protocol", "topology"), SHAPES)
def test_every_protocol_opens_the_sum_of_the_quantised_integers(protocol: str, topology: str, parties: int) -> None:
    shares = dict(zip(NAMES, (0.4, 0.3, 0.3) if parties == 3 else (0.3, 0.25, 0.2, 0.15, 0.1), strict=False))
    updates = vectors(parties)
    with federation(parties, protocol, topology, weights=shares) as fed:
        for round_ in (0, 1):
            result = fed.aggregate({name: np.roll(vector, round_) for name, vector in updates.items()}, round=round_)
            rolled = np.roll(expected_integers(fed.params, updates, shares), round_)
            assert np.array_equal(result.integers, rolled)
            assert result.members == NAMES[:parties]
            assert (result.round, result.attempt) == (round_, 0)
        mean = sum(shares[name] * np.clip(np.roll(updates[name], 1), -1, 1) for name in shares)
        assert result.vector.dtype == np.float32
        assert np.abs(result.vector - mean).max() <= parties * fed.params.step
        assert all(count > 0 for count in result.costs.clipped.values())
        assert not any(machine.refusals for machine in fed.members.values())


@pytest.mark.parametrize("topology", ["ring", "star"])
def test_collective_and_plain_give_one_vector_bit_for_bit(topology: str) -> None:
    params, updates = parameters(3), vectors()
    encrypted = federation(topology=topology, params=params).aggregate(updates, round=0)
    plain = federation(protocol="plain", params=params).aggregate(updates, round=0)
    assert encrypted.vector.tobytes() == plain.vector.tobytes()
    assert np.array_equal(encrypted.integers, plain.integers)


def test_initiator_and_plain_give_one_vector_bit_for_bit() -> None:
    params, updates = parameters(3, "initiator"), vectors()
    for round_ in range(3):
        encrypted = federation(protocol="initiator", params=params).aggregate(updates, round=round_)
        plain = federation(protocol="plain", params=params).aggregate(updates, round=round_)
        assert encrypted.vector.tobytes() == plain.vector.tobytes()


@pytest.mark.parametrize("name", ["p50", "p62", "compact"])
def test_other_parameter_sets(name: str) -> None:
    updates = vectors()
    with federation(params=parameters(3, name=name), topology="star") as fed:
        result = fed.aggregate(updates, round=0)
        assert np.array_equal(result.integers, expected_integers(fed.params, updates, dict.fromkeys(NAMES[:3], 1 / 3)))


def test_free_weights_give_the_mean_of_the_live_set() -> None:
    updates = vectors()
    with federation(params=parameters(3, weights="free")) as fed:
        result = fed.aggregate(updates, round=0)
    mean = sum(np.clip(vector, -1, 1) for vector in updates.values()) / 3
    assert np.abs(result.vector - mean).max() <= fed.params.step


@pytest.mark.parametrize(("protocol", "topology"), SHAPES)
def test_sum_adds_anything_additive(protocol: str, topology: str) -> None:
    with federation(3, protocol, topology) as fed:
        for repeat in range(2):
            counts = {name: np.array([repeat + index, 0.5]) / 8 for index, name in enumerate(NAMES[:3])}
            total = fed.sum(counts)
            assert np.allclose(total.vector, [(3 * repeat + 3) / 8, 3 / 16], atol=3 * fed.sum_params.step)
        fed.aggregate(vectors(), round=0)


def test_sum_refuses_what_it_would_have_to_clip() -> None:
    with federation(sum_clip=4.0) as fed:
        assert fed.sum({name: [3.5] for name in NAMES[:3]}).vector == pytest.approx(10.5, abs=1e-4)
        with pytest.raises(InputError, match=r"'east' reaches 4.5; sums hold up to 4"):
            fed.sum({"north": [1.0], "east": [-4.5], "south": [1.0]})


def test_threads_meet_in_a_sum() -> None:
    with federation() as fed:
        totals: dict[str, np.ndarray] = {}
        updates = vectors()

        def work(name: str, value: float) -> None:
            handle = fed.aggregators[name]
            assert handle.party == name
            first = handle.sum(np.array([value]))
            second = handle.sum(updates[name], weight=1 / 3)
            totals[name] = np.concatenate([first, second])

        threads = [threading.Thread(target=work, args=(name, 0.1 * i)) for i, name in enumerate(NAMES[:3])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(600)
        assert set(totals) == set(NAMES[:3])
        assert len({total.tobytes() for total in totals.values()}) == 1
        assert totals["north"][0] == pytest.approx(0.3, abs=1e-4)
        assert totals["north"].size == 1 + SIZE


def test_threads_all_receive_the_error_and_wrong_weights_are_refused() -> None:
    with federation() as fed:
        errors: list[str] = []

        def work(name: str, vector: np.ndarray) -> None:
            with pytest.raises(InputError) as caught:
                fed.aggregators[name].sum(vector)
            errors.append(str(caught.value))

        values = [np.array([0.1]), np.array([np.nan]), np.array([0.2])]
        threads = [threading.Thread(target=work, args=pair) for pair in zip(NAMES[:3], values, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(600)
        assert len(errors) == 3
        assert all("'east'" in error for error in errors)
        with pytest.raises(ProtocolError, match=r"is not the roster's"):
            fed.aggregators["north"].sum(np.zeros(SIZE, np.float32), weight=0.9)


def test_shares_leave_before_the_sum_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bytes] = []
    shares: list[bytes] = []
    states: dict[str, State] = {}
    receive = PartyMachine.receive

    def last_to_sign(delivery: Delivery) -> list[bytes]:
        """South hears the others' statements only once it has their shares."""
        kind = kind_of(delivery.data)
        if delivery.hop != "south" or kind not in (MessageType.STATEMENT, MessageType.SHARE):
            return [delivery.data]
        (held if kind is MessageType.STATEMENT else shares).append(delivery.data)
        return [] if kind is MessageType.STATEMENT else [delivery.data, *(held if len(shares) == 2 else [])]

    def spy(self: PartyMachine, data: bytes) -> list[Outgoing]:
        out = receive(self, data)
        if any(kind_of(message.data) is MessageType.SHARE for message in out):
            states[self.name] = self.state
        return out

    monkeypatch.setattr(PartyMachine, "receive", spy)
    with federation(5, threshold=3) as fed:
        fed.network.tamper = last_to_sign
        result = fed.aggregate(vectors(5), round=0)
        assert states == dict.fromkeys(NAMES, State.OPENING)
        assert not any(machine.has_work for machine in fed.members.values())
    assert result.members == NAMES


def test_costs_follow_the_cost_model() -> None:
    with federation(chunk_blocks=4) as fed:
        costs = fed.aggregate(vectors(), round=0).costs
    payload = 31 / 8 * SIZE
    chunks = -(-fed.params.block_count(SIZE) // 4)
    assert costs.bytes_ring == pytest.approx(payload + chunks * (72 + 16 + 11), abs=chunks)
    assert costs.bytes_per_weight == costs.bytes_ring / SIZE
    share = 2048 * 17 / 8
    assert 4 * share < costs.bytes_shares < 4 * (share + 300)
    assert costs.encrypt_s > 0
    assert costs.open_s > 0
    assert costs.ring_s > costs.encrypt_s


def test_nan_is_refused_by_tensor_name_before_anything_begins() -> None:
    updates = {name: [np.zeros((50, 80), np.float32), np.full(5000, 0.1, np.float32)] for name in NAMES[:3]}
    updates["east"][1][77] = np.inf
    with federation() as fed:
        with pytest.raises(InputError, match=r"party 'east': tensor 'head' holds inf at flat index 77"):
            fed.aggregate(updates, round=0)
        updates["east"][1][77] = 0
        fed.aggregate(updates, round=0)


def test_wrong_inputs_are_named() -> None:
    with federation() as fed:
        with pytest.raises(InputError, match=r"'south' handed in nothing"):
            fed.aggregate({name: vectors()[name] for name in NAMES[:2]}, round=0)
        with pytest.raises(InputError, match=r"has 3 values, the layout 9000"):
            fed.aggregate({**vectors(), "east": np.zeros(3, np.float32)}, round=0)
        with pytest.raises(InputError, match=r"dtype int64"):
            fed.aggregate({**vectors(), "east": np.zeros(SIZE, np.int64)}, round=0)
        fed.aggregate(vectors(), round=4)
        with pytest.raises(ProtocolError, match=r"round 4 is already finished"):
            fed.aggregate(vectors(seed=9), round=4)
        with pytest.raises(KeyReuseError, match=r"spent"):
            fed.aggregate(vectors(), round=5)


def test_vectors_of_different_length_end_the_round() -> None:
    with federation() as fed, pytest.raises(ProtocolError, match=r"all vectors must have one length"):
        fed.sum({"north": np.zeros(4000), "east": np.zeros(4000), "south": np.zeros(2000)})


# --- losses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["ring", "star"])
@pytest.mark.parametrize("lost", ["north", "south", "centre"])
def test_a_party_gone_before_it_contributed_is_skipped(topology: str, lost: str) -> None:
    updates = vectors(5)
    with federation(5, topology=topology) as fed:
        sent: list[MessageType] = []

        def condition(delivery: Delivery) -> bool:
            sent.append(kind_of(delivery.data))
            return sent.count(MessageType.DEAL) == 20 + (20 if topology == "star" else 0)

        drop_when(fed, lost, condition)
        result = fed.aggregate(updates, round=0)
        live = [name for name in NAMES if name != lost]
        assert result.members == tuple(live)
        whole = sum(np.clip(updates[name], -1, 1) for name in live) / 4
        assert np.abs(result.vector - whole).max() <= 8 * fed.params.step
        with pytest.raises(KeyReuseError, match=r"spent"):
            fed.aggregate({name: updates[name] for name in live}, round=1)


def drop_at_second_chunk(fed: Federation, party: str) -> None:
    """Lose a party in the middle of its stream."""
    chunks: list[bytes] = []

    def condition(delivery: Delivery) -> bool:
        if kind_of(delivery.data) is MessageType.CHUNK and sender_of(delivery.data) == party:
            chunks.append(delivery.data)
        return len(chunks) == 2

    drop_when(fed, party, condition)


@pytest.mark.parametrize("lost", ["north", "south"])
def test_a_party_lost_while_streaming_ends_the_attempt_and_the_rest_try_again(lost: str) -> None:
    updates = vectors(5)
    with federation(5) as fed:
        drop_at_second_chunk(fed, lost)
        result = fed.aggregate(updates, round=0)
        assert result.attempt == 1
        assert result.members == tuple(name for name in NAMES if name != lost)
        share = {name: 0.2 for name in result.members}
        live = {name: updates[name] for name in result.members}
        assert np.array_equal(result.integers, expected_integers(fed.params, live, share))


def test_a_star_drops_the_half_received_term_of_a_lost_party() -> None:
    updates = vectors(5)
    with federation(5, topology="star") as fed:
        drop_at_second_chunk(fed, "east")
        result = fed.aggregate(updates, round=0)
        assert result.attempt == 0
        assert result.members == ("north", "south", "west", "centre")


@pytest.mark.parametrize("topology", ["ring", "star"])
def test_threshold_opening_with_one_party_lost_after_its_contribution(topology: str) -> None:
    updates = vectors(5)
    with federation(5, topology=topology) as fed:
        drop_when(fed, "west", lambda d: kind_of(d.data) is MessageType.SHARE and sender_of(d.data) == "west")
        result = fed.aggregate(updates, round=0)
        assert result.members == NAMES
        assert result.attempt == 0
        assert fed.parties == ("north", "east", "south", "centre")
        share = dict.fromkeys(NAMES, 0.2)
        assert np.array_equal(result.integers, expected_integers(fed.params, updates, share))


def test_lost_between_contribution_and_statement_means_a_new_attempt() -> None:
    updates = vectors(5)
    with federation(5, threshold=5) as fed:
        drop_when(fed, "east", lambda d: kind_of(d.data) is MessageType.STATEMENT and sender_of(d.data) == "east")
        result = fed.aggregate(updates, round=0)
        assert result.attempt == 1
        assert "east" not in result.members


def test_three_parties_cannot_go_on_as_two() -> None:
    with federation() as fed:
        drop_when(fed, "south", lambda d: kind_of(d.data) is MessageType.CHUNK)
        with pytest.raises(ProtocolError, match=r"did not finish"):
            fed.aggregate(vectors(), round=0)
        assert all(fed.members[name].state is State.ABANDONED for name in fed.parties)
        with pytest.raises(ProtocolError, match=r"under the minimum of 3"):
            fed.aggregate(vectors(), round=0)


def test_too_few_shares_leave_the_update_spent() -> None:
    updates = vectors(3)
    with federation(3) as fed:
        drop_when(fed, "south", lambda d: kind_of(d.data) is MessageType.SHARE and sender_of(d.data) == "south")
        with pytest.raises(ProtocolError, match=r"the update is spent"):
            fed.aggregate(updates, round=0)
        assert fed.members["north"].state is State.OPENING
        with pytest.raises(ProtocolError, match=r"already released"):
            fed.members["north"].abandon()
        fed.members["north"].discard()
        assert fed.members["north"].state is State.DISCARDED


def test_the_relay_lost_ends_the_round() -> None:
    with federation(topology="star") as fed:
        drop_when(fed, "relay", lambda d: kind_of(d.data) is MessageType.CHUNK)
        with pytest.raises(ProtocolError, match=r"relay was lost|too few"):
            fed.aggregate(vectors(), round=0)


@pytest.mark.parametrize("lost", ["north", "east"])
def test_initiator_round_with_a_loss_while_streaming_is_over_and_spent(lost: str) -> None:
    updates = vectors(5)
    with federation(5, "initiator") as fed:
        drop_at_second_chunk(fed, lost)
        with pytest.raises(ProtocolError, match=r"did not finish"):
            fed.aggregate(updates, round=0)
        spent = [name for name in fed.parties if fed.members[name].state is State.DISCARDED]
        assert spent


def test_initiator_skips_a_party_gone_before_it_contributed() -> None:
    updates = vectors(5)
    with federation(5, "initiator") as fed:
        drop_when(fed, "west", lambda d: kind_of(d.data) is MessageType.PUBLIC_KEY)
        result = fed.aggregate(updates, round=1)
        assert result.members == ("north", "east", "south", "centre")
        live = {name: updates[name] for name in result.members}
        assert np.array_equal(result.integers, expected_integers(fed.params, live, dict.fromkeys(live, 0.2)))


# --- drift, refusals to open a federation -----------------------------------------------------------------------


def test_drift_of_one_model_stops_the_next_round() -> None:
    with federation() as fed:
        fed.aggregate(vectors(), round=0)
        same = dict.fromkeys(NAMES[:3], b"m" * 32)
        fed.compare_models(same)
        with pytest.raises(ProtocolError, match=r"model of '.*' differs .* after round 0"):
            fed.compare_models({**same, "east": b"x" * 32})
        for begin in (lambda: fed.aggregate(vectors(seed=1), round=1), lambda: fed.sum({name: [0.1] for name in same})):
            with pytest.raises(ProtocolError, match=r"differs"):
                begin()


def test_two_parties_need_to_say_so() -> None:
    with pytest.raises(ProtocolError, match=r"tells each party the other's value.*allow_two_parties=True"):
        federation(2)
    with pytest.raises(ProtocolError, match=r"1 parties are too few"):
        federation(1, allow_two_parties=True, params=parameters(3))
    with federation(2, allow_two_parties=True) as fed:
        assert fed.aggregate(vectors(2), round=0).members == NAMES[:2]


def test_another_layout_is_refused_by_the_first_tensor_that_differs() -> None:
    other = type(LAYOUT).from_arrays({"stem": np.zeros((50, 81), np.float32), "head": np.zeros(5000, np.float32)})
    with pytest.raises(LayoutMismatchError, match=r"tensor 0 differs: expected stem\[50, 81\].*stem\[50, 80\]"):
        federation(layouts={"east": other})


def test_parameters_must_fit_the_protocol() -> None:
    with pytest.raises(ParameterError, match=r"needs parameters with keys='collective'"):
        federation(params=parameters(3, "initiator"))
    with pytest.raises(ParameterError, match=r"needs parameters with keys='public'"):
        federation(protocol="initiator", params=parameters(3))
    with pytest.raises(ParameterError, match=r"for 3 parties, 5 take part"):
        federation(5, params=parameters(3))
    with pytest.raises(ParameterError, match=r"weights='free'"):
        federation(params=parameters(3, weights="free"), weights=dict.fromkeys(NAMES[:3], 1 / 3))
    with pytest.raises(ProtocolError, match=r"initiator protocol needs a ring"):
        federation(protocol="initiator", topology="star")
    for wrong in ({"protocol": "magic"}, {"topology": "mesh"}):
        with pytest.raises(ProtocolError, match=r"is unknown"):
            open_federation(NAMES[:3], params=parameters(3), **wrong)


def test_one_hospital_is_never_opened_by_weights() -> None:
    with pytest.raises(ProtocolError, match=r"weight"):
        federation(weights={"north": 1.0, "east": 0.0, "south": 0.0})
    with pytest.raises(ProtocolError, match=r"'north' holds 0.800 of the weight; the limit is 0.5"):
        federation(weights={"north": 0.8, "east": 0.1, "south": 0.1})
    with pytest.raises(ProtocolError, match=r"add up to 0.9"):
        federation(weights=dict.fromkeys(NAMES[:3], 0.3))
    with pytest.raises(ProtocolError, match=r"holds 0.600"):
        policies = {"north": Policy(max_share=0.9), "east": Policy(max_share=0.9)}
        federation(weights={"north": 0.6, "east": 0.2, "south": 0.2}, policy=policies)


def test_a_live_set_in_which_one_party_weighs_too_much_is_refused() -> None:
    """Weights that are acceptable over five are not over what is left of them."""
    shares = dict(zip(NAMES, (0.45, 0.05, 0.3, 0.1, 0.1), strict=True))
    with federation(5, weights=shares) as fed:
        drop_when(fed, "south", lambda d: kind_of(d.data) is MessageType.DEAL and d.hop == "centre")
        with pytest.raises(ProtocolError, match=r"did not finish.*holds 0.643"):
            fed.aggregate(vectors(5), round=0)


def test_closed_federation_begins_nothing() -> None:
    with federation() as fed:
        pass
    with pytest.raises(ProtocolError, match=r"channel|group key"):
        fed.aggregate(vectors(), round=0)


def test_the_sum_check_runs_in_a_ring_where_it_is_asked_for() -> None:
    updates = vectors()
    with federation(sum_check=True, record=True) as fed:
        result = fed.aggregate(updates, round=0)
        assert np.array_equal(result.integers, expected_integers(fed.params, updates, dict.fromkeys(NAMES[:3], 1 / 3)))
        assert sum(kind_of(d.data) is MessageType.TAG for d in fed.network.transcript) == 6
    with federation(record=True) as fed:
        fed.aggregate(updates, round=0)
        assert not any(kind_of(d.data) is MessageType.TAG for d in fed.network.transcript)


def test_a_set_threshold_opens_with_two_parties_lost_after_they_signed() -> None:
    updates = vectors(5)
    with federation(5, threshold=3) as fed:

        def tamper(delivery: Delivery) -> list[bytes]:
            if kind_of(delivery.data) is MessageType.SHARE:
                fed.network.drop("west")
                fed.network.drop("centre")
            return [] if delivery.sender in fed.network.dropped else [delivery.data]

        fed.network.tamper = tamper
        result = fed.aggregate(updates, round=0)
        assert result.members == NAMES
        assert np.array_equal(result.integers, expected_integers(fed.params, updates, dict.fromkeys(NAMES, 0.2)))
    for threshold in (2, 6):
        with pytest.raises(ParameterError, match=r"out of range; choose 3..5"):
            federation(5, threshold=threshold)

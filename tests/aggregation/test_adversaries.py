"""Each adversary gets its transcript and tries: what it must not learn stays shut, what it does learn is shown.

Every attempt has its counterpart: the same tools, given what the adversary lacks, do open the vector. A test in which
nothing could ever open would prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from aggregation_support import NAMES, SIZE, expected_integers, federation, kind_of, vectors
from numpy.typing import NDArray

from pppml_fast import Ciphertext, CkksParams, OpeningKey, PppmlError, ProtocolError, add, quantize
from pppml_fast.aggregation import Federation
from pppml_fast.aggregation.messages import SIGNED, MessageType, parse_frame
from pppml_fast.aggregation.payloads import Chunk, Deal, Hello, ShareSum
from pppml_fast.aggregation.session import Message
from pppml_fast.aggregation.sharing import FIELD, combine
from pppml_fast.transport import Delivery

Opened = dict[str, list[Message]]
Integers = NDArray[np.int64]


def of_kind(messages: Iterable[Message], kind: MessageType) -> list[Message]:
    return [message for message in messages if message.header.type is kind]


def context_of(fed: Federation) -> bytes:
    return fed.members["north"]._now.id.context


def assembled(params: CkksParams, messages: list[Message], context: bytes | None) -> Ciphertext:
    """The ciphertext that a party's incoming chunks hold."""
    terms = len(Chunk.parse(messages[0].body).contributors)
    ciphertext = Ciphertext.zeros(params, SIZE, terms, context)
    for message in messages:
        ciphertext.load(message.header.start, message.header.stop, Chunk.parse(message.body).payload)
    return ciphertext


def open_with(params: CkksParams, secret: Integers, ciphertext: Ciphertext) -> Integers:
    return OpeningKey.from_coefficients(params, secret, terms=ciphertext.terms).decrypt(ciphertext, integers=True)


def stays_shut(params: CkksParams, guesses: Iterable[Integers], ciphertexts: Iterable[Ciphertext]) -> int:
    """Try every guess at a key on every ciphertext; returns how many were tried."""
    tried = 0
    targets = list(ciphertexts)
    for guess in guesses:
        for ciphertext in targets:
            with pytest.raises(PppmlError):
                open_with(params, guess, ciphertext)
            tried += 1
    return tried


def key_of_sum(opened: Opened, live: Iterable[str], threshold: int) -> Integers:
    """S_U from the sums of shares that one member received, with those of another for the member's own."""
    shares: dict[int, Integers] = {}
    for name in live:
        for message in of_kind(opened[name], MessageType.SHARE):
            shares[message.header.sender + 1] = ShareSum.parse(message.body).values
    return combine(dict(sorted(shares.items())[:threshold]), threshold)


def dealt_to(opened: Opened, holder: str, dealer: str) -> Integers:
    """The share of ``dealer``'s key that ``holder`` received."""
    for message in of_kind(opened[holder], MessageType.DEAL):
        if NAMES[message.header.sender] == dealer:
            return Deal.parse(message.body).share
    raise AssertionError(f"{holder} holds no share of {dealer}")


def field_guesses(frames: Iterable[bytes], size: int) -> list[Integers]:
    """Whatever bytes of a transcript might be a key, read as small integers and as field elements."""
    guesses: list[Integers] = []
    for data in frames:
        body = parse_frame(data).body
        if len(body) >= 2 * size:
            words = np.frombuffer(body[: 2 * size], "<u2").astype(np.int64)
            guesses += [words - (words > FIELD // 2) * FIELD, words % 91 - 45]
    return guesses


def record_sealed(fed: Federation) -> list[Delivery]:
    return [d for d in fed.network.transcript if kind_of(d.data) not in SIGNED]


# --- relay ------------------------------------------------------------------------------------------------------


def test_relay_cannot_form_the_key_from_its_full_transcript(opened: Opened) -> None:
    updates = vectors()
    with federation(topology="star", record=True, chunk_blocks=8) as fed:
        fed.aggregate(updates, round=0)
        relay, params = fed.relay, fed.params
        assert relay is not None
        carried = [d.data for d in fed.network.transcript if "relay" in (d.sender, d.hop)]
        assert len(carried) == len(fed.network.transcript), "in a star everything passes the relay"
        terms: dict[int, list[Message]] = {}
        for message in of_kind(opened["relay"], MessageType.CHUNK):
            terms.setdefault(message.header.sender, []).append(message)
        singles = [assembled(params, chunks, context_of(fed)) for chunks in terms.values()]
        total = add(singles)

        for name in NAMES[:3]:
            for message in of_kind(opened[name], MessageType.DEAL) + of_kind(opened[name], MessageType.SHARE):
                clear = message.body[40:140]
                assert not any(clear in data for data in carried), "a share travelled in clear"
        assert {message.header.type for message in opened["relay"]} == {MessageType.READY, MessageType.CHUNK}
        for data in carried:
            frame = parse_frame(data)
            if frame.header.type in (MessageType.DEAL, MessageType.SHARE):
                with pytest.raises(ProtocolError):
                    relay._now.gate.accept(frame)
                with pytest.raises(ProtocolError, match=r"altered"):
                    channel = relay.session._channels[frame.header.sender].scope(0, 0)
                    channel.next_received = frame.header.sequence
                    channel.open(frame.prefix, frame.header.sequence, frame.body)
        with pytest.raises(ProtocolError, match=r"no group key"):
            relay.session.group_key("sum check", context_of(fed))
        guesses = [np.zeros(params.ring_dimension, np.int64), *field_guesses(carried, params.ring_dimension)]
        assert stays_shut(params, guesses, [total, *singles]) >= 4 * 12

        secret = key_of_sum(opened, NAMES[:3], 3)
        expected = expected_integers(params, updates, dict.fromkeys(NAMES[:3], 1 / 3))
        assert np.array_equal(open_with(params, secret, total), expected)


def test_relay_without_the_tags_key_reads_no_tag(opened: Opened) -> None:
    """The terms of the sum check pass through the relay; their clear bytes do not."""
    from pppml_fast import sum_check_tag

    with federation(topology="star", record=True, chunk_blocks=8) as fed:
        fed.aggregate(vectors(), round=0)
        key = fed.members["north"].session.group_key("sum check", context_of(fed))
        chunks = [m for m in of_kind(opened["relay"], MessageType.CHUNK) if m.header.sender == 0]
        tag = sum_check_tag(assembled(fed.params, chunks, context_of(fed)), key)
        carried = [d.data for d in fed.network.transcript if kind_of(d.data) is MessageType.TAG]
        assert carried
        assert all(tag[:64] not in data for data in carried)
        assert any(len(parse_frame(data).body) == len(tag) + 16 for data in carried)


# --- eavesdropper -----------------------------------------------------------------------------------------------


def test_eavesdropper_sees_sizes_and_nothing_else(opened: Opened) -> None:
    updates = vectors()
    with federation(record=True, chunk_blocks=8) as fed:
        fed.aggregate(updates, round=0)
        sealed = record_sealed(fed)
        assert {kind_of(d.data) for d in sealed} == {
            MessageType.READY,
            MessageType.DEAL,
            MessageType.CHUNK,
            MessageType.RETURN,
            MessageType.SHARE,
        }
        wire = b"".join(d.data for d in fed.network.transcript)
        bodies = [m.body for messages in opened.values() for m in messages if m.header.type not in SIGNED]
        assert len(bodies) == len(sealed)
        for body in bodies:
            assert body[-24:] not in wire
        for vector in updates.values():
            assert vector[:4].tobytes() not in wire
        ranges = {(parse_frame(d.data).header.start, parse_frame(d.data).header.stop) for d in sealed}
        assert ranges == {(0, 0), (0, 5)}, "metadata is visible: block ranges and sizes"


def test_eavesdropper_with_every_identity_key_still_lacks_the_session_keys(opened: Opened) -> None:
    """Identities only sign: who steals them later cannot open what was recorded (forward secrecy)."""
    with federation(record=True) as fed:
        fed.aggregate(vectors(), round=0)
        hellos = [Hello.parse(parse_frame(d.data).body) for d in fed.network.transcript[:9] if kind_of(d.data) == 2]
        assert hellos
        stolen = [machine.session.identity._private_key.private_bytes_raw() for machine in fed.members.values()]
        from pppml_fast.aggregation.pairwise import SealedChannel

        deal = parse_frame(next(d.data for d in fed.network.transcript if kind_of(d.data) is MessageType.DEAL))
        for key in (*stolen, *(hello.random for hello in hellos)):
            channel = SealedChannel(key, key)
            channel.next_received = deal.header.sequence
            with pytest.raises(ProtocolError, match=r"altered"):
                channel.open(deal.prefix, deal.header.sequence, deal.body)


# --- neighbour --------------------------------------------------------------------------------------------------


def test_neighbour_holds_a_ciphertext_it_cannot_open(opened: Opened) -> None:
    """East receives north's term alone, and one share of north's key where three are needed."""
    updates = vectors()
    with federation() as fed:
        fed.aggregate(updates, round=0)
        params = fed.params
        term = assembled(params, of_kind(opened["east"], MessageType.CHUNK), context_of(fed))
        assert term.terms == 1
        share = dealt_to(opened, "east", "north")
        total_key = key_of_sum(opened, NAMES[:3], 3)
        guesses = [
            share - (share > FIELD // 2) * FIELD,
            combine({2: share}, 1),
            total_key,
            np.zeros_like(share),
        ]
        assert stays_shut(params, guesses, [term]) == 4


# --- colluders --------------------------------------------------------------------------------------------------


def test_n_minus_one_colluders_learn_the_rest() -> None:
    """No protocol prevents it: the sum less their own values is the last party's vector. The limit is stated."""
    updates = vectors()
    with federation() as fed:
        result = fed.aggregate(updates, round=0)
        own = sum(quantize(fed.params, updates[name], 1 / 3) for name in ("east", "south"))
        assert np.array_equal(result.integers - own, quantize(fed.params, updates["north"], 1 / 3))


def test_t_colluders_open_a_single_update_and_fewer_do_not(opened: Opened) -> None:
    """Four of five pool their shares of north's key; east kept north's chunks. The limit is stated."""
    updates = vectors(5)
    with federation(5) as fed:
        fed.aggregate(updates, round=0)
        params = fed.params
        term = assembled(params, of_kind(opened["east"], MessageType.CHUNK), context_of(fed))
        pooled = {NAMES.index(name) + 1: dealt_to(opened, name, "north") for name in NAMES[1:]}
        assert fed.members["north"]._now.threshold == 4
        secret = combine(pooled, 4)
        assert np.array_equal(open_with(params, secret, term), quantize(params, updates["north"], 0.2))
        assert np.abs(secret).max() < 60

        fewer = dict(list(pooled.items())[:3])
        with pytest.raises(ProtocolError, match=r"3 shares cannot open"):
            combine(fewer, 4)
        assert stays_shut(params, [combine(fewer, 3)], [term]) == 1


# --- receiver of the sum ----------------------------------------------------------------------------------------


def test_receiver_of_the_sum_learns_the_sum_and_its_own_part(opened: Opened) -> None:
    """It holds S_U, the sum and its own vector; the others' vectors stay added up."""
    updates = vectors(5)
    with federation(5) as fed:
        result = fed.aggregate(updates, round=0)
        params = fed.params
        secret = key_of_sum(opened, NAMES, 4)
        prefixes = [assembled(params, of_kind(opened[name], MessageType.CHUNK), context_of(fed)) for name in NAMES[1:]]
        assert [prefix.terms for prefix in prefixes] == [1, 2, 3, 4]
        assert stays_shut(params, [secret], prefixes) == 4
        rest = result.integers - quantize(params, updates["east"], 0.2)
        others: Mapping[str, Any] = {name: updates[name] for name in NAMES if name != "east"}
        assert np.array_equal(rest, expected_integers(params, others, dict.fromkeys(others, 0.2)))


# --- initiator with one other -----------------------------------------------------------------------------------


def test_initiator_and_one_other_open_a_prefix(opened: Opened) -> None:
    """The weaker variant's limit, shown: north's key and mask with south's incoming chunks give east's vector."""
    updates = vectors(5)
    with federation(5, "initiator") as fed:
        stolen: dict[str, Any] = {}

        def remember(delivery: Delivery) -> list[bytes]:
            north: Any = fed.members["north"]
            if kind_of(delivery.data) is MessageType.CHUNK and not stolen:
                stolen.update(secret=north._secret, seed=north._seed)
            return [delivery.data]

        fed.network.tamper = remember
        fed.aggregate(updates, round=0)
        prefix = assembled(fed.params, of_kind(opened["south"], MessageType.CHUNK), None)
        assert prefix.terms == 2
        with pytest.raises(PppmlError):
            stolen["secret"].decrypt(prefix, integers=True)
        both = stolen["secret"].decrypt(prefix.subtract_mask(stolen["seed"]), integers=True)
        east = both - quantize(fed.params, updates["north"], 0.2)
        assert np.array_equal(east, quantize(fed.params, updates["east"], 0.2))


def test_initiators_mask_hides_the_sum_from_whoever_has_only_the_key(opened: Opened) -> None:
    """R is uniform modulo Q and added after encryption, so the key alone opens nothing on the way."""
    with federation(protocol="initiator") as fed:
        stolen: list[Any] = []

        def remember(delivery: Delivery) -> list[bytes]:
            if kind_of(delivery.data) is MessageType.CHUNK and not stolen:
                stolen.append(getattr(fed.members["north"], "_secret"))  # noqa: B009
            return [delivery.data]

        fed.network.tamper = remember
        fed.aggregate(vectors(), round=0)
        for name in ("east", "south"):
            prefix = assembled(fed.params, of_kind(opened[name], MessageType.CHUNK), None)
            for guess in (prefix, prefix.subtract_mask(bytes(32))):
                with pytest.raises(PppmlError):
                    stolen[0].decrypt(guess, integers=True)
        north: Any = fed.members["north"]
        assert north._secret is None, "the key is forgotten after the round"
        assert north._seed == b""


def test_plain_is_open_to_every_neighbour(opened: Opened) -> None:
    """The yardstick hides nothing: east reads north's integers."""
    updates = vectors()
    with federation(protocol="plain", chunk_blocks=8) as fed:
        fed.aggregate(updates, round=0)
        (message,) = of_kind(opened["east"], MessageType.CHUNK)
        read = np.frombuffer(Chunk.parse(message.body).payload, "<i4")
        assert np.array_equal(read, quantize(fed.params, updates["north"], 1 / 3))

"""The `initiator` protocol's worst limit, shown: both neighbours of a party read its update exactly.

One of them adds K to the second polynomial of its own term. The sum that the initiator decrypts then holds K s, in
whole steps, so that every check passes and the *announced* sum shows s. The mask R hides the prefixes from whoever
knows s, but the party between the two adds its term to a prefix that both sides of it know: the difference has no R.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from aggregation_support import SIZE, federation, kind_of, vectors

from pppml_fast import Ciphertext, quantize
from pppml_fast.aggregation.messages import MessageType
from pppml_fast.aggregation.payloads import Chunk
from pppml_fast.aggregation.session import Message
from pppml_fast.cipher.keys import SecretKey
from pppml_fast.transport import Delivery


def incoming(opened: dict[str, list[Message]], name: str, params: Any) -> Ciphertext:
    """The running sum as ``name`` received it."""
    chunks = [message for message in opened[name] if message.header.type is MessageType.CHUNK]
    prefix = Ciphertext.zeros(params, SIZE, len(Chunk.parse(chunks[0].body).contributors))
    for message in chunks:
        prefix.load(message.header.start, message.header.stop, Chunk.parse(message.body).payload)
    return prefix


def test_both_neighbours_of_a_party_read_its_update(opened: dict[str, list[Message]]) -> None:
    # Updates are small beside the clip, as they are in practice: half the range is free for K s.
    updates = {name: 0.1 * vector for name, vector in vectors(5).items()}
    with federation(5, "initiator") as fed:
        params, west = fed.params, fed.members["west"]
        (q,), step = params.primes, params.sum_bound // 2
        state = {"altered": False}

        def alter(delivery: Delivery) -> list[bytes]:
            """West is dishonest: its own term gets K = delta * step in block 0 of c1, before it is added."""
            own: Any = getattr(west, "_own", None)
            if own is not None and not state["altered"] and kind_of(delivery.data) is MessageType.CHUNK:
                own.second[0] = (int(own.second[0]) + params.scale * step) % q
                state["altered"] = True
            return [delivery.data]

        fed.network.tamper = alter
        result = fed.aggregate(updates, round=0)
        assert state["altered"]

        # The announced sum of block 0 is the honest one plus step * s: the key is read off it.
        secret = np.rint(result.integers[: params.ring_dimension] / step).astype(np.int64)
        assert set(secret) == {-1, 0, 1}

        # East knows what it sent to south, west what it received: the difference is south's term under s, without R.
        before, after = incoming(opened, "south", params), incoming(opened, "west", params)
        assert (before.terms, after.terms) == (2, 3)
        term = Ciphertext.zeros(params, SIZE, 1)
        assert term.second is not None and before.second is not None and after.second is not None
        for target, left, right in (
            (term.first, after.first, before.first),
            (term.second, after.second, before.second),
        ):
            target[:] = (left.astype(np.int64) - right.astype(np.int64)) % q
        key = SecretKey(params, params._scheme.secret_from_coefficients(secret))
        update = key.decrypt(term, integers=True)
        assert np.array_equal(update, quantize(params, updates["south"], 1 / 5))

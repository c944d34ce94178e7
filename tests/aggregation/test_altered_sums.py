"""A star's relay that changes bytes of the sum: with the sum check on, no wrong sum ever opens."""

from __future__ import annotations

import random

import numpy as np
import pytest
from aggregation_support import NAMES, expected_integers, federation, parameters, vectors

from pppml_fast import Ciphertext, CiphertextError, PppmlError
from pppml_fast.aggregation.relay import Relay
from pppml_fast.transport.base import Outgoing


def altered(total: Ciphertext, chance: random.Random) -> Ciphertext:
    """``total`` with some bits of its bytes flipped, so that it still is a ciphertext."""
    wire = total.to_bytes()
    while True:
        changed = bytearray(wire)
        for _ in range(chance.choice((1, 1, 2, 50))):
            at = chance.randrange(84, len(changed))
            changed[at] ^= 1 << chance.randrange(8)
        try:
            return Ciphertext.from_bytes(total.params, changed)
        except CiphertextError:
            continue


@pytest.mark.parametrize("name", ["p31", "p50", "p62", "compact"])
@pytest.mark.parametrize("sum_check", [True, False])
def test_flipped_bits_of_the_sum_never_open_under_the_sum_check(
    monkeypatch: pytest.MonkeyPatch, name: str, sum_check: bool
) -> None:
    """Without it most of them do: the residual check looks for whole contributions, and a few residues escape it."""
    chance, keep = random.Random(name), Relay._return

    def changing(self: Relay) -> list[Outgoing]:
        now = self._now
        whole = not set(now.live) - now.added - now.lost
        if isinstance(now.total, Ciphertext) and whole and not now.returned:
            now.total = altered(now.total, chance)
        return keep(self)

    updates = vectors()
    wrong, refused, rounds = 0, 0, 6
    with federation(topology="star", sum_check=sum_check, params=parameters(3, name=name)) as fed:
        expected = expected_integers(fed.params, updates, dict.fromkeys(NAMES[:3], 1 / 3))
        assert np.array_equal(fed.aggregate(updates, round=0).integers, expected)
    for _ in range(rounds):
        with federation(topology="star", sum_check=sum_check, params=parameters(3, name=name)) as fed:
            monkeypatch.setattr(Relay, "_return", changing)
            try:
                result = fed.aggregate(updates, round=0)
                wrong += not np.array_equal(result.integers, expected)
            except PppmlError:
                refused += 1
                assert all(machine.outcome is None for machine in fed.members.values())
            monkeypatch.setattr(Relay, "_return", keep)
    if sum_check:
        assert (wrong, refused) == (0, rounds)
    else:
        assert wrong > 0

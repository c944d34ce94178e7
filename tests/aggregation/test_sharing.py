"""Shamir sharing over F_65537: any t shares open, fewer tell nothing, sums open as sums."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pppml_fast.aggregation.sharing import (
    FIELD,
    attempt_threshold,
    candidates,
    check_threshold,
    combine,
    default_threshold,
    random_field,
    share,
)
from pppml_fast.errors import ParameterError, ProtocolError


@given(parties=st.integers(3, 7), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_every_subset_of_threshold_size_opens_the_sum(parties: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    threshold = default_threshold(parties)
    secrets = generator.integers(-60, 61, (parties, 17))
    points = list(range(1, parties + 1))
    dealt = [share(secret, points, threshold) for secret in secrets]
    sums = {point: sum(shares[point] for shares in dealt) % FIELD for point in points}
    for chosen in itertools.combinations(points, threshold):
        opened = combine({point: sums[point] for point in chosen}, threshold)
        assert np.array_equal(opened, secrets.sum(axis=0))


def test_fewer_than_threshold_shares_fit_every_secret() -> None:
    """Perfect secrecy: t - 1 shares are completed to any other secret by one further share."""
    secret = np.array([7, -3, 0])
    shares = share(secret, [1, 2, 3], 3)
    known = {1: shares[1], 2: shares[2]}
    with pytest.raises(ProtocolError, match=r"2 shares cannot open a sum that needs 3"):
        combine(known, 3)
    seen = {int(combine({**known, 3: np.full(3, value)}, 3)[0]) for value in range(200)}
    assert len(seen) == 200


def test_single_shares_are_uniform() -> None:
    shares = share(np.full(60000, 5), [1, 2, 3], 3)
    counts, _ = np.histogram(shares[2], bins=16, range=(0, FIELD))
    assert np.abs(counts - 60000 / 16).max() < 6 * np.sqrt(60000 / 16)


def test_surplus_share_that_does_not_fit_is_refused() -> None:
    shares = share(np.arange(5), [1, 2, 3, 4], 3)
    assert np.array_equal(combine(shares, 3), np.arange(5))
    shares[4] = (shares[4] + 1) % FIELD
    with pytest.raises(ProtocolError, match=r"point 4 does not lie"):
        combine(shares, 3)


def test_rejection_redraws_the_one_word_that_would_bias() -> None:
    draws = [b"\xff\xff\xff\xff" + (65536).to_bytes(4, "little"), (65537 + 9).to_bytes(4, "little")]
    asked: list[int] = []

    def entropy(count: int) -> bytes:
        asked.append(count)
        return draws[len(asked) - 1]

    assert random_field((2,), entropy).tolist() == [9, 65536]
    assert asked == [8, 4]


@pytest.mark.parametrize(("parties", "threshold"), [(3, 3), (4, 4), (5, 4), (6, 5), (9, 7), (16, 11)])
def test_default_threshold(parties: int, threshold: int) -> None:
    assert default_threshold(parties) == threshold


def test_thresholds_never_fall_to_half() -> None:
    for parties in range(2, 20):
        check_threshold(parties // 2 + 1, parties)
        with pytest.raises(ParameterError, match=r"out of range"):
            check_threshold(parties // 2, parties)
        with pytest.raises(ParameterError, match=r"out of range"):
            check_threshold(parties + 1, parties)
        for live in range(parties // 2 + 1, parties + 1):
            assert parties < 2 * attempt_threshold(live, parties, None)
    assert attempt_threshold(6, 10, None) == 6
    assert attempt_threshold(9, 10, 8) == 8


def test_unusable_points_are_refused() -> None:
    for points in ([1, 1, 2], [0, 1, 2], [1, 2, FIELD]):
        with pytest.raises(ParameterError, match=r"points must be distinct"):
            share(np.arange(3), points, 2)


def test_one_false_share_is_found_among_more_than_are_needed() -> None:
    secret = np.random.default_rng(3).integers(-60, 61, 17)
    shares = share(secret, [1, 2, 3, 4, 5], 3)
    ((liar, found),) = candidates(shares, 3)
    assert liar is None and np.array_equal(found, secret)
    shares[4] = (shares[4] + 1) % FIELD
    ((liar, found),) = candidates(shares, 3)
    assert liar == 4 and np.array_equal(found, secret)
    # One more than are needed: any one may be the false one, and what opens tells which.
    few = {point: shares[point] for point in (1, 2, 4, 5)}
    left = dict(candidates(few, 3))
    assert set(left) == {1, 2, 4, 5} and np.array_equal(left[4], secret)
    assert not any(np.array_equal(left[point], secret) for point in (1, 2, 5))
    # As many as are needed always fit; fewer, and two false ones, give nothing.
    assert [liar for liar, _ in candidates({point: shares[point] for point in (1, 2, 4)}, 3)] == [None]
    assert list(candidates({1: shares[1], 2: shares[2]}, 3)) == []
    shares[5] = (shares[5] + 7) % FIELD
    assert list(candidates(shares, 3)) == []

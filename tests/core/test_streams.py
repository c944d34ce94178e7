"""Random streams and samplers: known answers, positions, distributions."""

import hashlib
import importlib.util
import math
from pathlib import Path

import numpy as np
import oracle
import pytest

from pppml_fast import _native

primitives = _native.primitives
KEY = hashlib.sha256(b"pppml known answer").digest()
CSRC = Path(__file__).parents[2] / "csrc"


def test_streams_are_positional() -> None:
    whole = primitives.stream(KEY, 1, 2, 0, 1000)
    for first, count in ((0, 1), (15, 2), (16, 16), (17, 100), (999, 1)):
        assert np.array_equal(primitives.stream(KEY, 1, 2, first, count), whole[first : first + count])


# Block 7 of this key holds two rejected candidates of the 31-bit primes, at coefficients 1080 and 1961
# (found by search over blocks 0 to 7).
@pytest.mark.parametrize("q", [2147389441, 2147377153, 2147352577])
def test_uniform_known_answer_with_rejections(q: int) -> None:
    mask = 2**31 - 1
    first = primitives.stream(KEY, 0, 7, 0, 2048) & mask
    assert np.flatnonzero(first >= q).tolist() == [1080, 1961]
    row = primitives.uniform(q, 11, KEY, 0, 7)
    assert row.tolist() == oracle.uniform(q, 2048, KEY, 0, 7)
    second = primitives.stream(KEY, 0, 7, 2048, 2048) & mask
    assert row[1080] == second[1080]
    assert row[1961] == second[1961]


def test_uniform_of_a_wide_prime() -> None:
    q = 1125899906826241
    assert primitives.uniform(q, 12, KEY, 0, 3).tolist() == oracle.uniform(q, 4096, KEY, 0, 3)


def test_uniform_digest_is_pinned() -> None:
    # Computed by oracle.uniform on 2026-11-23; a change here breaks every deployed party.
    row = primitives.uniform(2147389441, 11, KEY, 0, 7).astype("<u8")
    assert hashlib.sha256(row.tobytes()).hexdigest() == UNIFORM_DIGEST


UNIFORM_DIGEST = "b81693ff503be5573230aa17f54046d5845ec1a93075baa213f6383474c4f77e"


def test_residues_of_different_primes_are_independent() -> None:
    # Equal words in two residues would lift to a small integer: the key would fall to linear algebra.
    first, second = 2147377153, 2147352577
    a = np.concatenate([primitives.uniform(first, 12, KEY, 0, b) for b in range(16)]).astype(np.float64)
    b = np.concatenate([primitives.uniform(second, 12, KEY, 1, b) for b in range(16)]).astype(np.float64)
    count = a.size
    assert abs(np.corrcoef(a, b)[0, 1]) < 6 / math.sqrt(count)
    lifts = a.astype(object)
    garner = pow(first, -1, second)
    lifts = [int(x) + first * ((int(y) - int(x)) * garner % second) for x, y in zip(a, b, strict=True)]
    octiles = np.bincount([8 * v // (first * second) for v in lifts], minlength=8)
    chi_square = float(((octiles - count / 8) ** 2 / (count / 8)).sum())
    assert chi_square < 40  # seven degrees of freedom: exceeded with probability 1e-6


@pytest.mark.parametrize("table", sorted(oracle.GAUSSIANS))
def test_gaussian_agrees_with_the_oracle(table: str) -> None:
    got = primitives.gaussian(table, KEY, 3, 11, 2048)
    assert got.tolist() == oracle.gaussian(table, KEY, 3, 11, 2048)


# Samples whose top 31 bits equal a threshold: (block, coefficient, that threshold), found by a search over 2e5 blocks.
TIE_KEY = hashlib.sha256(b"pppml tie search").digest()
TIES = [(28101, 52, 2127193696), (51834, 152, 2147483646), (102882, 1493, 2147482093), (150887, 67, 897756029)]


@pytest.mark.parametrize(("block", "coefficient", "top"), TIES)
def test_gaussian_ties_take_the_tie_word(block: int, coefficient: int, top: int) -> None:
    assert int(primitives.stream(TIE_KEY, 0, block, coefficient, 1)[0]) >> 1 == top
    got = primitives.gaussian("collective_error", TIE_KEY, 0, block, 2048)
    assert got.tolist() == oracle.gaussian("collective_error", TIE_KEY, 0, block, 2048)


@pytest.mark.parametrize("table", sorted(oracle.GAUSSIANS))
def test_gaussian_distribution(table: str) -> None:
    variance, largest = oracle.GAUSSIANS[table]
    draws = np.concatenate([primitives.gaussian(table, KEY, 0, block, 4096) for block in range(250)])
    count, sigma2 = draws.size, float(variance)
    assert abs(draws.mean()) < 6 * math.sqrt(sigma2 / count)
    assert abs(draws.var() - sigma2) < 6 * sigma2 * math.sqrt(2 / count)
    assert abs(draws).max() <= largest
    density = np.exp(-(np.arange(-largest, largest + 1) ** 2) / (2 * sigma2))
    expected = count * density / density.sum()
    seen = np.bincount(draws + largest, minlength=2 * largest + 1)
    common = expected > 20
    chi_square = float(((seen - expected)[common] ** 2 / expected[common]).sum())
    freedom = int(common.sum())
    assert chi_square < freedom + 6 * math.sqrt(2 * freedom)


def test_ternary_agrees_with_the_oracle_and_is_uniform() -> None:
    draws = np.concatenate([primitives.ternary(KEY, 2, block, 4096) for block in range(50)])
    assert draws[:4096].tolist() == oracle.ternary(KEY, 2, 0, 4096)
    counts = np.bincount(draws + 1, minlength=3)
    assert np.all(abs(counts - draws.size / 3) < 6 * math.sqrt(draws.size * 2 / 9))


def test_the_committed_tables_are_what_their_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("gaussian_tables", CSRC / "kernels" / "gaussian_tables.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main()
    assert capsys.readouterr().out == (CSRC / "kernels" / "gaussian_tables.hpp").read_text()
    for _, variance, largest, _ in script.TABLES:
        assert tuple(script.thresholds(variance, largest)) == oracle.gaussian_cuts(str(variance), largest)
        assert largest >= 9.5 * math.sqrt(float(variance))


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(_native.RequirementError, match="takes 32"):
        primitives.stream(b"short", 0, 0, 0, 1)

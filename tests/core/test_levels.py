"""Security levels: the tables in the core, every preset against them, and the script that recomputes estimates."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from core_support import ntt_prime

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.levels import CASES, Case, judge, main, sanity_bits

# eprint 2024/463, tables 5.2 and 5.3: N, then the largest log2 Q for 128, 192 and 256 bits; 0 where there is none.
TABLES = {
    "classical": {
        1024: (26, 0, 0),
        2048: (53, 36, 27),
        4096: (106, 73, 56),
        8192: (214, 147, 114),
        16384: (430, 297, 230),
        32768: (868, 597, 462),
    },
    "quantum": {
        1024: (20, 0, 0),
        2048: (40, 29, 22),
        4096: (80, 59, 47),
        8192: (161, 119, 95),
        16384: (322, 239, 192),
        32768: (644, 479, 385),
    },
}
LIMITS = [
    (column, n, level, limit)
    for column, rows in TABLES.items()
    for n, limits in rows.items()
    for level, limit in zip((128, 192, 256), limits, strict=True)
    if limit
]


@pytest.mark.parametrize(("column", "n", "level", "limit"), LIMITS)
def test_each_limit_holds_up_to_itself_and_not_beyond(column: str, n: int, level: int, limit: int) -> None:
    index = ("classical", "quantum").index(column)
    assert _native.security_level(n, limit)[index] == level
    assert _native.security_level(n, math.nextafter(limit, 0))[index] == level
    assert _native.security_level(n, math.nextafter(limit, math.inf))[index] == {128: 0, 192: 128, 256: 192}[level]


# Exact sums take moduli below 2^62: there the limits can be met by a prime that ends just within or just beyond.
@pytest.mark.parametrize(("column", "n", "level", "limit"), [row for row in LIMITS if row[3] < 59])
def test_parameters_hold_each_limit_with_a_prime_of_as_many_bits(column: str, n: int, level: int, limit: int) -> None:
    def reached(bits: int) -> int:
        prime = ntt_prime(bits, n)
        assert bits - 1 < math.log2(prime) < bits
        return pf.CkksParams("edge", n, (prime,), 2, 1.0, "collective").level_bits[column]

    assert reached(limit) == level
    if (column, level) == ("classical", 128):
        with pytest.raises(pf.ParameterError, match=f"fewer than 128 bits; the limit is {limit} bits"):
            reached(limit + 1)
    else:
        assert reached(limit + 1) == {128: 0, 192: 128, 256: 192}[level]


def test_levels_asked_for_are_those_of_the_tables() -> None:
    # "128" means the quantum column and "128c" the classical one: compact has the second only.
    for level, column, least in (("128", "quantum", 128), ("128c", "classical", 128), ("192", "quantum", 192)):
        params = pf.CkksParams.for_sum(parties=3, clip=1.0, bits=10, level=level, keys="collective")
        assert params.level_bits[column] >= least
    chosen = {level: pf.CkksParams.for_sum(parties=3, clip=1.0, bits=16, level=level).name for level in ("128", "128c")}
    assert chosen["128c"] == "compact" != chosen["128"]


@pytest.mark.parametrize("n", [0, 1, 256, 512, 1023, 1536, 3000, 6144, 65536, 2**40])
def test_a_ring_that_the_tables_lack_is_refused(n: int) -> None:
    assert _native.security_level(n, 1) == (0, 0)
    assert _native.largest_modulus_bits(n) == 0
    with pytest.raises(pf.ParameterError, match=r"is not in the security tables; use 1024 \.\. 32768"):
        pf.CkksParams("unknown", n, (12289,), 3, 1.0)


# --- the script ------------------------------------------------------------------------------------------------------


def test_every_preset_and_key_mode_has_its_case() -> None:
    for name in pf.PRESETS:
        own = [case for case in CASES if case.name == name]
        assert {case.secret for case in own} == ({"ternary"} if name == "published" else {"ternary", "gaussian"})
        for case in own:
            assert case.modulus == math.prod(pf.PRESETS[name].primes) or name == "published"
            assert case.dimension == pf.PRESETS[name].ring_dimension
    # The deviations are the core's own: half the variance of what parties draw, then half of that again.
    collective, proved = (next(c for c in CASES if c.name == "p31" and c.keys == k) for k in KEYS)
    assert collective.deviations == pytest.approx((math.sqrt(20.25 / 2), math.sqrt(40.5 / 2)))
    assert proved.deviations == pytest.approx((math.sqrt(20.25 / 4), math.sqrt(40.5 / 4)))
    drawn = pf.CkksParams.preset("p31", parties=2, clip=1.0, keys="collective")._checked.noise_variance
    assert drawn == pytest.approx(2 * collective.deviations[1] ** 2)


KEYS = ("collective", "collective, proved")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}/{case.keys}")
def test_the_sanity_bound_fits_what_is_stated(case: Case) -> None:
    assert judge(case).faults == ()


def test_the_sanity_bound_meets_known_estimates() -> None:
    # Kyber-512 in the estimator's own documentation: 143.8 bits by primal uSVP at block size 406, MATZOV, GSA.
    kyber = Case("Kyber-512", "", 512, 3329, "ternary", (math.sqrt(1.5), math.sqrt(1.5)), 512, None)
    assert sanity_bits(kyber)[0] == pytest.approx(143.8, abs=1)


def test_the_sanity_bound_moves_as_it_must() -> None:
    case = CASES[0]
    classical, quantum = sanity_bits(case)
    assert quantum < classical
    assert sanity_bits(replace(case, modulus=case.modulus**2))[0] < classical - 80
    assert sanity_bits(replace(case, deviations=(2 * case.deviations[0], 2 * case.deviations[1])))[0] > classical + 8
    assert sanity_bits(replace(case, samples=case.dimension // 2))[0] > classical


class Estimator(SimpleNamespace):
    """Answers like the lattice estimator: ``bits`` for the cheapest attack, one that fails, one that costs more."""

    def __init__(self, bits: float) -> None:
        self.problems: list[dict[str, Any]] = []
        self.models: list[str] = []
        noise = SimpleNamespace(Uniform=lambda a, b: ("uniform", a, b), DiscreteGaussian=lambda s: ("gaussian", s))

        def estimate(problem: dict[str, Any], red_cost_model: str, deny_list: tuple[str, ...]) -> dict[str, Any]:
            assert "bkw" in deny_list
            self.models.append(red_cost_model)
            return {"usvp": {"rop": 2**400}, "bdd": {"rop": 2.0**bits}, "dual": {"rop": 10**400}}

        def parameters(**options: Any) -> dict[str, Any]:
            self.problems.append(options)
            return options

        lwe = SimpleNamespace(Parameters=parameters, estimate=estimate)
        models = SimpleNamespace(MATZOV="matzov", LaaMosPol14="laamospol")
        super().__init__(LWE=lwe, ND=noise, RC=models)


def test_estimates_are_asked_for_the_problem_of_the_case(capsys: pytest.CaptureFixture[str]) -> None:
    estimator, case = Estimator(260), CASES[0]
    assert main([], [case], lambda: estimator) == 0
    assert estimator.models == ["matzov", "laamospol"]
    (problem,) = estimator.problems
    assert (problem["n"], problem["q"]) == (2048, 2147389441)
    assert problem["Xs"] == ("gaussian", case.deviations[0])
    assert problem["Xe"] == ("gaussian", case.deviations[1])
    assert "m" not in problem
    out = capsys.readouterr().out
    assert "260.0 / 260.0  bdd, bdd" in out
    assert out.endswith("cases=1 faults=0 (estimates recomputed)\n")
    assert main([], [replace(case, secret="ternary", samples=2048, stated=None)], lambda: estimator) == 0
    assert estimator.problems[-1]["Xs"] == ("uniform", -1, 1)
    assert estimator.problems[-1]["m"] == 2048


@pytest.mark.parametrize(("bits", "code"), [(252.5, 0), (251.5, 1), (191, 1), (100, 1)])
def test_an_estimate_below_what_is_stated_fails(bits: float, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], [CASES[0]], lambda: Estimator(bits)) == code
    assert ("is below" in capsys.readouterr().out) == bool(code)


def test_an_estimate_below_the_table_fails_where_nothing_is_stated(capsys: pytest.CaptureFixture[str]) -> None:
    case = next(case for case in CASES if case.stated is None)
    assert main([], [case], lambda: Estimator(case.table[0] - 0.5)) == 1
    assert f"classical estimate {case.table[0] - 0.5:.1f} is below {case.table[0]}" in capsys.readouterr().out


def test_a_false_statement_fails_without_the_estimator(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sanity-only"], [replace(CASES[0], stated=(270, 239))], lambda: Estimator(1)) == 1
    assert "does not fit the stated 270" in capsys.readouterr().out
    assert main(["--sanity-only"], [replace(CASES[0], modulus=1 << 60)], lambda: Estimator(1)) == 1


def test_without_an_estimator_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], [CASES[0]], lambda: None) == 0
    assert "no estimate recomputed: primal uSVP only" in capsys.readouterr().out
    assert main(["--require-estimator"], [CASES[0]], lambda: None) == 2
    assert "passagemath-standard" in capsys.readouterr().err

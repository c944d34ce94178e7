"""Parameter sets: the tables of the specification, what is refused, and what names a set."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from typing import Any

import numpy as np
import oracle
import pytest
from core_support import SETS, Parties, ntt_prime, vector

import pppml_fast as pf
from pppml_fast import _native

P62 = (2147377153, 2147352577)


def collective(name: str, parties: int, **options: Any) -> pf.CkksParams:
    return pf.CkksParams.preset(name, parties=parties, clip=1.0, keys="collective", **options)


# --- the table of named sets -----------------------------------------------------------------------------------------

BITS = {
    "p31": (21.9, 17.4, 12.9),
    "p50": (40.9, 36.4, 31.9),
    "p62": (52.9, 48.4, 43.9),
    "compact": (19.9, 16.2, 12.4),
}
LEVELS = {
    "p31": "192 classical, 128 quantum",
    # 50 bits are within the 56 that the level table grants 256 bits classical; the table of sets claims 192.
    "p50": "256 classical, 192 quantum",
    "p62": "192 classical, 128 quantum",
    "compact": "128 classical, <128 quantum",
}
BYTES = {"p31": 3.875, "p50": 6.25, "p62": 7.75, "compact": 3.125}


@pytest.mark.parametrize("name", SETS)
def test_table_of_presets(name: str) -> None:
    for parties, bits in zip((2, 16, 128), BITS[name], strict=True):
        params = collective(name, parties)
        assert params.exact_bits == pytest.approx(bits, abs=0.1)
        assert params.exact_bits == pytest.approx(math.log2(2 * params.max_magnitude + 1))
        assert params.step == params.clip / params.max_magnitude
        assert params.bytes_per_weight == BYTES[name]
        assert params.level == LEVELS[name]
        assert params.scale == 2 * params.noise_bound + 1
        assert params.sum_bound == parties * params.max_magnitude
        assert params.failure_log2 < -127


def test_public_keys_carry_more_noise() -> None:
    # scheme.md: at 16 parties p31 keeps 12.7 bits and p50 31.2. The declared variance adds the 10 % of key rejection
    # and z = 15.45, which take 0.1 bit.
    for name, bits in (("p31", 12.7), ("p50", 31.2)):
        params = pf.CkksParams.preset(name, parties=16, clip=1.0)
        assert params.exact_bits == pytest.approx(bits, abs=0.15)
        assert params.failure_log2 < -127
        assert params.bytes_per_weight == 2 * BYTES[name]


@pytest.mark.parametrize("parties", [2, 16, 128])
def test_public_weights_give_back_the_parties(parties: int) -> None:
    gained = collective("p50", parties, weights="public").exact_bits - collective("p50", parties).exact_bits
    assert gained == pytest.approx(math.log2(parties), abs=0.01)


def test_three_values_share_a_coefficient_of_p62() -> None:
    params = collective("p62", 16, values_per_coefficient=3)
    assert params.exact_bits >= 13
    assert params.bytes_per_weight == pytest.approx(2.58, abs=0.01)
    assert params.block_weights == 3 * 4096


def test_blocks_of_a_vector() -> None:
    params = pf.CkksParams.preset("compact", parties=3, clip=1.0)
    assert params.block_weights == 4096
    assert [params.block_count(n) for n in (0, 1, 4096, 4097, 10**12)] == [0, 1, 1, 2, 244140625]


def test_describe_says_what_matters() -> None:
    text = collective("p31", 16).describe()
    for part in (
        "p31/collective",
        "N = 2048",
        "192 classical, 128 quantum",
        "3.875 bytes",
        "17.4",
        "16 parties",
        "2^-1",
    ):
        assert part in text


# --- security levels -------------------------------------------------------------------------------------------------


def test_sets_like_the_published_ones_are_refused() -> None:
    # The published set: N = 8192 with [31, 26 x 6, 31] bits, 218 > 214.
    with pytest.warns(UserWarning, match="comparison only"):
        primes = pf.CkksParams.preset("published", parties=3, clip=1.0, insecure_for_comparison=True).primes
    assert _native.security_level(8192, 218) == (0, 0)
    with pytest.raises(pf.ParameterError, match="8 primes exceed 2"):
        pf.CkksParams("published", 8192, primes, 3, 1.0)
    with pytest.raises(pf.ParameterError, match="holds fewer than 128 bits; the limit is 214"):
        pf.CkksParams("published", 8192, primes, 3, 1.0, packing="slots")
    with pytest.raises(pf.ParameterError, match="at ring dimension 2048 holds fewer than 128 bits"):
        pf.CkksParams("short ring", 2048, P62, 3, 1.0)
    with pytest.raises(pf.ParameterError, match="no parameter set 'unpublished'; there are p31"):
        pf.CkksParams.preset("unpublished", parties=3, clip=1.0)


@pytest.mark.parametrize("bits", [20, 26])
@pytest.mark.parametrize("keys", ["secret", "collective"])
def test_small_rings_sum_exactly(bits: int, keys: Any) -> None:
    params = pf.CkksParams("small", 1024, (ntt_prime(bits, 1024),), 3, 1.0, keys)
    xs = [vector(1500, seed) for seed in range(3)]
    parties = Parties(params, 3)
    assert np.array_equal(
        parties.opener.decrypt(parties.total(xs), integers=True), sum(pf.quantize(params, x) for x in xs)
    )


@pytest.mark.parametrize(("n", "bits"), [(4096, 60), (8192, 60), (16384, 45), (32768, 32)])
@pytest.mark.parametrize("keys", ["public", "collective"])
def test_any_ntt_prime_up_to_60_bits_works(n: int, bits: int, keys: Any) -> None:
    params = pf.CkksParams("own", n, (ntt_prime(bits, n),), 2, 0.25, keys)
    xs = [vector(n + 3, seed) for seed in range(2)]
    parties = Parties(params, 2)
    total = pf.Ciphertext.from_bytes(params, parties.total(xs).to_bytes())
    assert np.array_equal(parties.opener.decrypt(total, integers=True), sum(pf.quantize(params, x) for x in xs))


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [0, -1, 2.5, 3.0, "3", None, True, float("nan"), 2**20 + 1, 2**70])
def test_unusable_party_counts_are_refused(parties: Any) -> None:
    with pytest.raises(pf.ParameterError, match="parties = "):
        pf.CkksParams.preset("p50", parties=parties, clip=1.0)
    with pytest.raises(pf.ParameterError, match="parties = "):
        pf.CkksParams.for_sum(parties=parties, clip=1.0)


@pytest.mark.parametrize("clip", [0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-40, 1e40, "wide", None])
def test_unusable_clips_are_refused(clip: Any) -> None:
    with pytest.raises(pf.ParameterError, match="clip = "):
        pf.CkksParams.preset("p31", parties=3, clip=clip)
    with pytest.raises(pf.ParameterError, match="clip = "):
        pf.CkksParams.for_sum(parties=3, clip=clip)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": "private"}, "keys = 'private' is unknown; use one of public, secret, collective"),
        ({"weights": "hidden"}, "weights = 'hidden' is unknown; use one of free, public"),
        ({"values_per_coefficient": 0}, "values_per_coefficient = 0 is outside 1 .. 3"),
        ({"values_per_coefficient": 4}, "values_per_coefficient = 4 is outside 1 .. 3"),
        ({"values_per_coefficient": 1.0}, "must be a whole number"),
        ({"values_per_coefficient": 3}, "no exact sum of 100 parties with 3 values per coefficient"),
    ],
)
def test_unknown_choices_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(pf.ParameterError, match=message):
        pf.CkksParams.preset("p31", **{"parties": 100, "clip": 1.0, **options})


@pytest.mark.parametrize(
    ("primes", "message"),
    [
        ((), "0 primes given"),
        ((P62[0], P62[0]), "modulus 2147377153 appears twice"),
        ((2147389440,), "is no prime"),
        ((2147389443,), "is no prime"),
        ((-5,), "must be a whole number"),
        ((2147389441.0,), "must be a whole number"),
        ((ntt_prime(61, 4096),), "no prime below 2\\^60"),
        ((ntt_prime(50, 4096), ntt_prime(31, 4096)), "exceeds 2\\^62"),
    ],
)
def test_unusable_primes_are_refused(primes: Any, message: str) -> None:
    with pytest.raises(pf.ParameterError, match=message):
        pf.CkksParams("x", 4096, primes, 3, 1.0)


def test_a_sum_that_cannot_be_exact_is_refused() -> None:
    with pytest.raises(pf.ParameterError, match="no exact sum of 100000 parties"):
        pf.CkksParams.preset("p31", parties=100000, clip=1.0)


# --- for_sum ---------------------------------------------------------------------------------------------------------

COLUMNS = {"128": ("quantum", 128), "128c": ("classical", 128), "192": ("quantum", 192), "192c": ("classical", 192)}


@pytest.mark.parametrize("keys", ["public", "secret", "collective"])
@pytest.mark.parametrize("weights", ["free", "public"])
@pytest.mark.parametrize("level", sorted(COLUMNS))
def test_for_sum_takes_the_fewest_bytes(keys: Any, weights: Any, level: str) -> None:
    column, wanted = COLUMNS[level]
    for parties, bits in ((3, 8), (16, 13), (16, 16), (64, 24)):
        costs = []
        for name in SETS:
            for packed in (1, 2, 3):
                try:
                    candidate = pf.CkksParams.preset(
                        name, parties=parties, clip=1.0, keys=keys, weights=weights, values_per_coefficient=packed
                    )
                except pf.ParameterError:
                    continue
                if candidate.exact_bits >= bits and candidate.level_bits[column] >= wanted:
                    costs.append(candidate.bytes_per_weight)
        chosen = pf.CkksParams.for_sum(parties=parties, clip=1.0, bits=bits, level=level, keys=keys, weights=weights)
        assert chosen.bytes_per_weight == min(costs)
        assert chosen.exact_bits >= bits
        assert chosen.level_bits[column] >= wanted
        assert (chosen.keys, chosen.weights, chosen.parties) == (keys, weights, parties)


def test_for_sum_rounds_as_it_is_told() -> None:
    assert pf.CkksParams.for_sum(parties=3, clip=1.0).rounding == "nearest"
    assert pf.CkksParams.for_sum(parties=3, clip=1.0, rounding="stochastic").rounding == "stochastic"
    with pytest.raises(pf.ParameterError, match="rounding"):
        pf.CkksParams.for_sum(parties=3, clip=1.0, rounding="up")  # type: ignore[arg-type]


def test_choices_of_for_sum_are_pinned() -> None:
    def choice(**options: Any) -> tuple[str, int]:
        chosen = pf.CkksParams.for_sum(**{"parties": 16, "clip": 1.0, **options})
        return chosen.name, chosen.values_per_coefficient

    assert choice() == ("p62", 2)
    assert choice(bits=12) == ("p50", 2)
    assert choice(level="192") == ("p50", 1)
    assert choice(keys="secret") == ("p50", 2)
    assert choice(keys="collective") == ("p50", 2)
    assert choice(keys="collective", bits=13) == ("p62", 3)
    assert choice(keys="collective", bits=17) == ("p62", 2)
    assert choice(keys="collective", bits=17, weights="public") == ("p62", 3)
    assert choice(keys="collective", bits=24) == ("p50", 1)
    assert choice(keys="collective", bits=40) == ("p62", 1)


def test_for_sum_says_why_nothing_fits() -> None:
    with pytest.raises(pf.ParameterError) as refused:
        pf.CkksParams.for_sum(parties=16, clip=1.0, bits=40, level="192")
    text = str(refused.value)
    assert "no set sums 40-bit values of 16 parties at level 192" in text
    for part in ("p31 holds 128 bits (quantum), not 192", "p50 keeps 31.", "compact holds fewer than 128"):
        assert part in text
    assert "Ask for fewer bits, a lower level, or keys='collective'" in text
    with pytest.raises(pf.ParameterError, match="level = '256' is unknown; use one of 128, 128c, 192, 192c"):
        pf.CkksParams.for_sum(parties=16, clip=1.0, level="256")
    for bits in (0, -3, float("nan"), float("inf"), "many"):
        with pytest.raises(pf.ParameterError, match="bits = "):
            pf.CkksParams.for_sum(parties=16, clip=1.0, bits=bits)  # type: ignore[arg-type]


# --- identity and forms ----------------------------------------------------------------------------------------------

PINNED_ID = "a66c5fad1b69da7aec84c64461b0eb390c2552951434a3c7b3da4efa44d5a3d3"


def test_the_id_is_pinned() -> None:
    # A change here makes every deployed party refuse the others.
    params = pf.CkksParams.preset("p31", parties=16, clip=1.0, keys="collective", weights="public")
    assert params.id.hex() == PINNED_ID


def test_the_id_depends_on_values_not_on_their_types() -> None:
    plain = pf.CkksParams.preset("p31", parties=16, clip=1.0)
    typed = pf.CkksParams.preset("p31", parties=np.int64(16), clip=np.float32(1.0))  # type: ignore[arg-type]
    listed = pf.CkksParams("p31", 2048, [2147389441], 16, 1)  # type: ignore[arg-type]
    assert plain == typed == listed
    assert plain.id == typed.id == listed.id
    assert len({plain, typed, listed}) == 1


@pytest.mark.filterwarnings("ignore:parameter set 'p50' is for comparison only")
def test_every_field_changes_the_id() -> None:
    base = pf.CkksParams("p50", 4096, (1125899906826241,), 16, 1.0, "public", "free", 1)
    changes: dict[str, Any] = {
        "name": "p50b",
        "ring_dimension": 2048,
        "primes": (ntt_prime(49, 4096),),
        "parties": 17,
        "clip": 1.0000000000000002,
        "keys": "collective",
        "weights": "public",
        "values_per_coefficient": 2,
        "rounding": "stochastic",
        "packing": "slots",
        "slot_scale": 2.0**40,
        "insecure_for_comparison": True,
    }
    assert set(changes) == {field.name for field in dataclasses.fields(pf.CkksParams) if field.init}
    ids = {base.id}
    for name, value in changes.items():
        more = {"packing": "real_slots"} if name == "slot_scale" else {}
        changed = dataclasses.replace(base, **{name: value}, **more)
        assert changed != base
        ids.add(changed.id)
    assert len(ids) == 1 + len(changes)


@pytest.mark.parametrize("name", SETS)
def test_forms_of_a_set(name: str) -> None:
    params = collective(name, 5, weights="public")
    again = pf.CkksParams.from_dict(json.loads(json.dumps(params.to_dict())))
    assert again == params == pickle.loads(pickle.dumps(params))
    assert again.id == params.id == pickle.loads(pickle.dumps(params)).id
    assert hash(again) == hash(params)


def test_literals_with_other_keys_are_refused() -> None:
    literal = collective("p31", 5).to_dict()
    with pytest.raises(pf.ParameterError, match=r"'colour'.*it takes"):
        pf.CkksParams.from_dict({**literal, "colour": 1})
    del literal["clip"]
    with pytest.raises(pf.ParameterError, match=r"it takes .*'clip'"):
        pf.CkksParams.from_dict(literal)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("primes", value) for value in (5, None, True, [None], ["p"])),
        *(("name", value) for value in (None, 5, ["p31"])),
        *(("values_per_coefficient", value) for value in (2**33, 2**64, 1.0, None)),
        *((field, value) for field in ("parties", "ring_dimension") for value in (2**63, 2**64, "3", float("inf"))),
    ],
)
def test_literals_of_other_types_are_refused(field: str, value: object) -> None:
    with pytest.raises(pf.ParameterError, match="modulus" if field == "primes" and isinstance(value, list) else field):
        pf.CkksParams.from_dict({**collective("p31", 5).to_dict(), field: value})


def test_a_set_is_immutable() -> None:
    params = collective("p31", 5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.parties = 6  # type: ignore[misc]


@pytest.mark.parametrize("weights", ["free", "public"])
@pytest.mark.parametrize("keys", ["public", "secret", "collective"])
@pytest.mark.parametrize("parties", [2**12, 2**13, 2**16, 2**20, 5000, 100_000])
def test_the_law_holds_for_very_many_parties(parties: int, keys: Any, weights: Any) -> None:
    for name in pf.PRESETS:
        try:
            params = pf.CkksParams.preset(name, parties=parties, clip=1.0, keys=keys, weights=weights)
        except pf.ParameterError as error:
            assert "no exact sum" in str(error)
            continue
        expected = (params.scale, params.noise_bound, params.max_magnitude, params.sum_bound)
        assert oracle.max_magnitude(params) == expected

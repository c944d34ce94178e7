"""Privacy terms in rosters, noised sums in every topology, and epsilon against closed forms."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from aggregation_support import LAYOUT, NAMES, SIZE, parameters, vectors

from pppml_fast import CkksParams, ParameterError, ProtocolError
from pppml_fast.aggregation import Handshake, Identity, Member, Policy, Roster, SessionOptions, Terms, open_federation
from pppml_fast.aggregation.accounting import ORDERS, PrivacyLedger, concentration, epsilon, renyi, tau
from pppml_fast.privacy import PrivacyPlan, PrivacyTerms, private_parameters
from pppml_fast.transport import InProcessNetwork

PARTIES = NAMES[:3]
TERMS = PrivacyTerms("discrete_gaussian", 1.0, 1.0, 1e-5, 1, 10)


def private_set(terms: PrivacyTerms = TERMS, parties: int = 3) -> CkksParams:
    return private_parameters(terms, parties=parties, length=SIZE)


def plan(terms: PrivacyTerms = TERMS, parties: int = 3) -> PrivacyPlan:
    return PrivacyPlan.of(terms, private_set(terms, parties), parties=parties, length=SIZE)


def roster(terms: PrivacyTerms | None = TERMS, identities: dict[str, Identity] | None = None) -> Roster:
    keys = identities or {name: Identity.generate(name) for name in PARTIES}
    params = private_set().to_dict()
    members = tuple(Member(name, keys[name].public.hex()) for name in PARTIES)
    return Roster(members, params, params, LAYOUT.fingerprint.hex(), SessionOptions(privacy=terms))


# --- agreement -------------------------------------------------------------------------------------------------------


def test_terms_are_in_the_canonical_bytes() -> None:
    with_noise = roster()
    assert Roster.parse(with_noise.canonical_bytes()) == with_noise
    keys = {name: Identity.generate(name) for name in PARTIES}
    prints = {
        roster(terms, keys).fingerprint
        for terms in (None, TERMS, replace(TERMS, noise_multiplier=math.nextafter(1, 2)))
    }
    assert len(prints) == 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda privacy: privacy.update(noise_multiplier=0.0),
        lambda privacy: privacy.update(noise_multiplier=1),
        lambda privacy: privacy.update(l2_clip="1.0"),
        lambda privacy: privacy.update(colluders=1.0),
        lambda privacy: privacy.update(mechanism="none"),
        lambda privacy: privacy.update(extra=1),
        lambda privacy: privacy.pop("delta"),
        lambda privacy: privacy.clear(),
    ],
)
def test_terms_are_parsed_strictly(spoil: Any) -> None:
    fields = json.loads(roster().canonical_bytes())
    spoil(fields["options"]["privacy"])
    data = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    with pytest.raises((ProtocolError, ParameterError)):
        Roster.parse(data)


@pytest.mark.parametrize("other", [None, replace(TERMS, noise_multiplier=0.5), replace(TERMS, l2_clip=2.0)])
def test_a_member_with_other_terms_refuses(other: PrivacyTerms | None) -> None:
    keys = {name: Identity.generate(name) for name in PARTIES}
    proposed = roster(TERMS, keys)
    pins = {member.name: member.public for member in proposed.members}
    made = {}
    for name in PARTIES:
        options = SessionOptions(privacy=other if name == "east" else TERMS)
        terms = Terms(proposed.parameters, proposed.sum_parameters, LAYOUT, options)
        made[name] = Handshake(keys[name], Policy(pinned=pins), terms, proposed if name == PARTIES[0] else None)
    network = InProcessNetwork(made)
    network.post(PARTIES[0], made[PARTIES[0]].start())
    network.run()
    assert all(shake.session is None for shake in made.values())
    assert "options" in str(made["east"].failure)


def test_terms_that_do_not_fit_the_set_are_refused_at_the_handshake() -> None:
    with pytest.raises(ProtocolError, match="privacy terms do not fit"):
        open_federation(PARTIES, params=parameters(3), layout=LAYOUT, privacy=TERMS)
    with pytest.raises(ProtocolError, match="privacy terms do not fit"):
        open_federation(PARTIES, params=private_set(), privacy=TERMS)


def test_more_colluders_than_the_encryption_tolerates_are_refused() -> None:
    with pytest.raises(ProtocolError, match="tolerate 2 colluders"):
        roster(replace(TERMS, colluders=2))


@pytest.mark.parametrize("protocol", ["initiator", "plain"])
def test_protocols_that_show_partial_sums_take_no_terms(protocol: str) -> None:
    with pytest.raises(ProtocolError, match="one member's noise alone"):
        SessionOptions(protocol=protocol, privacy=TERMS)


# --- sums ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
@pytest.mark.parametrize("topology", ["ring", "star"])
def test_the_opened_sum_is_the_sum_of_the_noised_integers(topology: str, mechanism: Any) -> None:
    chosen = plan(replace(TERMS, mechanism=mechanism))
    made = {name: chosen.privatise(vector) for name, vector in vectors(3).items()}
    with open_federation(
        PARTIES, params=chosen.params, layout=LAYOUT, topology=topology, privacy=chosen.terms
    ) as federation:
        result = federation.aggregate({name: update.values for name, update in made.items()}, round=0)
    assert np.array_equal(result.integers, sum(update.integers for update in made.values()))
    assert sum(result.costs.clipped.values()) == 0
    assert np.allclose(result.vector, result.integers * chosen.params.step / 3, rtol=1e-6)


# --- epsilon ---------------------------------------------------------------------------------------------------------


def test_one_sum_costs_what_a_gaussian_of_the_same_multiplier_does() -> None:
    chosen = plan()
    z = math.sqrt(2) * chosen.deviation / chosen.sensitivity
    assert concentration(chosen, 2) == pytest.approx(1 / z, rel=1e-12)
    assert renyi(chosen, 2)[0] == pytest.approx(1 / z**2, rel=1e-12)
    # Conversion by hand (Canonne, Kamath, Steinke 2020, proposition 12), a hair of delta set aside.
    by_hand = min(a / (2 * z**2) + math.log1p(-1 / a) - math.log(0.999e-5 * a) / (a - 1) for a in ORDERS)
    assert epsilon(chosen, {2: 1}) == pytest.approx(by_hand, rel=1e-9)


def test_tau_counts_where_noise_is_small() -> None:
    by_hand = 10 * (math.exp(-(math.pi**2)) + math.exp(-(4 / 3) * math.pi**2))
    assert tau(3, 1) == pytest.approx(by_hand, rel=1e-12)
    assert tau(1, 1) == 0
    # At the least deviation that plans admit it is nothing, whatever the length.
    assert tau(16, 64) * 2**40 < 2.0**-1000


def test_skellam_costs_a_little_more_than_gaussian_noise() -> None:
    gaussian, skellam = plan(), plan(replace(TERMS, mechanism="skellam"))
    for a, b in zip(renyi(gaussian, 2), renyi(skellam, 2), strict=True):
        assert b > a * (1 - 0.01)
    d2, d1, v = skellam.sensitivity, skellam.sensitivity * math.sqrt(SIZE), 2 * skellam.deviation**2
    second = 2 * d2**2 / (2 * v) + min((3 * d2**2 + 6 * d1) / (4 * v**2), 3 * d1 / (2 * v))
    assert renyi(skellam, 2)[0] == pytest.approx(second, rel=1e-12)
    assert epsilon(skellam, {2: 1}) == pytest.approx(epsilon(gaussian, {2: 1}), rel=0.02)


def test_epsilon_grows_with_sums_and_shrinks_with_honest_noise() -> None:
    chosen = plan(replace(TERMS, noise_multiplier=4.0))
    assert epsilon(chosen, {}) == 0
    values = [epsilon(chosen, {2: rounds}) for rounds in (1, 2, 10, 50)]
    assert values == sorted(values) and len(set(values)) == 4
    assert epsilon(chosen, {3: 10}) < epsilon(chosen, {2: 10})
    assert epsilon(chosen, {2: 5, 3: 5}) == pytest.approx(epsilon(chosen, {3: 5, 2: 5}))
    assert epsilon(chosen, {3: 10}) < epsilon(chosen, {2: 5, 3: 5}) < epsilon(chosen, {2: 10})
    assert epsilon(chosen, {2: 10}, replace=True) > 1.9 * epsilon(chosen, {2: 10})


def test_no_number_is_given_where_the_tail_could_break_it() -> None:
    assert epsilon(plan(replace(TERMS, noise_multiplier=0.1)), {2: 1}) == math.inf


def test_the_ledger_survives_json_and_nothing_else_passes_for_one() -> None:
    ledger = PrivacyLedger()
    for honest in (2, 3, 2):
        ledger.enter(honest)
    assert PrivacyLedger.from_dict(json.loads(json.dumps(ledger.to_dict()))).releases == {2: 2, 3: 1}
    for bad in ({"2": 0}, {"two": 1}, {"0": 1}, {"2": 1.5}, {"2": True}, [2]):
        with pytest.raises(ParameterError):
            PrivacyLedger.from_dict(bad)  # type: ignore[arg-type]


def test_terms_have_one_plain_form() -> None:
    assert PrivacyTerms.from_dict(asdict(TERMS)) == TERMS
    with pytest.raises(ParameterError, match="exactly the keys"):
        PrivacyTerms.from_dict({**asdict(TERMS), "sigma": 1.0})

"""The real set that PPPML_DATA points at; without that variable there is nothing here to run."""

from __future__ import annotations

import os

import numpy as np

DATA = os.environ.get("PPPML_DATA")

if DATA is None:
    print("tests/imaging/test_data_at_hand.py: PPPML_DATA is not set, its tests are not collected")
else:
    from pppml_fast.imaging import find_data, load_data

    def test_three_parties_with_whole_volumes_held_out() -> None:
        assert DATA is not None
        found = find_data(DATA)
        assert found.path.name == "covid_ct_seg.npz"
        parties = found.load()
        assert [(len(party.train), len(party.test)) for party in parties] == [(7, 3), (2, 1), (5, 2)]
        slices = [sum(case.image.shape[0] for case in party.train + party.test) for party in parties]
        assert slices == [1247, 239, 128]
        assert [case.name for case in parties[0].test] == [f"coronacases_{n}" for n in ("003", "006", "009")]

    def test_infection_lies_in_the_lung_and_differs_by_party() -> None:
        assert DATA is not None
        shares = []
        for party in load_data(DATA):
            cases = party.train + party.test
            infected = sum(int(case.mask.sum()) for case in cases)
            inside = sum(int((case.mask & case.lung).sum()) for case in cases if case.lung is not None)
            lung = sum(int(case.lung.sum()) for case in cases if case.lung is not None)
            assert inside > 0.9 * infected
            shares.append(infected / lung)
        np.testing.assert_allclose(shares, [0.096, 0.231, 0.128], atol=0.002)

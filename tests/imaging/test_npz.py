from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pppml_fast.errors import ConfigError, DataError
from pppml_fast.imaging import COVID_CT_SEG, NpzMapping, find_data, load_npz


def arrays() -> dict[str, Any]:
    """Two sites, four volumes of 2, 3, 2, 1 slices; volume 7 is stored before volume 2."""
    volume = np.array([7, 7, 2, 2, 2, 5, 5, 9])
    random = np.random.default_rng(0)
    return {
        "x": random.integers(0, 256, (8, 6, 5), dtype=np.uint8),
        "mask": random.integers(0, 2, (8, 6, 5), dtype=np.uint8),
        "volume": volume,
        "site": np.array([0, 0, 0, 0, 0, 1, 1, 1]),
        "test": np.isin(volume, [2, 9]),
    }


def saved(folder: Path, name: str = "set.npz", **changes: Any) -> Path:
    values = {**arrays(), **changes}
    path = folder / name
    np.savez(path, **{key: value for key, value in values.items() if value is not None})
    return path


def test_slices_are_grouped_into_volumes_of_sites(tmp_path: Path) -> None:
    data = arrays()
    first, second = load_npz(saved(tmp_path))
    assert (first.name, second.name) == ("site_0", "site_1")
    assert [case.name for case in first.train] == ["volume_7"]
    assert [case.name for case in first.test] == ["volume_2"]
    np.testing.assert_array_equal(first.test[0].image, data["x"][2:5].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(first.test[0].mask, data["mask"][2:5])
    assert second.test[0].image.shape == (1, 6, 5)


def test_names_and_spacing_are_used_where_given(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        site_name=np.array(["north", "east"]),
        volume_name=np.array([f"scan{i}" for i in range(10)]),
        spacing=np.array([np.nan, 1, 2, 3, 4, 5, 6, 7, 8, 9.5]),
    )
    first, second = load_npz(path)
    assert (first.name, second.name) == ("north", "east")
    assert first.train[0].name == "scan7"
    assert first.train[0].spacing is not None
    assert first.train[0].spacing[0] == 7
    assert np.isnan(first.train[0].spacing[1])
    assert second.test[0].spacing is not None
    assert second.test[0].spacing[0] == 9.5


def test_a_mapping_names_other_keys_and_bits(tmp_path: Path) -> None:
    data = arrays()
    bits = np.random.default_rng(1).integers(0, 8, data["x"].shape, dtype=np.uint8)
    path = saved(tmp_path, x=None, mask=None, site=None, pixels=data["x"], labels=bits, hospital=data["site"])
    mapping = NpzMapping(image="pixels", mask="labels", mask_bit=2, lung="labels", lung_bit=0, site="hospital")
    case = load_npz(path, mapping)[0].train[0]
    np.testing.assert_array_equal(case.mask, (bits[:2] >> 2) & 1)
    assert case.lung is not None
    np.testing.assert_array_equal(case.lung, bits[:2] & 1)
    assert NpzMapping.from_dict(mapping.to_dict()) == mapping


def test_cases_instead_of_slices(tmp_path: Path) -> None:
    image = np.random.default_rng(2).integers(0, 256, (3, 4, 6, 5), dtype=np.uint8)
    path = tmp_path / "cases.npz"
    np.savez(path, x=image, mask=image > 128, site=[0, 0, 0], test=[False, True, False])
    (party,) = load_npz(path)
    assert [case.image.shape for case in party.train] == [(4, 6, 5), (4, 6, 5)]
    np.testing.assert_array_equal(party.test[0].mask, image[1] > 128)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask": np.zeros((8, 6, 4), np.uint8)}, r"'mask' has shape \(8, 6, 4\)"),
        ({"mask": None}, "no key 'mask' .*it has site, test, volume, x.*mapping"),
        ({"test": np.zeros(7, bool)}, r"'test' has shape \(7,\)"),
        ({"test": np.zeros(8, bool)}, "0 test cases"),
        ({"test": np.arange(8) == 3}, "volume 2 is partly test"),
        ({"site": np.array([0, 0, 0, 1, 1, 1, 1, 1])}, "volume 2 belongs to several sites"),
        ({"x": np.zeros((0, 6, 5), np.uint8)}, "non-empty"),
        ({"x": np.full((8, 6, 5), np.nan)}, "NaN"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = saved(tmp_path, **changes)
    with pytest.raises(DataError, match=words) as caught:
        load_npz(path)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_npz(tmp_path / "none.npz")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(DataError, match="no readable NPZ"):
        load_npz(broken)
    whole = saved(tmp_path).read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no readable NPZ"):
        find_data(broken)
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="no readable NPZ"):
        load_npz(pickled)


def test_mappings_refuse_unknown_keys_and_bits() -> None:
    with pytest.raises(ConfigError, match="unknown key 'masc'"):
        NpzMapping.from_dict({"masc": "y"})
    with pytest.raises(ConfigError, match="mask_bit 8"):
        NpzMapping(mask_bit=8)


def test_the_ready_mapping_is_chosen_by_its_keys(tmp_path: Path) -> None:
    data = arrays()
    bits = np.zeros(data["x"].shape, np.uint8)
    bits[:, 1:3] = 3
    bits[:, 3] = 1
    path = saved(
        tmp_path,
        "covid_ct_seg.npz",
        mask=bits,
        site=None,
        client3=data["site"],
        client3_name=np.array(["a", "b"]),
        volume_slice_mm=np.array([np.nan] * 9 + [6.0]),
    )
    saved(tmp_path, "another.npz")
    found = find_data(tmp_path)
    assert found == (path, COVID_CT_SEG)
    parties = found.load()
    assert [party.name for party in parties] == ["a", "b"]
    assert parties[0].train[0].mask.sum() == 2 * 2 * 5
    assert parties[0].train[0].lung is not None
    assert parties[0].train[0].lung.sum() == 2 * 3 * 5
    assert parties[0].train[0].spacing is None
    assert parties[1].test[0].spacing is not None

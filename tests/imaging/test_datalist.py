from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from pppml_fast.errors import DataError
from pppml_fast.imaging import (
    Preprocessing,
    apply_window,
    find_data,
    list_covid_ct_seg,
    list_rad_chestct,
    load_case,
    load_datalist,
    read_dicom_folder,
    write_datalists,
)

AFFINE = np.diag([-0.8, -0.8, 5.0, 1.0])


def save_pair(folder: Path, name: str, *, low: int = -1000, high: int = 400, affine: np.ndarray = AFFINE) -> None:
    random = np.random.default_rng(len(name))
    stored = random.integers(low, high, (8, 6, 4), endpoint=True).astype(np.int16)
    stored[0, 0, 0], stored[1, 0, 0] = low, high
    nibabel.save(nibabel.Nifti1Image(stored, affine), folder / f"{name}.nii.gz")
    nibabel.save(nibabel.Nifti1Image((stored > 0).astype(np.uint8), affine), folder / f"{name}_mask.nii.gz")


def listing(folder: Path, **changes: Any) -> Path:
    for name in ("a", "bb", "ccc"):
        save_pair(folder, name)
    values: dict[str, Any] = {
        "name": "north",
        "training": [{"image": f"{n}.nii.gz", "label": f"{n}_mask.nii.gz"} for n in ("a", "bb")],
        "testing": [{"image": "ccc.nii.gz", "label": "ccc_mask.nii.gz", "lung": "ccc_mask.nii.gz"}],
        **changes,
    }
    path = folder / "party.json"
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return path


def test_nifti_cases_in_the_window(tmp_path: Path) -> None:
    party = load_datalist(listing(tmp_path))
    assert party.name == "north"
    assert [case.name for case in party.train] == ["a", "bb"]
    case = party.test[0]
    stored = np.asarray(nibabel.load(tmp_path / "ccc.nii.gz").dataobj).astype(np.float32)
    np.testing.assert_allclose(case.image, (stored.transpose(2, 1, 0) + 1000) / 1400, atol=1e-6)
    np.testing.assert_array_equal(case.mask, stored.transpose(2, 1, 0) > 0)
    assert case.lung is not None
    assert case.spacing == pytest.approx((5.0, 0.8, 0.8))


def test_window_matrix_and_validation(tmp_path: Path) -> None:
    entries = [{"image": "bb.nii.gz", "label": "bb_mask.nii.gz"}]
    first = [{"image": "a.nii.gz", "label": "a_mask.nii.gz", "window": [-500, 0]}]
    path = listing(tmp_path, training=first, validation=entries, testing=None, matrix=16)
    party = load_datalist(path, name="renamed")
    assert (party.name, [case.name for case in party.test]) == ("renamed", ["bb"])
    assert party.train[0].image.shape == (4, 16, 16)
    stored = np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj)
    assert party.train[0].image.mean() == pytest.approx(apply_window(stored, (-500, 0)).mean(), abs=0.03)
    assert party.train[0].spacing == pytest.approx((5.0, 0.8 * 6 / 16, 0.8 * 8 / 16))
    assert len(load_datalist(listing(tmp_path, training=first, validation=entries)).train) == 2


def test_a_folder_of_datalists_is_one_party_each(tmp_path: Path) -> None:
    path = listing(tmp_path)
    path.rename(tmp_path / "2.json")
    listing(tmp_path, name=None).rename(tmp_path / "1.json")
    found = find_data(tmp_path)
    assert found.mapping is None
    assert [party.name for party in found.load()] == ["1", "north"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"testing": None}, "0 test cases"),
        ({"training": None}, "list named `training`"),
        ({"training": [{"image": "a.nii.gz"}]}, r"training\[0\] \(a\.nii\.gz\) has no `label`"),
        ({"training": [{"label": "a.nii.gz"}]}, r"training\[0\] has no `image`"),
        ({"training": [{"image": "gone.nii.gz", "label": "a_mask.nii.gz"}]}, "gone.nii.gz does not exist"),
        ({"training": [{"image": "a.png", "label": "a_mask.nii.gz"}]}, "a.png does not exist"),
        ({"training": [{"image": "a.nii.gz", "label": "a_mask.nii.gz", "window": [1]}]}, "needs two numbers"),
        ({"window": [400, -1000]}, "window .* is empty"),
        ({"testing": [{"image": "a.nii.gz", "label": "a_mask.nii.gz"}]}, "lists case 'a' twice"),
    ],
)
def test_entries_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        load_datalist(listing(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_masks_elsewhere_and_grey_values_are_refused(tmp_path: Path) -> None:
    path = listing(tmp_path)
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 6, 5), np.uint8), AFFINE), tmp_path / "a_mask.nii.gz")
    with pytest.raises(DataError, match=r"has shape \(5, 6, 8\), the image has \(4, 6, 8\)"):
        load_datalist(path)
    moved = AFFINE.copy()
    moved[2, 3] = 30
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 6, 4), np.uint8), moved), tmp_path / "a_mask.nii.gz")
    with pytest.raises(DataError, match=r"lies elsewhere .* 30 mm"):
        load_datalist(path)
    save_pair(tmp_path, "a", low=0, high=255)
    with pytest.raises(DataError, match=r'not Hounsfield units .*"window": \[0, 255\]'):
        load_datalist(path)


def test_no_json_no_datalist(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{training: ")
    with pytest.raises(DataError, match="no readable JSON"):
        load_datalist(tmp_path / "x.json")
    with pytest.raises(DataError, match="does not exist"):
        find_data(tmp_path / "nowhere")
    (tmp_path / "x.json").unlink()
    with pytest.raises(DataError, match="holds no data"):
        find_data(tmp_path)


def test_npz_items_with_the_key_of_rad_chestct(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for prefix, count in (("trn", 2), ("val", 1), ("tst", 1)):
        for index in range(count):
            name = f"{prefix}0000{index}.npz"
            np.savez(tmp_path / name, ct=random.integers(-1000, 400, (5, 6, 6)).astype(np.int16))
    bare = list_rad_chestct(tmp_path)
    assert [len(bare[key]) for key in ("training", "validation", "testing")] == [2, 1, 1]
    for kind in ("infection", "lung"):
        (tmp_path / "masks" / kind).mkdir(parents=True)
        for name in ("trn00000", "val00000", "tst00000"):
            np.savez(tmp_path / "masks" / kind / f"{name}.npz", mask=np.ones((5, 6, 6), np.uint8))
    masked = list_rad_chestct(tmp_path, tmp_path / "masks")
    (path,) = write_datalists(tmp_path / "lists", {"rad": masked})
    party = load_datalist(path)
    assert [case.name for case in party.train] == ["trn00000", "val00000"]
    assert party.test[0].lung is not None
    assert party.test[0].mask.sum() == 180
    with pytest.raises(DataError, match="has no scans"):
        list_rad_chestct(tmp_path / "masks")


def test_the_public_layout_of_covid_ct_seg(tmp_path: Path) -> None:
    thick, thin = AFFINE, np.diag([-0.8, -0.8, 1.0, 1.0])
    names = [f"coronacases_00{k}" for k in range(1, 4)]
    names += ["radiopaedia_10_85902_1", "radiopaedia_27_86410_0", "radiopaedia_29_86491_1"]
    names += ["radiopaedia_10_85902_3", "radiopaedia_14_85914_0", "radiopaedia_40_86625_0"]
    for folder in ("COVID-19-CT-Seg_20cases", "Infection_Mask", "Lung_Mask"):
        (tmp_path / folder).mkdir()
    for name in names:
        grey = name.startswith("radiopaedia")
        affine = thick if name in names[:6] else thin
        save_pair(tmp_path, name, low=0 if grey else -1000, high=255 if grey else 400, affine=affine)
        (tmp_path / f"{name}.nii.gz").rename(tmp_path / "COVID-19-CT-Seg_20cases" / f"{name}.nii.gz")
        mask = tmp_path / f"{name}_mask.nii.gz"
        (tmp_path / "Lung_Mask" / f"{name}.nii.gz").write_bytes(mask.read_bytes())
        mask.rename(tmp_path / "Infection_Mask" / f"{name}.nii.gz")
    listings = list_covid_ct_seg(tmp_path)
    parties = {path.stem: load_datalist(path) for path in write_datalists(tmp_path / "lists", listings)}
    assert set(parties) == {"coronacases", "radiopaedia_thick", "radiopaedia_thin"}
    assert [case.name for case in parties["coronacases"].test] == ["coronacases_003"]
    assert [case.name for case in parties["radiopaedia_thin"].test] == ["radiopaedia_40_86625_0"]
    assert parties["radiopaedia_thin"].train[0].image.max() == 1
    (tmp_path / "Infection_Mask" / f"{names[0]}.nii.gz").unlink()
    with pytest.raises(DataError, match="Infection_Mask"):
        list_covid_ct_seg(tmp_path)


def save_dicom(folder: Path, pixels: np.ndarray, *, series: str, names: str = "slice", step: float = 2.5) -> None:
    for index in reversed(range(len(pixels))):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        item.SOPClassUID, item.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        item.SeriesInstanceUID = series
        item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        item.ImagePositionPatient = [-100.0, -80.0, 40 + step * index]
        item.PixelSpacing = [0.9, 0.7]
        item.Rows, item.Columns = pixels.shape[1:]
        item.BitsAllocated = item.BitsStored = 16
        item.HighBit, item.PixelRepresentation, item.SamplesPerPixel = 15, 0, 1
        item.PhotometricInterpretation = "MONOCHROME2"
        item.RescaleSlope, item.RescaleIntercept = 1, -1024
        item.PixelData = pixels[index].astype("<u2").tobytes()
        pydicom.dcmwrite(folder / f"{names}{(7 * index) % 11:02d}.dcm", item, enforce_file_format=True)


def test_a_dicom_folder_is_sorted_rescaled_and_placed(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2000, (5, 6, 8))
    save_dicom(tmp_path, pixels, series="1.2.3")
    (tmp_path / "notes.txt").write_text("no DICOM")
    volume = read_dicom_folder(tmp_path)
    np.testing.assert_array_equal(volume.voxels, pixels - 1024)
    assert volume.spacing == pytest.approx((2.5, 0.9, 0.7))
    # DICOM left-posterior-superior (-100, -80, 40) is (100, 80, 40) in right-anterior-superior.
    np.testing.assert_allclose(volume.affine[:3, 3], [100, 80, 40])
    case = load_case(tmp_path, preprocessing=Preprocessing(window=(-1024, 976)))
    np.testing.assert_allclose(case.image, pixels / 2000, atol=1e-6)
    assert case.mask.sum() == 0


def test_dicom_folders_that_are_no_single_volume(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no DICOM slices"):
        read_dicom_folder(tmp_path)
    save_dicom(tmp_path, np.zeros((3, 4, 4)), series="1.2.3", step=0.0)
    with pytest.raises(DataError, match="two slices at one position"):
        read_dicom_folder(tmp_path)
    save_dicom(tmp_path, np.zeros((3, 4, 4)), series="1.2.4", names="other")
    with pytest.raises(DataError, match="2 DICOM series"):
        read_dicom_folder(tmp_path)

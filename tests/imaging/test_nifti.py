from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pppml_fast.errors import DataError
from pppml_fast.imaging import read_nifti, write_mask


def save(path: Path, stored: np.ndarray, affine: np.ndarray, *, qform: int = 1, sform: int = 2) -> None:
    image = nibabel.Nifti1Image(stored, affine)
    image.set_qform(affine, qform)
    image.set_sform(affine, sform)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"scanner seven"
    nibabel.save(image, path)


def affine_of(axes: tuple[int, int, int], signs: tuple[int, int, int]) -> np.ndarray:
    """Voxel axis k runs along world axis axes[k] with sign signs[k]; spacing 0.7, 0.9, 5 mm in the world."""
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for voxel_axis, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        matrix[axis, voxel_axis] = sign * (0.7, 0.9, 5.0)[axis]
    matrix[:3, 3] = (-120.5, 33.25, -900)
    return matrix


ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS[::3])
def test_any_orientation_reads_the_same_and_goes_back(
    tmp_path: Path, axes: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    """The world position of a marked voxel is known: it must be the same in (slice, row, column)."""
    stored = np.full((4, 5, 6), -1000, np.int16)
    marked = (1, 3, 4)
    stored[marked] = 77
    affine = affine_of(axes, signs)
    path = tmp_path / "ct.nii.gz"
    save(path, stored, affine)
    volume = read_nifti(path)
    place = tuple(int(i) for i in np.argwhere(volume.voxels == 77)[0])
    np.testing.assert_allclose(volume.affine @ [*place, 1], affine @ [*marked, 1])
    assert volume.spacing == pytest.approx((5.0, 0.9, 0.7))
    # Slices to the head, rows to the back (world -y), columns to the left (world -x).
    assert (np.sign(volume.affine[[2, 1, 0], [0, 1, 2]]) == [1, -1, -1]).all()
    write_mask(tmp_path / "mask.nii.gz", volume.voxels == 77, volume)
    written = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), (stored == 77).astype(np.uint8))


def test_header_geometry_is_kept_exactly(tmp_path: Path) -> None:
    angle = 0.1
    affine = np.diag([-0.68359375, -0.68359375, 1.25, 1])
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ affine
    affine[:3, 3] = (175.1234, 160.5, -330.875)
    path = tmp_path / "ct.nii"
    save(path, np.random.default_rng(0).integers(-1000, 500, (9, 7, 5)).astype(np.int16), affine, qform=1, sform=4)
    volume = read_nifti(path)
    write_mask(tmp_path / "mask.nii.gz", volume.voxels > 0, volume)
    before, after = nibabel.load(path), nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(before.affine, after.affine)
    for field in ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x",
                  "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units", "descrip"):  # fmt: skip
        np.testing.assert_array_equal(before.header[field], after.header[field], err_msg=field)
    assert after.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj) > 0)


def test_scaled_data_are_read_in_their_units_and_masks_are_not_scaled(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2, -1024)
    nibabel.save(image, tmp_path / "ct.nii.gz")
    volume = read_nifti(tmp_path / "ct.nii.gz")
    assert volume.voxels.min() == -1024
    assert volume.voxels.max() == -978
    write_mask(tmp_path / "mask.nii.gz", volume.voxels > -1000, volume)
    assert set(np.unique(nibabel.load(tmp_path / "mask.nii.gz").get_fdata())) == {0.0, 1.0}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"this is no NIfTI",
        gzip.compress(b"neither is this"),
        gzip.compress(bytes(348)),
        b"\x1f\x8b\x08\x00broken",
    ],
)
def test_a_nii_gz_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "in.nii.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"in\.nii\.gz is no readable NIfTI") as caught:
        read_nifti(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.nii.gz"
    save(path, np.random.default_rng(0).integers(0, 500, (20, 20, 20)).astype(np.int16), np.eye(4))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="no readable NIfTI"):
        read_nifti(path)


def test_missing_and_four_dimensional_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_nifti(tmp_path / "none.nii.gz")
    save(tmp_path / "series.nii.gz", np.zeros((3, 3, 3, 2), np.int16), np.eye(4))
    with pytest.raises(DataError, match=r"\(3, 3, 3, 2\), needs one 3-D"):
        read_nifti(tmp_path / "series.nii.gz")


def test_masks_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    save(tmp_path / "ct.nii.gz", np.zeros((3, 4, 5), np.int16), np.eye(4))
    volume = read_nifti(tmp_path / "ct.nii.gz")
    with pytest.raises(DataError, match=r"mask has shape \(5, 4, 4\)"):
        write_mask(tmp_path / "m.nii.gz", np.zeros((5, 4, 4)), volume)
    with pytest.raises(DataError, match=r"\.nii or \.nii\.gz"):
        write_mask(tmp_path / "m.png", np.zeros((5, 4, 3)), volume)
    with pytest.raises(DataError, match=r"folder .* does not exist"):
        write_mask(tmp_path / "none" / "m.nii.gz", np.zeros((5, 4, 3)), volume)
    assert [path.name for path in tmp_path.iterdir()] == ["ct.nii.gz"]

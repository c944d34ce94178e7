"""NPZ sets: slices or cases of several hospitals in one file, its keys and mask bits named by a mapping."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pppml_fast.errors import ConfigError, DataError
from pppml_fast.imaging.cases import Case, PartyData, Spacing

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class NpzMapping:
    """Which key of an NPZ set means what.

    `image` (N, H, W) slices or (N, D, H, W) cases, uint8 or float in [0, 1]; `mask` of the same shape, where
    `mask_bit` picks one bit; `lung` likewise (None: no lung masks); `volume` (N,) says which slices belong
    together and `site` (N,) whose they are; `test` (N,) is true for held-out volumes, whole ones.
    Optional keys, used where the file has them: `site_name` and `volume_name` (indexed by the numbers above,
    or one per item), `spacing` (slice mm or three mm, per volume or per item).
    """

    image: str = "x"
    mask: str = "mask"
    mask_bit: int | None = None
    lung: str | None = None
    lung_bit: int | None = None
    volume: str = "volume"
    site: str = "site"
    test: str = "test"
    spacing: str = "spacing"
    site_name: str = "site_name"
    volume_name: str = "volume_name"

    def __post_init__(self) -> None:
        for name in ("mask_bit", "lung_bit"):
            bit = getattr(self, name)
            if bit is not None and not 0 <= bit <= 7:
                raise ConfigError(f"{name} {bit} is not a bit of a byte; use 0 to 7")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a configuration file; what is None is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NpzMapping:
        """The inverse of `to_dict`. Raises ConfigError for unknown keys."""
        known = [field.name for field in fields(cls)]
        unknown = set(values) - set(known)
        if unknown:
            raise ConfigError(f"mapping has unknown key '{min(unknown)}'; known are {', '.join(known)}")
        return cls(**values)


COVID_CT_SEG = NpzMapping(
    mask_bit=1,
    lung="mask",
    lung_bit=0,
    site="client3",
    site_name="client3_name",
    spacing="volume_slice_mm",
)
"""The compact COVID-19-CT-Seg set `covid_ct_seg.npz`: bit 1 infection, bit 0 lung, three groups of sites."""


def npz_keys(path: str | Path) -> tuple[str, ...]:
    """The keys of an NPZ file, without reading its arrays. Raises DataError as `read_npz`."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the path of an .npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no readable NPZ file ({error}); copy it again") from error


def read_npz(path: str | Path) -> Arrays:
    """All arrays of an NPZ file. Raises DataError when it is missing, no NPZ, or needs pickle."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the path of an .npz file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (
        OSError,
        EOFError,
        ValueError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path} is no readable NPZ file ({' '.join(str(error).split())}); copy it again") from error


def load_npz(path: str | Path, mapping: NpzMapping | None = None) -> tuple[PartyData, ...]:
    """The parties of an NPZ set in the order of their site numbers.

    Without a mapping the keys are those of the schema, or those of `covid_ct_seg.npz` where `client3` is
    present. Raises DataError for missing keys, lengths or shapes that differ, empty data, a volume that is
    half test or belongs to two sites, and whatever Case and PartyData refuse.
    """
    path = Path(path)
    arrays = read_npz(path)
    chosen = mapping if mapping is not None else guess_mapping(arrays)
    _check(path, arrays, chosen)
    sites = arrays[chosen.site]
    return tuple(_party(path, arrays, chosen, index, site) for index, site in enumerate(np.unique(sites)))


def guess_mapping(keys: Iterable[str]) -> NpzMapping:
    """The mapping that the keys of a file suggest: COVID_CT_SEG or the plain schema."""
    return COVID_CT_SEG if {"client3", "mask", "volume_slice_mm"} <= set(keys) else NpzMapping()


def _check(path: Path, arrays: Arrays, mapping: NpzMapping) -> None:
    needed = [mapping.image, mapping.mask, mapping.site, mapping.test]
    needed += [mapping.lung] if mapping.lung is not None else []
    needed += [mapping.volume] if mapping.image in arrays and arrays[mapping.image].ndim == 3 else []
    for key in needed:
        if key not in arrays:
            raise DataError(
                f"{path} has no key '{key}' (it has {', '.join(sorted(arrays))}); name the right one in the mapping"
            )
    image = arrays[mapping.image]
    if image.ndim not in (3, 4) or image.size == 0:
        raise DataError(f"{path}: '{mapping.image}' has shape {image.shape}, needs non-empty (N, H, W) or (N, D, H, W)")
    for key in [mapping.mask] + ([mapping.lung] if mapping.lung is not None else []):
        if arrays[key].shape != image.shape:
            raise DataError(
                f"{path}: '{key}' has shape {arrays[key].shape}, '{mapping.image}' has"
                f" {image.shape}; masks need the images' grid"
            )
    for key in (mapping.site, mapping.test, mapping.volume):
        if key in arrays and arrays[key].shape != (len(image),):
            raise DataError(f"{path}: '{key}' has shape {arrays[key].shape}, needs ({len(image)},), one per image")


def _party(path: Path, arrays: Arrays, mapping: NpzMapping, index: int, site: Any) -> PartyData:
    volumes = _volumes(arrays, mapping)
    members = np.flatnonzero(arrays[mapping.site] == site)
    train: list[Case] = []
    test: list[Case] = []
    # Volumes keep the order of the file, so that a run does not depend on how volumes are numbered.
    _, first = np.unique(volumes[members], return_index=True)
    for volume in volumes[members][np.sort(first)]:
        items = np.flatnonzero(volumes == volume)
        if np.unique(arrays[mapping.site][items]).size > 1:
            raise DataError(f"{path}: volume {volume} belongs to several sites; give every site its own volumes")
        held_out = arrays[mapping.test][items].astype(bool)
        if held_out.any() != held_out.all():
            raise DataError(f"{path}: volume {volume} is partly test; hold out whole volumes, never single slices")
        (test if held_out.all() else train).append(_case(arrays, mapping, items, volume))
    name = _label(arrays, mapping.site_name, members[0], site, fallback=f"site_{index}")
    return PartyData(name, tuple(train), tuple(test))


def _volumes(arrays: Arrays, mapping: NpzMapping) -> npt.NDArray[Any]:
    if mapping.volume in arrays:
        return arrays[mapping.volume]
    return np.arange(len(arrays[mapping.image]))


def _case(arrays: Arrays, mapping: NpzMapping, items: npt.NDArray[np.intp], volume: Any) -> Case:
    def gather(key: str, bit: int | None) -> npt.NDArray[Any]:
        values = arrays[key][items]
        if values.ndim == 4:
            values = values.reshape(-1, *values.shape[2:])
        return values if bit is None else (values.astype(np.uint8) >> np.uint8(bit)) & np.uint8(1)

    return Case(
        name=_label(arrays, mapping.volume_name, items[0], volume, fallback=f"volume_{volume}"),
        image=gather(mapping.image, None),
        mask=gather(mapping.mask, mapping.mask_bit),
        lung=None if mapping.lung is None else gather(mapping.lung, mapping.lung_bit),
        spacing=_spacing(arrays, mapping, int(items[0]), volume),
    )


def _row(arrays: Arrays, key: str, count: int, item: int, number: Any) -> Any:
    """The entry of an optional key: one per image, or indexed by the volume's or site's number."""
    if key not in arrays:
        return None
    values = arrays[key]
    if len(values) == count:
        return values[item]
    position = int(number) if isinstance(number, np.integer | int) else -1
    return values[position] if 0 <= position < len(values) else None


def _label(arrays: Arrays, key: str, item: int, number: Any, *, fallback: str) -> str:
    if isinstance(number, str):
        return str(number)
    count = next(len(values) for values in arrays.values() if values.ndim >= 3)
    value = _row(arrays, key, count, item, number)
    return fallback if value is None else str(value)


def _spacing(arrays: Arrays, mapping: NpzMapping, item: int, volume: Any) -> Spacing | None:
    value = _row(arrays, mapping.spacing, len(arrays[mapping.image]), item, volume)
    if value is None or not np.isfinite(value).any():
        return None
    numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if numbers.size == 1:
        return (float(numbers[0]), float("nan"), float("nan"))
    return (float(numbers[0]), float(numbers[1]), float(numbers[2]))

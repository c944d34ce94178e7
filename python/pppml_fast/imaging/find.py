"""What `--data` may name: an NPZ set, a datalist, a folder with either, or the layout of a published set."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pppml_fast.errors import DataError
from pppml_fast.imaging.cases import PartyData
from pppml_fast.imaging.datalist import load_datalist
from pppml_fast.imaging.npz import COVID_CT_SEG, NpzMapping, guess_mapping, load_npz, npz_keys


class FoundData(NamedTuple):
    """Where the data lies: an NPZ file with its mapping, or datalists, a file or a folder (mapping None)."""

    path: Path
    mapping: NpzMapping | None

    def load(self) -> tuple[PartyData, ...]:
        """The parties. Raises DataError."""
        if self.mapping is not None:
            return load_npz(self.path, self.mapping)
        return tuple(load_datalist(path) for path in _datalists(self.path))


def find_data(where: str | Path) -> FoundData:
    """What a path holds: an .npz, a datalist .json, or a folder with one NPZ set or with datalists.

    `covid_ct_seg.npz` comes first where a folder has several sets. A folder's datalists are one per
    party, in the order of their names. Raises DataError when there is
    nothing, or more than one NPZ set to choose from.
    """
    where = Path(where)
    if where.is_file():
        return _found_file(where)
    if not where.is_dir():
        raise DataError(f"{where} does not exist; give a folder, an .npz file or a datalist .json")
    known = where / "covid_ct_seg.npz"
    if known.is_file():
        return FoundData(known, COVID_CT_SEG)
    archives = [path for path in sorted(where.glob("*.npz")) if _is_segmentation_set(path)]
    if len(archives) > 1:
        names = ", ".join(path.name for path in archives)
        raise DataError(f"{where} holds {len(archives)} NPZ sets ({names}); name the file itself")
    if archives:
        return _found_file(archives[0])
    if _datalists(where):
        return FoundData(where, None)
    raise DataError(
        f"{where} holds no data: no .npz with images and masks, and no datalist .json; see the"
        " documentation of pppml_fast.imaging for both"
    )


def load_data(where: str | Path, mapping: NpzMapping | None = None) -> tuple[PartyData, ...]:
    """The parties of whatever `find_data` finds, by another mapping if given. Raises DataError."""
    found = find_data(where)
    if mapping is not None and found.mapping is not None:
        found = found._replace(mapping=mapping)
    return found.load()


def _found_file(path: Path) -> FoundData:
    if path.suffix == ".npz":
        return FoundData(path, guess_mapping(npz_keys(path)))
    if path.suffix == ".json":
        return FoundData(path, None)
    raise DataError(f"{path} is neither .npz nor a datalist .json; list NIfTI or DICOM images in a datalist")


def _is_segmentation_set(path: Path) -> bool:
    keys = npz_keys(path)
    mapping = guess_mapping(keys)
    return {mapping.image, mapping.mask, mapping.site, mapping.test} <= set(keys)


def _datalists(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.glob("*.json"))

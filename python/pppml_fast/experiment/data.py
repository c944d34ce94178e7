"""The hospitals that a configuration names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pppml_fast.errors import ConfigError, DataError
from pppml_fast.experiment.config import Data, DatalistData, NpzData, PhantomData
from pppml_fast.imaging import (
    DEFAULT_HOSPITALS,
    LUNG_WINDOW,
    NpzMapping,
    PartyData,
    PhantomHospital,
    Preprocessing,
    find_data,
    load_datalist,
    load_npz,
    make_phantoms,
    read_datalist,
)

__all__ = ["describe_data", "load_parties", "phantom_hospitals", "preprocessing_of"]


def load_parties(data: Data) -> tuple[PartyData, ...]:
    """The parties with their training and test cases. Raises ConfigError or DataError."""
    if isinstance(data, PhantomData):
        return make_phantoms(phantom_hospitals(data), seed=data.seed, size=data.size)
    if isinstance(data, NpzData):
        mapping = NpzMapping.from_dict(data.mapping) if data.mapping is not None else None
        return load_npz(Path(data.path), mapping)
    return _datalists(data)


def describe_data(data: Data) -> str:
    """The kind of data in a few words, without paths: it goes into cards and reports."""
    if isinstance(data, PhantomData):
        return f"phantoms, seed {data.seed}, {data.size} x {data.size}"
    if isinstance(data, NpzData):
        return f"NPZ set {Path(data.path).name}"
    return "MONAI datalists"


def phantom_hospitals(data: PhantomData) -> tuple[PhantomHospital, ...]:
    """The synthetic hospitals that a configuration names. Raises ConfigError for an unknown name."""
    ready = {hospital.name: hospital for hospital in DEFAULT_HOSPITALS}
    unknown = [name for name in data.hospitals or () if name not in ready]
    if unknown:
        raise ConfigError(f"data.hospitals names {unknown[0]!r}, which does not exist; there are: {', '.join(ready)}")
    cases = {"train_cases": data.cases_train, "test_cases": data.cases_test}
    changes: dict[str, Any] = {name: count for name, count in cases.items() if count is not None}
    return tuple(replace(ready[name], **changes) for name in (data.hospitals or tuple(ready)))


def preprocessing_of(data: Data, parties: tuple[PartyData, ...], party: str | None) -> Preprocessing:
    """How a new CT in Hounsfield units becomes what the networks of these data were trained on.

    Datalists say it themselves (the party's own, or the first one's for the shared model), phantoms have the
    window of their hospital. Elsewhere the window is the usual one; slices are resampled to the matrix of the
    training data.
    """
    if isinstance(data, DatalistData):
        listing = read_datalist(_listing_of(data, parties, party))
        return Preprocessing.from_dict({key: listing[key] for key in ("window", "matrix") if key in listing})
    if isinstance(data, PhantomData):
        windows = {hospital.name: hospital.window for hospital in phantom_hospitals(data)}
        return Preprocessing(window=windows.get(party or "", LUNG_WINDOW), matrix=data.size)
    sides = {side for one in parties for case in one.train for side in case.image.shape[1:]}
    return Preprocessing(matrix=sides.pop() if len(sides) == 1 else None)


def _listing_of(data: DatalistData, parties: tuple[PartyData, ...], party: str | None) -> Path:
    index = [one.name for one in parties].index(party) if party is not None else 0
    if data.parties is not None:
        return Path(list(data.parties.values())[index])
    where = Path(data.path or "")
    return where if where.is_file() else sorted(where.glob("*.json"))[index]


def _datalists(data: DatalistData) -> tuple[PartyData, ...]:
    if data.path is not None:
        parties = find_data(data.path).load()
        if not parties:
            raise DataError(f"{data.path} holds no datalist; put one JSON per hospital there")
        return parties
    return tuple(load_datalist(Path(path), name=name) for name, path in (data.parties or {}).items())

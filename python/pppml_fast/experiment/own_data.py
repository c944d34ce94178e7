"""The data of one site: the same kinds as an experiment's, of which its own party is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pppml_fast.errors import ConfigError, DataError
from pppml_fast.experiment.config import Data, DatalistData, PhantomData
from pppml_fast.experiment.data import load_parties
from pppml_fast.imaging import PartyData

__all__ = ["load_own", "own_data"]


def own_data(data: Data, name: str) -> Data:
    """The part of ``[data]`` that is the site's own, where its form can tell. Raises ConfigError or DataError.

    One datalist, or one NPZ set of one party, is the site's whatever it is called; of several the site's is the one of
    its name. Phantoms go by the name of a synthetic hospital.
    """
    if isinstance(data, PhantomData):
        return data.model_copy(update={"hospitals": (name,)})
    if isinstance(data, DatalistData):
        return DatalistData(parties={name: _own_list(data, name)})
    return data


def load_own(data: Data, name: str) -> PartyData:
    """The site's cases under the site's name; ``data`` is from `own_data`. Raises ConfigError or DataError."""
    parties = load_parties(data)
    for party in parties:
        if party.name == name:
            return party
    if len(parties) != 1:
        there = ", ".join(party.name for party in parties)
        raise ConfigError(
            f"data holds {len(parties)} parties ({there}), none of them {name!r}; give the site's own alone"
        )
    return replace(parties[0], name=name)


def _own_list(data: DatalistData, name: str) -> str:
    """The path of the site's datalist."""
    if data.parties is not None:
        return _chosen(dict(data.parties), name, "data.parties")
    where = Path(data.path or "")
    if where.is_file():
        return str(where)
    if not where.is_dir():
        raise DataError(f"{str(where)!r} does not exist; set data.path to a datalist JSON, or a folder that holds one")
    return _chosen(
        {_name_of(path): str(path) for path in sorted(where.glob("*.json"))}, name, f"data.path {str(where)!r}"
    )


def _chosen(lists: dict[str, str], name: str, what: str) -> str:
    if name in lists:
        return lists[name]
    if len(lists) != 1:
        there = ", ".join(lists) or "none"
        raise ConfigError(f"{what} holds {len(lists)} datalists ({there}), not one of {name!r}; give the site's own")
    return next(iter(lists.values()))


def _name_of(path: Path) -> str:
    """A datalist's own name, or the file's."""
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return path.stem
    return str(listing.get("name") or path.stem) if isinstance(listing, dict) else path.stem

"""The folder of a run: claimed by one configuration over one set of data, resumed only by the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pppml_fast.errors import ConfigError, DataError
from pppml_fast.experiment.checkpoint import CheckpointFolder
from pppml_fast.experiment.config import ExperimentConfig
from pppml_fast.experiment.files import write_json
from pppml_fast.experiment.provenance import utc_now

__all__ = ["RunFolder", "public_config"]

FORMAT = "pppml-run-1"


def public_config(config: ExperimentConfig) -> dict[str, Any]:
    """The configuration as JSON values, with file names instead of paths: it travels in reports and cards."""
    table: dict[str, Any] = config.model_dump(mode="json")
    data = table["data"]
    if data.get("path"):
        data["path"] = Path(data["path"]).name
    if data.get("parties"):
        data["parties"] = {name: Path(path).name for name, path in data["parties"].items()}
    return table


class RunFolder:
    """Where a run keeps checkpoints, models and results."""

    def __init__(self, path: Path, started: str, resumed: bool) -> None:
        self.path = path
        self.started = started
        self.resumed = resumed

    @classmethod
    def claim(cls, path: Path, config: ExperimentConfig, data_sha256: str, *, any_device: bool = False) -> RunFolder:
        """Take a new or empty folder, or go on in one of the same configuration and data.

        ``any_device``: whether the run may go on upon another device, where its rounds say which one trained them.
        Raises ConfigError when it belongs to another run, DataError when it holds something else.
        """
        mark = path / "run.json"
        table = public_config(config)
        if mark.is_file():
            kept = _read(mark)
            before = {"device": "cpu", **kept["config"]}  # there was no choice once
            if any_device:
                before["device"] = table["device"]
            difference = next(_differences(before, table), None)
            if difference is not None:
                raise ConfigError(
                    f"{str(path)!r} holds a run of another configuration ({difference}); "
                    "choose another --out, or delete that folder to start anew"
                )
            if kept["data_sha256"] != data_sha256:
                raise ConfigError(
                    f"{str(path)!r} holds a run over other data; choose another --out, or delete that folder"
                )
            for leftover in path.rglob(".*.part"):
                leftover.unlink(missing_ok=True)
            return cls(path, kept["started"], resumed=True)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DataError(f"{str(path)!r} exists and is no run of this program; choose another --out")
        started = utc_now()
        write_json(mark, {"format": FORMAT, "started": started, "data_sha256": data_sha256, "config": table})
        return cls(path, started, resumed=False)

    def checkpoint(self, seed: int, track: str) -> CheckpointFolder:
        """Where one training keeps its last finished round."""
        return CheckpointFolder(self.path / "checkpoints" / f"seed_{seed}" / track)

    def scores(self, seed: int, track: str) -> Path:
        """Where the scores of a finished training are kept."""
        return self.path / "checkpoints" / f"seed_{seed}" / track / "scores.json"

    def card(self, config: ExperimentConfig, seed: int, method: str, party: str | None) -> Path:
        """The card of a method's shared model (party None) or of a hospital's personal one.

        Seeds get folders of their own when there are several.
        """
        base = self.path / "models"
        folder = (base if len(config.seeds) == 1 else base / f"seed_{seed}") / method
        return folder / ("global.toml" if party is None else f"{_file_name(party)}.toml")


def _file_name(party: str) -> str:
    """A party's name as a file name; `global` is taken by the shared model."""
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in party).lstrip(".") or "party"
    return f"{safe}_party" if safe == "global" else safe


def _read(mark: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(mark.read_text(encoding="utf-8"))
        if kept["format"] != FORMAT or not {"config", "data_sha256", "started"} <= set(kept):
            raise ValueError(kept["format"])
        return kept
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{str(mark)!r} is no mark of a run; choose another --out, or delete that folder") from None


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    elif old != new:
        yield f"{prefix} was {old!r}, is {new!r}"

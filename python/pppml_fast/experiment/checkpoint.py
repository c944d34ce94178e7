"""Checkpoints: the last finished round of a training, or a site's newest states, whole or not at all.

The tensors are written first, under a name of their own; the JSON that names them, with their hash, is the
commit. A kill at any instant leaves what was kept before or this, never a mixture.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from pppml_fast.aggregation.accounting import PrivacyLedger
from pppml_fast.errors import DataError
from pppml_fast.experiment.files import write_bytes, write_json
from pppml_fast.experiment.state import pack_state, unpack_state

__all__ = ["Checkpoint", "CheckpointFolder", "StateFolder"]

FORMAT = "pppml-checkpoint-1"
STATES_FORMAT = "pppml-states-1"


@dataclass(frozen=True)
class Checkpoint:
    """State after `round` finished rounds, with the record of every round so far (plain JSON values)."""

    round: int
    state: Any
    records: list[dict[str, Any]]


class CheckpointFolder:
    """Where one track keeps its last finished round."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._commit = folder / "state.json"
        self._ledger = folder / "released_sums.json"

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the kept round by this one."""
        name = f"round_{checkpoint.round:05d}.safetensors"
        structure, tensors = pack_state(checkpoint.state)
        data = save(tensors)
        write_bytes(self.folder / name, data)
        write_json(self._commit, {"format": FORMAT, **_entry(checkpoint, name, data, structure)})
        _forget(self.folder, "round_*.safetensors", {name})

    def save_ledger(self, ledger: PrivacyLedger) -> None:
        """Keep the count of noised sums, before the next one is opened."""
        write_json(self._ledger, ledger.to_dict())

    def load_ledger(self) -> PrivacyLedger:
        """The noised sums released so far, also by rounds that were never finished. Raises DataError when damaged."""
        if not self._ledger.exists():
            return PrivacyLedger()
        try:
            return PrivacyLedger.from_dict(json.loads(self._ledger.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise DataError(
                f"the count of released sums {str(self._ledger)!r} is damaged ({error}); restore it, or start a new run"
            ) from None

    def load(self) -> Checkpoint | None:
        """The kept round, or None before the first. Raises DataError when it is damaged."""
        if not self._commit.exists():
            return None
        try:
            return _checkpoint(self.folder, _read_commit(self._commit, FORMAT))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"checkpoint in {str(self.folder)!r} is damaged ({error}); delete that folder to train it again"
            ) from None


class StateFolder:
    """Where a site keeps several states of one training, newest first.

    Tensors are named by their hash, so that no write touches what the last commit refers to, whatever state comes
    back: a step back and another training of the same round, or a model taken over.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._commit = folder / "states.json"
        self._written: list[tuple[Checkpoint, dict[str, Any]]] = []

    def keep(self, states: Sequence[Checkpoint]) -> None:
        """Put these states in place of all that are kept. Raises DataError when the disk refuses."""
        entries = [self._entry_of(checkpoint) for checkpoint in states]
        write_json(self._commit, {"format": STATES_FORMAT, "states": entries})
        self._written = list(zip(states, entries, strict=True))
        _forget(self.folder, "state_*.safetensors", {entry["tensors"] for entry in entries})

    def load(self) -> list[Checkpoint]:
        """The kept states, newest first; none before the first `keep`. Raises DataError when they are damaged."""
        if not self._commit.exists():
            return []
        try:
            entries = _read_commit(self._commit, STATES_FORMAT)["states"]
            states = [_checkpoint(self.folder, entry) for entry in entries]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"the states in {str(self.folder)!r} are damaged ({error}); delete that folder: the site then takes "
                "over the other sites' model"
            ) from None
        self._written = list(zip(states, entries, strict=True))
        return states

    def _entry_of(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """What the commit says of a state, whose tensors are on disk when this returns."""
        for written, entry in self._written:
            if written is checkpoint:
                return entry
        structure, tensors = pack_state(checkpoint.state)
        data = save(tensors)
        name = f"state_{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
        if not (self.folder / name).exists():
            write_bytes(self.folder / name, data)
        return _entry(checkpoint, name, data, structure)


def _entry(checkpoint: Checkpoint, name: str, data: bytes, structure: Any) -> dict[str, Any]:
    return {
        "round": checkpoint.round,
        "tensors": name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "state": structure,
        "records": checkpoint.records,
    }


def _read_commit(path: Path, wanted: str) -> dict[str, Any]:
    commit: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if commit["format"] != wanted:
        raise ValueError(f"format {commit['format']!r}")
    return commit


def _checkpoint(folder: Path, entry: Mapping[str, Any]) -> Checkpoint:
    data = (folder / entry["tensors"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ValueError("hash of the tensors")
    return Checkpoint(int(entry["round"]), unpack_state(entry["state"], load(data)), list(entry["records"]))


def _forget(folder: Path, pattern: str, keep: set[str]) -> None:
    """Remove tensors that no commit refers to; what cannot be removed now is removed after a later commit."""
    for old in folder.glob(pattern):
        if old.name not in keep:
            with contextlib.suppress(OSError):
                old.unlink(missing_ok=True)

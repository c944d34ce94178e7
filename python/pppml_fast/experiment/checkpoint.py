"""Checkpoints of one training track: the last finished round, whole or not at all.

The tensors are written first, under a name of their own; the JSON that names them, with their hash, is the
commit. A kill at any instant leaves the previous round or this one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from pppml_fast.aggregation.accounting import PrivacyLedger
from pppml_fast.errors import DataError
from pppml_fast.experiment.files import write_bytes, write_json
from pppml_fast.experiment.state import pack_state, unpack_state

__all__ = ["Checkpoint", "CheckpointFolder"]

FORMAT = "pppml-checkpoint-1"


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
        structure, tensors = pack_state(checkpoint.state)
        data = save(tensors)
        name = f"round_{checkpoint.round:05d}.safetensors"
        write_bytes(self.folder / name, data)
        write_json(
            self._commit,
            {
                "format": FORMAT,
                "round": checkpoint.round,
                "tensors": name,
                "sha256": hashlib.sha256(data).hexdigest(),
                "state": structure,
                "records": checkpoint.records,
            },
        )
        for old in self.folder.glob("round_*.safetensors"):
            if old.name != name:
                old.unlink(missing_ok=True)

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
            commit = json.loads(self._commit.read_text(encoding="utf-8"))
            if commit["format"] != FORMAT:
                raise ValueError(f"format {commit['format']!r}")
            data = (self.folder / commit["tensors"]).read_bytes()
            if hashlib.sha256(data).hexdigest() != commit["sha256"]:
                raise ValueError("hash of the tensors")
            state = unpack_state(commit["state"], load(data))
            return Checkpoint(int(commit["round"]), state, list(commit["records"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"checkpoint in {str(self.folder)!r} is damaged ({error}); delete that folder to train it again"
            ) from None

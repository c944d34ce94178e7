"""A site without a network to train: its updates are numbers drawn from (party, round, salt), its model their sum.

What any set of parties must have summed can so be computed by whoever knows the salts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast import DataError
from pppml_fast.aggregation.standing import StateId

Vector = NDArray[np.float32]


def light_update(party: str, round_: int, salt: int, size: int) -> Vector:
    """float32 (size,): the update of a party in a round, within the clip of 1."""
    seed = int.from_bytes(hashlib.sha256(f"{party} {round_} {salt}".encode()).digest()[:8], "little")
    return np.random.default_rng(seed).uniform(-1, 1, size).astype(np.float32)


class LightApplication:
    """`Application` on one folder: the newest two models as files, each written aside and moved in place."""

    def __init__(
        self,
        party: str,
        folder: Path,
        size: int,
        rounds: int,
        train: Callable[[int, int], None] | None = None,
        sync: bool = True,
    ) -> None:
        self.party, self.size, self.rounds = party, size, rounds
        self.begin: Callable[[int, int], None] = train or (lambda round_, salt: None)
        self.trained: list[tuple[int, int]] = []
        self._folder, self._sync = folder, sync
        folder.mkdir(parents=True, exist_ok=True)
        self._index = folder / "states.json"
        if not self._index.exists():
            self._replace([(0, np.zeros(size, np.float32))])

    @property
    def states(self) -> tuple[StateId, ...]:
        rows = json.loads(self._index.read_text())
        return tuple(StateId(int(row["round"]), bytes.fromhex(row["hash"])) for row in rows)

    def model(self, state: StateId) -> Vector:
        """A kept model. Raises DataError when its file is not what its hash says."""
        data = self._file(state).read_bytes()
        if hashlib.sha256(data).digest() != state.hash:
            raise DataError(f"{self._file(state)} is damaged")
        return np.frombuffer(data, np.float32)

    def train(self, round: int, salt: int) -> None:
        self.trained.append((round, salt))
        self.begin(round, salt)

    def commit(self, round: int, mean: Vector) -> StateId:
        newest = self.states[0]
        assert newest.round == round, f"round {round} is committed to a model of {newest.round} rounds"
        model = self.model(newest) + mean
        self._replace([(round + 1, model), (newest.round, self.model(newest))])
        return self.states[0]

    def export(self, state: StateId) -> bytes:
        return self.model(state).tobytes()

    def adopt(self, state: StateId, data: bytes) -> None:
        if hashlib.sha256(data).digest() != state.hash:
            raise DataError("the model that came does not hash to what was agreed")
        self._replace([(state.round, np.frombuffer(data, np.float32))])

    def step_back(self, state: StateId) -> None:
        assert state == self.states[1]
        self._replace([(state.round, self.model(state))])

    def finished(self) -> bool:
        return self.states[0].round >= self.rounds

    def describe(self) -> dict[str, Any]:
        return {"name": self.party, "rounds": self.rounds, "size": self.size}

    def _replace(self, models: list[tuple[int, Vector]]) -> None:
        rows = []
        for round_, model in models:
            data = np.ascontiguousarray(model, np.float32).tobytes()
            state = StateId(round_, hashlib.sha256(data).digest())
            if not self._file(state).exists():
                self._write(self._file(state), data)
            rows.append({"round": round_, "hash": state.hash.hex()})
        self._write(self._index, json.dumps(rows).encode())
        kept = {f"{row['round']}-{str(row['hash'])[:16]}" for row in rows}
        for old in self._folder.glob("*-*"):
            if old.name not in kept and not old.name.endswith(".new"):
                old.unlink(missing_ok=True)

    def _file(self, state: StateId) -> Path:
        return self._folder / f"{state.round}-{state.hash.hex()[:16]}"

    def _write(self, path: Path, data: bytes) -> None:
        aside = path.with_name(path.name + ".new")
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            if self._sync:
                os.fsync(file.fileno())
        os.replace(aside, path)

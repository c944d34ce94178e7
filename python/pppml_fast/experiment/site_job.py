"""One training of a site's round: what became of it, and where the round's mean may be written."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from pppml_fast.experiment.participant import Trained
from pppml_fast.experiment.site_noise import Noised
from pppml_fast.learning import PartyMemory

__all__ = ["Job", "Private", "StoppedError"]


class StoppedError(Exception):
    """The training that is under way is no longer wanted."""


@dataclass(frozen=True)
class Private:
    """What the site keeps to itself after a round: excluded tensors, the state of its draws."""

    memory: PartyMemory
    source: dict[str, Any]


class Job:
    """The training of one (round, salt). Once it is through: ``result``, ``private``, ``noised`` where noise is agreed
    on, the ``values`` that travel, and ``out``, which takes the mean."""

    def __init__(self, round: int, salt: int) -> None:
        self.round, self.salt = round, salt
        self.stop = threading.Event()
        self.result: Trained | None = None
        self.private: Private | None = None
        self.noised: Noised | None = None
        self.values: Any = None
        self.out: Any = None
        self.seconds = 0.0

    def check(self) -> None:
        """Raise StoppedError where it is no longer wanted."""
        if self.stop.is_set():
            raise StoppedError

    def hold(self, result: Trained, noised: Noised | None, *, spends: bool) -> None:
        """Take over what travels; the mean may come into memory that is not needed any more by then.

        Without noise that is the update's own, which are a GPU's tensors where it was trained there; with noise
        ``result`` is in the host's memory. ``spends``: whether the protocol opens a sum only once its updates are
        spent. A mean is written no sooner, and a spent update is not handed in again. Else the update stays, for
        another attempt where the sum was not read.
        """
        self.noised = noised
        if noised is None:
            self.values = self.out = result.joined()
        else:
            values = self.values = self.out = noised.values
            if values.dtype != "float32" or not values.flags.writeable:
                self.out = result.joined()
            result.values.clear()
        if not spends:
            self.out = None

    def costs(self) -> dict[str, Any]:
        """What it took and gave, plain JSON values; empty before it is through."""
        if self.result is None:
            return {}
        noise = {} if self.noised is None else self.noised.costs
        return {"loss": self.result.loss, "train_s": self.seconds, "salt": self.salt, **noise}

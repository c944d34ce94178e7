"""A site's noise: an update is noised once, kept on disk until its round is over, and counted before it can leave.

Two noised copies of one update would cost epsilon twice, and two sums over live sets that differ by one member would
tell that member's update. So the bytes of the first copy are kept, and handed in again after a restart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.aggregation.accounting import PrivacyLedger
from pppml_fast.errors import DataError, PppmlError
from pppml_fast.experiment.files import write_json
from pppml_fast.experiment.privacy import privacy_summary
from pppml_fast.privacy import PrivacyPlan
from pppml_fast.site.application import StateId
from pppml_fast.site.events import Event, EventKind
from pppml_fast.site.files import read_file, write_file

__all__ = ["Noised", "SiteNoise"]

FORMAT = "pppml-released-1"
_RECORD, _PATTERN = "released_sums.json", "noised_*.bin"


@dataclass(frozen=True)
class Noised:
    """What travels in place of an update, and what the noise did to it; plain JSON ``costs`` stay local."""

    values: NDArray[Any]
    costs: dict[str, Any]


@dataclass(frozen=True)
class _Open:
    """The update that may have been released, in a sum whose members are not known yet."""

    round: int
    state: str
    salt: int
    file: str
    sha256: str
    costs: dict[str, Any]


class SiteNoise:
    """Noises a site's updates under ``plan``, and counts on disk what was released.

    ``multiple`` is the site's weight in multiples of the mean one, ``folder`` is the site's alone and outlives its
    checkpoints, ``least`` the fewest members of a live set that the site's policy admits: as long as the members of a
    sum are not known it counts as one of so many. Raises DataError when the record on disk is damaged.
    """

    def __init__(self, plan: PrivacyPlan, multiple: float, folder: Path, least: int) -> None:
        plan.terms.honest(least)
        self.plan, self._multiple, self._folder, self._least = plan, multiple, folder, least
        self._record = folder / _RECORD
        self._settled, self._open = self._load()

    @property
    def ledger(self) -> PrivacyLedger:
        """All releases so far; one whose members are not known counts at its worst."""
        found = PrivacyLedger(dict(self._settled.releases))
        if self._open is not None:
            found.enter(self.plan.terms.honest(self._least))
        return found

    def noised(self, state: StateId, salt: int, update: list[NDArray[np.float32]]) -> Noised:
        """What is handed in for the update trained from ``state`` under ``salt``: the same bytes at every call.

        It is on disk and counted when this returns. Raises DataError when the disk refuses, InputError on NaN and Inf.
        """
        kept = self._kept(state, salt)
        if kept is not None:
            return kept
        self._settle(self._least)
        made = self.plan.privatise(update, self._multiple)
        costs = {"l2_clipped": made.clipped, "saturated": made.saturated}
        data = made.values.data.cast("B")
        digest = hashlib.sha256(data).hexdigest()
        name = f"noised_{digest[:32]}.bin"
        write_file(self._folder / name, data, 0o600)
        self._keep(self._settled, _Open(state.round, state.hash.hex(), salt, name, digest, costs))
        return Noised(made.values, costs)

    def hear(self, event: Event) -> None:
        """An `EventSink`: the members of a finished sum say how much noise was in it."""
        found = self._open
        if found is not None and event.kind is EventKind.ROUND_FINISHED and event.fields["round"] == found.round:
            self._settle(len(event.fields["members"]))

    def close_round(self) -> None:
        """The update of this round is never handed in again: whether it was released is not known, so it counts."""
        self._settle(self._least)

    def summary(self, training: str) -> dict[str, Any]:
        """The terms, and epsilon after all releases; see `privacy_summary`."""
        return privacy_summary(self.plan, {training: self.ledger})

    # --- on disk ----------------------------------------------------------------------------------------------------

    def _settle(self, members: int) -> None:
        if self._open is None:
            return
        settled = PrivacyLedger(dict(self._settled.releases))
        settled.enter(self.plan.terms.honest(members))
        self._keep(settled, None)

    def _keep(self, settled: PrivacyLedger, open_: _Open | None) -> None:
        table = {"format": FORMAT, "released": settled.to_dict(), "open": None if open_ is None else asdict(open_)}
        write_json(self._record, table)
        self._settled, self._open = settled, open_
        for old in self._folder.glob(_PATTERN):
            if open_ is None or old.name != open_.file:
                with contextlib.suppress(OSError):
                    old.unlink()

    def _kept(self, state: StateId, salt: int) -> Noised | None:
        """The noised update on disk. Where it is damaged another is made, and counted as another release."""
        found = self._open
        if found is None or (found.round, found.state, found.salt) != (state.round, state.hash.hex(), salt):
            return None
        dtype = self.plan.to_values(np.zeros(0, np.int64)).dtype
        with contextlib.suppress(DataError):
            data = read_file(self._folder / found.file, private=True, limit=self.plan.length * dtype.itemsize)
            if hashlib.sha256(data).hexdigest() == found.sha256:
                return Noised(np.frombuffer(data, dtype), found.costs)
        return None

    def _load(self) -> tuple[PrivacyLedger, _Open | None]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._record.exists():
            return PrivacyLedger(), None
        try:
            table = json.loads(self._record.read_text(encoding="utf-8"))
            if table["format"] != FORMAT:
                raise ValueError(f"format {table['format']!r}")
            return PrivacyLedger.from_dict(table["released"]), None if table["open"] is None else _Open(**table["open"])
        except (OSError, ValueError, KeyError, TypeError, PppmlError) as error:
            raise DataError(
                f"the count of released sums {str(self._record)!r} is damaged ({error}); restore it from a copy: "
                "without it nobody knows how much privacy is spent"
            ) from None

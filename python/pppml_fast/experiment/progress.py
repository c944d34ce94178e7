"""What a run tells whoever watches it; the command line shows it, a library caller may ignore it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

__all__ = ["Progress", "RoundReport"]

log = logging.getLogger("pppml_fast.experiment")


@dataclass(frozen=True)
class RoundReport:
    """One finished round of one track: mean training loss, seconds of training and of aggregation."""

    seed: int
    track: str
    round: int
    rounds: int
    loss: float
    train_s: float
    ring_s: float


class Progress:
    """Listener without a display: everything goes to the log `pppml_fast.experiment`."""

    def stage(self, text: str) -> None:
        """A new stage begins, in one line of prose."""
        log.info("%s", text)

    def resumed(self, seed: int, track: str, finished: int) -> None:
        """A track goes on after `finished` rounds found on disk."""
        log.info("seed %d %s: resumed after round %d", seed, track, finished)

    def round_done(self, report: RoundReport) -> None:
        """A round is finished and on disk."""
        log.info(
            "seed %d %s: round %d/%d loss %.4f, training %.2f s, aggregation %.3f s",
            report.seed,
            report.track,
            report.round,
            report.rounds,
            report.loss,
            report.train_s,
            report.ring_s,
        )

    def evaluated(self, seed: int, method: str, party: str, before: float, after: float) -> None:
        """A method was evaluated at one hospital (mean Dice per case, before and after personalisation)."""
        log.info("seed %d %s at %s: Dice %.3f -> %.3f", seed, method, party, before, after)

    def close(self) -> None:
        """The run is over, finished or not."""

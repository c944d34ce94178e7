"""What a site computes: the runtime drives it, and knows nothing of models or data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from pppml_fast.aggregation.standing import StateId
from pppml_fast.errors import PppmlError, SiteError

__all__ = ["Application", "StateId", "keeping"]


class Application(Protocol):
    """A site's training, and the shared model it keeps on disk: the newest state and the one before.

    The runtime calls it from one thread. Every change is durable when its method returns; a kill at any instant leaves
    the states of before or after. What `commit` and `step_back` raise, and all but a DataError of `adopt`, ends the
    runtime: the site cannot go on.
    """

    @property
    def states(self) -> tuple[StateId, ...]:
        """The kept states, newest first, at least one and at most two of consecutive rounds."""

    def train(self, round: int, salt: int) -> None:
        """Begin to train in the background from the newest state, whose ``round`` is this one; return at once.

        The result goes to the runtime's ``ready(round, salt, values, out)``, a failure to its ``failed(error)``. Salt 0
        gives the same update each time, after a restart too, up to roundings of a GPU; every other salt other draws:
        the last update was spent. A call for the round and salt that is being trained, or is trained and not yet
        committed, gives that result again.
        """

    def commit(self, round: int, mean: Any) -> StateId:
        """Apply the weighted mean of a round to the newest state and keep the result.

        ``mean`` is the round's ``out``, where one was given: often the memory of the update that was handed in, and on
        its device. Else it is float32 (length,), beside where the update lay.
        """

    def export(self, state: StateId) -> bytes:
        """A kept state's shared tensors as canonical bytes: equal states give equal bytes."""

    def adopt(self, state: StateId, data: bytes) -> None:
        """Keep what another site exported in place of all states. Raises DataError unless it hashes to ``state``."""

    def step_back(self, state: StateId) -> None:
        """Forget the newest state; ``state`` is the one before."""

    def finished(self) -> bool:
        """Whether the newest state is the last of the training."""

    def describe(self) -> dict[str, Any]:
        """Plain values for logs and the live view: name, rounds wanted, model size."""


@contextmanager
def keeping(round: int, faults_of_others: tuple[type[PppmlError], ...] = ()) -> Iterator[None]:
    """What is refused within, where a model of ``round`` finished rounds is to be kept, ends the site: no peer is to
    blame. Raises SiteError instead, but for ``faults_of_others``."""
    passed: tuple[type[PppmlError], ...] = (SiteError, *faults_of_others)
    try:
        yield
    except passed:
        raise
    except PppmlError as error:
        raise SiteError(f"the model of round {round} cannot be kept here: {error}") from error

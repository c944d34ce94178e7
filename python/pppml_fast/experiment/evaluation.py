"""Scores of a finished training: Dice per test case before and after k personalisation steps.

Personalisation draws from the hospital's own training cases; the test cases are read here and nowhere else,
after the last round, so nothing can be chosen by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pppml_fast.experiment.results import PartyScores
from pppml_fast.experiment.study import Study, batches_of
from pppml_fast.imaging import PartyData, evaluate
from pppml_fast.learning import Objective, ServerState, derive_seed, personalize, seeded

__all__ = ["personal_models", "score_party"]


def personal_models(
    study: Study,
    objective: Objective,
    party: PartyData,
    start: ServerState,
    *,
    seed: int,
    lr: float,
    steps: Iterable[int],
) -> Iterator[tuple[int, ServerState]]:
    """The model after each k of `steps`, in rising order: one run of SGD, looked at on the way.

    Every method sees the same batches at a hospital: their seed does not depend on the method.
    """
    source = batches_of(study, party.train, derive_seed(seed, "personal batches", party.name))
    params, buffers, done = start.params, start.buffers, 0
    for k in sorted(set(steps)):
        with seeded(derive_seed(seed, "personal noise", party.name, done), study.device):
            params, buffers = personalize(objective, params, buffers, source, steps=k - done, lr=lr)
        done = k
        yield k, ServerState(params, buffers, start.round)


def score_party(
    study: Study,
    objective: Objective,
    party: PartyData,
    start: ServerState,
    *,
    seed: int,
    lr: float,
    steps: Iterable[int],
) -> tuple[PartyScores, dict[int, ServerState]]:
    """Dice per test case for k = 0 and each k of `steps`, with the models that were scored."""
    scores: dict[int, dict[str, float]] = {}
    models: dict[int, ServerState] = {}
    for k, model in personal_models(study, objective, party, start, seed=seed, lr=lr, steps={0, *steps}):
        models[k] = model
        scores[k] = evaluate(
            objective.module,
            model.params,
            model.buffers,
            party.test,
            study.config.task.threshold,
            neighbours=study.config.task.neighbours,
            multiple=study.spec.multiple,
            window=study.spec.window,
        )
    return PartyScores(scores), models

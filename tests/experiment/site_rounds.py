"""Sites of a tiny federation in one process, driven round by round as the runtime would."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.aggregation import Federation, Policy, open_federation
from pppml_fast.aggregation.attempt_state import Outcome
from pppml_fast.experiment.checkpoint import StateFolder
from pppml_fast.experiment.site_training import SiteTraining
from pppml_fast.experiment.study import Study, site_study

Update = list[NDArray[np.float32]]
Result = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""What a site hands in, and where the mean may go."""


@contextmanager
def driven_sites(study: Study, folder: Path, track: str) -> Iterator[list[DrivenSite]]:
    """All sites of a study, each with a folder of its own below ``folder``."""
    made = [DrivenSite(study, index, folder / name, track) for index, name in enumerate(study.party_names)]
    yield made
    for site in made:
        site.training.close()


class DrivenSite:
    """A site whose results the test takes one by one."""

    def __init__(self, study: Study, party: int, folder: Path, track: str = "fedavg") -> None:
        self.study = site_study(study.config, study.parties[party], study.weights)
        self.name, self.folder, self.track = study.parties[party].name, folder, track
        self.results: queue.Queue[Any] = queue.Queue()
        self.training = self.open()

    def open(self) -> SiteTraining:
        """The training as a process that starts would have it."""
        self.results = queue.Queue()
        self.training = SiteTraining(
            self.study,
            StateFolder(self.folder),
            track=self.track,
            seed=self.study.config.seeds[0],
            ready=lambda *result: self.results.put(result),
            failed=self.results.put,
        )
        return self.training

    def restart(self) -> None:
        """End and start again: nothing but the folder stays."""
        self.training.close()
        self.open()

    def trained(self, round: int, salt: int = 0) -> Update:
        """The update of a round."""
        self.training.train(round, salt)
        return self.result(round, salt)

    def result(self, round: int, salt: int = 0) -> Update:
        """The update that comes next, which must be of this round."""
        return [self.handed_in(round, salt)[0]]

    def handed_in(self, round: int, salt: int = 0) -> Result:
        """The update that comes next and where its mean may go."""
        got = self.results.get(timeout=600)
        if isinstance(got, Exception):
            raise got
        assert got[:2] == (round, salt)
        values, out = got[2:]
        return values, out


def federation_of(study: Study) -> Federation:
    """A session of the study's sites."""
    section = study.config.aggregation
    return open_federation(
        list(study.weights),
        params=study.params,
        layout=study.layout,
        weights=dict(study.weights),
        protocol=section.protocol,
        topology=section.topology,
        policy=Policy(),
    )


def outcomes_of(study: Study, results: Mapping[str, Result], round: int) -> dict[str, Outcome]:
    """What a round's sum is at each site, opened where the site says."""
    found = {}
    with federation_of(study) as federation:
        for name, machine in federation.members.items():
            federation.network.post(name, machine.begin(round, 0, list(results), study.params))
        federation.network.run()
        for name, (values, out) in results.items():
            machine = federation.members[name]
            federation.network.post(name, machine.contribute(values, study.weights[name], out=out))
        federation.network.run()
        for name, machine in federation.members.items():
            assert machine.outcome is not None
            found[name] = machine.outcome
    return found


def mean_of(study: Study, updates: Mapping[str, Update], round: int) -> NDArray[np.float32]:
    """The encrypted mean of a round, from a session of its own."""
    with federation_of(study) as federation:
        return federation.aggregate(dict(updates), round=round).vector

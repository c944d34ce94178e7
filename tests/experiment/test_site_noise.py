"""Noise at real sites: made once per update, kept over a restart, counted before it leaves, the same terms for all."""

from __future__ import annotations

import json
import random
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_study
from numpy.typing import NDArray
from site_files import make_site_files

from pppml_fast.aggregation.accounting import PrivacyLedger, epsilon
from pppml_fast.errors import ConfigError, DataError, ProtocolError
from pppml_fast.experiment.site_config import load_site
from pppml_fast.experiment.site_noise import SiteNoise
from pppml_fast.experiment.site_process import Stop, noise_of, run_site_process
from pppml_fast.experiment.site_setup import Site, prepare_site, site_lines
from pppml_fast.experiment.site_training import SiteTraining
from pppml_fast.privacy import PrivacyPlan, PrivacyTerms, private_parameters
from pppml_fast.site.application import StateId
from pppml_fast.site.events import Event, EventKind

LENGTH = 3000
TERMS = PrivacyTerms("discrete_gaussian", 0.5, 4.0, 1e-5, 1, 3)
PRIVACY = '\n[privacy]\nmechanism = "discrete_gaussian"\nl2_clip = 0.5\nnoise_multiplier = 4.0\ncolluders = 1\n'
STATE, NEXT = StateId(0, bytes(32)), StateId(1, bytes([1]) * 32)
UPDATE = [np.full(LENGTH - 1000, 0.01, np.float32), np.full(1000, -0.02, np.float32)]


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    params = private_parameters(TERMS, parties=5, length=LENGTH)
    return PrivacyPlan.of(TERMS, params, parties=5, length=LENGTH)


def opened(plan: PrivacyPlan, folder: Path) -> SiteNoise:
    """The noise as a process that starts would have it."""
    return SiteNoise(plan, 1.0, folder / "journal", 3)


def finished(round_: int, members: int) -> Event:
    return Event(0.0, EventKind.ROUND_FINISHED, {"round": round_, "members": ["site"] * members})


def test_an_update_is_noised_once_also_over_restarts(plan: PrivacyPlan, tmp_path: Path) -> None:
    noise = opened(plan, tmp_path)
    first = noise.noised(STATE, 0, UPDATE)
    assert np.abs(first.values).max() > 0.02 and first.costs == {"l2_clipped": True, "saturated": 0}
    for again in (noise, opened(plan, tmp_path)):
        assert again.noised(STATE, 0, UPDATE).values.tobytes() == first.values.tobytes()
        assert again.ledger.releases == {2: 1}
    (kept,) = (tmp_path / "journal").glob("noised_*")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_every_other_update_has_its_own_noise_and_counts(plan: PrivacyPlan, tmp_path: Path) -> None:
    noise = opened(plan, tmp_path)
    made = [noise.noised(*one, UPDATE).values for one in ((STATE, 0), (STATE, 7), (NEXT, 0))]
    differences = [np.count_nonzero(made[a] != made[b]) for a, b in ((0, 1), (1, 2), (0, 2))]
    assert min(differences) > LENGTH * 0.9
    assert opened(plan, tmp_path).ledger.releases == {2: 3}
    assert len(list((tmp_path / "journal").glob("noised_*"))) == 1


def test_a_finished_sum_says_whose_noise_was_in_it(plan: PrivacyPlan, tmp_path: Path) -> None:
    noise = opened(plan, tmp_path)
    noise.noised(STATE, 0, UPDATE)
    noise.hear(finished(4, 5))
    assert noise.ledger.releases == {2: 1}
    noise.hear(finished(0, 5))
    assert noise.ledger.releases == opened(plan, tmp_path).ledger.releases == {4: 1}
    assert not list((tmp_path / "journal").glob("noised_*"))
    noise.noised(NEXT, 0, UPDATE)
    noise.close_round()
    assert noise.ledger.releases == {2: 1, 4: 1}


def test_a_damaged_copy_is_replaced_and_the_release_counted(plan: PrivacyPlan, tmp_path: Path) -> None:
    first = opened(plan, tmp_path).noised(STATE, 0, UPDATE).values
    (kept,) = (tmp_path / "journal").glob("noised_*")
    kept.write_bytes(bytes(kept.stat().st_size))
    noise = opened(plan, tmp_path)
    assert np.count_nonzero(noise.noised(STATE, 0, UPDATE).values != first) > LENGTH * 0.9
    assert noise.ledger.releases == {2: 2}


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "pppml-released-1", "released": {"2": -1}, "open": null}'])
def test_a_damaged_count_stops_the_site(plan: PrivacyPlan, tmp_path: Path, text: str) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "released_sums.json").write_text(text)
    with pytest.raises(DataError, match="how much privacy is spent"):
        opened(plan, tmp_path)


def test_nothing_leaves_where_the_disk_refuses(
    plan: PrivacyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = opened(plan, tmp_path)

    def full(*_: Any) -> None:
        raise DataError("the disk is full")

    monkeypatch.setattr("pppml_fast.experiment.site_noise.write_json", full)
    with pytest.raises(DataError, match="full"):
        noise.noised(STATE, 0, UPDATE)
    assert noise.ledger.releases == {}


# --- sites -----------------------------------------------------------------------------------------------------------


def free_ports(count: int) -> int:
    """The first of ``count`` ports in a row that nobody listens at, elsewhere each time: others look for some too."""
    for first in random.SystemRandom().sample(range(20_000, 30_000, count), 1000):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no ports are free")


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("noise")
    npz = tiny_study.write_npz(base / "five.npz", sites=5)
    names = tiny_study.FIVE_SITES
    return make_site_files(base, npz, members=names, more=PRIVACY, first_port=free_ports(5))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, dict[str, list[NDArray[Any]]]]]:
    """By round: the integers that every site handed in, and the means that were committed."""
    found: dict[int, dict[str, list[NDArray[Any]]]] = {}
    noised, commit, lock = SiteNoise.noised, SiteTraining.commit, threading.Lock()

    def spy_noised(self: SiteNoise, state: StateId, salt: int, update: Any) -> Any:
        made = noised(self, state, salt, update)
        with lock:
            entry = found.setdefault(state.round, {"sent": [], "means": [], "arrays": []})
            entry["arrays"].append(made.values)
            entry["sent"].append(np.rint(made.values / self.plan.params.step).astype(np.int64))
        return made

    def spy_commit(self: SiteTraining, round: int, mean: NDArray[np.float32]) -> StateId:
        with lock:
            found[round]["means"].append(mean.copy())
            over = [array for array in found[round]["arrays"] if np.shares_memory(array, mean)]
            assert len(over) == 1, "the mean of a site is written over what it handed in"
        return commit(self, round, mean)

    monkeypatch.setattr(SiteNoise, "noised", spy_noised)
    monkeypatch.setattr(SiteTraining, "commit", spy_commit)
    yield found


def test_five_sites_sum_noised_integers_and_state_epsilon(five: dict[str, Path], told: Any) -> None:
    sites = [prepare_site(load_site(path)) for path in five.values()]
    summaries: dict[str, Any] = {}

    def run(site: Site) -> None:
        summaries[site.config.node.name] = run_site_process(site, Stop())

    threads = [threading.Thread(target=run, args=(site,)) for site in sites]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert set(summaries) == set(five) and sorted(told) == [0, 1]
    plan = sites[0].study.privacy
    assert plan is not None
    for entry in told.values():
        assert len(entry["sent"]) == len(entry["means"]) == 5
        exact = (sum(entry["sent"]) * plan.params.step / 5).astype(np.float32)
        assert all(np.array_equal(mean, exact) for mean in entry["means"])
    assert len({json.dumps(summary["model"]) for summary in summaries.values()}) == 1
    for site in sites:
        privacy = summaries[site.config.node.name]["privacy"]
        assert privacy["sums"] == {"per_fedavg_fo": 2} and privacy["delta"] == 1e-5
        assert privacy["epsilon_run"] == pytest.approx(epsilon(plan, {4: 2}))
        again = noise_of(site)
        assert again is not None and again.ledger == PrivacyLedger({4: 2})
        assert not list(site.config.folder.journal.parent.glob("noised_*"))


def test_the_plan_states_epsilon_and_what_it_protects(five: dict[str, Path]) -> None:
    lines = dict(site_lines(prepare_site(load_site(five["north"]))))
    assert "at delta 1e-05" in lines["epsilon of the whole run"]
    assert "at delta 1e-05" in lines["epsilon with 3 members in every sum"]
    assert "at least 3 of 5" in lines["policy"]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("", "has colluders = 1, the experiment of 'west' gives nothing"),
        (PRIVACY.replace("0.5", "0.25"), "has l2_clip = 0.5, the experiment of 'west' gives 0.25"),
        (PRIVACY + "delta = 1e-4\n", "has delta = 1e-05, the experiment of 'west' gives 0.0001"),
    ],
)
def test_a_site_of_other_terms_refuses_to_start(five: dict[str, Path], more: str, named: str) -> None:
    base = five["west"].parent.parent
    experiment, own = base / "experiment.toml", base / "own.toml"
    own.write_text(experiment.read_text().replace(PRIVACY, more))
    path = five["west"].with_name("other.toml")
    path.write_text(five["west"].read_text().replace("experiment.toml", "own.toml"))
    with pytest.raises(ProtocolError, match=named):
        prepare_site(load_site(path))


def test_too_many_colluders_leave_no_smaller_live_set(tmp_path: Path) -> None:
    npz = tiny_study.write_npz(tmp_path / "five.npz", sites=5)
    more = PRIVACY.replace("colluders = 1\n", "")
    files = make_site_files(tmp_path, npz, members=tiny_study.FIVE_SITES, more=more)
    assert prepare_site(load_site(files["north"])).policy.minimum(5) == 5


def test_a_training_without_the_agreed_noise_is_none(five: dict[str, Path], tmp_path: Path) -> None:
    from pppml_fast.experiment.checkpoint import StateFolder

    study = prepare_site(load_site(five["north"])).study
    with pytest.raises(ConfigError, match="noise it agreed on"):
        SiteTraining(study, StateFolder(tmp_path), track="per_fedavg_fo", seed=0, ready=print, failed=print)

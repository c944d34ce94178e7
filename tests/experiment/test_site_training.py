"""A site that trains on its own data alone ends in the bits of the run in one process, whatever happens on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from site_rounds import DrivenSite, driven_sites, mean_of, outcomes_of

from pppml_fast.errors import ConfigError, DataError, InputError, SiteError
from pppml_fast.experiment import build_config
from pppml_fast.experiment.checkpoint import StateFolder
from pppml_fast.experiment.participant import Trained
from pppml_fast.experiment.progress import Progress
from pppml_fast.experiment.site_training import SiteTraining, state_id
from pppml_fast.experiment.state import model_sha256
from pppml_fast.experiment.study import Study, prepare, site_study
from pppml_fast.experiment.training import TrackResult, train_track
from pppml_fast.learning import PartyMemory, ServerState
from pppml_fast.site.application import Application, StateId

TRACK = "per_fedavg_fo"


@pytest.fixture(scope="module")
def study(table: dict[str, Any]) -> Study:
    """Three rounds with private layers, local statistics and dropout: everything a site keeps to itself."""
    arguments = {**table["network"]["arguments"], "norm": "batch", "dropout": 0.1}
    config = {**table, "network": {**table["network"], "arguments": arguments}, "rounds": 3, "exclude": ["model.2*"]}
    return prepare(build_config(config))


@pytest.fixture(scope="module")
def whole(study: Study) -> TrackResult:
    """The run in one process."""
    return train_track(study, TRACK, 0, Progress())


@pytest.fixture
def sites(study: Study, tmp_path: Path) -> Iterator[list[DrivenSite]]:
    """Three sites, each with a folder of its own."""
    with driven_sites(study, tmp_path, TRACK) as made:
        yield made


def one_round(study: Study, sites: list[DrivenSite], number: int) -> set[StateId]:
    updates = {site.name: site.trained(number) for site in sites}
    mean = mean_of(study, updates, number)
    return {site.training.commit(number, mean) for site in sites}


def digest(state: ServerState) -> bytes:
    return model_sha256({"": state})


def test_sites_end_in_the_bits_of_the_run_in_one_process(
    study: Study, whole: TrackResult, sites: list[DrivenSite]
) -> None:
    assert {site.training.states for site in sites} == {sites[0].training.states}
    for number in range(3):
        if number == 1:
            sites[1].restart()
            sites[2].training.train(number, 0)
            sites[2].restart()
        assert len(one_round(study, sites, number)) == 1
    assert whole.shared is not None
    for site in sites:
        site.restart()
        assert site.training.finished()
        assert site.training.states[0] == state_id(whole.shared)
        assert [state.round for state in site.training.states] == [3, 2]
        assert digest(site.training.personal) == digest(whole.models[site.name])
        assert [record["losses"][site.name] for record in whole.records] == [
            record["loss"] for record in site.training.records
        ]
    assert len({digest(site.training.personal) for site in sites}) == 3


def test_means_written_over_the_updates_give_the_same_models(
    study: Study, whole: TrackResult, sites: list[DrivenSite]
) -> None:
    for number in range(3):
        results = {}
        for site in sites:
            site.training.train(number, 0)
            results[site.name] = site.handed_in(number)
        for name, outcome in outcomes_of(study, results, number).items():
            values, out = results[name]
            assert out is values and outcome.mean is values, "the mean has an array of its own"
            assert outcome.integers is None
            site = next(site for site in sites if site.name == name)
            site.training.commit(number, outcome.mean)
    assert whole.shared is not None
    assert {site.training.states[0] for site in sites} == {state_id(whole.shared)}
    assert all(digest(site.training.personal) == digest(whole.models[site.name]) for site in sites)


def test_an_update_outlives_a_sum_under_a_protocol_that_spends_nothing(study: Study, tmp_path: Path) -> None:
    section = study.config.aggregation.model_copy(update={"protocol": "plain"})
    plain = prepare(study.config.model_copy(update={"aggregation": section}))
    site = DrivenSite(plain, 0, tmp_path, TRACK)
    site.training.train(0, 0)
    _, out = site.handed_in(0)
    assert out is None
    site.training.close()


def test_joining_an_update_empties_the_list_it_came_in() -> None:
    parts = [np.arange(3, dtype=np.float32), np.zeros(0, np.float32), np.full(2, 7, np.float32)]
    trained = Trained(parts, PartyMemory(), 0.0)
    assert trained.joined().tolist() == [0, 1, 2, 7, 7]
    assert parts == [] and trained.joined().size == 0


def test_salt_0_gives_the_same_update_again_and_others_do_not(study: Study, sites: list[DrivenSite]) -> None:
    site = sites[0]
    first = np.concatenate(site.trained(0))
    assert np.concatenate(site.trained(0)) is not first
    salted = np.concatenate(site.trained(0, 7))
    assert not np.array_equal(first, salted)
    site.restart()
    assert np.array_equal(np.concatenate(site.trained(0, 7)), salted)
    assert np.array_equal(np.concatenate(site.trained(0)), first)


def test_a_salted_round_is_kept_with_the_draws_that_belong_to_it(study: Study, sites: list[DrivenSite]) -> None:
    updates = {site.name: site.trained(0, 5 if site is sites[0] else 0) for site in sites}
    mean = mean_of(study, updates, 0)
    states = {site.training.commit(0, mean) for site in sites}
    assert len(states) == 1
    after = np.concatenate(sites[0].trained(1))
    sites[0].restart()
    assert np.array_equal(np.concatenate(sites[0].trained(1)), after)
    assert sites[0].training.records[0]["salt"] == 5


def test_a_step_back_forgets_the_round_and_its_traces(
    study: Study, whole: TrackResult, sites: list[DrivenSite]
) -> None:
    one_round(study, sites, 0)
    one_round(study, sites, 1)
    for site in sites:
        before = site.training.states[1]
        site.training.step_back(before)
        assert site.training.states == (before,)
        with pytest.raises(DataError, match="nothing was changed"):
            site.training.step_back(before)
    sites[0].restart()
    for number in (1, 2):
        one_round(study, sites, number)
    assert whole.shared is not None
    assert {site.training.states[0] for site in sites} == {state_id(whole.shared)}
    assert all(digest(site.training.personal) == digest(whole.models[site.name]) for site in sites)


def test_a_site_that_missed_the_end_of_a_round_takes_the_model_over(
    study: Study, whole: TrackResult, sites: list[DrivenSite]
) -> None:
    updates = {site.name: site.trained(0) for site in sites}
    mean = mean_of(study, updates, 0)
    newest = {site.training.commit(0, mean) for site in sites[1:]}.pop()
    exported = {site.training.export(newest) for site in sites[1:]}
    assert len(exported) == 1
    data = exported.pop()
    sites[0].training.adopt(newest, data)
    assert sites[0].training.states == (newest,)
    assert sites[0].training.export(newest) == data
    sites[0].restart()
    for number in (1, 2):
        one_round(study, sites, number)
    assert whole.shared is not None
    assert {site.training.states[0] for site in sites} == {state_id(whole.shared)}
    # It took part in the round whose end it missed: even what never travels is as if it had seen it.
    assert digest(sites[0].training.personal) == digest(whole.models[sites[0].name])
    assert sites[0].training.records[0] == {"seed": 0, "track": TRACK, "round": 1, "adopted": True}


def test_a_site_that_was_away_keeps_its_own_tensors(study: Study, sites: list[DrivenSite]) -> None:
    one_round(study, sites, 0)
    own = {name: t for name, t in sites[0].training.personal.params.items() if name not in study.layout.names}
    assert own
    sites[0].trained(1)
    for number in (1, 2):
        for site in sites[1:]:
            site.training.commit(number, np.full(study.layout.size, 1e-3, np.float32))
    newest = sites[1].training.states[0]
    assert newest == sites[2].training.states[0]
    sites[0].training.adopt(newest, sites[1].training.export(newest))
    assert sites[0].training.states == (newest,) and sites[0].training.finished()
    assert all(torch.equal(sites[0].training.personal.params[name], kept) for name, kept in own.items())
    assert [record["round"] for record in sites[0].training.records] == [1, 3]


def test_what_does_not_hash_is_not_taken_over(study: Study, sites: list[DrivenSite]) -> None:
    states = one_round(study, sites, 0)
    newest = states.pop()
    data = sites[0].training.export(newest)
    tensors = load(data)
    altered = {**tensors, "params/" + study.layout.names[0]: tensors["params/" + study.layout.names[0]] + 1}
    wrong = {
        "a bit": data[:-1] + bytes([data[-1] ^ 1]),
        "cut": data[:-9],
        "empty": b"",
        "no header": b"\xff" * 64,
        "another tensor": save({**tensors, "more": torch.zeros(1)}),
        "one less": save({name: t for name, t in tensors.items() if name != "round"}),
        "shape": save({**tensors, "round": torch.zeros(2, dtype=torch.int64)}),
        "values": save(altered),
    }
    before = sites[0].training.states
    for what, received in wrong.items():
        with pytest.raises(DataError, match="ask another site"):
            sites[0].training.adopt(newest, received)
        assert sites[0].training.states == before, what
    with pytest.raises(DataError, match=r"of round 1 .*expected round 2"):
        sites[0].training.adopt(StateId(2, newest.hash), data)
    with pytest.raises(DataError, match="is kept here"):
        sites[0].training.export(StateId(1, bytes(32)))


def test_a_disk_that_refuses_and_cannot_be_read_either_ends_the_site(
    study: Study, sites: list[DrivenSite], monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = sites[1].training.states[0]
    data, before = sites[1].training.export(newest), sites[0].training.states

    def refuse(*_: object) -> None:
        raise DataError("the disk is gone")

    monkeypatch.setattr(StateFolder, "keep", refuse)
    for load_ in (StateFolder.load, refuse):
        monkeypatch.setattr(StateFolder, "load", load_)
        with pytest.raises(SiteError, match="model of round 0 cannot be kept here: the disk is gone"):
            sites[0].training.adopt(newest, data)
        assert sites[0].training.states == before


def test_rounds_are_taken_in_order(study: Study, sites: list[DrivenSite]) -> None:
    site = sites[0]
    with pytest.raises(InputError, match="round 1 was asked for"):
        site.training.train(1, 0)
    mean = np.zeros(study.layout.size, np.float32)
    with pytest.raises(InputError, match="round 1 does not fit"):
        site.training.commit(1, mean)
    with pytest.raises(InputError, match="does not fit the layout"):
        site.training.commit(0, mean[:-1])
    with pytest.raises(InputError, match=r"NaN or Inf|not finite|NaN"):
        site.training.commit(0, np.full_like(mean, np.nan))
    assert [state.round for state in site.training.states] == [0]


def test_a_training_that_is_no_longer_wanted_ends_at_its_next_batch(
    study: Study, sites: list[DrivenSite], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sites[0]
    source = site.training._participant.source
    reached, go_on = threading.Event(), threading.Event()
    draw = source.draw

    def waits() -> Any:
        reached.set()
        assert go_on.wait(600)
        return draw()

    monkeypatch.setattr(source, "draw", waits)
    site.training.train(0, 0)
    assert reached.wait(600)
    site.training.train(0, 3)
    go_on.set()
    salted = site.result(0, 3)
    assert site.results.empty()
    monkeypatch.undo()
    site.restart()
    assert np.array_equal(np.concatenate(site.trained(0, 3)), np.concatenate(salted))


def test_a_training_that_fails_says_so_and_can_begin_again(
    study: Study, sites: list[DrivenSite], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sites[0]

    def broken() -> Any:
        raise RuntimeError("a scan is gone")

    monkeypatch.setattr(site.training._participant.source, "draw", broken)
    with pytest.raises(RuntimeError, match="a scan is gone"):
        site.trained(0)
    monkeypatch.undo()
    assert site.trained(0)


def test_a_result_that_is_there_is_given_again(sites: list[DrivenSite]) -> None:
    first = sites[0].trained(0)
    assert all(one is two for one, two in zip(first, sites[0].trained(0), strict=True))


def test_a_site_is_an_application(sites: list[DrivenSite]) -> None:
    application: Application = sites[0].training
    told = application.describe()
    assert told["name"] == "north" and told["rounds"] == 3 and told["method"] == TRACK
    assert told["weights"] == sites[0].study.layout.size
    assert not application.finished()


def test_a_method_without_exchange_has_no_site(study: Study, tmp_path: Path) -> None:
    own = site_study(study.config, study.parties[0], study.weights)
    with pytest.raises(ConfigError, match="exchanges nothing"):
        SiteTraining(own, StateFolder(tmp_path), track="local", seed=0, ready=print, failed=print)


def test_states_of_another_network_are_refused(
    table: dict[str, Any], study: Study, sites: list[DrivenSite], tmp_path: Path
) -> None:
    other = prepare(build_config(table))
    with pytest.raises(DataError, match="of another training"):
        DrivenSite(other, 0, sites[0].folder, TRACK)


def test_a_site_needs_nobody_elses_data(study: Study) -> None:
    own = site_study(study.config, study.parties[1], study.weights)
    assert own.party_names == ["east"]
    assert (own.layout, own.params, own.spec) == (study.layout, study.params, study.spec)
    assert own.weights == study.weights
    bare = site_study(study.config, None, study.weights)
    assert (bare.layout, bare.params, bare.parties) == (study.layout, study.params, ())
    with pytest.raises(ConfigError, match="2 parties"):
        site_study(study.config, study.parties[0], {"north": 0.5, "east": 0.5})
    chosen = study.config.model_copy(update={"selection": study.config.selection.model_copy(update={"enabled": True})})
    with pytest.raises(ConfigError, match=r"selection.enabled"):
        site_study(chosen, study.parties[0], study.weights)

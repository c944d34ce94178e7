"""Training on a device: updates are summed where they lie, their mean is applied there, and the bits are the host's."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("monai")
pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mlkem")

from played_torch import PlayedTensor, on_device, play_torch, shared  # noqa: E402

import tiny_study  # noqa: E402  # isort: skip
from site_rounds import DrivenSite, driven_sites, outcomes_of  # noqa: E402  # isort: skip

from pppml_fast import CkksParams, ConfigError, InputError  # noqa: E402
from pppml_fast.cuda import DeviceArray  # noqa: E402
from pppml_fast.experiment import build_config  # noqa: E402
from pppml_fast.experiment.checkpoint import CheckpointFolder, StateFolder  # noqa: E402
from pppml_fast.experiment.devices import check_kernels  # noqa: E402
from pppml_fast.experiment.evaluation import score_party  # noqa: E402
from pppml_fast.experiment.participant import Trained  # noqa: E402
from pppml_fast.experiment.progress import Progress, RoundReport  # noqa: E402
from pppml_fast.experiment.runner import run_experiment  # noqa: E402
from pppml_fast.experiment.site_noise import SiteNoise  # noqa: E402
from pppml_fast.experiment.site_training import SiteTraining, state_id  # noqa: E402
from pppml_fast.experiment.state import model_sha256  # noqa: E402
from pppml_fast.experiment.study import Study, prepare, site_study  # noqa: E402
from pppml_fast.experiment.training import TrackResult, train_track  # noqa: E402
from pppml_fast.learning import (  # noqa: E402
    PartyMemory,
    ServerState,
    from_vector,
    layout_of,
    on_host,
    to_vector,
)

pytestmark = pytest.mark.played_device
TRACK = "per_fedavg_fo"


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_study.write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def studied(npz: Path, **changes: Any) -> Study:
    """Private layers, running statistics and dropout: everything a hospital keeps to itself or shares."""
    table = tiny_study.table(npz)
    arguments = {**table["network"]["arguments"], "norm": "batch", "dropout": 0.1}
    network = {**table["network"], "arguments": arguments}
    return prepare(build_config({**table, "network": network, "exclude": ["model.2*"], **changes}))


@pytest.fixture(scope="module")
def study(npz: Path) -> Study:
    return studied(npz)


@pytest.fixture(scope="module")
def whole(study: Study) -> TrackResult:
    """The run of the host."""
    return train_track(study, TRACK, 0, Progress())


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    play_torch(monkeypatch)


def digest(state: ServerState) -> bytes:
    return model_sha256({"": state})


# --- vectors --------------------------------------------------------------------------------------------------------


def some_tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"w": torch.randn(5, 3), "b": torch.randn(()), "c": torch.randn(2, 3, 4, 5)}


@pytest.mark.usefixtures("played")
def test_tensors_travel_as_they_are_and_the_mean_comes_back_in_any_form() -> None:
    plain = some_tensors()
    layout = layout_of(plain)
    tensors = {name: on_device(tensor) for name, tensor in plain.items()}
    update = to_vector(layout, tensors)
    assert [part.data_ptr() for part in update] == [tensor.data_ptr() for tensor in tensors.values()]
    assert all(isinstance(part, PlayedTensor) and part.dim() == 1 for part in update)
    flat = DeviceArray.from_host(layout.flatten(plain))
    for mean in (update, flat, shared(flat), layout.flatten(plain)):
        back = from_vector(layout, mean)
        assert list(back) == list(plain)
        assert all(torch.equal(torch.Tensor(back[name]), tensor) for name, tensor in plain.items())
    taken = from_vector(layout, flat)
    assert taken["w"].data_ptr() == flat.address, "no copy on the way back either"
    spread = tensors["c"].contiguous(memory_format=torch.channels_last)
    (logical,) = to_vector(layout_of({"c": spread}), {"c": spread})
    assert torch.equal(torch.Tensor(logical), plain["c"].reshape(-1))
    assert PlayedTensor.left == []


@pytest.mark.usefixtures("played")
def test_a_mean_that_does_not_fit_is_refused_by_name() -> None:
    plain = some_tensors()
    layout = layout_of(plain)
    parts = [on_device(tensor.reshape(-1)) for tensor in plain.values()]
    for wrong in (parts[:-1], [parts[0], *parts], [], [parts[1], parts[0], parts[2]]):
        with pytest.raises(
            InputError, match="do not fit the layout: expected one for each of its 3, 136 values in all"
        ):
            from_vector(layout, wrong)
    with pytest.raises(InputError, match=r"vector of shape \(135,\) does not fit the layout: expected \(136,\)"):
        from_vector(layout, DeviceArray.from_host(np.zeros(135, np.float32)))
    spoiled = DeviceArray.from_host(np.where(np.arange(136) == 15, np.inf, 0).astype(np.float32))
    with pytest.raises(InputError, match="the received value of 'b' is not finite"):
        from_vector(layout, spoiled)


@pytest.mark.usefixtures("played")
def test_an_update_is_handed_in_as_tensors_and_forgotten() -> None:
    parts = [on_device(torch.arange(3.0)), on_device(torch.ones(2))]
    trained = Trained(list(parts), PartyMemory(), 0.0)
    values = trained.on_host().values
    assert [part.tolist() for part in values] == [[0, 1, 2], [1, 1]] and PlayedTensor.left == ["to", "to"]
    handed_in = trained.joined()
    assert isinstance(handed_in, list) and trained.values == []
    assert all(one is two for one, two in zip(handed_in, parts, strict=True))


# --- a run in one process -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize(
    "aggregation",
    [{}, {"topology": "star"}, {"protocol": "initiator"}, {"protocol": "plain"}],
    ids=["ring", "star", "initiator", "plain"],
)
def test_a_run_on_a_device_ends_in_the_bits_of_the_host(
    npz: Path, aggregation: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = studied(npz, aggregation=aggregation)
    result = train_track(study, TRACK, 0, Progress())
    # For the plain sums alone, of each hospital in each round.
    assert PlayedTensor.left.count("to_host") == 3 * 2 * (2 if study.config.aggregation.protocol == "plain" else 1)
    monkeypatch.undo()
    whole = train_track(study, TRACK, 0, Progress())
    assert result.shared is not None
    assert all(isinstance(tensor, PlayedTensor) for tensor in result.shared.params.values())
    assert result.sha256() == whole.sha256()
    for ours, theirs in zip(result.records, whole.records, strict=True):
        assert ours["identical"] is True and ours["max_difference_from_plain"] == 0
        assert (ours["losses"], ours["clipped"]) == (theirs["losses"], theirs["clipped"])
        assert ours["update_norm"] == pytest.approx(theirs["update_norm"], rel=1e-6)


@pytest.mark.usefixtures("played")
def test_shared_statistics_and_training_alone(npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_device_ = studied(npz, statistics="shared", exclude=[])
    found = {track: train_track(on_device_, track, 0, Progress()).sha256() for track in ("fedavg", "local")}
    monkeypatch.undo()
    assert found == {track: train_track(on_device_, track, 0, Progress()).sha256() for track in found}


@pytest.mark.usefixtures("played")
def test_a_run_goes_on_from_what_it_kept_on_disk(study: Study, whole: TrackResult, tmp_path: Path) -> None:
    class Killed(Progress):
        def round_done(self, report: RoundReport) -> None:
            raise KeyboardInterrupt

    folder = CheckpointFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train_track(study, TRACK, 0, Killed(), folder)
    kept = folder.load()
    assert kept is not None and kept.round == 1
    assert all(type(tensor) is torch.Tensor for tensor in kept.state["shared"].values())
    resumed = train_track(study, TRACK, 0, Progress(), folder)
    assert resumed.sha256() == whole.sha256()
    assert resumed.shared is not None
    assert all(isinstance(tensor, PlayedTensor) for tensor in resumed.shared.params.values())


@pytest.mark.usefixtures("played")
def test_personal_models_are_made_and_scored_where_they_are(study: Study, whole: TrackResult) -> None:
    party = study.parties[0]
    start = whole.models[party.name]
    objective = study.objective(study.network(0))
    params, buffers = (
        {name: on_device(t) if t.is_floating_point() else t for name, t in group.items()}
        for group in (start.params, start.buffers)
    )
    moved = ServerState(params, buffers, start.round)
    found = [score_party(study, objective, party, one, seed=0, lr=0.1, steps=[2]) for one in (start, moved)]
    assert found[0][0] == found[1][0]
    assert digest(found[0][1][2]) == digest(found[1][1][2])
    assert all(isinstance(tensor, PlayedTensor) for tensor in found[1][1][2].params.values())


def test_a_whole_run_leaves_the_files_of_the_host(npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, personalised, scored, saved and reported; the same command again finds it done."""
    table = tiny_study.table(npz, board=["local", "fedavg_ft", "per_fedavg_hf"])
    found = {}
    for device in ("cuda", "cpu"):
        if device == "cuda":
            play_torch(monkeypatch)
        for again in (False, True):
            result = run_experiment(build_config({**table, "device": device}), tmp_path / device, command="pppml")
            assert result.provenance["resumed"] is again
            assert result.aggregation["identical_models"] is True and result.aggregation["ciphertexts"] > 0
        assert result.provenance["machine"]["device"] == {"cpu": "cpu", "cuda": "cuda:0"}[device]
        paths = sorted((tmp_path / device / "models").rglob("*.safetensors"))
        found[device] = {path.relative_to(tmp_path / device): path.read_bytes() for path in paths}
        assert len(paths) == 3 + 2 * 4  # personal ones; of what is exchanged a shared one as well
        monkeypatch.undo()
    assert found["cuda"] == found["cpu"]
    assert (tmp_path / "cuda" / "scores.csv").read_text() == (tmp_path / "cpu" / "scores.csv").read_text()
    assert 'device = "cuda:0"' in (tmp_path / "cuda" / "models" / "per_fedavg_hf" / "global.toml").read_text()


@pytest.mark.usefixtures("played")
def test_noise_is_added_to_copies_on_the_host(npz: Path) -> None:
    study = studied(npz, privacy={"colluders": 1})
    result = train_track(study, TRACK, 0, Progress())
    assert all(record["identical"] is True for record in result.records)
    # Per hospital and round, every tensor of its update once; else models and checkpoints alone.
    assert PlayedTensor.left.count("to") >= 2 * 3 * len(study.layout.names)


# --- sites ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sites(study: Study, tmp_path: Path) -> Iterator[list[DrivenSite]]:
    with driven_sites(study, tmp_path, TRACK) as made:
        yield made


def one_round(study: Study, sites: list[DrivenSite], number: int) -> set[Any]:
    results = {}
    for site in sites:
        site.training.train(number, 0)
        results[site.name] = site.handed_in(number)
    PlayedTensor.left.clear()
    outcomes = outcomes_of(study, results, number)
    assert PlayedTensor.left == [], "an update was taken to the host"
    for name, (values, out) in results.items():
        assert out is values and outcomes[name].mean is values
    return {site.training.commit(number, outcomes[site.name].mean) for site in sites}


@pytest.mark.usefixtures("played")
def test_sites_on_devices_end_in_the_bits_of_the_run_of_the_host(
    study: Study, whole: TrackResult, sites: list[DrivenSite]
) -> None:
    for number in range(2):
        assert len(one_round(study, sites, number)) == 1
        sites[number].restart()
    assert whole.shared is not None
    for site in sites:
        assert site.training.states[0] == state_id(whole.shared)
        assert digest(site.training.personal) == digest(whole.models[site.name])
        assert all(isinstance(tensor, PlayedTensor) for tensor in site.training.shared.params.values())
        assert site.training.finished()


def test_a_site_on_a_device_beside_sites_without_one(
    study: Study, whole: TrackResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [DrivenSite(study, index, tmp_path / name, TRACK) for index, name in enumerate(study.party_names[:2])]
    with monkeypatch.context() as patch:
        play_torch(patch)
        sites.append(DrivenSite(study, 2, tmp_path / study.party_names[2], TRACK))
        for number in range(2):
            assert len(one_round(study, sites, number)) == 1
        assert whole.shared is not None
        newest = state_id(whole.shared)
        assert {site.training.states[0] for site in sites} == {newest}
        exported = {site.training.export(newest) for site in sites}
        assert len(exported) == 1
        # A device takes over what a host hands on, and the other way round.
        late = [DrivenSite(study, 1, tmp_path / "late", TRACK), sites[0]]
        for site in late:
            site.training.adopt(newest, next(iter(exported)))
            assert site.training.states == (newest,)
        for site in (*sites, *late):
            site.training.close()


@pytest.mark.usefixtures("played")
def test_an_update_that_is_not_finite_is_refused_where_it_lies(
    study: Study, sites: list[DrivenSite], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, own = study.layout.names[1], sites[0].training._participant
    train = own.train

    def spoiled(*arguments: Any) -> Trained:
        result = train(*arguments)
        result.values[1].view(-1)[0] = float("nan")
        return result

    monkeypatch.setattr(own, "train", spoiled)
    with pytest.raises(InputError, match=f"the update of '{spoil}' is not finite"):
        sites[0].trained(0)
    assert PlayedTensor.left.count("to_host") == 0


@pytest.mark.usefixtures("played")
def test_a_noised_update_of_a_device_lies_on_the_host(npz: Path, tmp_path: Path) -> None:
    study = studied(npz, privacy={"colluders": 1})
    assert study.privacy is not None
    handed_in: queue.Queue[Any] = queue.Queue()
    noise = SiteNoise(study.privacy, 1.0, tmp_path / "journal", 3)
    training = SiteTraining(
        site_study(study.config, study.parties[0], study.weights),
        StateFolder(tmp_path / "states"),
        track=TRACK,
        seed=0,
        ready=lambda *result: handed_in.put(result),
        failed=handed_in.put,
        noise=noise,
    )
    training.train(0, 0)
    _, _, values, out = handed_in.get(timeout=60)
    assert isinstance(values, np.ndarray) and isinstance(out, np.ndarray) and out.shape == (study.layout.size,)
    out[:] = 0
    assert training.commit(0, out).round == 1
    training.close()
    assert all(isinstance(tensor, PlayedTensor) for tensor in training.shared.params.values())


def test_parameters_without_kernels_are_refused_before_a_run() -> None:
    common: dict[str, Any] = {"parties": 3, "clip": 1.0, "keys": "collective"}
    for name in ("p31", "p50", "p62", "compact"):
        check_kernels(CkksParams.preset(name, **common), torch.device("cuda", 0))
    odd = {
        "prime.s. has no kernels for CUDA": CkksParams("odd", 8192, (1125899906990081,), **common),
        "slots are encoded on the host": CkksParams.preset("p31", packing="slots", **common),
    }
    for reason, params in odd.items():
        with pytest.raises(ConfigError, match=rf"^device = 'cuda:0': .*{reason}.*choose another aggregation.params"):
            check_kernels(params, torch.device("cuda", 0))


def test_states_are_kept_on_the_host(study: Study) -> None:
    state = ServerState({"w": on_device(torch.ones(2, 2))}, {"n": torch.tensor(3)})
    assert [type(tensor) for tensor in state.state_dict().values()] == [torch.Tensor] * 3
    assert type(on_host(state.params["w"])) is torch.Tensor
    assert isinstance(state.restore(state.state_dict()).params["w"], PlayedTensor)

"""What a site checks before it starts, and what it has at the end."""

from __future__ import annotations

import json
import queue
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from site_files import make_site_files
from site_rounds import mean_of

from pppml_fast.errors import ConfigError, DataError, LayoutMismatchError, ProtocolError
from pppml_fast.experiment import load_config
from pppml_fast.experiment.folder import RunFolder
from pppml_fast.experiment.runner import run_experiment
from pppml_fast.experiment.site_config import load_coordinator, load_site
from pppml_fast.experiment.site_process import application_of
from pppml_fast.experiment.site_results import conclude
from pppml_fast.experiment.site_setup import (
    Site,
    coordinator_lines,
    prepare_coordinator,
    prepare_site,
    site_lines,
)
from pppml_fast.experiment.site_training import SiteTraining
from pppml_fast.experiment.study import data_fingerprint
from pppml_fast.site.federation_file import FederationFile

NAMES = ("north", "east", "south")
Change = Callable[[str, str], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, npz: Path) -> Path:
    base = tmp_path_factory.mktemp("ring")
    make_site_files(base, npz)
    return base


@pytest.fixture
def base(made: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(made, tmp_path / "ring"))


@pytest.fixture
def change(base: Path) -> Change:
    def replace(old: str, new: str) -> None:
        for path in (base / "north" / "site.toml", base / "experiment.toml"):
            path.write_text(path.read_text().replace(old, new))

    return replace


def north(base: Path) -> Site:
    return prepare_site(load_site(base / "north" / "site.toml"))


def test_a_plan_tells_all_and_writes_nothing(made: Path) -> None:
    before = sorted(made.rglob("*"))
    lines = dict(site_lines(north(made)))
    assert lines["node"].startswith("north, identity ")
    assert lines["federation"].endswith("signed by all 3")
    assert lines["cases"].startswith("2 for training") and "weight 0.333" in lines["cases"]
    assert lines["aggregation"] == "collective, ring, 3 parties"
    assert "encrypted sums" not in lines, "a site has no plain sums to compare with"
    for name in ("parameters", "precision", "ciphertexts", "bytes", "journal", "spool", "log", "models", "keys"):
        assert lines[name], name
    assert set(lines) >= {"peer east", "peer south"} and "peer north" not in lines
    assert lines["listens at"].startswith("127.0.0.1:7400")
    assert lines["policy"].startswith("at least 3 of 3 members")
    assert sorted(made.rglob("*")) == before


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ('name = "north"', 'name = "east"', ConfigError, "the name is 'east', the keys in .* are those of 'north'"),
        ("listen =", "metrics =", ConfigError, "site.listen is missing"),
        ("channels = [4, 8]", "channels = [4, 4]", LayoutMismatchError, "the federation's model"),
        ("[task]", "[aggregation]\nclip = 2.0\n[task]", ProtocolError, "clip = 1.0, .* gives 2.0"),
        ("[task]", '[aggregation]\nprotocol = "plain"\n[task]', ConfigError, "the roster says 'collective'"),
        ("[site]", "[policy]\nmin_parties = 4\n[site]", ConfigError, "policy.min_parties = 4 is more than the 3"),
        ("[site]", "[policy]\nmax_share = 0.2\n[site]", ProtocolError, "the limit is 0.2"),
        ("../federation.json", "../nothing.json", DataError, "nothing.json"),
        ('folder = "site"', 'folder = "other"', DataError, "other/keys"),
    ],
)
def test_what_does_not_fit_is_found_before_any_work(
    base: Path, change: Change, old: str, new: str, error: type[Exception], message: str
) -> None:
    change(old, new)
    with pytest.raises(error, match=message) as refused:
        north(base)
    assert "\n" not in str(refused.value)


def test_a_roster_that_not_all_have_signed_is_not_used(base: Path) -> None:
    path = base / "federation.json"
    whole = FederationFile.load(path)
    signatures = {name: text for name, text in whole.signatures.items() if name != "south"}
    FederationFile(whole.roster, whole.layout, whole.addresses, signatures).save(path)
    with pytest.raises(ProtocolError, match="not signed by south"):
        north(base)


def test_a_star_has_one_peer_and_a_coordinator(npz: Path, tmp_path: Path) -> None:
    files = make_site_files(tmp_path, npz, star=True)
    text = files["north"].read_text()
    files["north"].write_text(re.sub(r"listen = .*\n", "", text))
    lines = dict(site_lines(prepare_site(load_site(files["north"]))))
    assert [name for name in lines if name.startswith("peer")] == ["peer hub"]
    assert lines["listens at"].startswith("nowhere")
    hub = dict(coordinator_lines(prepare_coordinator(load_coordinator(files["hub"]))))
    assert [name for name in hub if name.startswith("peer")] == ["peer north", "peer east", "peer south"]
    assert hub["peer north"].startswith("dials in") and "journal" not in hub


def test_a_ring_has_no_coordinator(base: Path) -> None:
    path = base / "north" / "coordinator.toml"
    text = (base / "north" / "site.toml").read_text()
    path.write_text(text[: text.index("[experiment]")].replace("[site]", "[coordinator]"))
    with pytest.raises(ConfigError, match="a ring, which has no coordinator"):
        prepare_coordinator(load_coordinator(path))


def test_sites_from_files_leave_the_files_of_the_run_in_one_process(base: Path) -> None:
    whole = base / "whole"
    run_experiment(load_config(base / "experiment.toml"), whole)
    sites = {name: prepare_site(load_site(base / name / "site.toml")) for name in NAMES}
    runs: dict[str, RunFolder] = {}
    trainings: dict[str, SiteTraining] = {}
    results: queue.Queue[Any] = queue.Queue()
    study = sites["north"].study
    for name, site in sites.items():
        runs[name] = RunFolder.claim(
            site.config.folder.run, site.config.experiment, data_fingerprint(site.study.parties)
        )

        def ready(_: int, __: int, values: Any, ___: Any, name: str = name) -> None:
            results.put((name, values))

        trainings[name] = application_of(site, runs[name], ready, results.put)
    for number in range(2):
        for training in trainings.values():
            training.train(number, 0)
        updates = dict(results.get(timeout=600) for _ in NAMES)
        mean = mean_of(study, updates, number)
        for training in trainings.values():
            training.commit(number, mean)
    for name in NAMES:
        summary = conclude(trainings[name], runs[name])
        assert summary == json.loads((runs[name].path / "summary.json").read_text())
        assert conclude(trainings[name], runs[name]) == summary
        assert summary["model"]["sha256"] == trainings["north"].states[0].hash.hex()
        assert set(summary["models"]) == {f"models/per_fedavg_fo/{file}.safetensors" for file in ("global", name)}
        for file in summary["models"]:
            assert (runs[name].path / file).read_bytes() == (whole / file).read_bytes()
        scores = json.loads((whole / "checkpoints" / "seed_0" / "per_fedavg_fo" / "scores.json").read_text())
        assert summary["methods"]["per_fedavg_fo"]["dice"] == scores["per_fedavg_fo"][name]
        trainings[name].close()


def test_there_is_no_conclusion_before_the_end(base: Path) -> None:
    from pppml_fast.errors import InputError

    site = north(base)
    run = RunFolder.claim(site.config.folder.run, site.config.experiment, "data")
    with pytest.raises(InputError, match="at round 0 of 2"):
        conclude(application_of(site, run, print, print), run)

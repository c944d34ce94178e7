"""site.toml: what it says, and one line for everything that is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_study
from site_files import site_toml

from pppml_fast.errors import ConfigError, DataError
from pppml_fast.experiment.config import DatalistData, PhantomData
from pppml_fast.experiment.own_data import load_own, own_data
from pppml_fast.experiment.site_config import PolicySection, SiteConfig, SiteSection, load_coordinator, load_site


@pytest.fixture
def base(tmp_path: Path, npz: Path) -> Path:
    (tmp_path / "north").mkdir()
    (tmp_path / "experiment.toml").write_text(tiny_study.toml(npz, 'board = ["local", "fedavg", "fedavg_ft"]\n'))
    return tmp_path


def load(base: Path, text: str) -> SiteConfig:
    path = base / "north" / "site.toml"
    path.write_text(text)
    return load_site(path)


def test_a_site_is_narrowed_to_one_training_on_its_own_data(base: Path, npz: Path) -> None:
    config = load(base, site_toml("north", npz, "[::1]:7443"))
    assert config.track == "fedavg" and config.seed == 0
    assert config.experiment.board == ("fedavg", "fedavg_ft") and config.experiment.threads == 1
    assert config.experiment.rounds == 2 and config.experiment.network.multiple == 2
    assert config.federation == base.resolve() / "federation.json"
    folder = base.resolve() / "north" / "site"
    assert (config.keys, config.folder.run) == (folder / "keys", folder / "run")
    kept = load(base, site_toml("north", npz, "a:1").replace("[site]", "[site]\nkeys = '../keys'"))
    assert kept.keys == base.resolve() / "keys"
    assert config.node.patience_s == 600 and config.node.training_s == 86400
    assert config.policy.min_parties is None
    party = load_own(config.experiment.data, "north")
    assert party.name == "north" and len(party.train) == 2 and len(party.test) == 1


def test_an_experiment_may_stand_in_the_file(base: Path, npz: Path) -> None:
    text = site_toml("north", npz, "a:1").replace(
        'path = "../experiment.toml"',
        'method = "per_fedavg_fo"\nseed = 7\nrounds = 5\n[experiment.network]\ntarget = "monai.networks.nets:UNet"',
    )
    config = load(base, text)
    assert (config.track, config.seed, config.experiment.rounds) == ("per_fedavg_fo", 7, 5)
    assert config.experiment.board == ("per_fedavg_fo",)


def test_a_ready_experiment_goes_by_its_name(base: Path, npz: Path) -> None:
    text = site_toml("north", npz, "a:1").replace("../experiment.toml", "demo")
    with pytest.raises(ConfigError, match=r"3 federated trainings .*set experiment.method"):
        load(base, text)
    config = load(base, text.replace("[experiment]", '[experiment]\nmethod = "fedavg_ft"'))
    assert config.track == "fedavg" and config.experiment.name == "demo"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("folder =", "foldr =", r"unknown key 'site.foldr': did you mean 'site.folder'"),
        ('name = "north"', "", r"^site.name is missing; add it to the configuration$"),
        ('name = "north"', "name = 3", r"^site.name = 3: .*; correct it in the configuration$"),
        ('listen = "a:1"', 'listen = "a"', r"site.listen = 'a'"),
        ('listen = "a:1"', "patience_s = 0", r"site.patience_s = 0: .*greater than 0"),
        ('listen = "a:1"', "training_s = 0", r"site.training_s = 0: .*greater than 0"),
        ('listen = "a:1"', "training_s = nan", r"site.training_s = nan"),
        ('listen = "a:1"', 'log_level = "loud"', r"site.log_level = 'loud'"),
        ('listen = "a:1"', "threads = 0", r"site.threads = 0"),
        ("[site]", "[policy]\nmin_parties = 0\n[site]", r"policy.min_parties = 0"),
        ("[site]", "[extra]\n[site]", r"unknown key 'extra'"),
        ("[experiment]", "[experiments]", r"lacks the section \[experiment\]"),
        ("[data]", "[datas]", r"lacks the section \[data\]"),
        ("../experiment.toml", "missing.toml", r"missing.toml' cannot be read .*set experiment.path"),
        ('path = "../experiment.toml"', 'path = "../experiment.toml"\nrounds = 3', r"gives path and 'rounds'"),
        ('path = "../experiment.toml"', "threads = 3", r"holds 'threads'; set site.threads instead"),
        ('path = "../experiment.toml"', "rounds = 3", r"^network is missing"),
        ('path = "../experiment.toml"', 'path = "../experiment.toml"\nmethod = "local"', r"exchanges nothing"),
        ('path = "../experiment.toml"', 'path = "../experiment.toml"\nmethod = "sgd"', r"experiment.method = 'sgd'"),
        ('kind = "npz"', 'kind = "nifti"', r"data.kind must be one of"),
        ("[site]", "[site", r"is not TOML"),
    ],
)
def test_one_line_names_what_is_wrong(base: Path, npz: Path, old: str, new: str, message: str) -> None:
    text = site_toml("north", npz, "a:1")
    assert old in text
    with pytest.raises((ConfigError, DataError), match=message) as refused:
        load(base, text.replace(old, new, 1))
    assert "\n" not in str(refused.value) and "--set" not in str(refused.value)


def test_the_slowest_update_may_be_waited_for_without_end(base: Path, npz: Path) -> None:
    config = load(base, site_toml("north", npz, "a:1").replace("[site]", "[site]\ntraining_s = inf"))
    assert config.node.training_s == float("inf")


def test_several_seeds_need_a_choice(base: Path, npz: Path) -> None:
    (base / "experiment.toml").write_text(tiny_study.toml(npz, 'seeds = [3, 4]\nboard = ["fedavg"]\n'))
    text = site_toml("north", npz, "a:1")
    with pytest.raises(ConfigError, match=r"seeds \[3, 4\], a site trains one; set experiment.seed"):
        load(base, text)
    assert load(base, text.replace("[experiment]", "[experiment]\nseed = 4")).seed == 4


def test_a_coordinator_needs_an_address(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.toml"
    text = '[coordinator]\nname = "hub"\nfolder = "hub"\nfederation = "federation.json"\n'
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"coordinator.listen is missing"):
        load_coordinator(path)
    path.write_text(text + 'listen = "0.0.0.0:7443"\n')
    config = load_coordinator(path)
    assert config.keys == tmp_path / "hub" / "keys" and config.node.grace_s == 30
    path.write_text(text + 'listen = "0.0.0.0:7443"\nthreads = 2\n')
    with pytest.raises(ConfigError, match=r"unknown key 'coordinator.threads'"):
        load_coordinator(path)
    path.write_text("coordinator = 3\n")
    with pytest.raises(ConfigError, match=r"is no section; write \[coordinator\]"):
        load_coordinator(path)


def test_own_data_of_every_kind(tmp_path: Path, npz: Path) -> None:
    assert own_data(PhantomData(), "east") == PhantomData(hospitals=("east",))
    with pytest.raises(ConfigError, match="'nowhere', which does not exist"):
        load_own(own_data(PhantomData(), "nowhere"), "nowhere")
    lists = {name: tmp_path / f"{name}.json" for name in ("a", "b")}
    for name, path in lists.items():
        path.write_text(json.dumps({"name": f"site {name}", "training": []}))
    one = DatalistData(path=str(lists["a"]))
    assert own_data(one, "x") == DatalistData(parties={"x": str(lists["a"])})
    assert own_data(DatalistData(parties={"b": "b.json"}), "x") == DatalistData(parties={"x": "b.json"})
    folder = DatalistData(path=str(tmp_path))
    assert own_data(folder, "site b") == DatalistData(parties={"site b": str(lists["b"])})
    with pytest.raises(ConfigError, match=r"2 datalists \(site a, site b\), not one of 'x'"):
        own_data(folder, "x")
    with pytest.raises(DataError, match=r"does not exist; set data.path"):
        own_data(DatalistData(path=str(tmp_path / "c")), "x")


def test_an_npz_set_of_several_needs_the_site_among_them(npz: Path, tmp_path: Path) -> None:
    from pppml_fast.experiment.config import NpzData

    data = NpzData(path=str(npz))
    assert load_own(own_data(data, "east"), "east").name == "east"
    with pytest.raises(ConfigError, match=r"3 parties \(north, east, south\), none of them 'x'"):
        load_own(own_data(data, "x"), "x")
    alone = NpzData(path=str(tiny_study.write_npz(tmp_path / "one.npz", sites=1)))
    assert load_own(own_data(alone, "x"), "x").name == "x"


def test_the_documentation_names_every_key_and_its_example_holds(base: Path, npz: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "sites.md").read_text()
    example = text.split("```toml\n")[1].split("```")[0]
    (base / "north" / "experiment.toml").write_text(tiny_study.toml(npz))
    (base / "north" / "north.json").write_text(json.dumps({"training": []}))
    config = load(base, example)
    assert (config.track, config.keys.name) == ("per_fedavg_fo", "keys")
    assert config.experiment.data == DatalistData(parties={"north": str(base.resolve() / "north" / "north.json")})
    for section, model in (("site", SiteSection), ("policy", PolicySection)):
        for key, field in model.model_fields.items():
            row = f"`{section}.{key}`"
            assert row in text or f"\n{key} = " in example, row
            if row in text and field.default is not None:
                assert f"{row} | {field.default:g} |" in text if isinstance(field.default, float) else row in text

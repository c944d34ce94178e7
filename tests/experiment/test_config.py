"""The configuration: what is read, what is overridden, and how everything wrong is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pppml_fast.errors import ConfigError
from pppml_fast.experiment import READY_CONFIGS, build_config, load_config, ready_config
from pppml_fast.experiment.config import DatalistData, NpzData, PhantomData
from pppml_fast.experiment.config_file import parse_override


def message(table: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        build_config(table, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_unknown_key_names_itself_the_nearest_and_the_remedy(table: dict[str, Any]) -> None:
    text = message({**table, "aggregation": {"protcol": "plain"}})
    assert "'aggregation.protcol'" in text
    assert "did you mean 'aggregation.protocol'" in text
    assert "remove it" in text and "topology" in text


def test_unknown_key_at_the_top_level(table: dict[str, Any]) -> None:
    text = message({**table, "roundz": 3})
    assert "'roundz'" in text and "'rounds'" in text


def test_unknown_key_inside_the_chosen_kind_of_data(table: dict[str, Any]) -> None:
    text = message({**table, "data": {"kind": "npz", "path": "x.npz", "sizes": 3}})
    assert "'data.sizes'" in text and "mapping" in text
    assert "hospitals" not in text


def test_unknown_key_without_a_near_one_suggests_none(table: dict[str, Any]) -> None:
    assert "did you mean" not in message({**table, "zzzz": 1})


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("rounds=0", "rounds = 0"),
        ("rounds='many'", "rounds = 'many'"),
        ("task.threshold=1.5", "task.threshold = 1.5"),
        ("methods.fedavg.lr=-0.1", "methods.fedavg.lr = -0.1"),
        ("aggregation.protocol='smoke'", "aggregation.protocol = 'smoke'"),
        ("aggregation.clip=0", "aggregation.clip = 0"),
        ("network.target='nothing'", "network.target = 'nothing'"),
        ("seeds=[-1]", "seeds.0 = -1"),
        ("board=['fedsgd']", "board.0 = 'fedsgd'"),
    ],
)
def test_value_out_of_range_names_key_and_value(table: dict[str, Any], override: str, named: str) -> None:
    text = message(table, override)
    assert text.startswith(named) and "--set" in text


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("reported_steps=3", "personal_steps"),
        ("board=['local', 'local']", "twice"),
        ("seeds=[1, 1]", "twice"),
        ("data.kind=smoke", "phantoms, npz, datalists"),
        ("data.kind=datalists", "parties"),
        ("data.kind=npz", "data.path is missing"),
    ],
)
def test_values_that_do_not_belong_together(table: dict[str, Any], override: str, named: str) -> None:
    text = message({**table, "data": {"kind": "phantoms"}}, override)
    assert named in text


def test_initiator_on_a_star_is_refused(table: dict[str, Any]) -> None:
    text = message(table, "aggregation.protocol=initiator", "aggregation.topology=star")
    assert "initiator" in text and "ring" in text


def test_overrides_take_toml_values_and_bare_words(table: dict[str, Any]) -> None:
    config = build_config(
        table,
        ["rounds=7", "methods.fedavg.lr=0.5", "aggregation.protocol=plain", "seeds=[3, 4]", "task.augment=false"],
    )
    assert config.rounds == 7
    assert config.methods.fedavg.lr == 0.5
    assert config.aggregation.protocol == "plain"
    assert config.seeds == (3, 4)
    assert config.task.augment is False


def test_the_last_override_wins_and_the_table_stays(table: dict[str, Any]) -> None:
    before = repr(table)
    assert build_config(table, ["rounds=7", "rounds=9"]).rounds == 9
    assert repr(table) == before


@pytest.mark.parametrize("text", ["rounds", "=3", "rounds=", "a b=3", "rounds=[1,", "rounds=1\nseeds=[2]", "x=say hi"])
def test_what_is_no_override(text: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        parse_override(text)


def test_unknown_key_in_an_override(table: dict[str, Any]) -> None:
    assert "'methods.fedavg.lrr'" in message(table, "methods.fedavg.lrr=1")


def test_override_below_a_value(table: dict[str, Any]) -> None:
    assert "'rounds' holds a value" in message(table, "rounds.first=1")


def test_another_kind_of_data_drops_the_keys_of_the_old_one(table: dict[str, Any]) -> None:
    config = build_config(table, ["data.kind=phantoms", "data.size=48"])
    assert config.data == PhantomData(size=48)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    network = '[network]\ntarget = "monai.networks.nets:UNet"\n'
    (tmp_path / "a.toml").write_text(f'[data]\nkind = "npz"\npath = "set.npz"\n{network}')
    (tmp_path / "b.toml").write_text(f'[data]\nkind = "datalists"\n[data.parties]\nnorth = "n.json"\n{network}')
    first, second = load_config(tmp_path / "a.toml").data, load_config(tmp_path / "b.toml").data
    assert isinstance(first, NpzData) and first.path == str(tmp_path / "set.npz")
    assert isinstance(second, DatalistData) and second.parties == {"north": str(tmp_path / "n.json")}


def test_a_file_that_is_missing_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read .*TOML file"):
        load_config(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "broken.toml").write_text("rounds = = 3\n")
    with pytest.raises(ConfigError, match=r"not TOML.*line 1"):
        load_config(tmp_path / "broken.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "binary.toml")


@pytest.mark.parametrize("name", READY_CONFIGS)
def test_ready_configurations_compare_at_equal_gradients(name: str) -> None:
    from pppml_fast.experiment.tracks import algorithm_of, tracks_of

    config = ready_config(name)
    spent = {algorithm_of(config, track).gradients_per_round for track in tracks_of(config.board)}
    assert spent == {config.gradients_per_round}
    assert set(config.board) >= {"local", "fedavg", "fedavg_ft", "per_fedavg_fo", "per_fedavg_hf"}
    assert config.personal_steps == (0, 1, 5, 10)
    assert config.aggregation.protocol == "collective"


def test_unknown_ready_configuration() -> None:
    with pytest.raises(ConfigError, match="demo, covid_ct_seg"):
        ready_config("nothing")


def test_budget_that_a_method_cannot_spend(table: dict[str, Any]) -> None:
    from pppml_fast.experiment.study import prepare

    with pytest.raises(ConfigError, match=r"gradients_per_round = 6.*per_fedavg_hf.*4 or 8"):
        prepare(build_config(table, ["gradients_per_round=6"]))

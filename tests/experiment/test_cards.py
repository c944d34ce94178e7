"""Model cards: what was saved comes back, what was tampered with does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pppml_fast.errors import DataError
from pppml_fast.experiment.cards import Model, load_model, save_model
from pppml_fast.experiment.config_file import tomllib
from pppml_fast.experiment.results import RunResult
from pppml_fast.experiment.study import Study
from pppml_fast.imaging import Preprocessing
from pppml_fast.learning import buffers_of, parameters_of


@pytest.fixture
def model(study: Study) -> Model:
    module = study.network(3)
    return Model(
        method="per_fedavg_hf",
        spec=study.spec,
        params=parameters_of(module),
        buffers=buffers_of(module),
        preprocessing=Preprocessing(window=(-900.0, 300.0), matrix=32),
        neighbours=1,
        threshold=0.4,
        personal_lr=0.05,
        batch_size=2,
        augment=True,
        loss="dice_ce",
        statistics="local",
        party="Clínica «Süd»",
        personal_steps=5,
        seed=3,
        data="phantoms",
        provenance={"run": "tiny", "torch": torch.__version__},
    )


def test_a_model_comes_back_bit_for_bit(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "south.toml")
    for path in (tmp_path / "south.toml", tmp_path / "south.safetensors"):
        back = load_model(path)
        assert list(back.params) == list(model.params)
        for name, tensor in model.params.items():
            assert torch.equal(back.params[name], tensor)
        fields = set(Model.__dataclass_fields__) - {"params", "buffers"}
        assert {name: getattr(back, name) for name in fields} == {name: getattr(model, name) for name in fields}


def test_the_card_is_for_people_too(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "south.toml")
    card = tomllib.loads((tmp_path / "south.toml").read_text(encoding="utf-8"))
    assert card["kind"] == "personal" and card["party"] == "Clínica «Süd»"
    assert card["network"]["target"] == "monai.networks.nets:UNet"
    assert card["input"] == {"window": [-900.0, 300.0], "matrix": 32, "neighbours": 1, "range": [0.0, 1.0]}
    assert card["output"]["threshold"] == 0.4
    assert card["parameters"]["weights"] == sum(t.numel() for t in model.params.values())


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"monai.networks.nets:UNet"', '"os:system"', "no torch.nn.Module"),
        ("channels = [4, 8]", "channels = [4, 16]", "shape|differs"),
        ("sha256", "sha", "lacks 'sha256'"),
        ("pppml-model-1", "pppml-model-9", "format"),
        ("threshold = 0.4", "threshold = 'high'", "cannot be used"),
        ("[network]", "[network", "cannot be used"),
        ('statistics = "local"', 'statistics = "none"', "statistics"),
        ('loss = "dice_ce"', 'loss = "none"', "loss"),
    ],
)
def test_a_card_that_was_changed(model: Model, tmp_path: Path, old: str, new: str, words: str) -> None:
    save_model(model, tmp_path / "m.toml")
    edit(tmp_path / "m.toml", old, new)
    with pytest.raises(DataError, match=words) as caught:
        load_model(tmp_path / "m.toml")
    assert "\n" not in str(caught.value)


def test_tensors_that_were_changed_or_lost(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.toml")
    tensors = tmp_path / "m.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-3] ^= 4
    tensors.write_bytes(data)
    with pytest.raises(DataError, match="hash"):
        load_model(tmp_path / "m.toml")
    tensors.unlink()
    with pytest.raises(DataError, match="cannot be used"):
        load_model(tmp_path / "m.toml")
    with pytest.raises(DataError, match="no model card"):
        load_model(tmp_path)


def test_the_card_of_a_run_predicts_as_the_run_scored(finished: tuple[RunResult, Path], study: Study) -> None:
    from pppml_fast.imaging import evaluate

    result, out = finished
    kept = load_model(out / "models" / "per_fedavg_hf" / "north.toml")
    options: dict[str, Any] = {"neighbours": kept.neighbours, "multiple": kept.spec.multiple}
    scores = evaluate(kept.module(), kept.params, kept.buffers, study.parties[0].test, kept.threshold, **options)
    method = next(m for m in result.methods if m.name == "per_fedavg_hf")
    assert np.mean(list(scores.values())) == method.party("north", 2)
    assert kept.personal_steps == 2 and kept.party == "north"

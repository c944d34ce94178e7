"""Checkpoints: every value comes back with its bits, and a cut-off write never shows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pppml_fast.errors import DataError
from pppml_fast.experiment.checkpoint import Checkpoint, CheckpointFolder
from pppml_fast.experiment.files import write_json, write_with
from pppml_fast.experiment.state import pack_state, unpack_state

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(values)
def test_plain_values_come_back(value: Any) -> None:
    structure, tensors = pack_state(value)
    back = unpack_state(json.loads(json.dumps(structure)), tensors)
    assert back == value and type(back) is type(value)


def test_tensors_and_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    state = {
        "weights": {"b": torch.tensor([0.1, -0.0, 1e-40]), "a": torch.zeros(0), "t": torch.arange(6).reshape(2, 3).T},
        "count": torch.tensor(7, dtype=torch.int64),
        "generator": torch.Generator().manual_seed(3).get_state(),
        "array": np.array([[1, 2], [3, 4]], dtype=np.int32),
        "nested": [("x", 2**70), {"tensor": torch.ones(1), "dict": 1}],
    }
    folder = CheckpointFolder(tmp_path / "track")
    folder.save(Checkpoint(4, state, [{"round": 4, "loss": 0.25}]))
    kept = folder.load()
    assert kept is not None and kept.round == 4 and kept.records == [{"round": 4, "loss": 0.25}]
    assert list(kept.state["weights"]) == ["b", "a", "t"]
    for name, tensor in state["weights"].items():
        assert kept.state["weights"][name].dtype == tensor.dtype
        assert kept.state["weights"][name].numpy().tobytes() == tensor.contiguous().numpy().tobytes()
    assert kept.state["count"].dtype == torch.int64 and int(kept.state["count"]) == 7
    assert torch.equal(kept.state["generator"], state["generator"])
    assert np.array_equal(kept.state["array"], state["array"]) and kept.state["array"].dtype == np.int32
    assert kept.state["nested"][0] == ("x", 2**70)
    assert torch.equal(kept.state["nested"][1]["tensor"], torch.ones(1))


def test_what_no_checkpoint_can_keep_is_named() -> None:
    with pytest.raises(TypeError, match=r"function.*state/a/0"):
        pack_state({"a": [lambda: 0]})


def test_only_the_last_round_is_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for number in (1, 2, 3):
        folder.save(Checkpoint(number, {"w": torch.full((2,), float(number))}, []))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round_00003.safetensors", "state.json"]


def test_a_write_cut_off_before_its_commit_leaves_the_round_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(Checkpoint(1, {"w": torch.ones(2)}, []))
    replace, calls = os.replace, []

    def cut(source: Any, target: Any) -> None:
        calls.append(target)
        if str(target).endswith("state.json"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        folder.save(Checkpoint(2, {"w": torch.zeros(2)}, []))
    monkeypatch.undo()
    assert len(calls) == 2
    kept = folder.load()
    assert kept is not None and kept.round == 1 and torch.equal(kept.state["w"], torch.ones(2))


def test_damage_is_named_with_its_remedy(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert folder.load() is None
    folder.save(Checkpoint(1, {"w": torch.ones(2)}, []))
    tensors = tmp_path / "round_00001.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(DataError, match=r"damaged .*hash.*delete that folder"):
        folder.load()
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        folder.load()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def half(path: Path) -> None:
        path.write_bytes(b"half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_with(tmp_path / "file.bin", half)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write .*--out"):
        write_json(tmp_path / "file" / "below.json", {})

"""The layout of a model: its fingerprint, the first difference by name, and the way to a vector and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pppml_fast as pf


def arrays(**changes: Any) -> dict[str, np.ndarray]:
    base = {
        "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "conv.bias": np.array([0.5, -0.5], np.float32),
        "scale": np.array(3.0, np.float64),
        "empty": np.zeros((0, 7), np.float16),
    }
    return {**base, **changes}


def test_the_fingerprint_is_pinned() -> None:
    # It is part of every roster: a change here makes deployed parties refuse each other.
    layout = pf.Layout.from_arrays(arrays())
    assert layout.canonical_bytes() == (
        b'[["conv.weight",[2,3,4],"float32"],["conv.bias",[2],"float32"],["scale",[],"float64"],["empty",[0,7],"float16"]]'
    )
    assert layout.fingerprint.hex() == "e5eadb766915c6d3e31d959db403f666164bef78977197feffb7875ecb5d3c9a"


def test_what_a_layout_says() -> None:
    layout = pf.Layout.from_arrays(arrays())
    assert layout.names == ("conv.weight", "conv.bias", "scale", "empty")
    assert layout.shapes == ((2, 3, 4), (2,), (), (0, 7))
    assert layout.dtypes == ("float32", "float32", "float64", "float16")
    assert layout.size == 27
    assert [tensor.size for tensor in layout.tensors] == [24, 2, 1, 0]
    assert pf.Layout.from_arrays({}).size == 0


def test_frameworks_agree() -> None:
    shapes = {"a": (3, 2), "b": (5,)}
    ours = pf.Layout.from_arrays({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    theirs = pf.Layout.from_arrays({name: torch.zeros(shape) for name, shape in shapes.items()})
    assert ours == theirs
    assert ours.fingerprint == theirs.fingerprint


REORDERED = {name: arrays()[name] for name in ("conv.bias", "conv.weight", "scale", "empty")}
DIFFERENCES: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "name": (
        {("renamed" if name == "scale" else name): array for name, array in arrays().items()},
        r"tensor 2 differs: expected scale\[\]:float64, the other model has renamed\[\]:float64",
    ),
    "shape": (
        arrays(**{"conv.weight": np.zeros((2, 4, 3), np.float32)}),
        r"tensor 0 differs: expected conv.weight\[2, 3, 4\]:float32, the other .* has conv.weight\[2, 4, 3\]:float32",
    ),
    "dtype": (
        arrays(**{"conv.bias": np.zeros(2, np.float16)}),
        r"tensor 1 differs: expected conv.bias\[2\]:float32, the other model has conv.bias\[2\]:float16",
    ),
    "order": (REORDERED, r"tensor 0 differs: expected conv.weight.*has conv.bias"),
    "one more": (
        arrays(head=np.zeros(3, np.float32)),
        r"tensor count differs: expected 4, the other model has 5; the first tensor only in the other model is head",
    ),
    "one fewer": (
        {name: array for name, array in arrays().items() if name != "empty"},
        r"expected 4, the other model has 3; the first tensor only in the expected model is empty",
    ),
    "none": ({}, r"the other model has 0; the first tensor only in the expected model is conv.weight"),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_the_first_difference_is_named(difference: str) -> None:
    others, message = DIFFERENCES[difference]
    mine, theirs = pf.Layout.from_arrays(arrays()), pf.Layout.from_arrays(others)
    assert mine.fingerprint != theirs.fingerprint
    with pytest.raises(pf.LayoutMismatchError, match=message):
        mine.check_same(theirs)
    mine.check_same(pf.Layout.from_arrays(arrays()))


def test_the_other_side_has_a_name() -> None:
    others = pf.Layout.from_arrays(DIFFERENCES["name"][0])
    with pytest.raises(pf.LayoutMismatchError, match="north has renamed"):
        pf.Layout.from_arrays(arrays()).check_same(others, whose="north")


def test_names_are_unique() -> None:
    tensor = pf.TensorSpec("w", (2,), "float32")
    with pytest.raises(pf.InputError, match="tensor 'w' appears twice"):
        pf.Layout((tensor, pf.TensorSpec("b", (1,), "float32"), tensor))


def test_tied_weights_travel_once() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    module[1].weight = module[0].weight
    layout = pf.Layout.from_arrays(dict(module.named_parameters()))
    assert layout.names == ("0.weight", "0.bias", "1.bias")
    assert layout.size == 24


def test_flatten_and_unflatten() -> None:
    given_arrays = arrays(**{"conv.weight": np.asfortranarray(arrays()["conv.weight"])})
    layout = pf.Layout.from_arrays(given_arrays)
    flat = layout.flatten(given_arrays)
    assert flat.dtype == np.float32
    assert flat.tolist() == [*range(24), 0.5, -0.5, 3.0]
    back = layout.unflatten(flat)
    assert list(back) == list(layout.names)
    for name, array in given_arrays.items():
        assert back[name].dtype == np.float32
        assert np.array_equal(back[name], array)
    assert np.shares_memory(back["conv.bias"], flat)
    assert np.array_equal(layout.flatten({name: back[name].astype(a.dtype) for name, a in given_arrays.items()}), flat)


def test_views_copy_nothing() -> None:
    model = arrays()
    views = pf.Layout.from_arrays(model).views(dict(reversed(model.items())))
    assert [view.shape for view in views] == [(24,), (2,), (1,), (0,)]
    assert np.shares_memory(views[0], model["conv.weight"])
    assert pf.Layout.from_arrays({}).flatten({}).shape == (0,)


def test_models_that_do_not_follow_the_layout_are_refused() -> None:
    layout = pf.Layout.from_arrays(arrays())
    incomplete = arrays()
    del incomplete["conv.bias"]
    with pytest.raises(pf.LayoutMismatchError, match=r"tensor 'conv\.bias' of the layout is missing"):
        layout.flatten(incomplete)
    with pytest.raises(pf.LayoutMismatchError, match="tensor 1 differs"):
        layout.flatten(arrays(**{"conv.bias": np.zeros(3, np.float32)}))
    for wrong in (np.zeros(26), np.zeros(28), np.zeros((27, 1)), np.float32(1)):
        with pytest.raises(pf.InputError, match=r"expected \(27,\)"):
            layout.unflatten(wrong)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), max_size=6), st.integers(0, 2**32 - 1))
def test_any_model_returns_from_its_vector(shapes: list[tuple[int, ...]], seed: int) -> None:
    random = np.random.default_rng(seed)
    model = {f"t{i}": random.normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes)}
    layout = pf.Layout.from_arrays(model)
    back = layout.unflatten(layout.flatten(model))
    assert layout.size == sum(array.size for array in model.values())
    assert all(np.array_equal(back[name], array) and back[name].shape == array.shape for name, array in model.items())


def test_a_layout_travels_into_a_ciphertext_and_back() -> None:
    model = {name: array.astype(np.float32) / 32 for name, array in arrays().items()}
    layout = pf.Layout.from_arrays(model)
    params = pf.CkksParams.preset("p31", parties=2, clip=1.0)
    keys = pf.keygen(params)
    total = keys.public.encrypt(layout.views(model)) + keys.public.encrypt(layout.flatten(model))
    for name, array in layout.unflatten(keys.secret.decrypt(total)).items():
        assert np.allclose(array, 2 * model[name], atol=2 * params.step)

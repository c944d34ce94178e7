from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pppml_fast.errors import DataError
from pppml_fast.imaging import (
    Case,
    Preprocessing,
    SliceBatches,
    build_network,
    evaluate,
    fast_unet,
    predict_case,
    predict_probabilities,
    predict_volume,
    segmentation_loss,
)
from pppml_fast.imaging.nifti import oriented_volume


class Threshold(nn.Module):
    """Logit = gain * (channel - level) for one channel: its prediction is known."""

    def __init__(self, channel: int = 1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(50.0))
        self.register_buffer("level", torch.tensor(0.5))
        self.channel = channel
        self.seen: list[tuple[int, ...]] = []
        self.dropout = nn.Dropout(0.5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(image.shape))
        image = self.dropout(image)
        return self.gain * (image[:, self.channel : self.channel + 1] - self.level)


def tensors(module: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return dict(module.named_parameters()), dict(module.named_buffers())


def random_case(shape: tuple[int, int, int], seed: int = 0) -> Case:
    image = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return Case(f"case{seed}", image, (image > 0.5).astype(np.uint8), lung=np.ones(shape, np.uint8))


@pytest.mark.parametrize("shape", [(1, 16, 16), (5, 37, 41), (19, 16, 50)])
def test_odd_sizes_are_padded_and_cropped_back(shape: tuple[int, int, int]) -> None:
    module, case = Threshold(), random_case(shape)
    np.testing.assert_array_equal(predict_case(module, *tensors(module), case), case.mask)
    assert all(seen[2] % 16 == 0 and seen[3] % 16 == 0 for seen in module.seen)
    assert sum(seen[0] for seen in module.seen) == shape[0]


def test_channels_are_the_neighbouring_slices() -> None:
    case = random_case((6, 16, 16))
    for channel, index in ((0, [0, 0, 1, 2, 3, 4]), (2, [1, 2, 3, 4, 5, 5])):
        module = Threshold(channel)
        np.testing.assert_array_equal(predict_case(module, *tensors(module), case), case.mask[index])


def test_slices_above_the_window_slide(thin_cases: tuple[Case, ...]) -> None:
    module, case = Threshold(), random_case((3, 70, 100))
    np.testing.assert_array_equal(predict_case(module, *tensors(module), case, window=32), case.mask)
    assert {seen[2:] for seen in module.seen} == {(32, 32)}


def test_the_weights_passed_in_count_and_the_module_is_left_alone() -> None:
    module, case = Threshold(), random_case((4, 16, 16))
    module.train()
    module.dropout.eval()
    parameters = {"gain": torch.tensor(-50.0)}
    buffers = {"level": torch.tensor(0.25)}
    np.testing.assert_array_equal(predict_case(module, parameters, buffers, case), case.image <= 0.25)
    assert module.gain.item() == 50.0
    assert module.training
    assert not module.dropout.training


def test_evaluate_is_dice_per_case() -> None:
    module = Threshold()
    good, bad = random_case((3, 16, 16), 1), random_case((3, 16, 16), 2)
    lung = np.zeros_like(bad.mask)
    lung[0] = 1
    mask = bad.mask.copy()
    mask[1:] = 1 - mask[1:]
    bad = Case("bad", bad.image, mask, lung)
    scores = evaluate(module, *tensors(module), [good, bad])
    assert list(scores) == ["case1", "bad"]
    assert scores["case1"] == 1.0
    assert scores["bad"] < 0.6
    assert evaluate(module, *tensors(module), [bad], within_lung=True) == {"bad": 1.0}
    with pytest.raises(DataError, match="no lung mask"):
        evaluate(module, *tensors(module), [Case("x", bad.image, mask)], within_lung=True)


def test_a_network_of_several_channels_is_refused() -> None:
    module = nn.Conv2d(3, 2, 1)
    with pytest.raises(DataError, match="2 channels, needs 1"):
        predict_probabilities(module, *tensors(module), random_case((2, 16, 16)).image)


def test_a_volume_is_predicted_on_its_own_grid() -> None:
    """64 rows are predicted on a matrix of 32: blocks of equal pixels must come back exactly."""
    coarse = np.random.default_rng(0).random((3, 8, 8))
    blocks = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
    stored = np.where(blocks > 0.5, 300, -900).astype(np.int16).transpose(2, 1, 0)
    volume = oriented_volume(Path("ct"), stored, np.diag([-1.0, -1.0, 2.0, 1.0]))
    module = Threshold()
    mask = predict_volume(module, *tensors(module), volume, Preprocessing(matrix=32))
    assert mask.shape == (3, 64, 64)
    inner = np.s_[:, 2::8, 2::8]
    np.testing.assert_array_equal(mask[inner], (blocks > 0.5)[inner])
    assert (mask == (blocks > 0.5)).mean() > 0.9


def test_plain_sgd_learns_lesions(thin_cases: tuple[Case, ...]) -> None:
    """A few steps of momentum-free SGD must find lesions of a patient it trains on far above chance."""
    module = build_network(fast_unet((8, 16, 32)), seed=0)
    batches = SliceBatches(thin_cases[:1], batch_size=8, seed=0, augment=False)
    loss_function = segmentation_loss()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    before = evaluate(module, *tensors(module), thin_cases[:1])
    for _ in range(120):
        images, masks = batches.draw()
        loss = loss_function(module(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = evaluate(module, *tensors(module), thin_cases[:1])
    name = thin_cases[0].name
    assert after[name] > 0.5
    assert after[name] > before[name] + 0.2

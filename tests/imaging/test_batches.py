from __future__ import annotations

import numpy as np
import pytest
import torch

from pppml_fast.errors import DataError
from pppml_fast.imaging import Case, SliceBatches
from pppml_fast.imaging.batches import neighbour_table


def plain(case: Case, **options: object) -> SliceBatches:
    values: dict[str, object] = {"batch_size": 64, "seed": 1, "augment": False, "positive_share": 0.0, **options}
    return SliceBatches([case], **values)  # type: ignore[arg-type]


def test_neighbours_are_channels_and_edges_are_replicated(tiny_case: Case) -> None:
    images, masks = plain(tiny_case).draw()
    assert images.shape == (64, 3, 32, 32)
    assert masks.shape == (64, 1, 32, 32)
    assert images.dtype == masks.dtype == torch.float32
    seen = {tuple(round(float(value) * 10) for value in image[:, 0, 0]) for image in images}
    assert seen == {(0, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 3)}
    for image, mask in zip(images, masks, strict=True):
        middle = round(float(image[1, 0, 0]) * 10)
        np.testing.assert_array_equal(mask[0, :20, :24].numpy(), tiny_case.mask[middle])
    assert images[:, :, 20:].max() == 0
    assert images[:, :, :, 24:].max() == 0


def test_neighbours_never_cross_volumes() -> None:
    np.testing.assert_array_equal(neighbour_table([2, 1, 3], 1), [
        [0, 0, 1], [0, 1, 1], [2, 2, 2], [3, 3, 4], [3, 4, 5], [4, 5, 5],
    ])  # fmt: skip
    np.testing.assert_array_equal(neighbour_table([3], 2)[0], [0, 0, 0, 1, 2])
    np.testing.assert_array_equal(neighbour_table([3], 0), [[0], [1], [2]])


def test_slices_are_uniform_or_positives_are_oversampled(tiny_case: Case) -> None:
    def positive_share(share: float) -> float:
        source = plain(tiny_case, batch_size=4000, positive_share=share)
        return float(source.draw()[1].flatten(1).any(dim=1).float().mean())

    assert positive_share(0.0) == pytest.approx(0.25, abs=0.03)
    assert positive_share(0.5) == pytest.approx(0.625, abs=0.03)
    assert positive_share(1.0) == 1.0
    empty = Case("empty", tiny_case.image, np.zeros_like(tiny_case.mask))
    assert plain(empty, positive_share=1.0).draw()[1].max() == 0


def test_draws_are_independent_reproducible_and_resumable(thin_cases: tuple[Case, ...]) -> None:
    def fresh(seed: int) -> SliceBatches:
        return SliceBatches(thin_cases, batch_size=4, seed=seed)

    source = fresh(7)
    first, second, third = source.draw(), source.draw(), source.draw()
    assert not torch.equal(first[0], second[0])
    torch.manual_seed(123)
    again = fresh(7)
    torch.testing.assert_close(again.draw()[0], first[0], rtol=0, atol=0)
    state = again.state_dict()
    assert not torch.equal(fresh(8).draw()[0], first[0])
    resumed = fresh(99)
    resumed.load_state_dict(state)
    for expected in (second, third):
        for ours, theirs in zip(resumed.draw(), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_the_global_generator_is_left_alone(thin_cases: tuple[Case, ...]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    SliceBatches(thin_cases, batch_size=4, seed=0).draw()
    torch.testing.assert_close(torch.rand(3), expected)


def test_state_of_other_data_is_refused(tiny_case: Case, thin_cases: tuple[Case, ...]) -> None:
    with pytest.raises(DataError, match="resume with the same data"):
        plain(tiny_case).load_state_dict(SliceBatches(thin_cases, batch_size=1, seed=0).state_dict())


def test_augmentation_moves_image_and_mask_together() -> None:
    """The image is the mask: whatever flips and shifts, bright pixels and lesion must coincide."""
    mask = np.zeros((1, 32, 32), np.uint8)
    mask[0, 8:14, 9:20] = 1
    case = Case("square", mask.astype(np.float32) * 0.8, mask)
    source = SliceBatches([case], batch_size=64, seed=3, augment=True)
    images, masks = source.draw()
    assert images.min() >= 0
    assert images.max() <= 1
    # Resampled edges are neither lesion nor background; everything else must agree.
    assert ((images[:, 1:2] > 0.45).float() != masks).float().mean() < 0.01
    places = {tuple(torch.nonzero(item[0])[0].tolist()) for item in masks}
    assert len(places) > 10
    assert len({round(float(image[1][mask[0] > 0].mean()), 3) for image, mask in zip(images, masks, strict=True)}) > 10


def test_cases_of_different_size_share_a_batch(tiny_case: Case, thin_cases: tuple[Case, ...]) -> None:
    images, masks = SliceBatches([tiny_case, thin_cases[0]], batch_size=5, seed=0).draw()
    assert images.shape == (5, 3, 64, 64)
    assert masks.shape == (5, 1, 64, 64)


def test_nothing_to_draw_from() -> None:
    with pytest.raises(DataError, match="0 cases"):
        SliceBatches([], batch_size=4, seed=0)

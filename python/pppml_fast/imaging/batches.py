"""Training batches of neighbouring slices, drawn independently and reproducibly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pppml_fast.errors import DataError
from pppml_fast.imaging.cases import Case

Batch = tuple[torch.Tensor, torch.Tensor]

MAX_SHIFT_SHARE = 0.08
"""Images move by at most this share of their height and width; what leaves is replaced by the edge."""

MAX_ANGLE, MAX_LOG_ZOOM, MAX_SHEAR = 0.3, 0.25, 0.1
"""Rotation in radians, zoom as a logarithm, shear."""


class SliceBatches:
    """Batches of slices with their neighbours as channels, each drawn anew with replacement.

    `draw()` gives images (B, 2 * neighbours + 1, H, W) and masks (B, 1, H, W), float32. Edge slices stand in
    for neighbours that do not exist. With probability `positive_share` a slice is drawn among those with
    lesion, otherwise among all: slices without any would else fill most batches. Augmentation: left-right
    flips, shifts, contrast, gamma and noise. The state is the generator's alone, so that a run resumes
    exactly. Raises DataError for no cases.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        *,
        batch_size: int,
        seed: int,
        neighbours: int = 1,
        augment: bool = True,
        positive_share: float = 0.5,
        multiple: int = 16,
    ) -> None:
        if not cases:
            raise DataError("there are 0 cases to draw batches from, needs at least 1")
        if batch_size < 1 or neighbours < 0 or not 0 <= positive_share <= 1:
            raise DataError(
                f"batch_size {batch_size}, neighbours {neighbours}, positive_share"
                f" {positive_share}: need at least 1, at least 0, and 0 to 1"
            )
        self.batch_size = batch_size
        self._augment = augment
        self._positive_share = positive_share
        self._images, self._masks = _stacks(cases, multiple)
        self._neighbours = neighbour_table([case.image.shape[0] for case in cases], neighbours)
        self._positive = torch.nonzero(self._masks.flatten(1).any(dim=1)).flatten()
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def slices(self) -> int:
        """How many slices there are to draw from."""
        return len(self._images)

    def draw(self) -> Batch:
        """One batch, independent of all others."""
        chosen = self._choose()
        rows, columns = self._positions()
        channels = self._neighbours[chosen]
        images = self._images[channels[:, :, None, None], rows[:, None, :, None], columns[:, None, None, :]]
        masks = self._masks[chosen[:, None, None], rows[:, :, None], columns[:, None, :]][:, None].float()
        if self._augment:
            images, masks = self._deform(images, masks)
            images = self._intensities(images)
        return images, masks

    def reseed(self, seed: int) -> None:
        """Go on with the draws of another seed."""
        self._generator.manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on with the next batch."""
        return {"generator": self._generator.get_state(), "slices": self.slices}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken. Raises DataError when that was on other data."""
        if state["slices"] != self.slices:
            raise DataError(
                f"the saved state draws from {state['slices']} slices, here are {self.slices};"
                " resume with the same data"
            )
        self._generator.set_state(state["generator"])

    def _choose(self) -> torch.Tensor:
        chosen = torch.randint(self.slices, (self.batch_size,), generator=self._generator)
        if len(self._positive) == 0:
            return chosen
        positive = self._positive[torch.randint(len(self._positive), (self.batch_size,), generator=self._generator)]
        return torch.where(self._uniform(0, 1, 1)[:, 0] < self._positive_share, positive, chosen)

    def _positions(self) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = self._images.shape[1:]
        rows = torch.arange(height).expand(self.batch_size, height)
        columns = torch.arange(width).expand(self.batch_size, width)
        if not self._augment:
            return rows, columns
        rows = (rows + self._shift(height)).clamp(0, height - 1)
        columns = (columns + self._shift(width)).clamp(0, width - 1)
        mirrored = self._uniform(0, 1, 1) < 0.5
        return rows, torch.where(mirrored, columns.flip(1), columns)

    def _shift(self, length: int) -> torch.Tensor:
        most = int(length * MAX_SHIFT_SHARE)
        return torch.randint(-most, most + 1, (self.batch_size, 1), generator=self._generator)

    def _deform(self, images: torch.Tensor, masks: torch.Tensor) -> Batch:
        """Rotation, zoom and shear, one of each per slice: patients lie and are built differently."""
        angle, shear = self._uniform(-MAX_ANGLE, MAX_ANGLE, 2)[:, 0], self._uniform(-MAX_SHEAR, MAX_SHEAR, 2)[:, 0]
        zoom = torch.exp(self._uniform(-MAX_LOG_ZOOM, MAX_LOG_ZOOM, 2)[:, 0])
        cosine, sine, none = zoom * torch.cos(angle), zoom * torch.sin(angle), torch.zeros_like(zoom)
        matrix = torch.stack([cosine, shear - sine, none, sine, cosine, none], dim=1).reshape(-1, 2, 3)
        grid = torch.nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
        sample = torch.nn.functional.grid_sample
        images = sample(images, grid, padding_mode="border", align_corners=False)
        return images, (sample(masks, grid, align_corners=False) >= 0.5).float()

    def _intensities(self, images: torch.Tensor) -> torch.Tensor:
        """Gamma, contrast, brightness and noise: the ways in which scanners and windows differ."""
        images = images.clamp_min(1e-6) ** torch.exp(self._uniform(-0.35, 0.35, 4))
        images = images * self._uniform(0.85, 1.15, 4) + self._uniform(-0.08, 0.08, 4)
        noise = torch.randn(images.shape, generator=self._generator)
        return (images + self._uniform(0, 0.06, 4) * noise).clamp_(0, 1)

    def _uniform(self, low: float, high: float, dimensions: int) -> torch.Tensor:
        shape = (self.batch_size,) + (1,) * max(dimensions - 1, 1)
        return low + (high - low) * torch.rand(shape, generator=self._generator)


def neighbour_table(depths: Sequence[int], neighbours: int) -> torch.Tensor:
    """Indices (N, 2 * neighbours + 1) of every slice's neighbours in a stack of volumes, edges replicated."""
    tables = []
    start = 0
    offsets = np.arange(-neighbours, neighbours + 1)
    for depth in depths:
        tables.append(np.clip(np.arange(depth)[:, None] + offsets, 0, depth - 1) + start)
        start += depth
    return torch.from_numpy(np.concatenate(tables))


def pad_slices(volume: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(..., H, W) padded with zeros at the bottom and right to (..., height, width)."""
    return torch.nn.functional.pad(volume, (0, width - volume.shape[-1], 0, height - volume.shape[-2]))


def round_up(length: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `length`."""
    return -(-length // multiple) * multiple


def _stacks(cases: Sequence[Case], multiple: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All slices as float32 (N, H, W) and all masks as uint8, padded to the largest slice's multiple."""
    height = round_up(max(case.image.shape[1] for case in cases), multiple)
    width = round_up(max(case.image.shape[2] for case in cases), multiple)
    images = [pad_slices(torch.tensor(case.image), height, width) for case in cases]
    masks = [pad_slices(torch.tensor(case.mask), height, width) for case in cases]
    return torch.cat(images), torch.cat(masks)

"""Prediction of whole volumes with weights that are passed in; the module itself stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers import sliding_window_inference
from torch import nn
from torch.func import functional_call

from pppml_fast.errors import DataError
from pppml_fast.imaging.batches import neighbour_table, pad_slices, round_up
from pppml_fast.imaging.cases import Case
from pppml_fast.imaging.metrics import dice, lung_dice
from pppml_fast.imaging.nifti import Volume
from pppml_fast.imaging.transforms import Preprocessing, resize_slices
from pppml_fast.learning import device_of, full_precision

Tensors = Mapping[str, torch.Tensor]


def predict_probabilities(
    module: nn.Module,
    parameters: Tensors,
    buffers: Tensors,
    image: npt.NDArray[np.float32],
    *,
    neighbours: int = 1,
    multiple: int = 16,
    window: int = 256,
    batch_size: int = 16,
) -> npt.NDArray[np.float32]:
    """Lesion probability (D, H, W) float32 of a volume (D, H, W) in [0, 1].

    Slices are padded to a multiple of `multiple` and cropped back; slices larger than `window` are predicted
    by MONAI's overlapping sliding windows. All is computed where the parameters are. Raises DataError when the network
    does not give one channel.
    """
    depth, height, width = image.shape
    stack = torch.tensor(image, dtype=torch.float32)
    stack = pad_slices(stack, round_up(height, multiple), round_up(width, multiple))
    table = neighbour_table([depth], neighbours)
    window = round_up(window, multiple)
    result = torch.empty(stack.shape)
    device = device_of(parameters)
    with torch.no_grad(), _evaluating(module), full_precision(device):

        def network(batch: torch.Tensor) -> torch.Tensor:
            output = functional_call(module, (dict(parameters), dict(buffers)), (batch,))
            if output.shape[1] != 1:
                raise DataError(f"the network gives {output.shape[1]} channels, needs 1; set out_channels = 1")
            return torch.as_tensor(output)

        for start in range(0, depth, batch_size):
            slices = stack[table[start : start + batch_size]].to(device)
            logits = _slices_logits(network, slices, window, batch_size)
            result[start : start + batch_size] = torch.sigmoid(logits)[:, 0].cpu()
    return result[:, :height, :width].contiguous().numpy()


def predict_case(
    module: nn.Module,
    parameters: Tensors,
    buffers: Tensors,
    case: Case,
    threshold: float = 0.5,
    *,
    neighbours: int = 1,
    multiple: int = 16,
    window: int = 256,
) -> npt.NDArray[np.uint8]:
    """Lesion mask (D, H, W) uint8 of a case: 1 where the probability is at least `threshold`."""
    probability = predict_probabilities(
        module, parameters, buffers, case.image, neighbours=neighbours, multiple=multiple, window=window
    )
    return (probability >= threshold).astype(np.uint8)


def predict_volume(
    module: nn.Module,
    parameters: Tensors,
    buffers: Tensors,
    volume: Volume,
    preprocessing: Preprocessing,
    threshold: float = 0.5,
    *,
    neighbours: int = 1,
    multiple: int = 16,
    window: int = 256,
) -> npt.NDArray[np.uint8]:
    """Lesion mask of a CT on its own grid, whatever matrix the network works on; for `write_mask`."""
    image = preprocessing.image(volume.voxels)
    probability = predict_probabilities(
        module, parameters, buffers, image, neighbours=neighbours, multiple=multiple, window=window
    )
    rows, columns = volume.voxels.shape[1:]
    return (resize_slices(probability, rows, columns) >= threshold).astype(np.uint8)


def evaluate(
    module: nn.Module,
    parameters: Tensors,
    buffers: Tensors,
    cases: Iterable[Case],
    threshold: float = 0.5,
    *,
    within_lung: bool = False,
    neighbours: int = 1,
    multiple: int = 16,
    window: int = 256,
) -> dict[str, float]:
    """Dice of every case by name, whole volumes; `within_lung` counts only what lies inside the lung mask.

    Raises DataError for `within_lung` where a case has no lung mask.
    """
    scores = {}
    for case in cases:
        mask = predict_case(
            module,
            parameters,
            buffers,
            case,
            threshold,
            neighbours=neighbours,
            multiple=multiple,
            window=window,
        )
        if not within_lung:
            scores[case.name] = dice(mask, case.mask)
        elif case.lung is None:
            raise DataError(f"case '{case.name}' has no lung mask; give one, or score without within_lung")
        else:
            scores[case.name] = lung_dice(mask, case.mask, case.lung)
    return scores


def _slices_logits(
    network: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, window: int, batch_size: int
) -> torch.Tensor:
    if max(batch.shape[-2:]) <= window:
        return network(batch)
    size = (min(window, batch.shape[-2]), min(window, batch.shape[-1]))
    return torch.as_tensor(sliding_window_inference(batch, size, batch_size, network, overlap=0.25, mode="gaussian"))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every submodule's own mode comes back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training

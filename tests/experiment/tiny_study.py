"""A federation small enough for tests: three hospitals of noisy discs, 32 x 32, and a tiny U-Net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SITES = ("north", "east", "south")
FIVE_SITES = (*SITES, "west", "harbour")
VOLUMES_PER_SITE = 3
SLICES = 4
SIZE = 32


def write_npz(path: Path, *, sites: int = 3, seed: int = 0) -> Path:
    """An NPZ set of the schema: per site two training volumes and one test volume of discs on noise."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images, masks, volume, site, test = [], [], [], [], []
    for number in range(sites * VOLUMES_PER_SITE):
        for _ in range(SLICES):
            centre, radius = random.integers(9, 23, 2), random.integers(4, 8)
            disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
            level = 40 + 30 * (number // VOLUMES_PER_SITE)
            noise = random.integers(0, 40, (SIZE, SIZE))
            images.append((level + 100 * disc + noise).astype(np.uint8))
            masks.append(disc.astype(np.uint8))
            volume.append(number)
            site.append(number // VOLUMES_PER_SITE)
            test.append(number % VOLUMES_PER_SITE == VOLUMES_PER_SITE - 1)
    np.savez(
        path,
        x=np.stack(images),
        mask=np.stack(masks),
        volume=np.array(volume),
        site=np.array(site),
        test=np.array(test),
        site_name=np.array(FIVE_SITES[:sites]),
    )
    return path


def table(npz: Path, **changes: Any) -> dict[str, Any]:
    """The configuration of a run of seconds on `write_npz`'s file; `changes` replace top-level keys."""
    base: dict[str, Any] = {
        "name": "tiny",
        "threads": 1,
        "rounds": 2,
        "gradients_per_round": 4,
        "personal_steps": [0, 1, 2],
        "reported_steps": 2,
        "data": {"kind": "npz", "path": str(npz)},
        "network": {
            "target": "monai.networks.nets:UNet",
            "arguments": {
                "spatial_dims": 2,
                "in_channels": 3,
                "out_channels": 1,
                "channels": [4, 8],
                "strides": [2],
                "norm": ["instance", {"affine": True}],
            },
            "multiple": 2,
        },
        "task": {"batch_size": 2},
    }
    return {**base, **changes}


def toml(npz: Path, extra: str = "") -> str:
    """`table` as the text of a TOML file; `extra` goes to the top, before any section."""
    return f"""
name = "tiny"
threads = 1
rounds = 2
gradients_per_round = 4
personal_steps = [0, 1, 2]
reported_steps = 2
{extra}
[data]
kind = "npz"
path = "{npz}"

[network]
target = "monai.networks.nets:UNet"
multiple = 2
[network.arguments]
spatial_dims = 2
in_channels = 3
out_channels = 1
channels = [4, 8]
strides = [2]
norm = ["instance", {{ affine = true }}]

[task]
batch_size = 2
"""

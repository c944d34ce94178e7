"""Random numbers that networks draw while they run (dropout): named seeds, and the same draw twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["derive_seed", "remember_randomness", "replay_randomness", "seeded"]

GeneratorStates = tuple[torch.Tensor, torch.Tensor | None]


def derive_seed(seed: int, *parts: str | int) -> int:
    """A seed of 63 bits for one purpose, such as ``derive_seed(7, "dropout", round, party)``.

    Different purposes get unrelated seeds, whatever was drawn before: a resumed run draws what the
    uninterrupted one would have drawn.
    """
    text = "\0".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def _cuda_index(device: torch.device) -> list[int]:
    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Run a block with torch's global generators seeded, and put their states back afterwards."""
    with torch.random.fork_rng(devices=_cuda_index(torch.device(device))):
        torch.manual_seed(seed)
        yield


def remember_randomness(device: torch.device) -> GeneratorStates:
    """States of the global generators that a network on ``device`` draws from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def replay_randomness(states: GeneratorStates, device: torch.device) -> Iterator[None]:
    """Run a block that draws what was drawn after ``states``; the present states come back afterwards."""
    with torch.random.fork_rng(devices=_cuda_index(device)):
        torch.set_rng_state(states[0])
        if states[1] is not None:
            torch.cuda.set_rng_state(states[1], device)
        yield

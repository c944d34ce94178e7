"""Nested training state to JSON plus named tensors and back, bit for bit.

Tensors and arrays go to safetensors, everything else stays readable JSON; nothing is pickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pppml_fast.errors import DataError
from pppml_fast.learning import PartyMemory, ServerState, on_host

__all__ = ["memory_of", "memory_state", "model_sha256", "pack_state", "unpack_state"]


def model_sha256(states: Mapping[str, ServerState]) -> bytes:
    """SHA-256 over every tensor of named models, 32 bytes: equal for models that are equal bit for bit."""
    digest = hashlib.sha256(b"pppml models v1\0")
    for name in sorted(states):
        for key, tensor in sorted(states[name].state_dict().items()):
            digest.update(f"{name}\0{key}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).data)
    return digest.digest()


def memory_state(memory: PartyMemory) -> dict[str, Any]:
    """What a party keeps to itself, as a value for a checkpoint."""
    return {"params": memory.params, "buffers": memory.buffers}


def memory_of(kept: Mapping[str, Any], device: torch.device) -> PartyMemory:
    """What `memory_state` wrote, on the device that trains."""
    params, buffers = ({name: t.to(device) for name, t in kept[group].items()} for group in ("params", "buffers"))
    return PartyMemory(params, buffers)


def pack_state(value: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A JSON value and the tensors it refers to.

    Dictionaries, lists, tuples, tensors of any device, arrays, bytes, scalars. All tensors are copies on the host.
    """
    tensors: dict[str, torch.Tensor] = {}
    return _pack(value, "state", tensors), tensors


def unpack_state(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The value that `pack_state` took apart. Raises DataError when a tensor is missing."""
    if isinstance(value, list):
        return [unpack_state(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {key: unpack_state(item, tensors) for key, item in content}
    if kind == "tuple":
        return tuple(unpack_state(item, tensors) for item in content)
    if kind == "bytes":
        return bytes.fromhex(content)
    if content not in tensors:
        raise DataError(f"checkpoint lacks the tensor {content!r}; delete the checkpoint to train that method again")
    return tensors[content].numpy() if kind == "array" else tensors[content]


def _pack(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[name] = on_host(value)
        return {"tensor": name}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(np.array(value, order="C"))
        return {"array": name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {"dict": [[key, _pack(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]}
    if isinstance(value, list):
        return [_pack(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"training state holds {type(value).__name__} at {name!r}, which no checkpoint can keep")

"""Layout of a model: which tensors, in which order, make up the one vector that travels.

The layout is public. Its fingerprint is part of every roster, so that two hospitals with different
models find out before anything is encrypted, and by the name of the first tensor that differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.errors import InputError, LayoutMismatchError

__all__ = ["Layout", "TensorSpec"]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model: its name, shape and dtype (a NumPy dtype name, such as ``float32``)."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of values in the tensor."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name}{list(self.shape)}:{self.dtype}"


@dataclass(frozen=True)
class Layout:
    """The ordered tensors of a model, laid out one after another as one flat vector."""

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for tensor in self.tensors:
            if tensor.name in seen:
                raise InputError(f"tensor {tensor.name!r} appears twice in the layout; names must be unique")
            seen.add(tensor.name)

    def __repr__(self) -> str:
        shown = [str(tensor) for tensor in self.tensors[:2]] + ["…"] * (len(self.tensors) > 2)
        return f"Layout({len(self.tensors)} tensors, {self.size} values: {', '.join(shown)})"

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Layout:
        """Layout of a mapping from names to arrays (anything with ``shape`` and ``dtype``), in its order."""
        specs = []
        for name, array in arrays.items():
            dtype = str(array.dtype).removeprefix("torch.")
            specs.append(TensorSpec(name, tuple(int(n) for n in array.shape), dtype))
        return cls(tuple(specs))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, in order."""
        return tuple(tensor.name for tensor in self.tensors)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensors, in order."""
        return tuple(tensor.shape for tensor in self.tensors)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Dtype names of the tensors, in order."""
        return tuple(tensor.dtype for tensor in self.tensors)

    @property
    def size(self) -> int:
        """Number of values of the flat vector."""
        return sum(tensor.size for tensor in self.tensors)

    def canonical_bytes(self) -> bytes:
        """The layout as canonical JSON, the same on every machine."""
        import json

        rows = [[tensor.name, list(tensor.shape), tensor.dtype] for tensor in self.tensors]
        return json.dumps(rows, ensure_ascii=True, separators=(",", ":")).encode()

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the canonical bytes, 32 bytes."""
        import hashlib  # loads OpenSSL: not before it is needed

        return hashlib.sha256(b"pppml layout v1\0" + self.canonical_bytes()).digest()

    def check_same(self, other: Layout, whose: str = "the other model") -> None:
        """Raise LayoutMismatchError that names the first tensor in which ``other`` differs."""
        for index, (mine, theirs) in enumerate(zip(self.tensors, other.tensors, strict=False)):
            if mine != theirs:
                raise LayoutMismatchError(
                    f"tensor {index} differs: expected {mine}, {whose} has {theirs}; "
                    "all parties must train the same network with the same include and exclude patterns"
                )
        if len(self.tensors) != len(other.tensors):
            longer = self.tensors if len(self.tensors) > len(other.tensors) else other.tensors
            first = longer[min(len(self.tensors), len(other.tensors))]
            owner = "the expected model" if longer is self.tensors else whose
            raise LayoutMismatchError(
                f"tensor count differs: expected {len(self.tensors)}, {whose} has {len(other.tensors)}; "
                f"the first tensor only in {owner} is {first}"
            )

    def views(self, arrays: Mapping[str, Any]) -> list[NDArray[Any]]:
        """The tensors of ``arrays`` as flat arrays in layout order, without a copy where they are contiguous.

        Raises LayoutMismatchError when names, shapes or dtypes are not those of the layout.
        """
        self.check_same(Layout.from_arrays({name: arrays[name] for name in self._present(arrays)}))
        return [np.asarray(arrays[name]).reshape(-1) for name in self.names]

    def flatten(self, arrays: Mapping[str, Any]) -> NDArray[np.float32]:
        """One flat float32 vector of ``size`` values from a mapping of arrays that follow the layout."""
        parts = self.views(arrays)
        if not parts:
            return np.zeros(0, np.float32)
        return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])

    def unflatten(self, vector: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Named float32 arrays, views where possible, from a flat vector of ``size`` values.

        Raises InputError when the vector has another length.
        """
        flat = np.asarray(vector)
        if flat.ndim != 1 or flat.size != self.size:
            raise InputError(f"vector of shape {flat.shape} does not fit the layout: expected ({self.size},)")
        flat = flat.astype(np.float32, copy=False)
        return dict(self._slices(flat))

    def _present(self, arrays: Mapping[str, Any]) -> tuple[str, ...]:
        missing = [name for name in self.names if name not in arrays]
        if missing:
            raise LayoutMismatchError(
                f"tensor {missing[0]!r} of the layout is missing; given: {', '.join(list(arrays)[:5])}"
            )
        return self.names

    def _slices(self, flat: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        start = 0
        for tensor in self.tensors:
            yield tensor.name, flat[start : start + tensor.size].reshape(tensor.shape)
            start += tensor.size

"""Tensors of other libraries, as far as they describe themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from pppml_fast import _native
from pppml_fast.cuda import DeviceArray


class Interface:
    """A tensor that has ``__cuda_array_interface__`` alone, over the memory of a DeviceArray."""

    def __init__(self, array: DeviceArray, **changes: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, **changes}


class Bfloat16:
    """A bfloat16 tensor, of which NumPy knows nothing: the bits, and DLPack."""

    def __init__(self, values: np.ndarray, device: int = 0) -> None:
        single = values.astype(np.float32).view(np.uint32)
        bits = ((single + 0x7FFF + (single >> 16 & 1)) >> 16).astype(np.uint16)
        bits[np.isnan(values)] = 0x7FC0
        self.array = DeviceArray.from_host(bits, device=device)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.array.device

    def __dlpack__(self, stream: Any = None) -> Any:
        size = self.array.size
        return _native.cuda.export_tensor(self.array, self.array.address, size, "bfloat16", 2, self.array.device)

    def bits(self) -> np.ndarray:
        return self.array.to_host()

    def tagged(self) -> tuple[str, np.ndarray]:
        """As the core's host side takes it."""
        return "bfloat16", self.bits()

    def values(self) -> np.ndarray:
        return (self.bits().astype(np.uint32) << 16).view(np.float32)

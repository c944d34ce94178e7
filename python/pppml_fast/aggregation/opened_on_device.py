"""The mean of a sum in the memory of a CUDA device."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from pppml_fast import cuda
from pppml_fast.aggregation.opened import Grid, HostSum, Open, OpenedSum, Read
from pppml_fast.cipher import OpeningKey
from pppml_fast.cipher.wire import Header
from pppml_fast.cuda.arrays import DeviceTensors, device_tensors
from pppml_fast.errors import DeviceError
from pppml_fast.params import CkksParams

__all__ = ["DeviceSum"]


class DeviceSum(OpenedSum):
    """A mean scattered into device tensors, each in its dtype, or in a new float32 DeviceArray; without integers.

    New memory is given back in the order of ``stream``, the update's: what its owner queued there may still read it.
    """

    def __init__(self, params: CkksParams, length: int, out: Any, device: int, stream: int = 0) -> None:
        super().__init__(params, length, out)
        self._device, self._stream = device, stream

    def try_first(self, key: OpeningKey, header: Header, grid: Grid, read: Read) -> None:
        """In place: a wrong key leaves zeros in that chunk."""
        start, stop = grid[0]
        cuda.decrypt_range(key, header, start, stop, [read(0)], self._tensors(), self.divisor)

    def open_all(self, key: OpeningKey, header: Header, grid: Grid, read: Read) -> None:
        tensors = self._tensors()
        try:
            for index, (start, stop) in enumerate(grid):
                cuda.decrypt_range(key, header, start, stop, [read(index)], tensors, self.divisor)
        except BaseException:
            self.wipe()
            raise

    def fill(self, grid: Grid, open_: Open) -> None:
        """By way of the host, where these integers are. Raises InputError unless all tensors are float32."""
        host = HostSum(self._params, self._length, np.empty(self._length, np.float32))
        host.divisor = self.divisor
        try:
            host.fill(grid, open_)
            self._tensors().take(host.mean)
        except BaseException:
            self.wipe()
            raise

    def wipe(self) -> None:
        """Where the device does not answer any more, the error that led here is the one to tell."""
        if self.mean is not None:
            with contextlib.suppress(DeviceError):
                cuda.wipe(self.mean)

    def _tensors(self) -> DeviceTensors:
        """Where the mean goes, looked at once: a large model has many tensors, and its sum many chunks."""
        if self.mean is None:
            self.mean = cuda.DeviceArray(self._length, np.float32, device=self._device, stream=self._stream)
        return device_tensors(self.mean, "out", writable=True)

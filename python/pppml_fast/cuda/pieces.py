"""One encryption made range by range on a device, its packed bytes handed to the host: never stored as a whole."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pppml_fast import _native
from pppml_fast.cipher import CollectiveKey
from pppml_fast.cipher.expansion import check_bytes32
from pppml_fast.cipher.pieces import EncryptionInPieces
from pppml_fast.cuda.arrays import DeviceArray
from pppml_fast.cuda.device import device_scheme, native_errors
from pppml_fast.cuda.encryption import DeviceMessage
from pppml_fast.cuda.pending import Pending
from pppml_fast.errors import CiphertextError, DeviceError, InputError, KeyReuseError

__all__ = ["encrypt_in_pieces"]


class _Place(NamedTuple):
    """Where a range lies before it is handed out: on the device, and in pinned memory, of which ``bytes`` is a view."""

    target: DeviceArray
    pinned: _native.cuda.PinnedMemory
    bytes: NDArray[np.uint8]


class _Queued(NamedTuple):
    """A range on its way to a place, by its number."""

    start: int
    stop: int
    place: int
    pending: Pending


class _StagedMessage(DeviceMessage):
    """A message on a device whose packed ranges go to the host, each once and in order: a `MessageInPieces`.

    Where nothing comes in, the next range is encrypted and copied while the caller sends the last one.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.clipped = 0
        self._device, self._stream = self.tensors.device, self.tensors.stream
        self._places: list[_Place] = []
        self._ahead: _Queued | None = None

    def packed_bytes(self, start: int, stop: int) -> int:
        return int(self.params._scheme.packed_bytes(self.length, True, start, stop))

    def write(self, start: int, stop: int, out: memoryview, incoming: memoryview | None = None) -> None:
        """Blocks ``[start, stop)`` to ``out``, plus what came in; both of the host, ``out`` may be ``incoming``.

        Raises InputError on NaN or Inf, and on memory of another size; CiphertextError on an incoming residue that is
        not below its prime; KeyReuseError once the key is destroyed; DeviceError, DeviceMemoryError. ``out`` then holds
        zeros.
        """
        if self._key is None:
            raise KeyReuseError("the key of this encryption was destroyed; generate a fresh one for the next attempt")
        size, target = self.packed_bytes(start, stop), np.frombuffer(out, np.uint8)
        for name, given in (("out", target.nbytes), ("incoming", size if incoming is None else incoming.nbytes)):
            if given != size:
                raise InputError(f"{name} has {given} bytes; blocks {start} .. {stop} take {size}")
        try:
            queued = self._take_ahead(start, stop, incoming) or self._queue(start, stop, 0, incoming)
            findings = queued.pending.wait()
        except BaseException:
            target[:] = 0
            raise
        target[:] = self._places[queued.place].bytes[:size]
        self.clipped += findings[0]
        if incoming is None and stop < self.blocks:
            self._read_ahead(stop, min(2 * stop - start, self.blocks), 1 - queued.place)

    def close(self) -> None:
        self._drop_ahead()
        super().close()
        self._places.clear()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _read_ahead(self, start: int, stop: int, place: int) -> None:
        """Queue the next range. What a device has no room for now is refused when it is asked for, and not before: the
        last range was given out by then.
        """
        with contextlib.suppress(DeviceError):
            self._ahead = self._queue(start, stop, place, None)

    def _take_ahead(self, start: int, stop: int, incoming: memoryview | None) -> _Queued | None:
        """What was read ahead, if it is what is asked for now."""
        ahead = self._ahead
        if ahead is None or incoming is not None or (ahead.start, ahead.stop) != (start, stop):
            self._drop_ahead()
            return None
        self._ahead = None
        return ahead

    def _drop_ahead(self) -> None:
        """Nobody sees what was read ahead: wait until it is not written any more, and clear it."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return
        with contextlib.suppress(InputError, CiphertextError, DeviceError):
            ahead.pending.wait()
        self._places[ahead.place].bytes[:] = 0

    def _queue(self, start: int, stop: int, place: int, incoming: memoryview | None) -> _Queued:
        """Encrypt a range on the device and copy it to pinned memory, in the order of the stream."""
        size = self.packed_bytes(start, stop)
        self._make_room(size)
        target, pinned, staged = self._places[place]
        try:
            with native_errors():
                if incoming is not None:
                    staged[:size] = incoming
                    _native.cuda.to_device(self._device, self._stream, target.address, staged[:size])
                added = 0 if incoming is None else target.address
                pending = self.encrypt(target.address, True, added, (target, pinned), start, stop)
                _native.cuda.queue_to_host(self._device, self._stream, pinned, target.address, size)
        except BaseException:
            # What was queued until then still reads the place: it may neither be filled again nor given back.
            with contextlib.suppress(DeviceError), native_errors():
                _native.cuda.synchronize(self._device, self._stream)
            raise
        return _Queued(start, stop, place, pending)

    def _make_room(self, size: int) -> None:
        """Two places for a range of ``size`` bytes: one is filled while the other is taken."""
        if self._places and self._places[0].target.nbytes >= size:
            return
        self._drop_ahead()
        self._places = [self._place(size) for _ in range(2)]

    def _place(self, size: int) -> _Place:
        target = DeviceArray(size, np.uint8, device=self._device, stream=self._stream)
        with native_errors():
            pinned: Any = _native.cuda.PinnedMemory(self._device, size)
        return _Place(target, pinned, np.frombuffer(pinned, np.uint8))


def encrypt_in_pieces(
    key: CollectiveKey,
    x: Any,
    context: bytes,
    weight: float | None = None,
    reference: Any = None,
    *,
    stream: Any = None,
) -> EncryptionInPieces:
    """The encryption of device tensors as its ring asks for it: range by range, onto what came in or not.

    The bits are those of ``key.encrypt_in_pieces`` of their copies. Bytes go to the host through pinned memory. NaN and
    Inf are found when their range is encrypted. The key is used from here on. Raises what :func:`encrypt` does.
    """
    message = _StagedMessage(key.params, check_bytes32("context", context), x, weight, reference, stream)
    device_scheme(message.params, message.tensors.device)  # refuses what no kernel serves before the key is used
    key._claim_for(message)  # type: ignore[arg-type]
    return EncryptionInPieces(message)

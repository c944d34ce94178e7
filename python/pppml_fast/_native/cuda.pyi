# Written by `make stubs` from the built extension: change csrc/bindings instead.
"""
The core on CUDA devices; see csrc/ckks/device_scheme.hpp.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import typing_extensions

import pppml_fast._native

__all__: list[str] = [
    "DeviceError",
    "DeviceMemory",
    "DeviceMemoryError",
    "DeviceScheme",
    "ForeignTensor",
    "PendingReport",
    "PinnedMemory",
    "built",
    "describe",
    "device_count",
    "device_of",
    "export_tensor",
    "queue_to_host",
    "synchronize",
    "tag_pieces",
    "to_device",
    "to_host",
    "wait",
    "why_unusable",
    "zero",
]

class DeviceError(RuntimeError):
    pass

class DeviceMemoryError(DeviceError):
    pass

class PinnedMemory:
    """
    Memory of the host that devices copy to and from by themselves.
    """
    def __init__(
        self, device: typing.SupportsInt | typing.SupportsIndex, nbytes: typing.SupportsInt | typing.SupportsIndex
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...

class DeviceMemory:
    """
    Memory of a device, given back in the order of its stream.
    """
    def __init__(
        self,
        device: typing.SupportsInt | typing.SupportsIndex,
        stream: typing.SupportsInt | typing.SupportsIndex,
        nbytes: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    @property
    def address(self) -> int: ...
    @property
    def device(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

class ForeignTensor:
    """
    A tensor of another library, from its DLPack capsule.
    """
    def __init__(self, capsule: typing.Any) -> None: ...
    @property
    def address(self) -> int: ...
    @property
    def contiguous(self) -> bool: ...
    @property
    def device(self) -> int: ...
    @property
    def device_type(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def length(self) -> int: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

class PendingReport:
    """
    What an operation found out, still on its device.
    """
    def wait(self) -> tuple[int, int | None, int, int, int | None]: ...

class DeviceScheme:
    """
    The operations of one parameter set on one device.
    """
    def __init__(
        self, scheme: pppml_fast._native.Scheme, device: typing.SupportsInt | typing.SupportsIndex
    ) -> None: ...
    def add(
        self,
        length: typing.SupportsInt | typing.SupportsIndex,
        cut: bool,
        inputs: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        out: typing.SupportsInt | typing.SupportsIndex,
        stream: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    def encrypt(
        self,
        secret: pppml_fast._native.SecretKey,
        noise: pppml_fast._native.StreamKey,
        public_seed: bytes,
        length: typing.SupportsInt | typing.SupportsIndex,
        tensors: collections.abc.Sequence[
            tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, str]
        ],
        weight: typing.SupportsFloat | typing.SupportsIndex,
        out: typing.SupportsInt | typing.SupportsIndex,
        packed: bool,
        stream: typing.SupportsInt | typing.SupportsIndex,
        *,
        reference: collections.abc.Sequence[
            tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, str]
        ] = [],
        incoming: typing.SupportsInt | typing.SupportsIndex = 0,
        start: typing.SupportsInt | typing.SupportsIndex = 0,
        stop: typing.SupportsInt | typing.SupportsIndex | None = None,
    ) -> PendingReport: ...
    def encrypt_public(
        self,
        key: pppml_fast._native.PublicKey,
        noise: pppml_fast._native.StreamKey,
        length: typing.SupportsInt | typing.SupportsIndex,
        tensors: collections.abc.Sequence[
            tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, str]
        ],
        weight: typing.SupportsFloat | typing.SupportsIndex,
        c0: typing.SupportsInt | typing.SupportsIndex,
        c1: typing.SupportsInt | typing.SupportsIndex,
        packed: bool,
        stream: typing.SupportsInt | typing.SupportsIndex,
        *,
        reference: collections.abc.Sequence[
            tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, str]
        ] = [],
    ) -> PendingReport: ...
    def move(
        self,
        length: typing.SupportsInt | typing.SupportsIndex,
        cut: bool,
        start: typing.SupportsInt | typing.SupportsIndex,
        stop: typing.SupportsInt | typing.SupportsIndex,
        source: typing.SupportsInt | typing.SupportsIndex,
        source_packed: bool,
        mine: typing.SupportsInt | typing.SupportsIndex,
        out: typing.SupportsInt | typing.SupportsIndex,
        out_packed: bool,
        stream: typing.SupportsInt | typing.SupportsIndex,
    ) -> PendingReport: ...
    def open(
        self,
        secret: pppml_fast._native.SecretKey,
        length: typing.SupportsInt | typing.SupportsIndex,
        terms: typing.SupportsInt | typing.SupportsIndex,
        c0: typing.SupportsInt | typing.SupportsIndex,
        c1: typing.SupportsInt | typing.SupportsIndex | None,
        packed: bool,
        public_seed: bytes | None,
        integers: typing.SupportsInt | typing.SupportsIndex,
        tensors: collections.abc.Sequence[
            tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, str]
        ],
        stream: typing.SupportsInt | typing.SupportsIndex,
        *,
        start: typing.SupportsInt | typing.SupportsIndex = 0,
        stop: typing.SupportsInt | typing.SupportsIndex | None = None,
        divisor: typing.SupportsFloat | typing.SupportsIndex = 1.0,
    ) -> PendingReport: ...
    @property
    def device(self) -> int: ...

def built() -> bool:
    """
    Whether this build can use a device where there is one.
    """

def describe(device: typing.SupportsInt | typing.SupportsIndex) -> tuple[str, int, int, int, int]:
    """
    (name, compute capability, total and free bytes) of a device.
    """

def device_count() -> int: ...
def device_of(address: typing.SupportsInt | typing.SupportsIndex) -> int:
    """
    The device whose memory an address lies in, or -1.
    """

def export_tensor(
    owner: typing.Any,
    address: typing.SupportsInt | typing.SupportsIndex,
    length: typing.SupportsInt | typing.SupportsIndex,
    dtype: str,
    device_type: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
) -> typing_extensions.CapsuleType: ...
def queue_to_host(
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    out: PinnedMemory,
    address: typing.SupportsInt | typing.SupportsIndex,
    nbytes: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Queues a copy: `out` holds it once the stream has come so far.
    """

def synchronize(
    device: typing.SupportsInt | typing.SupportsIndex, stream: typing.SupportsInt | typing.SupportsIndex
) -> None: ...
def tag_pieces(
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    tensors: collections.abc.Sequence[
        tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, str]
    ],
    hash_key: bytes,
    piece: typing.SupportsInt | typing.SupportsIndex,
) -> tuple[bytes, int | None]:
    """
    GHASH of each piece of a vector, and its first value that is NaN or Inf.
    """

def to_device(
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    address: typing.SupportsInt | typing.SupportsIndex,
    data: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
) -> None: ...
def to_host(
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    out: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    address: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def wait(
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    producer: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Lets a stream wait for another one.
    """

def why_unusable() -> str:
    """
    Why no device can be used here; empty where one can.
    """

def zero(
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    address: typing.SupportsInt | typing.SupportsIndex,
    nbytes: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Queues zeros.
    """

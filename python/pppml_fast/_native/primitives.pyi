# Written by `make stubs` from the built extension: change csrc/bindings instead.
"""
Kernel primitives for tests and benchmarks.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing

__all__: list[str] = [
    "add_loop",
    "copy_loop",
    "gaussian",
    "ntt",
    "quantize",
    "residual_limit",
    "stream",
    "ternary",
    "uniform",
]

def add_loop(
    inputs: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.uint32]],
    out: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
) -> None: ...
def copy_loop(
    input: typing.Annotated[numpy.typing.ArrayLike, numpy.uint32],
    out: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
) -> None: ...
def gaussian(
    table: str,
    key: bytes,
    lane: typing.SupportsInt | typing.SupportsIndex,
    block: typing.SupportsInt | typing.SupportsIndex,
    count: typing.SupportsInt | typing.SupportsIndex,
    backend: str = "",
    cipher: str = "chacha20",
) -> numpy.typing.NDArray[numpy.int32]: ...
def ntt(
    modulus: typing.SupportsInt | typing.SupportsIndex,
    log_degree: typing.SupportsInt | typing.SupportsIndex,
    values: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
    inverse: bool = False,
    backend: str = "",
) -> numpy.typing.NDArray[numpy.uint64]: ...
def quantize(
    tensors: list[
        tuple[
            typing.Any,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    reference: list[
        tuple[
            typing.Any,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    *,
    clip: typing.SupportsFloat | typing.SupportsIndex,
    multiplier: typing.SupportsFloat | typing.SupportsIndex,
    single_precision: bool,
    block_values: typing.SupportsInt | typing.SupportsIndex,
    first: typing.SupportsInt | typing.SupportsIndex,
    count: typing.SupportsInt | typing.SupportsIndex,
    key: bytes | None = None,
    cipher: str = "chacha20",
    word_bits: typing.SupportsInt | typing.SupportsIndex = 32,
    backend: str = "",
) -> tuple[numpy.typing.NDArray[numpy.int64], int, int | None]: ...
def residual_limit(
    variance: typing.SupportsFloat | typing.SupportsIndex, coefficients: typing.SupportsInt | typing.SupportsIndex
) -> float: ...
def stream(
    key: bytes,
    selector: typing.SupportsInt | typing.SupportsIndex,
    block: typing.SupportsInt | typing.SupportsIndex,
    first: typing.SupportsInt | typing.SupportsIndex,
    count: typing.SupportsInt | typing.SupportsIndex,
    backend: str = "",
    cipher: str = "chacha20",
) -> numpy.typing.NDArray[numpy.uint32]: ...
def ternary(
    key: bytes,
    lane: typing.SupportsInt | typing.SupportsIndex,
    block: typing.SupportsInt | typing.SupportsIndex,
    count: typing.SupportsInt | typing.SupportsIndex,
    backend: str = "",
    cipher: str = "chacha20",
) -> numpy.typing.NDArray[numpy.int32]: ...
def uniform(
    modulus: typing.SupportsInt | typing.SupportsIndex,
    log_degree: typing.SupportsInt | typing.SupportsIndex,
    key: bytes,
    selector: typing.SupportsInt | typing.SupportsIndex,
    block: typing.SupportsInt | typing.SupportsIndex,
    backend: str = "",
) -> numpy.typing.NDArray[numpy.uint64]: ...

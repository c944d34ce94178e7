# Written by `make stubs` from the built extension: change csrc/bindings instead.
"""
C++ core of pppml_fast. Its public face is the Python package; this module checks shapes and dtypes only.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing
import typing_extensions

from . import cuda, primitives

__all__: list[str] = [
    "KeyMode",
    "Levelled",
    "NonFiniteError",
    "Packing",
    "PadStore",
    "Parameters",
    "PublicKey",
    "RequirementError",
    "Rounding",
    "Scheme",
    "SecretKey",
    "StreamKey",
    "Transform",
    "WeightPolicy",
    "arena_capacity",
    "arena_statistics",
    "built_backends",
    "choose_backend",
    "cuda",
    "empty",
    "largest_modulus_bits",
    "primitives",
    "reads_in_place",
    "release_memory",
    "security_level",
    "set_memory_limit",
    "set_thread_count",
    "supported_backends",
    "thread_count",
    "zeros",
]

class RequirementError(ValueError):
    pass

class NonFiniteError(RequirementError):
    pass

class KeyMode:
    """
    Members:

      public

      secret

      collective
    """

    __members__: typing.ClassVar[dict[str, KeyMode]]
    collective: typing.ClassVar[KeyMode]
    public: typing.ClassVar[KeyMode]
    secret: typing.ClassVar[KeyMode]
    @typing.overload
    def __eq__(self, other: KeyMode) -> bool: ...
    @typing.overload
    def __eq__(self, other: typing.Any) -> bool: ...
    def __getstate__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __index__(self) -> int: ...
    def __init__(self, value: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def __int__(self) -> int: ...
    @typing.overload
    def __ne__(self, other: KeyMode) -> bool: ...
    @typing.overload
    def __ne__(self, other: typing.Any) -> bool: ...
    def __repr__(self) -> str: ...
    def __setstate__(self, state: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def __str__(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class WeightPolicy:
    """
    Members:

      free

      public
    """

    __members__: typing.ClassVar[dict[str, WeightPolicy]]
    free: typing.ClassVar[WeightPolicy]
    public: typing.ClassVar[WeightPolicy]
    @typing.overload
    def __eq__(self, other: WeightPolicy) -> bool: ...
    @typing.overload
    def __eq__(self, other: typing.Any) -> bool: ...
    def __getstate__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __index__(self) -> int: ...
    def __init__(self, value: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def __int__(self) -> int: ...
    @typing.overload
    def __ne__(self, other: WeightPolicy) -> bool: ...
    @typing.overload
    def __ne__(self, other: typing.Any) -> bool: ...
    def __repr__(self) -> str: ...
    def __setstate__(self, state: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def __str__(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class Rounding:
    """
    Members:

      nearest

      stochastic
    """

    __members__: typing.ClassVar[dict[str, Rounding]]
    nearest: typing.ClassVar[Rounding]
    stochastic: typing.ClassVar[Rounding]
    @typing.overload
    def __eq__(self, other: Rounding) -> bool: ...
    @typing.overload
    def __eq__(self, other: typing.Any) -> bool: ...
    def __getstate__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __index__(self) -> int: ...
    def __init__(self, value: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def __int__(self) -> int: ...
    @typing.overload
    def __ne__(self, other: Rounding) -> bool: ...
    @typing.overload
    def __ne__(self, other: typing.Any) -> bool: ...
    def __repr__(self) -> str: ...
    def __setstate__(self, state: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def __str__(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class Packing:
    """
    Members:

      coefficients

      slots

      real_slots
    """

    __members__: typing.ClassVar[dict[str, Packing]]
    coefficients: typing.ClassVar[Packing]
    real_slots: typing.ClassVar[Packing]
    slots: typing.ClassVar[Packing]
    @typing.overload
    def __eq__(self, other: Packing) -> bool: ...
    @typing.overload
    def __eq__(self, other: typing.Any) -> bool: ...
    def __getstate__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __index__(self) -> int: ...
    def __init__(self, value: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def __int__(self) -> int: ...
    @typing.overload
    def __ne__(self, other: Packing) -> bool: ...
    @typing.overload
    def __ne__(self, other: typing.Any) -> bool: ...
    def __repr__(self) -> str: ...
    def __setstate__(self, state: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def __str__(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class Parameters:
    """
    A checked parameter set and what follows from it.
    """
    def __init__(
        self,
        *,
        ring_dimension: typing.SupportsInt | typing.SupportsIndex,
        primes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        parties: typing.SupportsInt | typing.SupportsIndex,
        clip: typing.SupportsFloat | typing.SupportsIndex,
        keys: KeyMode,
        weights: WeightPolicy,
        values_per_coefficient: typing.SupportsInt | typing.SupportsIndex,
        rounding: Rounding = ...,
        packing: Packing = ...,
        slot_scale: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        insecure_for_comparison: bool = False,
    ) -> None: ...
    def block_count(self, length: typing.SupportsInt | typing.SupportsIndex) -> int: ...
    def integer_count(self, length: typing.SupportsInt | typing.SupportsIndex) -> int: ...
    def last_row_length(self, length: typing.SupportsInt | typing.SupportsIndex) -> int: ...
    @property
    def approximate(self) -> bool: ...
    @property
    def base(self) -> int: ...
    @property
    def block_integers(self) -> int: ...
    @property
    def block_weights(self) -> int: ...
    @property
    def delta(self) -> int: ...
    @property
    def exact_bits(self) -> float: ...
    @property
    def failure_log2(self) -> float: ...
    @property
    def level(self) -> tuple[int, int]: ...
    @property
    def log2_modulus(self) -> float: ...
    @property
    def max_error(self) -> float: ...
    @property
    def max_magnitude(self) -> int: ...
    @property
    def noise_bound(self) -> int: ...
    @property
    def noise_variance(self) -> float: ...
    @property
    def opening_primes(self) -> int: ...
    @property
    def primes(self) -> list[int]: ...
    @property
    def release_step(self) -> float: ...
    @property
    def ring_dimension(self) -> int: ...
    @property
    def single_precision(self) -> bool: ...
    @property
    def step(self) -> float: ...
    @property
    def sum_bound(self) -> int: ...
    @property
    def total_scale(self) -> float: ...

class StreamKey:
    """
    The secret key of private random streams.
    """
    @staticmethod
    def from_bytes(bytes: bytes) -> StreamKey:
        """
        For known answers and tests only.
        """
    @staticmethod
    def from_system() -> StreamKey: ...
    def __reduce__(self) -> typing.Any: ...

class SecretKey:
    """
    One secret polynomial.
    """
    def __reduce__(self) -> typing.Any: ...
    def coefficients(self) -> numpy.typing.NDArray[numpy.int64]: ...
    @property
    def squared_norm(self) -> float: ...

class PublicKey:
    """
    A public key, ready to encrypt under.
    """

class Scheme:
    """
    The operations of one parameter set on one backend; see csrc/ckks/scheme.hpp.
    """
    def __init__(self, parameters: Parameters, backend: str = "", cipher: str = "") -> None: ...
    def add(
        self,
        length: typing.SupportsInt | typing.SupportsIndex,
        cut: bool,
        inputs: list[numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]],
        out: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    ) -> None: ...
    def encrypt(
        self,
        secret: SecretKey,
        noise: StreamKey,
        public_seed: bytes,
        tensors: list[typing.Any],
        weight: typing.SupportsFloat | typing.SupportsIndex,
        out: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        *,
        reference: list[typing.Any] = [],
        start: typing.SupportsInt | typing.SupportsIndex = 0,
        stop: typing.SupportsInt | typing.SupportsIndex | None = None,
        incoming: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | None = None,
    ) -> int | None: ...
    def encrypt_prepared(
        self,
        pads: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        noise: StreamKey,
        tensors: list[typing.Any],
        weight: typing.SupportsFloat | typing.SupportsIndex,
        out: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        *,
        reference: list[typing.Any] = [],
        start: typing.SupportsInt | typing.SupportsIndex = 0,
        stop: typing.SupportsInt | typing.SupportsIndex | None = None,
        incoming: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | None = None,
        consume: bool = False,
    ) -> int | None: ...
    def encrypt_public(
        self,
        key: PublicKey,
        noise: StreamKey,
        tensors: list[typing.Any],
        weight: typing.SupportsFloat | typing.SupportsIndex,
        c0: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        c1: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        *,
        reference: list[typing.Any] = [],
        start: typing.SupportsInt | typing.SupportsIndex = 0,
        stop: typing.SupportsInt | typing.SupportsIndex | None = None,
    ) -> int: ...
    def expand(
        self, length: typing.SupportsInt | typing.SupportsIndex, public_seed: bytes
    ) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]: ...
    def expand_ntt(self, public_seed: bytes) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]: ...
    def generate_public(
        self, secret: SecretKey, error: StreamKey, seed: bytes
    ) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]: ...
    def generate_secret(self, seed: StreamKey) -> SecretKey: ...
    def hop(
        self,
        length: typing.SupportsInt | typing.SupportsIndex,
        cut: bool,
        start: typing.SupportsInt | typing.SupportsIndex,
        stop: typing.SupportsInt | typing.SupportsIndex,
        packed: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        mine: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        out: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | None = None,
    ) -> typing_extensions.Buffer | None: ...
    def load_public(self, pk0: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], seed: bytes) -> PublicKey: ...
    def load_public_pair(
        self,
        pk0: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        pk1: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    ) -> PublicKey: ...
    def make_pads(
        self,
        secret: SecretKey,
        noise: StreamKey,
        public_seed: bytes,
        length: typing.SupportsInt | typing.SupportsIndex,
        start: typing.SupportsInt | typing.SupportsIndex,
        stop: typing.SupportsInt | typing.SupportsIndex,
        out: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    ) -> None: ...
    def mask(
        self,
        length: typing.SupportsInt | typing.SupportsIndex,
        seed: bytes,
        subtract: bool,
        words: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    ) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]: ...
    def open(
        self,
        secret: SecretKey,
        length: typing.SupportsInt | typing.SupportsIndex,
        terms: typing.SupportsInt | typing.SupportsIndex,
        c0: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        c1: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | None,
        public_seed: bytes | None,
        out: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        *,
        start: typing.SupportsInt | typing.SupportsIndex = 0,
        stop: typing.SupportsInt | typing.SupportsIndex | None = None,
    ) -> tuple[int | None, int, bool]: ...
    def pack(
        self,
        length: typing.SupportsInt | typing.SupportsIndex,
        cut: bool,
        start: typing.SupportsInt | typing.SupportsIndex,
        stop: typing.SupportsInt | typing.SupportsIndex,
        words: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        out: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | None = None,
    ) -> typing_extensions.Buffer: ...
    def packed_bytes(
        self,
        length: typing.SupportsInt | typing.SupportsIndex,
        cut: bool,
        start: typing.SupportsInt | typing.SupportsIndex,
        stop: typing.SupportsInt | typing.SupportsIndex,
    ) -> int: ...
    def quantize(
        self,
        tensors: list[typing.Any],
        weight: typing.SupportsFloat | typing.SupportsIndex,
        *,
        reference: list[typing.Any] = [],
        rounding: StreamKey | None = None,
        out: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | None = None,
    ) -> tuple[numpy.typing.NDArray[numpy.int64], int]: ...
    def restore_slots(
        self, integers: numpy.typing.NDArray[numpy.int64], out: numpy.typing.NDArray[numpy.float64]
    ) -> None: ...
    def secret_from_coefficients(
        self, coefficients: typing.Annotated[numpy.typing.ArrayLike, numpy.int64]
    ) -> SecretKey: ...
    def tag(
        self,
        length: typing.SupportsInt | typing.SupportsIndex,
        key: bytes,
        words: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        start: typing.SupportsInt | typing.SupportsIndex = 0,
        stop: typing.SupportsInt | typing.SupportsIndex | None = None,
        tags: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | None = None,
    ) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | None: ...
    def unpack(
        self,
        length: typing.SupportsInt | typing.SupportsIndex,
        cut: bool,
        start: typing.SupportsInt | typing.SupportsIndex,
        stop: typing.SupportsInt | typing.SupportsIndex,
        packed: typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
        out: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]],
    ) -> bool: ...
    def words(self, length: typing.SupportsInt | typing.SupportsIndex, cut: bool) -> int: ...
    @property
    def backend(self) -> str: ...
    @property
    def private_cipher(self) -> str: ...
    @property
    def word_bytes(self) -> int: ...

class PadStore:
    """
    Residue words of pads made ahead.
    """
    def __init__(
        self,
        scheme: Scheme,
        secret: SecretKey,
        noise: StreamKey,
        public_seed: bytes,
        length: typing.SupportsInt | typing.SupportsIndex,
        blocks: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    def __reduce__(self) -> typing.Any: ...
    def fill(self) -> None: ...
    def halt(self) -> int: ...
    def wipe(self, first: typing.SupportsInt | typing.SupportsIndex = 0) -> None: ...
    def words(self) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
        """
        The pads themselves, secret and writable.
        """
    @property
    def capacity(self) -> int: ...
    @property
    def ready(self) -> int: ...

class Levelled:
    def __init__(self, parameters: Parameters, backend: str = "") -> None: ...
    def add(
        self,
        a: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
        b: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
    ) -> numpy.typing.NDArray[numpy.uint64]: ...
    def decrypt(
        self,
        secret: SecretKey,
        c0: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
        c1: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
        scale: typing.SupportsFloat | typing.SupportsIndex,
    ) -> numpy.typing.NDArray[numpy.float64]: ...
    def encode(
        self,
        values: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
        level: typing.SupportsInt | typing.SupportsIndex,
        factors: bool,
        scale: typing.SupportsFloat | typing.SupportsIndex,
    ) -> numpy.typing.NDArray[numpy.uint64]: ...
    def forward(
        self, rows: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64]
    ) -> numpy.typing.NDArray[numpy.uint64]: ...
    def inverse(
        self, rows: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64]
    ) -> numpy.typing.NDArray[numpy.uint64]: ...
    def multiply(
        self,
        a: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
        b: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
    ) -> numpy.typing.NDArray[numpy.uint64]: ...
    def multiply_integer(
        self,
        a: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
        factor: typing.SupportsInt | typing.SupportsIndex,
    ) -> numpy.typing.NDArray[numpy.uint64]: ...
    def rescale(
        self, rows: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64]
    ) -> numpy.typing.NDArray[numpy.uint64]: ...
    def subtract(
        self,
        a: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
        b: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
    ) -> numpy.typing.NDArray[numpy.uint64]: ...

class Transform:
    def __init__(
        self,
        ring_dimension: typing.SupportsInt | typing.SupportsIndex,
        primes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        backend: str = "",
    ) -> None: ...
    def forward(
        self, residues: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64]
    ) -> numpy.typing.NDArray[numpy.uint64]: ...
    def inverse(
        self, residues: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64]
    ) -> numpy.typing.NDArray[numpy.uint64]: ...

def arena_capacity(bytes: typing.SupportsInt | typing.SupportsIndex) -> int: ...
def arena_statistics() -> dict[str, int]: ...
def built_backends() -> list[str]: ...
def choose_backend(name: str = "") -> str: ...
def empty(
    dtype: str, count: typing.SupportsInt | typing.SupportsIndex
) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]: ...
def largest_modulus_bits(ring_dimension: typing.SupportsInt | typing.SupportsIndex) -> int: ...
def reads_in_place(array: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]) -> bool:
    """
    Whether the core reads an array where it lies.
    """

def release_memory() -> int: ...
def security_level(
    ring_dimension: typing.SupportsInt | typing.SupportsIndex, log2_modulus: typing.SupportsFloat | typing.SupportsIndex
) -> tuple[int, int]: ...
def set_memory_limit(bytes: typing.SupportsInt | typing.SupportsIndex) -> None: ...
def set_thread_count(count: typing.SupportsInt | typing.SupportsIndex) -> None: ...
def supported_backends() -> list[str]: ...
def thread_count() -> int: ...
def zeros(
    dtype: str, count: typing.SupportsInt | typing.SupportsIndex
) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]: ...

"""Types of the C++ core. Residue words are one-dimensional uint32 or uint64 arrays; keys and seeds are 32 bytes."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Words = NDArray[Any]
Buffer = bytes | bytearray | memoryview
Tensors = Sequence[Any]
# Rows of a ciphertext: residue words, or bytes packed for the wire.
Rows = Words | Buffer

class RequirementError(ValueError): ...

class NonFiniteError(RequirementError):
    index: int

class KeyMode:
    public: KeyMode
    secret: KeyMode
    collective: KeyMode

class WeightPolicy:
    free: WeightPolicy
    public: WeightPolicy

class Rounding:
    nearest: Rounding
    stochastic: Rounding

class Parameters:
    def __init__(
        self,
        *,
        ring_dimension: int,
        primes: Sequence[int],
        parties: int,
        clip: float,
        keys: KeyMode,
        weights: WeightPolicy,
        values_per_coefficient: int,
        rounding: Rounding = ...,
    ) -> None: ...
    @property
    def ring_dimension(self) -> int: ...
    @property
    def primes(self) -> list[int]: ...
    @property
    def log2_modulus(self) -> float: ...
    @property
    def level(self) -> tuple[int, int]: ...
    @property
    def delta(self) -> int: ...
    @property
    def noise_bound(self) -> int: ...
    @property
    def max_magnitude(self) -> int: ...
    @property
    def sum_bound(self) -> int: ...
    @property
    def base(self) -> int: ...
    @property
    def step(self) -> float: ...
    @property
    def exact_bits(self) -> float: ...
    @property
    def single_precision(self) -> bool: ...
    @property
    def noise_variance(self) -> float: ...
    @property
    def failure_log2(self) -> float: ...
    @property
    def block_weights(self) -> int: ...
    def block_count(self, length: int) -> int: ...
    def last_row_length(self, length: int) -> int: ...

class StreamKey:
    @staticmethod
    def from_system() -> StreamKey: ...
    @staticmethod
    def from_bytes(bytes: bytes) -> StreamKey: ...

class SecretKey:
    def coefficients(self) -> NDArray[np.int64]: ...
    @property
    def squared_norm(self) -> float: ...

class PublicKey: ...

class Scheme:
    def __init__(self, parameters: Parameters, backend: str = "", cipher: str = "") -> None: ...
    @property
    def private_cipher(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def word_bytes(self) -> int: ...
    def words(self, length: int, cut: bool) -> int: ...
    def packed_bytes(self, length: int, cut: bool, start: int, stop: int) -> int: ...
    def generate_secret(self, seed: StreamKey) -> SecretKey: ...
    def secret_from_coefficients(self, coefficients: NDArray[np.int64]) -> SecretKey: ...
    def generate_public(self, secret: SecretKey, error: StreamKey, seed: bytes) -> Words: ...
    def load_public(self, pk0: Words, seed: bytes) -> PublicKey: ...
    def quantize(
        self,
        tensors: Tensors,
        weight: float,
        *,
        reference: Tensors = [],
        rounding: StreamKey | None = None,
        out: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.int64], int]: ...
    def encrypt(
        self,
        secret: SecretKey,
        noise: StreamKey,
        public_seed: bytes,
        tensors: Tensors,
        weight: float,
        out: Rows,
        *,
        reference: Tensors = [],
        start: int = 0,
        stop: int | None = None,
        incoming: Buffer | None = None,
    ) -> int | None: ...
    def make_pads(
        self,
        secret: SecretKey,
        noise: StreamKey,
        public_seed: bytes,
        length: int,
        start: int,
        stop: int,
        out: Words,
    ) -> None: ...
    def encrypt_prepared(
        self,
        pads: Words | memoryview,
        noise: StreamKey,
        tensors: Tensors,
        weight: float,
        out: Rows,
        *,
        reference: Tensors = [],
        start: int = 0,
        stop: int | None = None,
        incoming: Buffer | None = None,
        consume: bool = False,
    ) -> int | None: ...
    def encrypt_public(
        self,
        key: PublicKey,
        noise: StreamKey,
        tensors: Tensors,
        weight: float,
        c0: Rows,
        c1: Rows | None,
        *,
        reference: Tensors = [],
        start: int = 0,
        stop: int | None = None,
    ) -> int: ...
    def add(self, length: int, cut: bool, inputs: Sequence[Words | None], out: Words) -> None: ...
    def expand(self, length: int, public_seed: bytes) -> Words: ...
    def mask(self, length: int, seed: bytes, subtract: bool, words: Words) -> Words: ...
    def open(
        self,
        secret: SecretKey,
        length: int,
        terms: int,
        c0: Rows,
        c1: Rows | None,
        public_seed: bytes | None,
        out: NDArray[Any],
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> tuple[int | None, int, bool]: ...
    @overload
    def pack(self, length: int, cut: bool, start: int, stop: int, words: Words, out: None = None) -> bytes: ...
    @overload
    def pack(self, length: int, cut: bool, start: int, stop: int, words: Words, out: memoryview) -> memoryview: ...
    def unpack(self, length: int, cut: bool, start: int, stop: int, packed: Buffer, out: Words) -> bool: ...
    @overload
    def hop(
        self, length: int, cut: bool, start: int, stop: int, packed: Buffer, mine: Words, out: None = None
    ) -> bytes | None: ...
    @overload
    def hop(
        self, length: int, cut: bool, start: int, stop: int, packed: Buffer, mine: Words, out: memoryview
    ) -> memoryview | None: ...
    def tag(self, length: int, key: bytes, words: Words) -> Words: ...

class PadStore:
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __init__(
        self, scheme: Scheme, secret: SecretKey, noise: StreamKey, public_seed: bytes, length: int, blocks: int
    ) -> None: ...
    def fill(self) -> None: ...
    def halt(self) -> int: ...
    def wipe(self, first: int = 0) -> None: ...
    @property
    def ready(self) -> int: ...
    @property
    def capacity(self) -> int: ...

class primitives:
    @staticmethod
    def ntt(
        modulus: int, log_degree: int, values: NDArray[np.uint64], inverse: bool = False, backend: str = ""
    ) -> NDArray[np.uint64]: ...
    @staticmethod
    def uniform(
        modulus: int, log_degree: int, key: bytes, selector: int, block: int, backend: str = ""
    ) -> NDArray[np.uint64]: ...
    @staticmethod
    def stream(
        key: bytes,
        selector: int,
        block: int,
        first: int,
        count: int,
        backend: str = "",
        cipher: str = "chacha20",
    ) -> NDArray[np.uint32]: ...
    @staticmethod
    def gaussian(
        table: str, key: bytes, lane: int, block: int, count: int, backend: str = "", cipher: str = "chacha20"
    ) -> NDArray[np.int32]: ...
    @staticmethod
    def ternary(
        key: bytes, lane: int, block: int, count: int, backend: str = "", cipher: str = "chacha20"
    ) -> NDArray[np.int32]: ...
    @staticmethod
    def quantize(
        tensors: Sequence[tuple[Any, int, int, int]],
        reference: Sequence[tuple[Any, int, int, int]],
        *,
        clip: float,
        multiplier: float,
        single_precision: bool,
        block_values: int,
        first: int,
        count: int,
        key: bytes | None = None,
        cipher: str = "chacha20",
        word_bits: int = 32,
        backend: str = "",
    ) -> tuple[NDArray[np.int64], int, int | None]: ...
    @staticmethod
    def residual_limit(variance: float, coefficients: int) -> float: ...
    @staticmethod
    def add_loop(inputs: Sequence[NDArray[np.uint32]], out: NDArray[np.uint32]) -> None: ...
    @staticmethod
    def copy_loop(input: NDArray[np.uint32], out: NDArray[np.uint32]) -> None: ...

def reads_in_place(array: NDArray[Any]) -> bool: ...
def built_backends() -> list[str]: ...
def supported_backends() -> list[str]: ...
def thread_count() -> int: ...
def set_thread_count(count: int) -> None: ...
def empty(dtype: str, count: int) -> NDArray[Any]: ...
def zeros(dtype: str, count: int) -> NDArray[Any]: ...
def release_memory() -> int: ...
def set_memory_limit(bytes: int) -> None: ...
def arena_statistics() -> dict[str, int]: ...
def arena_capacity(bytes: int) -> int: ...
def choose_backend(name: str = "") -> str: ...
def largest_modulus_bits(ring_dimension: int) -> int: ...
def security_level(ring_dimension: int, log2_modulus: float) -> tuple[int, int]: ...

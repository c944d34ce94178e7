"""Microsoft SEAL's CKKS ciphertexts and keys, read from and written as the bytes that its ``save`` and ``load`` take.

Needs no SEAL; to read what was saved with Zstandard, its default, the package ``zstandard``. The format is that of
SEAL 4 (native/src/seal/serialization.h, ciphertext.cpp, plaintext.cpp, encryptionparams.cpp): NTT form in our order,
and a coefficient modulus whose last prime serves keys alone. SEAL 4.3 wrote and read what the tests exchange.

What SEAL decrypts falls outside the exactness of :mod:`pppml_fast`; the warning of ``pppml_fast.interop.openfhe``
holds here too.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pppml_fast.errors import CiphertextError, ParameterError
from pppml_fast.interop.evaluation import EvaluationForm
from pppml_fast.interop.residues import PublicResidues, ResidueCiphertext
from pppml_fast.interop.secrets import from_small, to_small

__all__ = ["SealBridge"]

# SEALHeader: magic, header bytes, major and minor version, compression, reserved, size of all with this header.
_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC, _MAJOR = 0xA15E, 4
# Slot j of SEAL is the value at zeta^(3^j); ours and OpenFHE's at zeta^(5^j).
_SLOT_GENERATOR, _OUR_GENERATOR = 3, 5
_PLAIN, _ZLIB, _ZSTANDARD = 0, 1, 2
# Ciphertext: parameters' id, whether in NTT form, polynomials, N, primes, scale, correction factor of BGV.
_CIPHERTEXT = struct.Struct("<32s?QQQdQ")
# Plaintext, which a secret key is saved as: parameters' id, coefficients, scale.
_PLAINTEXT = struct.Struct("<32sQd")
_COUNT = struct.Struct("<Q")
_SCHEME_CKKS = 2
_WORD = np.dtype("<u8")


class SealBridge:
    """Reads and writes the objects of one set of SEAL's CKKS parameters.

    ``coeff_modulus`` is SEAL's: all primes, the last of which serves keys alone unless it is the only one. SEAL loads
    what its own minor version wrote, or an older one it knows: ``minor`` is written into headers. Raises ParameterError
    when the ring has no negacyclic transform.
    """

    def __init__(self, ring_dimension: int, coeff_modulus: Sequence[int], minor: int = 3) -> None:
        self.ring_dimension = ring_dimension
        self.key_primes = tuple(coeff_modulus)
        self.primes = self.key_primes[:-1] or self.key_primes
        self._minor = minor
        self._form = EvaluationForm(ring_dimension, self.key_primes)
        self._forms = {len(self.key_primes): self._form}
        self._largest = 64 + 8 * ring_dimension * len(self.key_primes) * 3 + 1024

    def read_ciphertext(self, data: bytes) -> ResidueCiphertext:
        """Parse a saved ``Ciphertext``; raises CiphertextError when it is damaged or of other parameters."""
        body = self._unwrap(data, "ciphertext")
        _, ntt, polynomials, dimension, count, scale, _ = self._fields(_CIPHERTEXT, body)
        if not (ntt and dimension == self.ring_dimension and 1 <= count <= len(self.primes) and 2 <= polynomials <= 3):
            raise CiphertextError(
                f"a SEAL ciphertext of {polynomials} polynomials, N = {dimension}, {count} primes, NTT form {ntt} does "
                f"not fit {self!r}"
            )
        self._check_id(body, self.primes[:count])
        values = self._words(body[_CIPHERTEXT.size :], (polynomials, count, dimension))
        return ResidueCiphertext(
            self._form_of(count).to_coefficients(values),
            self.primes[:count],
            scale,
            self.ring_dimension // 2,
            len(self.primes) - count,
        )

    def write_ciphertext(self, ciphertext: ResidueCiphertext) -> bytes:
        """What ``Ciphertext.load`` takes, uncompressed. Raises CiphertextError on other primes or fewer slots."""
        count = len(ciphertext.primes)
        if (ciphertext.ring_dimension, ciphertext.primes) != (self.ring_dimension, self.primes[:count]):
            raise CiphertextError(f"N = {ciphertext.ring_dimension}, primes {ciphertext.primes} do not fit {self!r}")
        if len(ciphertext.residues) < 2 or ciphertext.slots != self.ring_dimension // 2:
            raise CiphertextError(
                f"{len(ciphertext.residues)} polynomials, {ciphertext.slots} slots: SEAL has 2 or 3 and N/2"
            )
        values = self._form_of(count).from_coefficients(ciphertext.residues)
        return self._wrap_pair(values, ciphertext.primes, ciphertext.scale)

    def read_public_key(self, data: bytes) -> PublicResidues:
        """Parse a saved ``PublicKey``, under all primes; :meth:`PublicResidues.under` takes those of ciphertexts."""
        body = self._unwrap(data, "public key")
        _, ntt, polynomials, dimension, count, _, _ = self._fields(_CIPHERTEXT, body)
        shape = (polynomials, count, dimension)
        if shape != (2, len(self.key_primes), self.ring_dimension) or not ntt:
            raise CiphertextError(f"a SEAL public key of shape {shape}, NTT form {ntt} does not fit {self!r}")
        self._check_id(body, self.key_primes)
        b, a = self._words(body[_CIPHERTEXT.size :], (2, count, dimension))
        return PublicResidues(b, a, self.key_primes)

    def write_public_key(self, key: PublicResidues) -> bytes:
        """What ``PublicKey.load`` takes; raises CiphertextError unless the key is under all primes."""
        if key.primes != self.key_primes or key.b.shape[-1] != self.ring_dimension:
            raise CiphertextError(f"a public key of N = {key.b.shape[-1]}, {key.primes} does not fit {self!r}")
        return self._wrap_pair(np.stack([key.b, key.a]), self.key_primes, 1.0)

    def read_secret_key(self, data: bytes) -> NDArray[np.int64]:
        """The coefficients, int64 of shape (N,), of a saved ``SecretKey``; they lie in memory that nobody wipes."""
        body = self._unwrap(data, "secret key")
        _, coefficients, _ = self._fields(_PLAINTEXT, body)
        if coefficients != self.ring_dimension * len(self.key_primes):
            raise CiphertextError(f"a SEAL secret key of {coefficients} residues does not fit {self!r}")
        self._check_id(body, self.key_primes)
        values = self._words(body[_PLAINTEXT.size :], (len(self.key_primes), self.ring_dimension))
        return to_small(self._form.to_coefficients(values), self.key_primes)

    def write_secret_key(self, coefficients: NDArray[np.int64]) -> bytes:
        """What ``SecretKey.load`` takes: the secret in plain bytes."""
        residues = from_small(coefficients, self.key_primes, self.ring_dimension)
        values = self._form.from_coefficients(residues)
        head = _PLAINTEXT.pack(self._id(self.key_primes), values.size, 1.0)
        return _wrap(head + _wrap_words(values, self._minor), self._minor)

    def slot_order(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where SEAL's slots stand in ours: SEAL's slot j is our slot ``index[j]``, conjugated where ``conjugate[j]``.

        Two arrays of N/2. Real vectors ``x`` in SEAL's order are ``ours[index]``, and ``ours[index] = x`` the reverse.
        """
        order = 2 * self.ring_dimension
        places = np.empty(order, np.int64)
        power = 1
        for j in range(self.ring_dimension // 2):
            places[power], places[order - power] = j, j
            power = power * _OUR_GENERATOR % order
        exponents = np.array([pow(_SLOT_GENERATOR, j, order) for j in range(self.ring_dimension // 2)])
        # Powers of 5 are those that leave 1 modulo 4.
        return places[exponents], exponents % 4 == 3

    def __repr__(self) -> str:
        bits = ", ".join(str(q.bit_length()) for q in self.key_primes)
        return f"SealBridge(N={self.ring_dimension}, primes of {bits} bits)"

    def _form_of(self, count: int) -> EvaluationForm:
        if count not in self._forms:
            self._forms[count] = EvaluationForm(self.ring_dimension, self.primes[:count])
        return self._forms[count]

    def _id(self, primes: tuple[int, ...]) -> bytes:
        """``parms_id``: BLAKE2b-256 of scheme, N, primes and plain modulus (none: 0) as 64-bit words."""
        words = (_SCHEME_CKKS, self.ring_dimension, *primes, 0)
        return hashlib.blake2b(struct.pack(f"<{len(words)}Q", *words), digest_size=32).digest()

    def _check_id(self, body: bytes, primes: tuple[int, ...]) -> None:
        if body[:32] != self._id(primes):
            raise CiphertextError(f"the SEAL object was made under other parameters than {self!r}")

    def _wrap_pair(self, values: NDArray[np.uint64], primes: tuple[int, ...], scale: float) -> bytes:
        polynomials, count, dimension = values.shape
        head = _CIPHERTEXT.pack(self._id(primes), True, polynomials, dimension, count, scale, 1)
        return _wrap(head + _wrap_words(values, self._minor), self._minor)

    def _unwrap(self, data: bytes, what: str) -> bytes:
        if len(data) < _HEADER.size:
            raise CiphertextError(f"{len(data)} bytes are no SEAL {what}: its header alone takes {_HEADER.size}")
        magic, header, major, minor, compression, reserved, size = _HEADER.unpack_from(data)
        if (magic, header, reserved) != (_MAGIC, _HEADER.size, 0) or size != len(data):
            raise CiphertextError(f"{len(data)} bytes are no SEAL {what}: header {data[: _HEADER.size].hex()}")
        if major != _MAJOR:
            raise CiphertextError(f"a {what} saved by SEAL {major}.{minor}; versions 4 are read")
        return _decompress(bytes(data[_HEADER.size :]), compression, self._largest)

    @staticmethod
    def _fields(layout: struct.Struct, body: bytes) -> tuple[int, ...]:
        if len(body) < layout.size:
            raise CiphertextError(f"a SEAL object of {len(body)} bytes ends before its fields, {layout.size} bytes")
        return layout.unpack_from(body)

    @staticmethod
    def _words(data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint64]:
        count = math.prod(shape)
        expected = _HEADER.size + _COUNT.size + count * _WORD.itemsize
        if len(data) != expected or _COUNT.unpack_from(data, _HEADER.size)[0] != count:
            raise CiphertextError(
                f"a SEAL array of {len(data)} bytes where {expected} are needed; an object that was saved with a seed "
                "in place of its last polynomial must be loaded and saved by SEAL first"
            )
        magic, header, _, _, compression, _, size = _HEADER.unpack_from(data)
        if (magic, header, compression, size) != (_MAGIC, _HEADER.size, _PLAIN, expected):
            raise CiphertextError(f"a SEAL array with the header {data[: _HEADER.size].hex()}: the data is damaged")
        words = np.frombuffer(data, _WORD, count, _HEADER.size + _COUNT.size)
        return words.astype(np.uint64, copy=False).reshape(shape)


def _wrap(body: bytes, minor: int) -> bytes:
    return _HEADER.pack(_MAGIC, _HEADER.size, _MAJOR, minor, _PLAIN, 0, _HEADER.size + len(body)) + body


def _wrap_words(values: NDArray[np.uint64], minor: int) -> bytes:
    return _wrap(_COUNT.pack(values.size) + np.ascontiguousarray(values, _WORD).tobytes(), minor)


def _decompress(data: bytes, compression: int, largest: int) -> bytes:
    """At most ``largest`` bytes, so that a small file cannot fill the memory."""
    if compression == _PLAIN:
        return data
    if compression == _ZLIB:
        try:
            unpacker = zlib.decompressobj()
            body, rest = unpacker.decompress(data, largest), unpacker.unconsumed_tail
        except zlib.error as error:
            raise CiphertextError(f"a SEAL object is no zlib stream: {error}") from None
        if rest or not unpacker.eof:
            raise CiphertextError(f"a SEAL object ends early, or takes more than {largest} bytes")
        return body
    if compression == _ZSTANDARD:
        return _unpack_zstandard(data, largest)
    raise CiphertextError(f"SEAL's compression {compression} is unknown; none (0), zlib (1) and Zstandard (2) are read")


def _unpack_zstandard(data: bytes, largest: int) -> bytes:
    try:
        import zstandard
    except ModuleNotFoundError:
        raise ParameterError(
            "the SEAL object was saved with Zstandard: pip install 'pppml-fast[seal]', or save it with compr_mode_type "
            "none or zlib"
        ) from None
    try:
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            body = bytes(reader.read(largest + 1))
    except zstandard.ZstdError as error:
        raise CiphertextError(f"a SEAL object is no Zstandard stream: {error}") from None
    if len(body) > largest:
        raise CiphertextError(f"a SEAL object takes more than {largest} bytes")
    return body

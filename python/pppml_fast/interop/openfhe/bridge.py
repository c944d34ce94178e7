"""One OpenFHE CKKS context: its ring, and its keys and ciphertexts as arrays, read and written."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

import numpy as np
import openfhe
from numpy.typing import NDArray

from pppml_fast.errors import CiphertextError, ParameterError
from pppml_fast.interop.evaluation import EvaluationForm
from pppml_fast.interop.openfhe.documents import Document, Polynomial, Ring
from pppml_fast.interop.openfhe.frames import Frame
from pppml_fast.interop.residues import PublicResidues, ResidueCiphertext
from pppml_fast.interop.secrets import from_small, to_small

__all__ = ["OpenfheBridge", "new_key_tag"]

_MOST_FRAMES = 256


def new_key_tag() -> str:
    """A fresh name for a key, 32 hexadecimal digits, as OpenFHE gives its own."""
    return os.urandom(16).hex()


class _Kind(NamedTuple):
    """What the ciphertexts of one frame share."""

    level: int
    degree: int
    scale: float
    slots: int
    key_tag: str


class OpenfheBridge:
    """Reads and writes the objects of one ``openfhe.CryptoContext`` for CKKS, with fixed or flexible scaling.

    The context needs the features PKE, KEYSWITCH and LEVELEDSHE enabled. Raises ParameterError when it is of another
    scheme, or of composite scaling, whose levels are counted otherwise. OpenFHE's objects go through its own
    serialiser: JSON for the first object of a kind, the binary form for the others.

    With every ciphertext it reads, OpenFHE computes the context's tables anew, only to drop them for those it has.
    ``skip_tables`` turns that off while this bridge writes one, about three times as fast. The switch is OpenFHE's, of
    the whole process, and is on again afterwards: leave it alone where other threads deserialise contexts meanwhile.
    """

    def __init__(self, context: Any, *, skip_tables: bool = False) -> None:
        document = Document(openfhe.Serialize(context, openfhe.JSON))
        scheme = document.get(document.root, "cc").get("polymorphic_name")
        if scheme != "lbcrypto::CryptoParametersCKKSRNS":
            raise ParameterError(f"the OpenFHE context is of {scheme!r}; only CKKS contexts are read")
        if context.GetScalingTechnique() in (openfhe.COMPOSITESCALINGAUTO, openfhe.COMPOSITESCALINGMANUAL):
            raise ParameterError("the OpenFHE context scales by composites; use FIXEDMANUAL or another technique")
        self.context = context
        self._skip_tables = skip_tables
        self._ring = document.ring(document.follow(document.find("elp")))
        self._forms: dict[int, EvaluationForm] = {}
        self._readers: dict[int, list[tuple[Frame, _Kind, int]]] = {}
        self._writers: dict[_Kind, Frame] = {}
        self._templates: dict[int, tuple[str, float, int]] = {}
        self._throwaway: Any = None

    # --- the context ---------------------------------------------------------------------------------------------

    @property
    def ring_dimension(self) -> int:
        """N."""
        return self._ring.ring_dimension

    @property
    def primes(self) -> tuple[int, ...]:
        """The primes of Q at level 0; level l has all but the last l."""
        return self._ring.primes

    @property
    def slots(self) -> int:
        """Slots of a ciphertext that asks for no other number: OpenFHE's batch size, N/2 where none was set."""
        return int(self.context.GetBatchSize()) or self.ring_dimension // 2

    @property
    def complex_slots(self) -> bool:
        """Whether OpenFHE keeps imaginary parts in this context; else it reads them as noise and refuses to decrypt."""
        return bool(self.context.GetCKKSDataType() == openfhe.COMPLEX)

    def fresh_scale(self, level: int = 0) -> tuple[float, int]:
        """Scale and degree of OpenFHE's own fresh ciphertexts at a level: what others must have to add to them."""
        _, scale, degree = self._template(level)
        return scale, degree

    def form(self, prime_count: int | None = None) -> EvaluationForm:
        """OpenFHE's NTT form under the first ``prime_count`` primes, all of them if absent."""
        count = len(self.primes) if prime_count is None else prime_count
        if count not in self._forms:
            self._forms[count] = EvaluationForm(self.ring_dimension, self.primes[:count], self._ring.roots[:count])
        return self._forms[count]

    # --- ciphertexts ---------------------------------------------------------------------------------------------

    def read_ciphertext(self, ciphertext: Any) -> ResidueCiphertext:
        """An ``openfhe.Ciphertext`` of this context as arrays: fresh, a sum, a product or a partial decryption.

        Raises CiphertextError when it belongs to another context or is not as documents.py expects it.
        """
        self._check_belongs(ciphertext)
        data = openfhe.Serialize(ciphertext, openfhe.BINARY)
        for frame, kind, prime_count in self._readers.get(len(data), ()):
            rows = frame.split(data)
            if rows is not None:
                return self._made_of(rows.reshape(-1, prime_count, self.ring_dimension), kind)
        return self._learn(ciphertext, data)

    def write_ciphertext(self, ciphertext: ResidueCiphertext) -> Any:
        """The ``openfhe.Ciphertext`` of this context that holds these residues, scale, level, slots and key tag.

        Raises CiphertextError when ring, primes and level are not the context's or it is not a pair of polynomials.
        OpenFHE adds it to others of the same scale, level and key tag; it does not compare scales under FIXEDMANUAL.
        """
        self._check_fits(ciphertext)
        values = self.form(len(ciphertext.primes)).from_coefficients(ciphertext.residues)
        data = self._writer(ciphertext).join(values.reshape(-1, self.ring_dimension))
        if not self._skip_tables:
            return openfhe.DeserializeCiphertextString(data, openfhe.BINARY)
        openfhe.DisablePrecomputeCRTTablesAfterDeserializaton()
        try:
            return openfhe.DeserializeCiphertextString(data, openfhe.BINARY)
        finally:
            openfhe.EnablePrecomputeCRTTablesAfterDeserializaton()

    # --- keys ----------------------------------------------------------------------------------------------------

    def read_public_key(self, key: Any) -> PublicResidues:
        """An ``openfhe.PublicKey``, a joint one included, as (b, a) in our NTT order."""
        self._check_belongs(key)
        document = Document(openfhe.Serialize(key, openfhe.JSON))
        b, a = self._pair(document, document.get(document.root, "h"))
        return PublicResidues(b, a, self.primes, str(key.GetKeyTag()))

    def write_public_key(self, key: PublicResidues) -> Any:
        """The ``openfhe.PublicKey`` that holds these residues and tag (a fresh one if empty)."""
        if key.primes != self.primes or key.b.shape[-1] != self.ring_dimension:
            raise CiphertextError(f"a public key of N = {key.b.shape[-1]}, {key.primes} does not fit {self!r}")
        document = Document(openfhe.Serialize(self._own_keys().publicKey, openfhe.JSON))
        form = self.form()
        for polynomial, values in zip(document.get(document.root, "h"), (key.b, key.a), strict=True):
            self._fill(document, polynomial, form.from_native(values))
        document.get(document.root, "value0", "value0")["kt"] = key.key_tag or new_key_tag()
        return openfhe.DeserializePublicKeyString(json.dumps(document.tree), openfhe.JSON)

    def read_secret_key(self, key: Any) -> NDArray[np.int64]:
        """The coefficients of an ``openfhe.PrivateKey``, or of a party's share of one: int64 of shape (N,).

        The caller holds the secret in plain memory that nobody wipes. Raises CiphertextError when the residues are of
        no small polynomial.
        """
        self._check_belongs(key)
        document = Document(openfhe.Serialize(key, openfhe.JSON))
        values = self._values(document.polynomial(document.get(document.root, "s")), len(self.primes))
        return to_small(self.form().to_coefficients(values), self.primes)

    def write_secret_key(self, coefficients: NDArray[np.int64], key_tag: str = "") -> Any:
        """The ``openfhe.PrivateKey`` with these coefficients, shape (N,), and tag (a fresh one if empty).

        The secret passes through JSON text and OpenFHE's memory, which nobody wipes.
        """
        residues = from_small(coefficients, self.primes, self.ring_dimension)
        document = Document(openfhe.Serialize(self._own_keys().secretKey, openfhe.JSON))
        self._fill(document, document.get(document.root, "s"), self.form().from_coefficients(residues))
        document.get(document.root, "value0", "value0")["kt"] = key_tag or new_key_tag()
        return openfhe.DeserializePrivateKeyString(json.dumps(document.tree), openfhe.JSON)

    def __repr__(self) -> str:
        bits = ", ".join(str(q.bit_length()) for q in self.primes)
        return f"OpenfheBridge(N={self.ring_dimension}, primes of {bits} bits, slots={self.slots})"

    # --- inside --------------------------------------------------------------------------------------------------

    def _check_belongs(self, thing: Any) -> None:
        if thing.GetCryptoContext() != self.context:
            raise CiphertextError("the OpenFHE object belongs to another context than this bridge")

    def _check_fits(self, ciphertext: ResidueCiphertext) -> None:
        if len(ciphertext.residues) != 2:
            raise CiphertextError(f"{len(ciphertext.residues)} polynomials: only pairs (c0, c1) are written to OpenFHE")
        if ciphertext.ring_dimension != self.ring_dimension:
            raise CiphertextError(f"a ciphertext of ring dimension {ciphertext.ring_dimension} does not fit {self!r}")
        if ciphertext.primes != self.primes[: len(self.primes) - ciphertext.level]:
            raise CiphertextError(
                f"primes {ciphertext.primes} at level {ciphertext.level} are not the context's; it has {self.primes} "
                "at level 0 and drops the last one per level"
            )

    def _values(self, polynomial: Polynomial, prime_count: int) -> NDArray[np.uint64]:
        """A parsed polynomial's values, once its ring is known to be the context's first ``prime_count`` primes."""
        ring = self._ring
        expected = Ring(ring.ring_dimension, ring.primes[:prime_count], ring.roots[:prime_count])
        if polynomial.ring != expected:
            raise CiphertextError(f"OpenFHE's polynomial is of {polynomial.ring}; the context is of {ring}")
        return polynomial.values

    def _pair(self, document: Document, nodes: Any) -> list[NDArray[np.uint64]]:
        if not isinstance(nodes, list) or len(nodes) != 2:
            raise CiphertextError("OpenFHE's public key is not two polynomials")
        form = self.form()
        return [form.to_native(self._values(document.polynomial(node), len(self.primes))) for node in nodes]

    def _learn(self, ciphertext: Any, data: bytes) -> ResidueCiphertext:
        """Read a ciphertext from its JSON; the next of its kind will be read from its binary form."""
        document = Document(openfhe.Serialize(ciphertext, openfhe.JSON))
        root = document.root
        polynomials = [document.polynomial(node) for node in document.get(root, "v")]
        if not polynomials:
            raise CiphertextError("OpenFHE's ciphertext has no polynomial")
        count = len(polynomials[0].ring.primes)
        values = np.stack([self._values(polynomial, count) for polynomial in polynomials])
        kind = _Kind(
            int(document.get(root, "l")),
            int(document.get(root, "d")),
            float(document.get(root, "s")),
            int(document.get(root, "sl")),
            str(ciphertext.GetKeyTag()),
        )
        result = self._made_of(values, kind)
        if sum(map(len, self._readers.values())) >= _MOST_FRAMES:
            self._readers.clear()
        frame = Frame(data, values.reshape(-1, self.ring_dimension))
        self._readers.setdefault(len(data), []).append((frame, kind, count))
        return result

    def _made_of(self, values: NDArray[np.uint64], kind: _Kind) -> ResidueCiphertext:
        count = values.shape[1]
        residues = self.form(count).to_coefficients(values)
        return ResidueCiphertext(
            residues, self.primes[:count], kind.scale, kind.slots, kind.level, kind.degree, kind.key_tag
        )

    def _writer(self, ciphertext: ResidueCiphertext) -> Frame:
        kind = _Kind(ciphertext.level, ciphertext.degree, ciphertext.scale, ciphertext.slots, ciphertext.key_tag)
        if kind not in self._writers:
            if len(self._writers) >= _MOST_FRAMES:
                self._writers.clear()
            self._writers[kind] = self._new_writer(kind)
        return self._writers[kind]

    def _new_writer(self, kind: _Kind) -> Frame:
        """The frame of this kind, learnt from a throwaway ciphertext that is given its level, scale, slots and tag."""
        document = Document(self._template(kind.level)[0])
        root = document.root
        root["d"], root["s"], root["sl"] = kind.degree, kind.scale, kind.slots
        document.get(root, "value0")["kt"] = kind.key_tag
        made = openfhe.DeserializeCiphertextString(json.dumps(document.tree), openfhe.JSON)
        read = _Kind(
            made.GetLevel(), made.GetNoiseScaleDeg(), made.GetScalingFactor(), made.GetSlots(), made.GetKeyTag()
        )
        if read != kind:
            raise CiphertextError(f"OpenFHE read {read} where {kind} was written")
        values = [document.polynomial(node).values for node in root["v"]]
        return Frame(openfhe.Serialize(made, openfhe.BINARY), np.concatenate(values))

    def _template(self, level: int) -> tuple[str, float, int]:
        """The JSON of a fresh ciphertext at a level, under a throwaway key; its scale and degree."""
        if not 0 <= level < len(self.primes):
            raise CiphertextError(f"level {level} is outside 0 .. {len(self.primes) - 1}, the context's")
        if level not in self._templates:
            zero = self.context.MakeCKKSPackedPlaintext([0.0], 1, level)
            made = self.context.Encrypt(self._own_keys().publicKey, zero)
            text = openfhe.Serialize(made, openfhe.JSON)
            self._templates[level] = text, made.GetScalingFactor(), made.GetNoiseScaleDeg()
        return self._templates[level]

    def _own_keys(self) -> Any:
        if self._throwaway is None:
            self._throwaway = self.context.KeyGen()
        return self._throwaway

    @staticmethod
    def _fill(document: Document, polynomial: Any, values: NDArray[np.uint64]) -> None:
        for node, row in zip(document.get(polynomial, "v"), values, strict=True):
            document.get(node, "v")
            document.follow(node["v"])["v"] = row.tolist()

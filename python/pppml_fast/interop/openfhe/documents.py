"""OpenFHE's JSON: objects written by cereal, their shared pointers followed, their polynomials read.

Nothing but the names of the fields read here is relied on; every one that is missing or of another kind is refused. The
version that this was written against stands in docs/interoperation.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pppml_fast.errors import CiphertextError

__all__ = ["Document", "Polynomial", "Ring"]

# cereal marks the first occurrence of a shared pointer, where its object stands, by this bit of its id.
_FIRST_OCCURRENCE = 1 << 31
_EVALUATION_FORM = 0


@dataclass(frozen=True)
class Ring:
    """Z_Q[X]/(X^N + 1) as OpenFHE describes it: the primes of Q and the root of unity of each one's NTT form."""

    ring_dimension: int
    primes: tuple[int, ...]
    roots: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Polynomial:
    """Values in NTT form under the roots of ``ring``: uint64 of shape (primes, N)."""

    ring: Ring
    values: NDArray[np.uint64]


class Document:
    """A parsed JSON document; ``root`` is what was serialised. Raises CiphertextError when it is no such document."""

    def __init__(self, text: str) -> None:
        try:
            self.tree: Any = json.loads(text)
        except ValueError as error:
            raise CiphertextError(f"OpenFHE's serialised object is no JSON: {error}") from None
        self._shared: dict[int, Any] = {}
        for node in _dictionaries(self.tree):
            pointer = node.get("ptr_wrapper")
            if isinstance(pointer, dict) and "data" in pointer and isinstance(pointer.get("id"), int):
                self._shared[pointer["id"] & ~_FIRST_OCCURRENCE] = pointer["data"]
        self.root = self.follow(self.get(self.tree, "value0"))

    def get(self, node: Any, *names: str) -> Any:
        """The field ``names[0]`` of ``node``, then ``names[1]`` of that, and so on, through pointers."""
        for name in names:
            node = self.follow(node)
            if not isinstance(node, dict) or name not in node:
                raise CiphertextError(
                    f"OpenFHE's serialised object has no field {name!r} where it is expected; docs/interoperation.md "
                    "names the versions that are read"
                )
            node = node[name]
        return node

    def follow(self, node: Any) -> Any:
        """What a pointer points to; any other node itself."""
        if not isinstance(node, dict) or "ptr_wrapper" not in node:
            return node
        pointer = node["ptr_wrapper"]
        if "data" in pointer:
            return pointer["data"]
        if pointer.get("id") not in self._shared:
            raise CiphertextError(f"OpenFHE's serialised object points to an object {pointer} that it does not hold")
        return self._shared[pointer["id"]]

    def find(self, name: str) -> Any:
        """The first field of that name anywhere; raises CiphertextError when there is none."""
        for node in _dictionaries(self.tree):
            if name in node:
                return node[name]
        raise CiphertextError(f"OpenFHE's serialised object has no field {name!r}")

    def ring(self, node: Any) -> Ring:
        """Parse ILDCRTParams: ring dimension, primes and roots."""
        dimension = _integer(self.get(node, "value0", "rd"), "ring dimension")
        parts = [self.follow(part) for part in _list(self.get(node, "p"), "the primes")]
        if not parts:
            raise CiphertextError("OpenFHE's ring has no prime")
        for part in parts:
            if self.get(part, "value0", "rd") != dimension:
                raise CiphertextError("OpenFHE's ring has different dimensions under different primes")
        primes = tuple(_integer(self.get(part, "value0", "cm", "v"), "modulus") for part in parts)
        roots = tuple(_integer(self.get(part, "value0", "ru", "v"), "root of unity") for part in parts)
        return Ring(dimension, primes, roots)

    def polynomial(self, node: Any) -> Polynomial:
        """Parse a DCRTPoly; raises CiphertextError unless it is in NTT form and whole."""
        ring = self.ring(self.follow(self.get(node, "p")))
        rows = _list(self.get(node, "v"), "the rows of a polynomial")
        if len(rows) != len(ring.primes):
            raise CiphertextError(f"OpenFHE's polynomial has {len(rows)} rows for {len(ring.primes)} primes")
        parsed = [self._row(row, q, ring.ring_dimension) for row, q in zip(rows, ring.primes, strict=True)]
        if self.get(node, "f") != _EVALUATION_FORM:
            raise CiphertextError(
                "OpenFHE's polynomial is in coefficient form; its ciphertexts and keys are in NTT form"
            )
        return Polynomial(ring, np.stack(parsed))

    def _row(self, node: Any, q: int, length: int) -> NDArray[np.uint64]:
        if self.get(node, "f") != _EVALUATION_FORM:
            raise CiphertextError("a row of OpenFHE's polynomial is in coefficient form; NTT form is expected")
        modulus = _integer(self.get(node, "v", "m", "v"), "modulus")
        if modulus != q:
            raise CiphertextError(f"a row of OpenFHE's polynomial has the modulus {modulus}; its ring says {q}")
        values = _list(self.get(node, "v", "v"), "a row of residues")
        if len(values) != length:
            raise CiphertextError(f"a row of OpenFHE's polynomial has {len(values)} residues; N is {length}")
        row = np.array(values)
        if row.dtype.kind not in "iu" or int(row.min()) < 0 or int(row.max()) >= q:
            raise CiphertextError(f"a residue of OpenFHE's polynomial is not within 0 .. {q - 1}: the data is damaged")
        return row.astype(np.uint64)


def _dictionaries(node: Any) -> Iterator[dict[str, Any]]:
    """All dictionaries of a document, outer ones first; lists of numbers are passed over."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _dictionaries(value)
    elif isinstance(node, list) and node and not isinstance(node[0], int):
        for value in node:
            yield from _dictionaries(value)


def _integer(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 64:
        raise CiphertextError(f"OpenFHE's {name} is {value!r}, not a positive 64-bit number")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise CiphertextError(f"OpenFHE's serialised object has {type(value).__name__} in place of {name}")
    return value

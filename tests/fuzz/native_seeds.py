"""Seeds of the native targets, in the forms that the heads of csrc/tests/fuzz/*.cpp give."""

from __future__ import annotations

import struct

import numpy as np
from core_targets import fixed_randomness

import pppml_fast as pf
from pppml_fast.cipher.wire import HEADER_BYTES

__all__ = ["native_seeds"]

SETS = 17  # csrc/tests/fuzz/sets.cpp: three key modes of five or six sets
# Places of the presets' rings among the narrow and wide rings of csrc/tests/fuzz/sets.cpp.
RINGS = {"p31": 0, "p62": 5, "p50": 7}
RING_COUNT = 13


def native_seeds(name: str) -> list[bytes]:
    """Valid inputs of a native target: packed rows of real ciphertexts, and no change of what a target holds itself."""
    if name in ("rows", "hop"):
        return _packed(name)
    if name == "parameters":
        return _literals()
    heads = {
        "open": [bytes([choice, form, 2, 0, 0]) for choice in range(SETS) for form in range(3)],
        "turn": [
            bytes([choice, flags, 0, 0, 0]) + np.linspace(-1.1, 1.1, 20, dtype=np.float32).tobytes()
            for choice in range(SETS)
            for flags in range(4)
        ],
        "public_key": [bytes([choice, 91, 0, 0]) for choice in range(SETS)],
        "secret_key": [bytes([choice]) + struct.pack("<Hq", 5, 1) for choice in range(SETS)],
    }
    return heads[name]


def _packed(name: str) -> list[bytes]:
    seeds = []
    for preset, ring in RINGS.items():
        for length in (1, 140):
            params = pf.CkksParams.preset(preset, parties=3, clip=1.0, keys="secret")
            with fixed_randomness():
                payload = bytes(pf.keygen(params).secret.encrypt_bytes(np.linspace(-1, 1, length, dtype=np.float32)))
            seeds.append(_head(name, ring, length, 0) + payload[HEADER_BYTES:])
    # Residues of zero are valid in every ring, and so is one below the prime.
    seeds += [_head(name, ring, 1, edge) + bytes(240) for ring in range(RING_COUNT) for edge in (0, 21, 22, 23)]
    return seeds


def _head(name: str, ring: int, shift: int, edge: int) -> bytes:
    return bytes([2 * ring, shift, edge] if name == "rows" else [ring, shift % 2, edge, 1, 2, 3, 4])


def _literals() -> list[bytes]:
    """Sound sets of one prime and of two, in every mode."""
    seeds = []
    for log_degree, widths in ((11, (31,)), (12, (50,)), (12, (31, 30)), (10, (26,)), (15, (59,))):
        for modes in range(12):
            head = bytes([log_degree, len(widths), *widths, 3]) + struct.pack("<d", 1.0)
            seeds.append(head + bytes([modes % 3, modes // 3 % 2, modes // 6, 1]) + struct.pack("<Q", 5000))
    return seeds

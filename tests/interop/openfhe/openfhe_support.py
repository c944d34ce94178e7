"""OpenFHE's side of a test, and encryption with arrays alone for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import openfhe
import reference

from pppml_fast.interop.evaluation import EvaluationForm
from pppml_fast.interop.openfhe import OpenfheBridge, ResidueCiphertext

FEATURES = (
    openfhe.PKE,
    openfhe.KEYSWITCH,
    openfhe.LEVELEDSHE,
    openfhe.ADVANCEDSHE,
    openfhe.MULTIPARTY,
)


def make_context(
    depth: int = 0,
    technique: Any = openfhe.FIXEDMANUAL,
    ring_dimension: int = 4096,
    first: int = 50,
    scaling: int = 40,
    data_type: Any = openfhe.REAL,
    slots: int = 0,
) -> Any:
    """A context, insecure ones included: depth 2 at N = 4096 serves tests alone."""
    parameters = openfhe.CCParamsCKKSRNS()
    parameters.SetMultiplicativeDepth(depth)
    parameters.SetScalingTechnique(technique)
    parameters.SetRingDim(ring_dimension)
    parameters.SetFirstModSize(first)
    parameters.SetScalingModSize(scaling)
    parameters.SetCKKSDataType(data_type)
    parameters.SetSecurityLevel(openfhe.HEStd_NotSet)
    if slots:
        parameters.SetBatchSize(slots)
    context = openfhe.GenCryptoContext(parameters)
    for feature in FEATURES:
        context.Enable(feature)
    return context


class Side:
    """OpenFHE's side of a test: a context, its keys, and the bridge to it."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.keys = context.KeyGen()
        self.bridge = OpenfheBridge(context)

    def encrypt(self, values: np.ndarray, level: int = 0) -> Any:
        plain = self.context.MakeCKKSPackedPlaintext(values, 1, level, None, len(values))
        return self.context.Encrypt(self.keys.publicKey, plain)

    def decrypt(self, ciphertext: Any) -> np.ndarray:
        plain = self.context.Decrypt(self.keys.secretKey, ciphertext)
        return np.array(
            plain.GetCKKSPackedValueArray() if self.bridge.complex_slots else plain.GetRealPackedValueArray()
        )

    def values(self, seed: int, count: int | None = None) -> np.ndarray:
        """Random values within the unit square, real ones where the context keeps real parts alone."""
        generator = np.random.default_rng(seed)
        real, imaginary = generator.uniform(-1, 1, (2, count or self.bridge.slots))
        return real + 1j * imaginary if self.bridge.complex_slots else real


def error_bound(ring_dimension: int, scale: float, additions: int = 1) -> float:
    """Ten standard deviations of a slot: N coefficients of noise 3.2 sqrt(1 + 4N/3) each, turned by unit vectors.

    OpenFHE adds noise of at most the size that it estimates when it decrypts real slots, hence twice that.
    """
    deviation = 3.2 * np.sqrt((1 + 4 * ring_dimension / 3) * ring_dimension * additions)
    return float(2 * 10 * deviation / scale)


def encrypt_under(bridge: OpenfheBridge, public_key: Any, values: np.ndarray, level: int = 0) -> ResidueCiphertext:
    """Encrypt with arrays alone under OpenFHE's public key, as OpenFHE would: its scale, tag and level."""
    primes = bridge.primes[: len(bridge.primes) - level]
    key = bridge.read_public_key(public_key)
    own = EvaluationForm(bridge.ring_dimension, bridge.primes)
    b, a = own.to_coefficients(key.b)[: len(primes)], own.to_coefficients(key.a)[: len(primes)]
    scale, degree = bridge.fresh_scale(level)
    message = reference.encode(values, bridge.ring_dimension, scale)
    residues = reference.encrypt(b, a, message, primes)
    return ResidueCiphertext(residues, primes, scale, len(values), level, degree, key.key_tag)


def encrypted_here(there: Side, values: np.ndarray, level: int = 0) -> ResidueCiphertext:
    """The same under the key of a side."""
    return encrypt_under(there.bridge, there.keys.publicKey, values, level)


def opened_here(there: Side, ciphertext: ResidueCiphertext) -> np.ndarray:
    secret = there.bridge.read_secret_key(there.keys.secretKey)
    values = reference.decrypt(ciphertext.residues, secret, ciphertext.primes, ciphertext.scale, ciphertext.slots)
    return values if there.bridge.complex_slots else values.real

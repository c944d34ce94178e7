"""Sums with OpenFHE: vectors encrypted here under its keys, as ciphertexts that it adds and decrypts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pppml_fast.cipher import Ciphertext, PublicKey, SecretKey
from pppml_fast.errors import CiphertextError
from pppml_fast.interop.blocks import residue_blocks
from pppml_fast.interop.openfhe.bridge import OpenfheBridge
from pppml_fast.levelled import LevelledCiphertext, sum_error
from pppml_fast.params import CkksParams

__all__ = ["OpenfheExchange"]


class OpenfheExchange:
    """Encrypts under an OpenFHE public key, or a joint one, for sums of up to ``parties`` vectors within ``clip``.

    ``params`` has the context's ring, the primes of ``level``, its packing (``real_slots``, or ``slots`` where the
    context keeps imaginary parts) and exactly the scale of OpenFHE's own ciphertexts there, so that it adds them to its
    own. Raises ParameterError when no sound set is: below 128 bits, or a scale that leaves no room for ``parties``.
    """

    def __init__(self, bridge: OpenfheBridge, public_key: Any, *, parties: int, clip: float, level: int = 0) -> None:
        self.bridge = bridge
        self.level = level
        scale, self._degree = bridge.fresh_scale(level)
        self.params = CkksParams(
            "openfhe",
            bridge.ring_dimension,
            bridge.primes[: len(bridge.primes) - level],
            parties,
            clip,
            packing="slots" if bridge.complex_slots else "real_slots",
            slot_scale=scale,
        )
        key = bridge.read_public_key(public_key).under(len(self.params.primes))
        self.key_tag = key.key_tag
        self.public_key = PublicKey.from_residues(self.params, key.b, key.a)

    def secret_key(self, private_key: Any) -> SecretKey:
        """The secret key that opens what :attr:`public_key` encrypted, exactly: an ``openfhe.PrivateKey`` read.

        Raises CiphertextError when its tag is another's, InputError when it is not ternary: a sum of shares, say.
        """
        if private_key.GetKeyTag() != self.key_tag:
            raise CiphertextError(f"the secret key is {private_key.GetKeyTag()}'s, the public key {self.key_tag}'s")
        return SecretKey.from_coefficients(self.params, self.bridge.read_secret_key(private_key))

    def send(self, ciphertext: Ciphertext) -> list[Any]:
        """The ``openfhe.Ciphertext`` of every block, in order: N/2 slots each, the last one padded with zeros.

        Raises CiphertextError when it was made under other parameters than :attr:`params`.
        """
        if ciphertext.params.id != self.params.id:
            raise CiphertextError(f"{ciphertext!r} was made under other parameters than this exchange's")
        blocks = residue_blocks(ciphertext, self.level, self._degree, self.key_tag)
        return [self.bridge.write_ciphertext(block) for block in blocks]

    def receive(
        self, ciphertexts: Sequence[Any], length: int, *, bound: float, error: float | None = None
    ) -> LevelledCiphertext:
        """OpenFHE's ciphertexts, one per block, as a levelled one of ``length`` weights: it decrypts rounded.

        ``bound`` is on the magnitude of a slot's value; ``error`` on that of its error, by default that of one fresh
        encryption of OpenFHE's, or of ours if that is larger, for every term of up to ``parties``. Raises
        CiphertextError when the blocks differ in level, scale or key, are not pairs, or do not fit ``length``.
        """
        blocks = [self.bridge.read_ciphertext(ciphertext) for ciphertext in ciphertexts]
        if not blocks or len(blocks) != self.params.block_count(length):
            raise CiphertextError(
                f"{len(blocks)} ciphertexts for {length} weights, which take {self.params.block_count(length)}"
            )
        head = blocks[0]
        for block in blocks:
            if len(block.residues) != 2 or block.slots != self.bridge.ring_dimension // 2:
                raise CiphertextError(
                    f"a ciphertext of {len(block.residues)} polynomials and {block.slots} slots; pairs of N/2 slots "
                    "are received: relinearise products, encrypt without a smaller batch size"
                )
            if (block.primes, block.scale, block.key_tag) != (head.primes, head.scale, self.key_tag):
                raise CiphertextError("the ciphertexts are not of one level, scale and key, the one of this exchange")
        pairs = np.stack([block.residues for block in blocks])
        return LevelledCiphertext.from_residues(
            self.params,
            pairs[:, 0],
            pairs[:, 1],
            length=length,
            scale=head.scale,
            bound=bound,
            error=self.fresh_error * self.params.parties if error is None else error,
        )

    @property
    def fresh_error(self) -> float:
        """Bound on the magnitude of a slot's error of one fresh encryption, by OpenFHE or here.

        Ours covers the encoding and noise of deviation 3.2. OpenFHE's noise has 3.19; its encoding rounds coefficients
        by at most 1/2, which is added.
        """
        return sum_error(self.params, 1) + 0.5 * self.params.ring_dimension / self.params.total_scale

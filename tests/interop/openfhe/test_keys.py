"""Public and secret keys in both directions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import openfhe
import pytest
import reference
from openfhe_support import encrypted_here, error_bound

from pppml_fast.errors import CiphertextError
from pppml_fast.interop.evaluation import EvaluationForm
from pppml_fast.interop.openfhe import OpenfheBridge, PublicResidues, new_key_tag

Sides = Callable[..., Any]
BOTH = pytest.mark.parametrize("options", [{}, {"depth": 2, "technique": openfhe.FLEXIBLEAUTO}], ids=["p50", "three"])


def made_here(bridge: OpenfheBridge) -> tuple[np.ndarray, PublicResidues]:
    secret, b, a = reference.keygen(bridge.ring_dimension, bridge.primes)
    own = EvaluationForm(bridge.ring_dimension, bridge.primes)
    return secret, PublicResidues(own.from_coefficients(b), own.from_coefficients(a), bridge.primes, new_key_tag())


@BOTH
def test_their_public_key_is_an_encryption_of_zero_under_their_secret(side: Sides, options: dict[str, Any]) -> None:
    there = side(**options)
    bridge = there.bridge
    key, secret = bridge.read_public_key(there.keys.publicKey), bridge.read_secret_key(there.keys.secretKey)
    assert set(np.unique(secret)) == {-1, 0, 1}
    assert key.key_tag == there.keys.publicKey.GetKeyTag()
    own = EvaluationForm(bridge.ring_dimension, bridge.primes)
    noise = reference.phase(np.stack([own.to_coefficients(key.b), own.to_coefficients(key.a)]), secret, bridge.primes)
    assert 0 < np.std(np.array(noise, float)) < 4
    assert max(map(abs, noise)) < 3.2 * 10


@BOTH
def test_keys_made_here_serve_there(side: Sides, options: dict[str, Any]) -> None:
    there = side(**options)
    secret, public = made_here(there.bridge)
    written_public = there.bridge.write_public_key(public)
    written_secret = there.bridge.write_secret_key(secret, public.key_tag)
    assert written_public.GetKeyTag() == written_secret.GetKeyTag() == public.key_tag
    values = there.values(1)
    made = there.context.Encrypt(written_public, there.context.MakeCKKSPackedPlaintext(values))
    read = there.bridge.read_ciphertext(made)
    opened = reference.decrypt(read.residues, secret, read.primes, read.scale, read.slots).real
    assert np.abs(opened - values).max() < error_bound(4096, read.scale)
    opened = there.context.Decrypt(written_secret, made).GetRealPackedValueArray()
    assert np.abs(opened - values).max() < error_bound(4096, read.scale)


@BOTH
def test_keys_come_back_unchanged(side: Sides, options: dict[str, Any]) -> None:
    there = side(**options)
    secret, public = made_here(there.bridge)
    again = there.bridge.read_public_key(there.bridge.write_public_key(public))
    assert (again.b == public.b).all() and (again.a == public.a).all()
    assert (again.primes, again.key_tag) == (public.primes, public.key_tag)
    assert (there.bridge.read_secret_key(there.bridge.write_secret_key(secret)) == secret).all()


def test_an_evaluation_key_of_a_key_made_here_multiplies(side: Sides) -> None:
    """OpenFHE makes what it needs for products out of a secret key that came from here."""
    there = side(depth=2)
    secret, public = made_here(there.bridge)
    written = there.bridge.write_secret_key(secret, public.key_tag)
    there.context.EvalMultKeyGen(written)
    key, values = there.bridge.write_public_key(public), there.values(2)
    made = there.context.Encrypt(key, there.context.MakeCKKSPackedPlaintext(values))
    squared = there.context.Rescale(there.context.EvalMult(made, made))
    opened = there.context.Decrypt(written, squared).GetRealPackedValueArray()
    assert np.abs(opened - values**2).max() < 4 * error_bound(4096, 2.0**40)


def test_fresh_tags_differ_and_empty_ones_are_replaced(side: Sides) -> None:
    there = side()
    secret, public = made_here(there.bridge)
    untagged = dataclasses.replace(public, key_tag="")
    tags = {there.bridge.write_public_key(untagged).GetKeyTag() for _ in range(3)}
    tags |= {there.bridge.write_secret_key(secret).GetKeyTag() for _ in range(3)}
    assert len(tags) == 6
    assert all(len(tag) == 32 for tag in tags)


@pytest.mark.parametrize("damage", ["length", "size", "dimensions"])
def test_what_is_no_secret_key_is_not_written(side: Sides, damage: str) -> None:
    secret = np.ones(4096, np.int64)
    secret = {"length": secret[:2048], "size": secret << 30, "dimensions": secret.reshape(64, 64)}[damage]
    with pytest.raises(CiphertextError, match="4096 small coefficients"):
        side().bridge.write_secret_key(secret)


def test_keys_of_other_primes_are_not_written(side: Sides) -> None:
    _, public = made_here(side(depth=2).bridge)
    with pytest.raises(CiphertextError, match="does not fit"):
        side().bridge.write_public_key(public)


def test_ciphertexts_of_a_key_made_here_and_of_theirs_do_not_mix(side: Sides) -> None:
    there = side()
    _, public = made_here(there.bridge)
    tagged = dataclasses.replace(encrypted_here(there, there.values(3)), key_tag=public.key_tag)
    with pytest.raises(RuntimeError, match=r"(?i)key"):
        there.context.EvalAdd(there.bridge.write_ciphertext(tagged), there.encrypt(there.values(4)))

"""Ciphertexts in both directions: encrypted by the reference and decrypted by OpenFHE, and the reverse."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import openfhe
import pytest
from openfhe_support import encrypted_here, error_bound, opened_here

from pppml_fast import PRESETS
from pppml_fast.interop.evaluation import EvaluationForm
from pppml_fast.interop.openfhe import OpenfheBridge
from pppml_fast.interop.openfhe import bridge as openfhe_bridge

Sides = Callable[..., Any]

CONTEXTS: dict[str, dict[str, Any]] = {
    "p50": {},
    "real slots of 8": {"slots": 8},
    "complex": {"data_type": openfhe.COMPLEX},
    "60 bits": {"ring_dimension": 8192, "first": 60, "scaling": 50},
    "fixed manual": {"depth": 2},
    "fixed auto": {"depth": 2, "technique": openfhe.FIXEDAUTO},
    "flexible": {"depth": 2, "technique": openfhe.FLEXIBLEAUTO},
    "complex flexible": {"depth": 2, "technique": openfhe.FLEXIBLEAUTO, "data_type": openfhe.COMPLEX},
}
CASES = pytest.mark.parametrize("options", CONTEXTS.values(), ids=CONTEXTS.keys())


def test_openfhe_chooses_our_prime(side: Sides) -> None:
    bridge = side().bridge
    assert (bridge.ring_dimension, bridge.primes) == (PRESETS["p50"].ring_dimension, PRESETS["p50"].primes)
    assert bridge.form().roots == EvaluationForm(4096, bridge.primes).roots


@CASES
def test_encrypted_here_decrypted_there(side: Sides, options: dict[str, Any]) -> None:
    there = side(**options)
    values = there.values(1)
    opened = there.decrypt(there.bridge.write_ciphertext(encrypted_here(there, values)))
    scale, _ = there.bridge.fresh_scale()
    assert 0 < np.abs(opened - values).max() < error_bound(there.bridge.ring_dimension, scale)


@CASES
def test_encrypted_there_decrypted_here(side: Sides, options: dict[str, Any]) -> None:
    there = side(**options)
    values = there.values(2)
    read = there.bridge.read_ciphertext(there.encrypt(values))
    assert (read.primes, read.level, read.slots) == (there.bridge.primes, 0, len(values))
    assert (read.scale, read.degree) == there.bridge.fresh_scale()
    assert 0 < np.abs(opened_here(there, read) - values).max() < error_bound(there.bridge.ring_dimension, read.scale)


@CASES
def test_openfhe_adds_ours_to_its_own(side: Sides, options: dict[str, Any]) -> None:
    there = side(**options)
    ours, theirs = there.values(3), there.values(4)
    written = there.bridge.write_ciphertext(encrypted_here(there, ours))
    own, scale = there.encrypt(theirs), there.bridge.fresh_scale()[0]
    bound = error_bound(there.bridge.ring_dimension, scale, 2)
    for total in (there.context.EvalAdd(written, own), there.context.EvalAdd(own, written)):
        assert np.abs(there.decrypt(total) - ours - theirs).max() < bound
        assert np.abs(opened_here(there, there.bridge.read_ciphertext(total)) - ours - theirs).max() < bound


@CASES
def test_we_add_theirs_to_our_own(side: Sides, options: dict[str, Any]) -> None:
    there = side(**options)
    ours, theirs = there.values(5), there.values(6)
    total = encrypted_here(there, ours) + there.bridge.read_ciphertext(there.encrypt(theirs))
    opened = there.decrypt(there.bridge.write_ciphertext(total))
    assert np.abs(opened - ours - theirs).max() < error_bound(there.bridge.ring_dimension, total.scale, 2)


@CASES
def test_the_way_there_and_back_changes_no_residue(side: Sides, options: dict[str, Any]) -> None:
    there = side(**options)
    read = there.bridge.read_ciphertext(there.encrypt(there.values(7)))
    again = there.bridge.read_ciphertext(there.bridge.write_ciphertext(read))
    assert (again.residues == read.residues).all()
    for field in dataclasses.fields(read):
        if field.name != "residues":
            assert getattr(again, field.name) == getattr(read, field.name), field.name


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("technique", [openfhe.FIXEDMANUAL, openfhe.FLEXIBLEAUTO], ids=["fixed", "flexible"])
def test_lower_levels(side: Sides, technique: Any, level: int) -> None:
    there = side(depth=2, technique=technique)
    values = there.values(8)
    read = there.bridge.read_ciphertext(there.encrypt(values, level))
    assert (read.level, read.primes) == (level, there.bridge.primes[:-level])
    assert np.abs(opened_here(there, read) - values).max() < error_bound(4096, read.scale)
    written = there.bridge.write_ciphertext(encrypted_here(there, values, level))
    assert np.abs(there.decrypt(written) - values).max() < error_bound(4096, read.scale)


def test_products_are_read_before_and_after_relinearisation_and_rescaling(side: Sides) -> None:
    there = side(depth=2)
    there.context.EvalMultKeyGen(there.keys.secretKey)
    left, right = there.values(9), there.values(10)
    written = there.bridge.write_ciphertext(encrypted_here(there, left))
    three = there.context.EvalMultNoRelin(written, there.encrypt(right))
    two = there.context.Relinearize(three)
    lower = there.context.Rescale(two)
    for product, shape, level, degree in ((three, (3, 3), 0, 2), (two, (2, 3), 0, 2), (lower, (2, 2), 1, 1)):
        read = there.bridge.read_ciphertext(product)
        assert (read.residues.shape[:2], read.level, read.degree) == (shape, level, degree)
        # Either factor's error is multiplied by values below 1; rescaling by a prime near 2^40 shifts the scale.
        assert np.abs(opened_here(there, read) - left * right).max() < 4 * error_bound(4096, 2.0**40)
    back = there.bridge.write_ciphertext(there.bridge.read_ciphertext(lower))
    assert np.abs(there.decrypt(back) - left * right).max() < 4 * error_bound(4096, 2.0**40)


def test_the_extended_technique_encrypts_at_its_own_scale(side: Sides) -> None:
    """FLEXIBLEAUTOEXT: one more prime, degree 2, and a scale beyond a message of 64-bit integers."""
    there = side(depth=2, technique=openfhe.FLEXIBLEAUTOEXT)
    values = there.values(11)
    read = there.bridge.read_ciphertext(there.encrypt(values))
    assert (len(read.primes), read.degree) == (4, 2)
    assert np.abs(opened_here(there, read) - values).max() < error_bound(4096, 2.0**50)
    total = there.bridge.write_ciphertext(read + read)
    assert np.abs(there.decrypt(total) - 2 * values).max() < error_bound(4096, 2.0**40, 2)


def test_the_second_ciphertext_of_a_kind_is_read_from_its_binary_form(
    side: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = side()
    bridge = OpenfheBridge(there.context)
    bridge.read_ciphertext(there.encrypt(there.values(12)))
    bridge.write_ciphertext(encrypted_here(there, there.values(13)))
    serialize, forms = openfhe.Serialize, []
    monkeypatch.setattr(openfhe, "Serialize", lambda thing, form: (forms.append(form), serialize(thing, form))[1])
    values = there.values(14)
    read = bridge.read_ciphertext(there.encrypt(values))
    bridge.write_ciphertext(read)
    assert set(forms) == {openfhe.BINARY}
    assert np.abs(opened_here(there, read) - values).max() < error_bound(4096, read.scale)


def test_skipped_tables_are_there_again_afterwards(side: Sides) -> None:
    """OpenFHE keeps the tables of a context that it has, and makes those of a new one."""
    there = side()
    bridge = OpenfheBridge(there.context, skip_tables=True)
    values = there.values(16)
    written = bridge.write_ciphertext(encrypted_here(there, values))
    total = there.context.EvalAdd(written, there.encrypt(values))
    assert np.abs(there.decrypt(total) - 2 * values).max() < error_bound(4096, 2.0**40, 2)
    run = subprocess.run(
        [sys.executable, "-c", FRESH_CONTEXT], capture_output=True, text=True, timeout=900, check=False
    )
    assert (run.returncode, run.stdout) == (0, "decrypted\n"), run.stderr


FRESH_CONTEXT = """
import openfhe
from pppml_fast.interop.openfhe import OpenfheBridge

def context(scaling):
    parameters = openfhe.CCParamsCKKSRNS()
    parameters.SetMultiplicativeDepth(0)
    parameters.SetRingDim(2048)
    parameters.SetFirstModSize(50)
    parameters.SetScalingModSize(scaling)
    parameters.SetSecurityLevel(openfhe.HEStd_NotSet)
    made = openfhe.GenCryptoContext(parameters)
    for feature in (openfhe.PKE, openfhe.KEYSWITCH, openfhe.LEVELEDSHE):
        made.Enable(feature)
    return made

saved = openfhe.Serialize(context(30), openfhe.BINARY)
openfhe.ReleaseAllContexts()
bridge = OpenfheBridge(context(35), skip_tables=True)
keys = bridge.context.KeyGen()
own = bridge.context.Encrypt(keys.publicKey, bridge.context.MakeCKKSPackedPlaintext([0.5]))
bridge.write_ciphertext(bridge.read_ciphertext(own))
again = openfhe.DeserializeCryptoContextString(saved, openfhe.BINARY)
keys = again.KeyGen()
made = again.Encrypt(keys.publicKey, again.MakeCKKSPackedPlaintext([0.25]))
assert abs(again.Decrypt(keys.secretKey, made).GetRealPackedValueArray()[0] - 0.25) < 1e-3
print("decrypted")
"""


def test_many_kinds_do_not_pile_up(side: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openfhe_bridge, "_MOST_FRAMES", 8)
    there = side()
    bridge = OpenfheBridge(there.context)
    like = bridge.read_ciphertext(there.encrypt(there.values(15)))
    for bits in range(20):
        scaled = dataclasses.replace(like, scale=like.scale * 2.0**-bits)
        assert bridge.read_ciphertext(bridge.write_ciphertext(scaled)).scale == scaled.scale
    assert len(bridge._writers) <= 8
    assert sum(map(len, bridge._readers.values())) <= 8

"""Keys of several parties: encrypted here under the joint public key, decrypted there by shares."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import reference
from openfhe_support import encrypt_under, make_context

from pppml_fast.interop.evaluation import EvaluationForm
from pppml_fast.interop.openfhe import OpenfheBridge

PARTIES = 3


class Joint(NamedTuple):
    """A context, the parties' key pairs (the last one holds the joint public key), and the bridge."""

    context: Any
    pairs: list[Any]
    bridge: OpenfheBridge

    def decrypt(self, ciphertext: Any, absent: int | None = None) -> np.ndarray:
        """By shares: the first party leads, the others follow; whoever fuses learns the values."""
        shares = []
        for index, pair in enumerate(self.pairs):
            if index != absent:
                share = self.context.MultipartyDecryptMain if index else self.context.MultipartyDecryptLead
                shares.append(share([ciphertext], pair.secretKey)[0])
        return np.array(self.context.MultipartyDecryptFusion(shares).GetRealPackedValueArray())


@pytest.fixture(scope="module", params=[0, 2], ids=["one prime", "three primes"])
def joint(request: pytest.FixtureRequest) -> Joint:
    context = make_context(depth=request.param, first=60, scaling=50, ring_dimension=8192)
    pairs = [context.KeyGen()]
    while len(pairs) < PARTIES:
        pairs.append(context.MultipartyKeyGen(pairs[-1].publicKey))
    return Joint(context, pairs, OpenfheBridge(context))


def flooded_bound(bridge: OpenfheBridge) -> float:
    """Each share carries flooding noise of OpenFHE's fixed-noise mode, sigma = 2^20: ten deviations of a slot's sum."""
    return float(10 * 2**20 * np.sqrt(PARTIES * bridge.ring_dimension) / bridge.fresh_scale()[0])


def values(bridge: OpenfheBridge, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, bridge.slots)


def test_encrypted_here_under_the_joint_key_decrypted_there_by_shares(joint: Joint) -> None:
    given = [values(joint.bridge, seed) for seed in range(PARTIES)]
    key = joint.pairs[-1].publicKey
    encrypted = [encrypt_under(joint.bridge, key, one) for one in given]
    total = joint.bridge.write_ciphertext(encrypted[0] + encrypted[1] + encrypted[2])
    assert np.abs(joint.decrypt(total) - sum(given)).max() < flooded_bound(joint.bridge)


def test_encrypted_there_under_the_joint_key_opened_here_by_the_sum_of_the_shares(joint: Joint) -> None:
    given = values(joint.bridge, 4)
    made = joint.context.Encrypt(joint.pairs[-1].publicKey, joint.context.MakeCKKSPackedPlaintext(given))
    read = joint.bridge.read_ciphertext(made)
    secret = sum(joint.bridge.read_secret_key(pair.secretKey) for pair in joint.pairs)
    opened = reference.decrypt(read.residues, secret, read.primes, read.scale, read.slots).real
    assert np.abs(opened - given).max() < 1e-9


def test_a_partial_decryption_is_read(joint: Joint) -> None:
    """One polynomial: c0 + c1 s_1 of the lead, and noise."""
    made = encrypt_under(joint.bridge, joint.pairs[-1].publicKey, values(joint.bridge, 5))
    share = joint.context.MultipartyDecryptLead([joint.bridge.write_ciphertext(made)], joint.pairs[0].secretKey)[0]
    read = joint.bridge.read_ciphertext(share)
    assert (read.residues.shape, read.key_tag) == ((1, len(joint.bridge.primes), 8192), made.key_tag)


def test_a_missing_share_opens_nothing(joint: Joint) -> None:
    """OpenFHE's own check of the imaginary parts refuses what is no encoding of real values."""
    made = encrypt_under(joint.bridge, joint.pairs[-1].publicKey, values(joint.bridge, 6))
    with pytest.raises(RuntimeError, match="approximation error is too high"):
        joint.decrypt(joint.bridge.write_ciphertext(made), absent=1)


def test_openfhe_adds_to_what_came_from_here(joint: Joint) -> None:
    ours, theirs = values(joint.bridge, 7), values(joint.bridge, 8)
    key = joint.pairs[-1].publicKey
    written = joint.bridge.write_ciphertext(encrypt_under(joint.bridge, key, ours))
    own = joint.context.Encrypt(key, joint.context.MakeCKKSPackedPlaintext(theirs))
    total = joint.context.EvalAdd(written, own)
    assert np.abs(joint.decrypt(total) - ours - theirs).max() < flooded_bound(joint.bridge)


def test_the_joint_key_is_the_sum_of_the_shares(joint: Joint) -> None:
    bridge = joint.bridge
    key = bridge.read_public_key(joint.pairs[-1].publicKey)
    secret = sum(bridge.read_secret_key(pair.secretKey) for pair in joint.pairs)
    own = EvaluationForm(bridge.ring_dimension, bridge.primes)
    pair = np.stack([own.to_coefficients(key.b), own.to_coefficients(key.a)])
    noise = reference.phase(pair, secret, bridge.primes)
    assert max(map(abs, noise)) < 10 * 3.2 * np.sqrt(PARTIES)

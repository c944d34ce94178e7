"""SEAL, through TenSEAL's binding of it: its saved objects are read here, ours are loaded there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import tenseal.sealapi as seal
import zstandard

import pppml_fast as pf
from pppml_fast.errors import CiphertextError, ParameterError
from pppml_fast.interop.blocks import residue_blocks
from pppml_fast.interop.residues import PublicResidues, ResidueCiphertext
from pppml_fast.interop.seal import SealBridge

SCALE = 2.0**40


class There:
    """SEAL's side: a context, its keys, and files to pass objects through."""

    def __init__(self, folder: Path, ring_dimension: int, bits: list[int]) -> None:
        self.folder = folder
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(ring_dimension)
        parameters.set_coeff_modulus(seal.CoeffModulus.Create(ring_dimension, bits))
        self.context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        generator = seal.KeyGenerator(self.context)
        self.secret, self.public = generator.secret_key(), seal.PublicKey()
        generator.create_public_key(self.public)
        self.encoder, self.evaluator = seal.CKKSEncoder(self.context), seal.Evaluator(self.context)
        self.bridge = SealBridge(ring_dimension, [modulus.value() for modulus in parameters.coeff_modulus()])
        self.relinearisation = seal.RelinKeys()
        if len(bits) > 1:
            generator.create_relin_keys(self.relinearisation)

    def values(self, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).uniform(-1, 1, self.encoder.slot_count())

    def encrypt(self, values: np.ndarray, public: Any = None) -> Any:
        plain, made = seal.Plaintext(), seal.Ciphertext()
        self.encoder.encode([float(v) for v in values], SCALE, plain)
        seal.Encryptor(self.context, public or self.public).encrypt(plain, made)
        return made

    def decrypt(self, ciphertext: Any, secret: Any = None) -> np.ndarray:
        plain = seal.Plaintext()
        seal.Decryptor(self.context, secret or self.secret).decrypt(ciphertext, plain)
        return np.array(self.encoder.decode_double(plain))

    def saved(self, thing: Any) -> bytes:
        thing.save(str(self.folder / "saved"))
        return (self.folder / "saved").read_bytes()

    def loaded(self, kind: Any, data: bytes) -> Any:
        (self.folder / "written").write_bytes(data)
        thing = kind()
        thing.load(self.context, str(self.folder / "written"))
        return thing


@pytest.fixture(scope="module", params=[(4096, [36, 36, 37]), (8192, [60, 40, 40, 60]), (8192, [60])], ids=str)
def there(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> There:
    ring_dimension, bits = request.param
    return There(tmp_path_factory.mktemp("seal"), ring_dimension, bits)


def bound(there: There, terms: int = 1) -> float:
    """Ten standard deviations of a slot: N coefficients of noise 3.2 sqrt(1 + 4N/3) each."""
    n = there.bridge.ring_dimension
    return float(10 * 3.2 * np.sqrt((1 + 4 * n / 3) * n * terms) / SCALE)


def in_our_order(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    ours = np.empty(len(values))
    ours[index] = values
    return ours


def encrypted_here(there: There, values: np.ndarray, level: int = 0) -> ResidueCiphertext:
    bridge = there.bridge
    count = len(bridge.primes) - level
    key, form = bridge.read_public_key(there.saved(there.public)).under(count), bridge._form_of(count)
    ours = in_our_order(values, bridge.slot_order()[0])
    message = reference.encode(ours, bridge.ring_dimension, SCALE)
    residues = reference.encrypt(form.to_coefficients(key.b), form.to_coefficients(key.a), message, key.primes)
    return ResidueCiphertext(residues, key.primes, SCALE, len(values), level)


def opened_here(there: There, ciphertext: ResidueCiphertext) -> np.ndarray:
    secret = there.bridge.read_secret_key(there.saved(there.secret))
    values = reference.decrypt(ciphertext.residues, secret, ciphertext.primes, ciphertext.scale, ciphertext.slots)
    return values.real[there.bridge.slot_order()[0]]


def test_the_secret_is_ternary(there: There) -> None:
    assert set(np.unique(there.bridge.read_secret_key(there.saved(there.secret)))) == {-1, 0, 1}


def test_encrypted_there_decrypted_here(there: There) -> None:
    values = there.values(1)
    read = there.bridge.read_ciphertext(there.saved(there.encrypt(values)))
    assert (read.primes, read.level, read.scale) == (there.bridge.primes, 0, SCALE)
    assert 0 < np.abs(opened_here(there, read) - values).max() < bound(there)


def test_encrypted_here_decrypted_there(there: There) -> None:
    values = there.values(2)
    made = there.loaded(seal.Ciphertext, there.bridge.write_ciphertext(encrypted_here(there, values)))
    assert 0 < np.abs(there.decrypt(made) - values).max() < bound(there)


def test_sums_of_both_on_either_side(there: There) -> None:
    ours, theirs = there.values(3), there.values(4)
    here, own = encrypted_here(there, ours), there.encrypt(theirs)
    total = seal.Ciphertext()
    there.evaluator.add(own, there.loaded(seal.Ciphertext, there.bridge.write_ciphertext(here)), total)
    assert np.abs(there.decrypt(total) - ours - theirs).max() < bound(there, 2)
    added = here + there.bridge.read_ciphertext(there.saved(own))
    made = there.loaded(seal.Ciphertext, there.bridge.write_ciphertext(added))
    assert np.abs(there.decrypt(made) - ours - theirs).max() < bound(there, 2)


def test_products_and_lower_levels(tmp_path: Path) -> None:
    there = There(tmp_path, 8192, [60, 40, 40, 60])
    left, right = there.values(5), there.values(6)
    product = seal.Ciphertext()
    made = there.loaded(seal.Ciphertext, there.bridge.write_ciphertext(encrypted_here(there, left)))
    there.evaluator.multiply(made, there.encrypt(right), product)
    assert np.abs(opened_here(there, there.bridge.read_ciphertext(there.saved(product))) - left * right).max() < 1e-5
    there.evaluator.relinearize_inplace(product, there.relinearisation)
    there.evaluator.rescale_to_next_inplace(product)
    read = there.bridge.read_ciphertext(there.saved(product))
    assert (read.level, read.primes) == (1, there.bridge.primes[:-1])
    assert np.abs(opened_here(there, read) - left * right).max() < 1e-5
    lower = there.loaded(seal.Ciphertext, there.bridge.write_ciphertext(encrypted_here(there, left, level=1)))
    assert np.abs(there.decrypt(lower) - left).max() < bound(there)


def test_keys_made_here_serve_there(there: There) -> None:
    bridge, values = there.bridge, there.values(7)
    secret, b, a = reference.keygen(bridge.ring_dimension, bridge.key_primes)
    form = bridge._form
    public = PublicResidues(form.from_coefficients(b), form.from_coefficients(a), bridge.key_primes)
    theirs = there.loaded(seal.PublicKey, bridge.write_public_key(public))
    private = there.loaded(seal.SecretKey, bridge.write_secret_key(secret))
    opened = there.decrypt(there.encrypt(values, theirs), private)
    assert np.abs(opened - values).max() < bound(there)
    again = bridge.read_public_key(there.saved(theirs))
    assert (again.a == public.a).all() and (again.b == public.b).all()
    assert (bridge.read_secret_key(there.saved(private)) == secret).all()


def test_objects_of_other_parameters_are_refused(there: There) -> None:
    stranger = SealBridge(there.bridge.ring_dimension, there.bridge.key_primes[::-1])
    if stranger.key_primes == there.bridge.key_primes:
        stranger = SealBridge(there.bridge.ring_dimension, [1125899906826241])
    with pytest.raises(CiphertextError, match="other parameters"):
        stranger.read_ciphertext(there.saved(there.encrypt(there.values(8))))


@pytest.mark.parametrize("bits", [[60, 40, 40, 60], [60]], ids=str)
def test_sums_of_the_core_are_decrypted_there(tmp_path: Path, bits: list[int]) -> None:
    """Encrypted by the core under SEAL's public key, in SEAL's order of slots."""
    there = There(tmp_path, 8192, bits)
    bridge = there.bridge
    params = pf.CkksParams("seal", bridge.ring_dimension, bridge.primes, 2, 1.0, packing="real_slots", slot_scale=SCALE)
    key = bridge.read_public_key(there.saved(there.public)).under(len(bridge.primes))
    public = pf.PublicKey.from_residues(params, key.b, key.a)
    index, _ = bridge.slot_order()
    given = [there.values(12), there.values(13)]
    total = pf.add([public.encrypt(in_our_order(values, index)) for values in given])
    (block,) = residue_blocks(total)
    made = there.loaded(seal.Ciphertext, bridge.write_ciphertext(block))
    assert 0 < np.abs(there.decrypt(made) - sum(given)).max() < params.max_error


def test_a_scale_beyond_the_leading_prime_is_refused_by_the_core(tmp_path: Path) -> None:
    """Exact sums open modulo the leading primes up to 2^62: two of 36 bits are one too many, and one too few."""
    bridge = There(tmp_path, 4096, [36, 36, 37]).bridge
    with pytest.raises(ParameterError, match="seal"):
        pf.CkksParams("seal", 4096, bridge.primes, 2, 1.0, packing="real_slots", slot_scale=SCALE)


def test_slots_are_ordered_as_the_bridge_says(there: There) -> None:
    """By SEAL's own decoder, on complex values: no encryption between."""
    bridge = there.bridge
    values = there.values(10) + 1j * there.values(11)
    plain = seal.Plaintext()
    there.encoder.encode([complex(v) for v in values], SCALE, plain)
    made = seal.Ciphertext()
    seal.Encryptor(there.context, there.public).encrypt(plain, made)
    read = bridge.read_ciphertext(there.saved(made))
    secret = bridge.read_secret_key(there.saved(there.secret))
    ours = reference.decrypt(read.residues, secret, read.primes, read.scale, read.slots)
    index, conjugate = bridge.slot_order()
    assert sorted(index) == list(range(len(values)))
    assert np.abs(np.where(conjugate, ours[index].conj(), ours[index]) - values).max() < bound(there)


def test_compressed_objects_that_end_early_or_never_are_refused(there: There) -> None:
    data = there.saved(there.encrypt(there.values(9)))
    for size in (16, 17, 100, len(data) // 2, len(data) - 1):
        short = data[:8] + size.to_bytes(8, "little") + data[16:size]
        with pytest.raises(CiphertextError):
            there.bridge.read_ciphertext(short)
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 27))
    bomb = data[:8] + (16 + len(bomb)).to_bytes(8, "little") + bomb
    with pytest.raises(CiphertextError, match="takes more than"):
        there.bridge.read_ciphertext(bomb)

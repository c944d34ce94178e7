"""The stream cipher and the key derivations against those in `cryptography`."""

import hashlib

import oracle
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pppml_fast import CkksParams, _native
from pppml_fast.aggregation.pairwise import derive_key
from pppml_fast.cipher.expansion import expansion_key

KEY = hashlib.sha256(b"pppml known answer").digest()


@pytest.mark.parametrize("backend", _native.supported_backends())
@pytest.mark.parametrize("block", [0, 1, 2**40 + 5])
def test_streams_agree_with_a_vetted_library(backend: str, block: int) -> None:
    nonce = bytes(4) + (3).to_bytes(4, "little") + block.to_bytes(8, "little")
    theirs = Cipher(ChaCha20(KEY, nonce), None).encryptor().update(bytes(8192))
    assert _native.primitives.stream(KEY, 3, block, 0, 2048, backend).astype("<u4").tobytes() == theirs


@pytest.mark.parametrize("purpose", ["a", "mask", "tag"])
def test_expansion_keys_agree_with_a_vetted_library(purpose: str) -> None:
    params = CkksParams.preset("p50", parties=3, clip=1.0, keys="collective")
    theirs = HKDF(SHA256(), 32, b"pppml-fast public polynomials v1", params.id + purpose.encode()).derive(KEY)
    assert expansion_key(params, KEY, purpose) == theirs


@pytest.mark.parametrize("size", [32, 48])
def test_session_keys_are_hkdf_over_labels_with_their_lengths(size: int) -> None:
    info = (5).to_bytes(4, "little") + b"first" + (0).to_bytes(4, "little")
    assert derive_key(KEY, b"salt", b"first", b"", size=size) == oracle.hkdf(KEY, b"salt", info, size)

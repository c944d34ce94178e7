"""The stream cipher against the one in `cryptography`."""

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from pppml_fast import _native

KEY = hashlib.sha256(b"pppml known answer").digest()


@pytest.mark.parametrize("backend", _native.supported_backends())
@pytest.mark.parametrize("block", [0, 1, 2**40 + 5])
def test_streams_agree_with_a_vetted_library(backend: str, block: int) -> None:
    nonce = bytes(4) + (3).to_bytes(4, "little") + block.to_bytes(8, "little")
    theirs = Cipher(ChaCha20(KEY, nonce), None).encryptor().update(bytes(8192))
    assert _native.primitives.stream(KEY, 3, block, 0, 2048, backend).astype("<u4").tobytes() == theirs

"""Encryption, addition and exact opening: keys, ciphertexts, their bytes, and the sum check."""

from pppml_fast.cipher.ciphertext import Ciphertext, add
from pppml_fast.cipher.collective import CollectiveKey, OpeningKey
from pppml_fast.cipher.keys import KeyPair, PublicKey, SecretKey, keygen
from pppml_fast.cipher.sum_check import sum_check_tag, sum_check_verify
from pppml_fast.cipher.wire import Kind

__all__ = [
    "Ciphertext",
    "CollectiveKey",
    "KeyPair",
    "Kind",
    "OpeningKey",
    "PublicKey",
    "SecretKey",
    "add",
    "keygen",
    "sum_check_tag",
    "sum_check_verify",
]

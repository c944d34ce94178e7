"""AES-256 in counter mode as a private stream: published vectors, the cipher in `cryptography`, positions, samplers."""

import hashlib

import numpy as np
import oracle
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from pppml_fast import _native

primitives = _native.primitives
KEYS = [bytes(32), bytes([255]) * 32, hashlib.sha256(b"pppml known answer").digest()]
BACKENDS = _native.supported_backends()


def theirs(key: bytes, selector: int, block: int, first: int, count: int) -> bytes:
    """Words [first, first + count) of the stream by the vetted cipher, as bytes."""
    initial = selector.to_bytes(4, "little") + block.to_bytes(8, "little") + (first // 4).to_bytes(4, "big")
    skip = first % 4
    return Cipher(algorithms.AES(key), modes.CTR(initial)).encryptor().update(bytes(4 * (skip + count)))[4 * skip :]


def ours(key: bytes, selector: int, block: int, first: int, count: int, backend: str) -> bytes:
    return primitives.stream(key, selector, block, first, count, backend, "aes256").astype("<u4").tobytes()


def position(counter_block: str) -> tuple[int, int, int]:
    """Selector, block and first word at which a stream encrypts this counter block."""
    blocks = bytes.fromhex(counter_block)
    low, middle = int.from_bytes(blocks[:4], "little"), int.from_bytes(blocks[4:12], "little")
    return low, middle, 4 * int.from_bytes(blocks[12:], "big")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_block_of_fips_197(backend: str) -> None:
    # FIPS 197, appendix C.3.
    at = position("00112233445566778899aabbccddeeff")
    assert ours(bytes(range(32)), *at, 4, backend).hex() == "8ea2b7ca516745bfeafc49904b496089"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_key_stream_of_sp_800_38a(backend: str) -> None:
    # NIST SP 800-38A, F.5.5: the output blocks. The counter carries from its last byte into the one before.
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    expected = (
        "0bdf7df1591716335e9a8b15c860c502"
        "5a6e699d536119065433863c8f657b94"
        "1bc12c9c01610d5d0d8bd6a3378eca62"
        "2956e1c8693536b1bee99c73a31576b6"
    )
    at = position("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    assert ours(key, *at, 16, backend).hex() == expected


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("key", KEYS, ids=["zeros", "ones", "digest"])
@pytest.mark.parametrize(("selector", "block"), [(0, 0), (1, 1), (259, 2**40 + 5), (2**32 - 1, 2**64 - 1)])
def test_streams_agree_with_a_vetted_library(backend: str, key: bytes, selector: int, block: int) -> None:
    assert ours(key, selector, block, 0, 2048, backend) == theirs(key, selector, block, 0, 2048)


# Whole batches of 256 words and parts of them; counters that carry into each of their bytes, up to the last counter.
FIRST = [0, 1, 3, 4, 15, 16, 255, 256, 257, 1000, 1024, 4 * 2**16 - 8, 4 * 2**24 - 300, 4 * 2**32 - 2048]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("count", [0, 1, 5, 255, 256, 257, 512, 700, 2048])
def test_words_depend_on_their_position_alone(backend: str, first: int, count: int) -> None:
    assert ours(KEYS[2], 2, 2**33 + 1, first, count, backend) == theirs(KEYS[2], 2, 2**33 + 1, first, count)


@pytest.fixture
def words_of_aes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle's samplers read this cipher."""

    def word32(key: bytes, selector: int, block: int, index: int) -> int:
        return int.from_bytes(theirs(key, selector, block, index, 1), "little")

    monkeypatch.setattr(oracle, "word32", word32)


@pytest.mark.usefixtures("words_of_aes")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("table", sorted(oracle.GAUSSIANS))
@pytest.mark.parametrize("count", [1, 300, 1024])
def test_gaussian_agrees_with_the_oracle(backend: str, table: str, count: int) -> None:
    got = primitives.gaussian(table, KEYS[2], 3, 11, count, backend, "aes256")
    assert got.tolist() == oracle.gaussian(table, KEYS[2], 3, 11, count)


# Samples whose top 31 bits equal a threshold: (block, coefficient, that threshold), found by search.
TIES = [(36271, 231, 2075088713), (97759, 1873, 1996162088), (101150, 1889, 2147450987), (133161, 1488, 2147483354)]


@pytest.mark.usefixtures("words_of_aes")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("block", "coefficient", "top"), TIES)
def test_gaussian_ties_take_the_tie_word(backend: str, block: int, coefficient: int, top: int) -> None:
    assert int.from_bytes(ours(KEYS[2], 0, block, coefficient, 1, backend), "little") >> 1 == top
    got = primitives.gaussian("collective_error", KEYS[2], 0, block, 2048, backend, "aes256")
    assert got.tolist() == oracle.gaussian("collective_error", KEYS[2], 0, block, 2048)


@pytest.mark.usefixtures("words_of_aes")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [1, 300, 1024])
def test_ternary_agrees_with_the_oracle(backend: str, count: int) -> None:
    got = primitives.ternary(KEYS[2], 2, 11, count, backend, "aes256")
    assert got.tolist() == oracle.ternary(KEYS[2], 2, 11, count)


def test_the_ciphers_differ() -> None:
    assert not np.array_equal(
        primitives.stream(KEYS[2], 0, 0, 0, 64), primitives.stream(KEYS[2], 0, 0, 0, 64, "", "aes256")
    )


def test_an_unknown_cipher_is_an_error() -> None:
    with pytest.raises(_native.RequirementError, match="no stream cipher 'rot13'"):
        primitives.stream(KEYS[2], 0, 0, 0, 1, "", "rot13")

"""Threads: the same bits for any number of them, and the number under control."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

import pppml_fast as pf
from pppml_fast import _native

SEED = hashlib.sha256(b"threads").digest()
CONTEXT = hashlib.sha256(b"context").digest()


@pytest.fixture(autouse=True)
def _restore_threads() -> object:
    before = pf.get_num_threads()
    yield
    pf.set_num_threads(before)


def everything(params: pf.CkksParams, length: int) -> list[bytes]:
    scheme = params._scheme
    word = np.uint32 if scheme.word_bytes == 4 else np.uint64
    x = np.random.default_rng(3).normal(0, 0.5, length).astype(np.float32)
    secret = scheme.generate_secret(_native.StreamKey.from_bytes(SEED))
    noise = _native.StreamKey.from_bytes(CONTEXT)
    c0, c1 = np.zeros(scheme.words(length, True), word), None
    blocks = params.block_count(length)
    if params.keys == "public":
        c1 = np.zeros(scheme.words(length, False), word)
        pk0 = scheme.generate_public(secret, noise, SEED)
        scheme.encrypt_public(scheme.load_public(pk0, SEED), noise, [x], 1.0, c0, c1)
    else:
        scheme.encrypt(secret, noise, SEED, [x], 1.0, c0)
    total, loaded, opened = np.zeros_like(c0), np.zeros_like(c0), np.zeros(length, np.float32)
    scheme.add(length, True, [c0, c0], total)
    packed = scheme.pack(length, True, 0, blocks, c0)
    assert scheme.unpack(length, True, 0, blocks, packed, loaded)
    hop = scheme.hop(length, True, 3, blocks, scheme.pack(length, True, 3, blocks, c0), c0)
    assert hop is not None
    refused, largest, _ = scheme.open(secret, length, 1, c0, c1, None if params.keys == "public" else SEED, opened)
    arrays = [c0, total, loaded, opened, scheme.mask(length, SEED, True, c0), scheme.expand(length, SEED)]
    return [array.tobytes() for array in arrays] + [packed, hop, repr((refused, largest)).encode()]


@pytest.mark.parametrize("keys", ["public", "secret", "collective"])
@pytest.mark.parametrize("name", ["p31", "p50", "p62", "compact"])
def test_any_number_of_threads_gives_the_same_bits(name: str, keys: str) -> None:
    params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys=keys)
    length = 70 * params.block_weights + 41
    pf.set_num_threads(1)
    alone = everything(params, length)
    for threads in (2, 3, 5):
        pf.set_num_threads(threads)
        assert everything(params, length) == alone


def test_the_number_of_threads_follows_the_environment_and_the_caller() -> None:
    code = "import pppml_fast as pf; print(pf.get_num_threads()); pf.set_num_threads(3); print(pf.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "7"}, capture_output=True, check=True
    )
    assert done.stdout.split() == [b"7", b"3"]


@pytest.mark.parametrize("count", [0, -1, 1025, 1.5])
def test_a_number_of_threads_out_of_range_is_refused(count: float) -> None:
    with pytest.raises(pf.ParameterError, match=r"1 \.\. 1024"):
        pf.set_num_threads(count)  # type: ignore[arg-type]


def test_a_value_that_is_not_finite_is_named_whichever_thread_meets_it() -> None:
    pf.set_num_threads(4)
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
    x = np.zeros(100 * 2048, np.float32)
    x[[150_000, 200_000]] = np.nan
    with pytest.raises(pf.InputError, match="element 150000 "):
        pf.CollectiveKey.generate(params).encrypt(x, context=CONTEXT)

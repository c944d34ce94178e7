"""No randomness comes twice: not in a stream, not in another thread, not after a fork."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bounds import assert_all_independent, assert_distribution, assert_independent
from draws import BACKENDS, GAUSSIAN, ROW, STREAMS, TERNARY, centred, draws_of, key_of, public_rows

import pppml_fast as pf
from pppml_fast import _native

primitives = _native.primitives


@pytest.mark.parametrize(("backend", "cipher"), STREAMS)
def test_no_piece_of_a_stream_comes_twice(backend: str, cipher: str) -> None:
    # 128 bits are one AES block, or a quarter of ChaCha20's: 2^17 pieces are all different but for 2^-95.
    key = key_of(backend, cipher, "pieces")
    keys = [key, bytes([key[0] ^ 1]) + key[1:], key[:31] + bytes([key[31] ^ 128]), key[16:] + key[:16]]
    places = [(k, s, b) for k in keys for s in (0, 1, 2, 256, 2**31) for b in (0, 1, 256, 2**16, 2**32, 2**63)]
    count = draws_of(backend, ROW)
    data = b"".join(primitives.stream(*place, 0, count, backend, cipher).tobytes() for place in places)
    assert len({data[i : i + 16] for i in range(0, len(data), 16)}) == len(data) // 16 == len(places) * count // 4


@pytest.mark.parametrize("name", ["p31", "p62"])
@pytest.mark.parametrize(("backend", "cipher"), STREAMS)
def test_threads_share_no_randomness(backend: str, cipher: str, name: str) -> None:
    """Under the zero secret a pad is its error polynomial: that of every thread, and every a_j, occurs once."""
    params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys="collective")
    scheme, n = _native.Scheme(params._checked, backend, cipher), params.ring_dimension
    blocks = draws_of(backend, 2**18) // n
    length, half, width = blocks * n, blocks // 2, len(params.primes)
    key = key_of(backend, cipher, "threads")
    zero, noise = scheme.secret_from_coefficients(np.zeros(n, np.int64)), _native.StreamKey.from_bytes(key)
    before = pf.get_num_threads()

    def errors(start: int, stop: int) -> np.ndarray:
        pads = np.zeros((stop - start) * n * width, np.uint32)
        scheme.make_pads(zero, noise, key, length, start, stop, pads)
        return pads

    try:
        runs = []
        for threads in (1, 2, 3):
            pf.set_num_threads(threads)
            runs.append((errors(0, blocks), public_rows(scheme, params, blocks, key)))
        with ThreadPoolExecutor(2) as pool:
            parts = list(pool.map(errors, (0, half), (half, blocks)))
    finally:
        pf.set_num_threads(before)
    pads, rows = runs[0]
    assert all(np.array_equal(pads, other) and np.array_equal(rows, more) for other, more in runs)
    assert np.array_equal(np.concatenate(parts), pads)
    noise_rows = [
        centred(pads.reshape(blocks, width, n)[:, i].astype(np.int64), q) for i, q in enumerate(params.primes)
    ]
    assert all(np.array_equal(row, noise_rows[0]) for row in noise_rows), "one small polynomial under every prime"
    assert len({row.tobytes() for row in noise_rows[0]}) == blocks
    assert len({row.tobytes() for row in rows.reshape(-1, n)}) == blocks * width
    law = GAUSSIAN["collective_error"]
    assert_distribution(law, law.histogram(noise_rows[0]), "errors of pads")
    assert_independent(law, noise_rows[0][:half], law, noise_rows[0][half : 2 * half], "errors of two threads")


FORK = """
import hashlib, os, sys
import numpy as np
import pppml_fast as pf
from pppml_fast import _native

collective = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective", rounding="stochastic")
public = pf.CkksParams.preset("p31", parties=3, clip=1.0)
x, seed = np.zeros(2048, np.float32), bytes(32)
before = _native.StreamKey.from_system()
secrets = {params: params._scheme.generate_secret(before) for params in (collective, public)}
pk0 = public._scheme.generate_public(secrets[public], before, seed)

def rows():
    return np.zeros(2048, np.uint32)

def report():
    '''Collective secret, ternary secret, collective error, error of public encryption: each of a fresh system key.'''
    system = _native.StreamKey.from_system
    drawn = [params._scheme.generate_secret(system()).coefficients() for params in (collective, public)]
    pads, c0 = rows(), rows()
    zero = collective._scheme.secret_from_coefficients(np.zeros(2048, np.int64))
    collective._scheme.make_pads(zero, system(), seed, 2048, 0, 1, pads)
    public._scheme.encrypt_public(public._scheme.load_public(rows(), seed), system(), [x], 1.0, c0, rows())
    for row in (pads.astype(np.int64), c0.astype(np.int64)):
        q = public.primes[0]
        drawn.append((row + q // 2) % q - q // 2)
    return np.stack(drawn).astype("<i8").tobytes()

def refusals():
    '''How many uses of the secrets made before the fork are refused.'''
    pair, one = public._scheme, collective._scheme
    loaded = pair.load_public(pk0, seed)
    uses = [
        lambda: pair.generate_secret(before),
        lambda: one.generate_secret(before),
        lambda: secrets[collective].coefficients(),
        lambda: pair.generate_public(secrets[public], _native.StreamKey.from_system(), seed),
        lambda: pair.encrypt_public(loaded, before, [x], 1.0, rows(), rows()),
        lambda: one.encrypt(secrets[collective], _native.StreamKey.from_system(), seed, [x], 1.0, rows()),
        lambda: one.make_pads(secrets[collective], _native.StreamKey.from_system(), seed, 2048, 0, 1, rows()),
        lambda: one.make_pads(one.generate_secret(_native.StreamKey.from_system()), before, seed, 2048, 0, 1, rows()),
        lambda: one.encrypt_prepared(rows(), before, [x], 1.0, rows()),
        lambda: one.quantize([x], 1.0, rounding=before),
    ]
    refused = 0
    for use in uses:
        try:
            use()
        except _native.RequirementError as error:
            refused += "fork" in str(error)
    return refused, len(uses)

out = sys.stdout.buffer
out.write(report())
for child in range(3):
    out.flush()
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            refused, uses = refusals()
            # The last child speaks for a fork of its own.
            if child < 2 or os.fork() == 0:
                os.write(writer, report() if refused == uses else b"refused %d of %d" % (refused, uses))
            else:
                os.wait()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        out.write(pipe.read())
    os.wait()
out.write(report())
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_forks_share_no_randomness(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Parent, two children, a grandchild, and the parent again.
    monkeypatch.setenv("PPPML_BACKEND", backend)
    run = subprocess.run([sys.executable, "-c", FORK], capture_output=True, timeout=900, check=False)
    assert run.returncode == 0 and len(run.stdout) == 5 * 4 * 2048 * 8, (run.stderr, run.stdout[-100:])
    reports = np.frombuffer(run.stdout, "<i8").reshape(5, 4, 2048)
    laws = [GAUSSIAN["collective_secret"], TERNARY, GAUSSIAN["collective_error"], GAUSSIAN["error"]]
    for kind, law in enumerate(laws):
        assert_distribution(law, law.histogram(reports[:, kind]), f"fork, kind {kind}")
        assert len({row.tobytes() for row in reports[:, kind]}) == len(reports)
        assert_all_independent(law, reports[:, kind], f"processes, kind {kind},")

"""Keys: the mode they serve, the one message they encrypt, and what never leaves them."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
import threading
from typing import Any

import numpy as np
import pytest
from core_support import CONTEXT, MODES, SETS, fresh_parties, vector

import pppml_fast as pf


def params_of(keys: Any, name: str = "p31", **options: Any) -> pf.CkksParams:
    return pf.CkksParams.preset(name, **{"parties": 3, "clip": 1.0, "keys": keys, **options})


# --- modes -----------------------------------------------------------------------------------------------------------


def test_keys_of_another_mode_are_refused() -> None:
    public, secret, collective = (params_of(keys) for keys in MODES)
    for params in (public, secret):
        with pytest.raises(
            pf.ParameterError, match=f"needs parameters with keys='collective', not keys='{params.keys}'"
        ):
            pf.CollectiveKey.generate(params)
        with pytest.raises(pf.ParameterError, match="an opening key needs parameters with keys='collective'"):
            pf.OpeningKey.from_coefficients(params, np.zeros(2048, np.int64), terms=1)
    with pytest.raises(pf.ParameterError, match=r"use CollectiveKey.generate\(params\)"):
        pf.keygen(collective)
    with pytest.raises(pf.ParameterError, match="encrypting with the secret key needs keys='secret', not 'public'"):
        pf.keygen(public).secret.encrypt(vector(3))
    assert pf.keygen(secret).public is None
    data = pf.keygen(public).public.to_bytes()
    for params in (secret, collective):
        forged = data[:5] + params.id[:16] + data[21:]
        with pytest.raises(pf.ParameterError, match="a public key needs parameters with keys='public'"):
            pf.PublicKey.from_bytes(params, forged)


@pytest.mark.parametrize("keys", MODES)
def test_keys_refuse_ciphertexts_of_another_mode(keys: Any) -> None:
    opener = fresh_parties("p31", keys, count=1).opener
    for other in MODES:
        if other != keys:
            ciphertext = fresh_parties("p31", other, count=1).encrypt(0, vector(5))
            with pytest.raises(pf.CiphertextError, match="was made under"):
                opener.decrypt(ciphertext)


# --- one message -----------------------------------------------------------------------------------------------------


def test_a_collective_key_encrypts_one_message() -> None:
    key = pf.CollectiveKey.generate(params_of("collective"))
    assert "fresh" in repr(key)
    key.encrypt(vector(5), context=CONTEXT)
    assert "used" in repr(key)
    for context in (CONTEXT, bytes(32)):
        with pytest.raises(pf.KeyReuseError, match="has encrypted its one message"):
            key.encrypt(vector(5), context=context)
    assert np.abs(key._secret_coefficients()).max() <= 43


@pytest.mark.parametrize("used", [False, True])
def test_a_destroyed_key_does_nothing(used: bool) -> None:
    key = pf.CollectiveKey.generate(params_of("collective"))
    if used:
        key.encrypt(vector(5), context=CONTEXT)
    key.destroy()
    key.destroy()
    assert "destroyed" in repr(key)
    with pytest.raises(pf.KeyReuseError, match="was destroyed"):
        key.encrypt(vector(5), context=CONTEXT)
    with pytest.raises(pf.KeyReuseError, match="was destroyed"):
        pf.CollectiveKey.sum([key])


def test_refused_messages_leave_the_key_unused() -> None:
    key = pf.CollectiveKey.generate(params_of("collective"))
    refusals: list[tuple[type[Exception], dict[str, Any]]] = [
        (pf.InputError, {"x": [float("nan")]}),
        (pf.InputError, {"x": np.arange(3)}),
        (pf.InputError, {"x": vector(3), "weight": 2.0}),
        (pf.ParameterError, {"x": vector(3), "weight": 0.5}),
        (pf.InputError, {"x": vector(3), "out": pf.Ciphertext.zeros(key.params, 4)}),
    ]
    for error, arguments in refusals:
        with pytest.raises(error):
            key.encrypt(context=CONTEXT, **arguments)
        assert "fresh" in repr(key)
    key.encrypt(vector(3), context=CONTEXT)


def test_threads_share_no_key() -> None:
    # The encryption releases the interpreter: without a claim both threads would use one pad for two messages.
    x = vector(400_000)
    for _ in range(3):
        key, gate = pf.CollectiveKey.generate(params_of("collective")), threading.Barrier(4)
        outcomes: list[str] = []

        def encrypt(
            key: pf.CollectiveKey = key, gate: threading.Barrier = gate, outcomes: list[str] = outcomes
        ) -> None:
            gate.wait()
            try:
                key.encrypt(x, context=CONTEXT)
                outcomes.append("encrypted")
            except pf.KeyReuseError:
                outcomes.append("refused")

        threads = [threading.Thread(target=encrypt) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["encrypted", "refused", "refused", "refused"]


@pytest.mark.parametrize("keys", ["public", "secret"])
def test_fresh_randomness_for_every_ciphertext(keys: Any) -> None:
    parties = fresh_parties("p31", keys)
    one, two = parties.encrypt(0, vector(2000)), parties.encrypt(1, vector(2000))
    assert (one.first == two.first).mean() < 0.01
    if keys == "secret":
        assert one.context != two.context


# --- opening keys ----------------------------------------------------------------------------------------------------


def test_sums_of_keys() -> None:
    params = params_of("collective")
    keys = [pf.CollectiveKey.generate(params) for _ in range(3)]
    assert pf.CollectiveKey.sum(keys).terms == 3
    with pytest.raises(pf.InputError, match="no keys to sum"):
        pf.CollectiveKey.sum([])
    for other in (params_of("collective", "p50"), params_of("collective", clip=2.0)):
        with pytest.raises(pf.ParameterError, match="cannot sum keys"):
            pf.CollectiveKey.sum([keys[0], pf.CollectiveKey.generate(other)])


@pytest.mark.parametrize("terms", [0, -1, 4])
def test_an_opening_key_counts_its_parties(terms: int) -> None:
    with pytest.raises(pf.ParameterError, match=rf"terms = {terms} is outside 1 .. 3 \(parties\)"):
        pf.OpeningKey.from_coefficients(params_of("collective"), np.zeros(2048, np.int64), terms=terms)


@pytest.mark.parametrize(
    ("coefficients", "message"),
    [
        (np.zeros(2047, np.int64), "a key has 2048 coefficients; got 2047"),
        (np.zeros((2, 1024), np.int64), "a key has 2048 coefficients"),
        (np.full(2048, 3 * 43 + 1), "a key coefficient exceeds 129"),
        (np.full(2048, -(2**62)), "a key coefficient exceeds 129"),
        (np.full(2048, 0.5), "dtype float64; they are integers"),
    ],
)
def test_false_coefficients_are_refused(coefficients: Any, message: str) -> None:
    with pytest.raises(pf.InputError, match=message):
        pf.OpeningKey.from_coefficients(params_of("collective"), coefficients, terms=3)


# --- public keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_public_keys_travel(name: str) -> None:
    params = params_of("public", name)
    pair, x = pf.keygen(params), vector(5000)
    for again in (
        pf.PublicKey.from_bytes(params, pair.public.to_bytes()),
        pf.PublicKey.from_bytes(params, memoryview(bytearray(pair.public.to_bytes()))),
        pickle.loads(pickle.dumps(pair.public)),
    ):
        assert again.to_bytes() == pair.public.to_bytes()
        assert np.array_equal(pair.secret.decrypt(again.encrypt(x), integers=True), pf.quantize(params, x))
        assert again == pair.public and hash(again) == hash(pair.public)
    assert pf.keygen(params).public != pair.public and pair.public != "a key"
    assert repr(pair.public) == f"PublicKey({name}, level {params.level}, bytes={len(pair.public.to_bytes())})"


def test_damaged_public_keys_are_refused() -> None:
    params = params_of("public")
    data = pf.keygen(params).public.to_bytes()
    for damaged in (data[:-1], data + b"\0", b"", b"X" + data[1:], data[:4] + b"\x02" + data[5:]):
        with pytest.raises(pf.CiphertextError, match="are no public key of p31"):
            pf.PublicKey.from_bytes(params, damaged)
    with pytest.raises(pf.CiphertextError, match="made under other parameters"):
        pf.PublicKey.from_bytes(params_of("public", parties=4), data)
    with pytest.raises(pf.CiphertextError, match="not below its prime"):
        pf.PublicKey.from_bytes(params, data[:-4] + b"\xff" * 4)


# --- forks -----------------------------------------------------------------------------------------------------------

FORK = """
import os
import numpy as np
import pppml_fast as pf
from pppml_fast import _native

collective = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective")
public = pf.CkksParams.preset("p31", parties=3, clip=1.0)
key, pair = pf.CollectiveKey.generate(collective), pf.keygen(public)
stream = _native.StreamKey.from_system()
x = np.linspace(-1, 1, 100)
public_bytes = pair.public.encrypt(x).to_bytes()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    code = 0
    try:
        try:
            key.encrypt(x, context=bytes(32))
            code |= 1
        except pf.PppmlError as error:
            code |= 0 if "fork" in str(error) else 2
        try:
            collective._scheme.generate_secret(stream)
            code |= 4
        except _native.RequirementError as error:
            code |= 0 if "fork" in str(error) else 8
        out = np.ones(100, np.float32)
        for opened in (
            lambda: pair.secret.decrypt_bytes(public_bytes, out=out),
            lambda: pair.secret.decrypt(pf.Ciphertext.from_bytes(public, public_bytes), out=out),
        ):
            try:
                opened()
                code |= 32
            except pf.ParameterError as error:
                code |= 0 if "fork" in str(error) and not out.any() else 64
        # What the child makes itself works, and under its own randomness.
        pf.CollectiveKey.generate(collective).encrypt(x, context=bytes(32))
        os.write(writer, pair.public.encrypt(x).to_bytes())
    except BaseException:
        code |= 16
    os._exit(code)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
os.close(writer)
with os.fdopen(reader, "rb") as pipe:
    theirs = pf.Ciphertext.from_bytes(public, pipe.read())
mine = pair.public.encrypt(x)
assert not np.array_equal(theirs.first, mine.first)
expected = 2 * pf.quantize(public, x)
assert np.array_equal(pair.secret.decrypt(mine + theirs, integers=True), expected)
# The parent's key is untouched.
key.encrypt(x, context=bytes(32))
print("done")
"""


def test_keys_are_refused_in_a_fork() -> None:
    script = textwrap.dedent(FORK)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=900, check=False)
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr


FORKED = """
import os, sys, warnings
import numpy as np
import pppml_fast as pf
warnings.simplefilter("ignore", DeprecationWarning)

params = pf.CkksParams.preset("p31", parties=3, clip=1.0)
keys, stranger = pf.keygen(params), pf.keygen(params).secret
x = np.linspace(-1, 1, 5000)
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, keys.public.encrypt(x).to_bytes())
    os._exit(0)
os.close(write)
with os.fdopen(read, "rb") as pipe:
    ciphertext = pf.Ciphertext.from_bytes(params, pipe.read())
assert np.array_equal(keys.secret.decrypt(ciphertext, integers=True), pf.quantize(params, x))
try:
    stranger.decrypt(ciphertext)
    sys.exit("a stranger reads what a forked child encrypted")
except pf.OpeningError:
    pass
# Uniform residues, not the small ones of a lost key.
assert np.abs(ciphertext.second.astype(np.int64)).mean() > params.primes[0] / 3
print("done")
"""


def test_a_forked_child_encrypts_under_the_public_key_it_was_given() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=900, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr

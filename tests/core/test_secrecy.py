"""What never leaves an object that holds a secret, and what travels between processes: the rest of the public face."""

from __future__ import annotations

import copy
import json
import logging
import multiprocessing
import pickle
import pprint
import string
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from core_support import CONTEXT, MODES, Parties, fresh_parties, vector

import pppml_fast as pf
from pppml_fast import _native
from pppml_fast.cipher.pads import PadStore
from pppml_fast.cipher.secrecy import Secret
from pppml_fast.cipher.symmetric import SymmetricMessage

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def params_of(keys: Any, name: str = "p31") -> pf.CkksParams:
    return pf.CkksParams.preset(name, parties=3, clip=1.0, keys=keys)


def collective_key() -> pf.CollectiveKey:
    return pf.CollectiveKey.generate(params_of("collective"))


def native_secret() -> _native.SecretKey:
    return params_of("collective")._scheme.generate_secret(_native.StreamKey.from_system())


def pads() -> PadStore:
    return PadStore(params_of("collective"), native_secret(), _native.StreamKey.from_system(), CONTEXT, 5000, 1 << 20)


def native_pads() -> _native.PadStore:
    noise = _native.StreamKey.from_system()
    return _native.PadStore(params_of("collective")._scheme, native_secret(), noise, CONTEXT, 5000, 2)


def message() -> SymmetricMessage:
    sent = SymmetricMessage(params_of("collective"), CONTEXT, vector(5000), None, None)
    sent.under(native_secret(), _native.StreamKey.from_system())
    return sent


KEYS: dict[str, Callable[[], Any]] = {
    "SecretKey": lambda: pf.keygen(params_of("public")).secret,
    "SecretKey that encrypts": lambda: pf.keygen(params_of("secret")).secret,
    "CollectiveKey": collective_key,
    "OpeningKey": lambda: pf.CollectiveKey.sum([collective_key()]),
}
SECRETS = {**KEYS, "PadStore": pads, "SymmetricMessage": message}
NATIVE: dict[str, Callable[[], Any]] = {
    "native SecretKey": native_secret,
    "native StreamKey": _native.StreamKey.from_system,
    "native PadStore": native_pads,
}
HOLDERS = {
    **SECRETS,
    **NATIVE,
    "KeyPair": lambda: pf.keygen(params_of("public")),
    "a list of keys": lambda: [collective_key()],
    "public message": lambda: pf.keygen(params_of("public")).public._message(vector(9), None, None),
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_secrets_are_neither_pickled_nor_copied(kind: str) -> None:
    secret = HOLDERS[kind]()
    for protocol in PROTOCOLS:
        with pytest.raises(TypeError, match="holds a secret and is never pickled or copied"):
            pickle.dumps(secret, protocol)
    with pytest.raises(TypeError, match="never pickled or copied"):
        copy.deepcopy(secret)
    if not isinstance(secret, list | tuple):
        with pytest.raises(TypeError, match="never pickled or copied"):
            copy.copy(secret)


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_are_not_compared_or_hashed(kind: str) -> None:
    secret, other = SECRETS[kind](), SECRETS[kind]()
    for compare in (lambda: secret == other, lambda: secret != other, lambda: secret == secret, lambda: secret == 1):
        with pytest.raises(TypeError, match="holds a secret and is not compared; `is` tells"):
            compare()
    with pytest.raises(TypeError, match="not supported between"):
        _ = secret < other
    with pytest.raises(TypeError, match="unhashable"):
        hash(secret)
    # A container asks for identity first: it finds the object itself, and compares it with no other.
    assert secret in [secret] and [other, secret].index(other) == 0
    with pytest.raises(TypeError, match="not compared"):
        [other].index(secret)


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_print_nothing_of_themselves(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    secret = SECRETS[kind]()
    with caplog.at_level(logging.INFO):
        logging.getLogger("any").info("%s %r", secret, secret)
    texts = [repr(secret), str(secret), f"{secret}", string.Template("$x").substitute(x=secret), pprint.pformat(secret)]
    assert set(texts) == {repr(secret)} and caplog.messages == [f"{secret} {secret}"]
    assert repr(secret).startswith(type(secret).__name__ + "(") and "<hidden>" in repr(secret)
    assert len(repr(secret)) < 70, "room for names and sizes, for no key"
    with pytest.raises(TypeError, match="unsupported format string"):
        format(secret, "x")


@pytest.mark.parametrize("kind", [*SECRETS, *NATIVE])
def test_secrets_give_out_no_state(kind: str) -> None:
    secret = {**SECRETS, **NATIVE}[kind]()
    with pytest.raises(TypeError):
        json.dumps(secret)
    if kind != "SymmetricMessage":  # inside the library only; its attributes are the caller's own weights
        with pytest.raises(TypeError, match="__dict__"):
            vars(secret)
        with pytest.raises(TypeError):
            json.dumps(secret, default=vars)
    if isinstance(secret, Secret):
        with pytest.raises(TypeError, match="gives out no state"):
            secret.__getstate__()
    for conversion in (bytes, memoryview, np.frombuffer, list):
        with pytest.raises((TypeError, ValueError)):
            conversion(secret)


def test_a_key_takes_no_attribute_that_it_would_carry_along() -> None:
    for make in KEYS.values():
        with pytest.raises(AttributeError):
            make().note = "mine"


def test_what_a_key_pair_shows_is_its_public_half() -> None:
    pair = pf.keygen(params_of("public"))
    assert repr(pair) == f"KeyPair(public={pair.public!r}, secret=SecretKey(p31, <hidden>))"


# --- what travels ----------------------------------------------------------------------------------------------------


def travellers(keys: Any) -> dict[str, Any]:
    parties = fresh_parties("p62", keys)
    found = {
        "parameters": parties.params,
        "ciphertext": parties.encrypt(0, vector(9000)),
        "sum": parties.encrypt(1, vector(9000)) + parties.encrypt(2, vector(9000)),
        "layout": pf.Layout.from_arrays({"w": np.zeros((3, 4), np.float32)}),
    }
    if keys == "public":
        found["public key"] = parties.pair.public
    return found


def same(one: Any, other: Any) -> bool:
    if not isinstance(one, pf.Ciphertext):
        return bool(one == other)
    facts = [(c.params.id, c.kind, c.length, c.terms, c.context, c.to_bytes()) for c in (one, other)]
    return facts[0] == facts[1]


@pytest.mark.parametrize("keys", MODES)
def test_parameters_public_keys_and_ciphertexts_pickle_and_copy(keys: Any) -> None:
    for name, value in travellers(keys).items():
        copies = [pickle.loads(pickle.dumps(value, protocol)) for protocol in PROTOCOLS]
        for again in [*copies, copy.copy(value), copy.deepcopy(value)]:
            assert again is not value and type(again) is type(value) and same(again, value), name
        if isinstance(value, pf.Ciphertext):
            # Bytes as on the wire, residues packed, and what rebuilds the parameters.
            assert len(pickle.dumps(value)) < value.nbytes + 1000
            assert not np.shares_memory(copies[-1].first, value.first)


@pytest.mark.parametrize("keys", MODES)
def test_a_process_of_its_own_works_with_what_was_sent(keys: Any) -> None:
    """Through `spawn`, which shares nothing with the parent but what is pickled."""
    parties, vectors = fresh_parties("p31", keys), [vector(5000, seed) for seed in range(3)]
    ciphertexts = [parties.encrypt(party, x) for party, x in enumerate(vectors)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        total = pool.apply(pf.add, (ciphertexts,))
        if keys == "public":
            total = pool.apply(pf.PublicKey.encrypt, (parties.pair.public, vectors[0]))
            vectors = vectors[:1]
        with pytest.raises(TypeError, match="never pickled or copied; every process makes its own"):
            pool.apply(repr, (parties.opener,))
    exact = sum(pf.quantize(parties.params, x) for x in vectors)
    assert np.array_equal(parties.opener.decrypt(total, integers=True), exact)


def test_a_copy_is_independent() -> None:
    one = Parties(params_of("secret"), 1).encrypt(0, vector(100))
    again = copy.copy(one)
    one.first[:] = 0
    assert again.first.any()


# --- what they show --------------------------------------------------------------------------------------------------


def test_parameters_tell_level_precision_and_size() -> None:
    assert repr(params_of("collective")) == (
        "CkksParams(p31/collective, level 192 classical, 128 quantum, parties=3, clip=1, weights=free, "
        "values_per_coefficient=1, rounding=nearest, exact bits 21.0, bytes per weight 3.875)"
    )


@pytest.mark.parametrize("keys", MODES)
def test_ciphertexts_tell_parameters_level_length_and_bytes(keys: Any) -> None:
    one = fresh_parties("p50", keys).encrypt(0, vector(5000))
    kind = {"public": "public", "secret": "seeded", "collective": "collective"}[keys]
    level = one.params.level
    assert repr(one) == f"Ciphertext(p50/{kind}, level {level}, length=5000, terms=1, bytes={len(one.to_bytes())})"


def test_pads_tell_how_far_they_are() -> None:
    store = pads()
    assert repr(store) == "PadStore(length=5000, 0 of 3 blocks ready, <hidden>)"
    store.fill(background=False)
    assert repr(store) == "PadStore(length=5000, 3 of 3 blocks ready, <hidden>)"


def test_layouts_tell_their_size_however_many_tensors_there_are() -> None:
    arrays = {f"layer{i}": np.zeros((2, 3), np.float32) for i in range(500)}
    layout = pf.Layout.from_arrays(arrays)
    assert repr(layout) == "Layout(500 tensors, 3000 values: layer0[2, 3]:float32, layer1[2, 3]:float32, …)"
    assert repr(pf.Layout(())) == "Layout(0 tensors, 0 values: )"

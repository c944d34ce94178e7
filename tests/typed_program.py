"""A user's program in the public names, as strict type checkers see it; test_typing.py runs and checks it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import pppml_fast as pf
from pppml_fast import doctor
from pppml_fast.cipher import Kind


def summed(params: pf.CkksParams, vectors: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The sum of the vectors through a key pair, by way of the wire."""
    pair: pf.KeyPair = pf.keygen(params)
    encryptor = pair.secret if pair.public is None else pair.public
    ciphertexts = [encryptor.encrypt(x, reference=np.zeros_like(x)) for x in vectors]
    total: pf.Ciphertext = ciphertexts[0] + pf.add(ciphertexts[1:])
    buffer = bytearray(total.nbytes)
    view: memoryview = total.to_bytes(out=buffer)
    again = pf.Ciphertext.from_bytes(params, view)
    seed: bytes | None = again.seed
    expanded: bool = again.kind is Kind.EXPANDED and seed is None and again.context is None
    words: tuple[NDArray[np.uint32], ...] = again.residues
    assert expanded == (len(words) == 2 and params.keys == "secret")
    return pair.secret.decrypt(again, np.float32).astype(np.float32)


def collectively(vectors: list[NDArray[np.float32]]) -> NDArray[np.int64]:
    """The exact integers of their sum, under keys that no party holds."""
    params = pf.CkksParams.for_sum(parties=len(vectors), clip=1.0, bits=16, keys="collective")
    context, keys = bytes(32), [pf.CollectiveKey.generate(params) for _ in vectors]
    keys[0].prepare(context, vectors[0].size, background=False)
    running: memoryview | None = None
    for key, x in zip(keys, vectors, strict=True):
        running = key.encrypt_onto(running, x, context)
    total = pf.Ciphertext.zeros(params, vectors[0].size, len(vectors), context)
    assert running is not None
    total.load(0, total.block_count, running)
    opener: pf.OpeningKey = pf.CollectiveKey.sum(keys)
    return opener.decrypt(total, integers=True).astype(np.int64)


def main() -> None:
    vectors = [np.full(100, 0.25 * (party - 1), np.float32) for party in range(3)]
    layout = pf.Layout.from_arrays({"w": vectors[0].reshape(10, 10)})
    tensors: dict[str, NDArray[np.float32]] = layout.unflatten(vectors[1])
    assert layout.size == tensors["w"].size
    secret_params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="secret")
    assert np.abs(summed(secret_params, vectors)).max() < 3 * secret_params.step
    assert not collectively(vectors).any()
    report: doctor.Report = doctor.run(self_tests=False)
    failures: tuple[doctor.Check, ...] = report.failures
    try:
        pf.CkksParams.preset("p31", parties=1 << 30, clip=1.0)
    except pf.ParameterError as error:
        print(f"{len(failures)} failures; {error.args[0].split(':')[0]}")


if __name__ == "__main__":
    main()

"""Every kernel of every shape once, over a few blocks: what the sanitizers watch."""

from __future__ import annotations

import native  # noqa: F401  (first: it chooses the extension)
import numpy as np

import pppml_fast as pf
from pppml_fast import cuda
from pppml_fast.cipher.wire import Header, Kind

CONTEXT = bytes(32)


def main() -> None:
    for name in pf.PRESETS:
        for rounding in ("nearest", "stochastic"):
            params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys="collective", rounding=rounding)
            collective(params)
        for mode in ("public", "secret"):
            params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys=mode)
            pair = pf.keygen(params)
            ciphertext = cuda.encrypt(pair.public or pair.secret, tensors(params))
            opened = cuda.decrypt(pair.secret, ciphertext, integers=True).to_host()
            assert np.array_equal(opened, pf.quantize(params, values(params)))
    print("every kernel ran")


def values(params: pf.CkksParams) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.5, 2 * params.block_weights + 333).astype(np.float32)


def tensors(params: pf.CkksParams) -> list[cuda.DeviceArray]:
    return [cuda.DeviceArray.from_host(part) for part in np.split(values(params), [7, 1000])]


def collective(params: pf.CkksParams) -> None:
    keys = [pf.CollectiveKey.generate(params) for _ in range(3)]
    ciphertexts = [cuda.encrypt(key, tensors(params), CONTEXT) for key in keys[:2]]
    third, pending = cuda.encrypt_onto(keys[2], None, tensors(params), CONTEXT)
    pending.wait()
    last = pf.Ciphertext.zeros(params, len(ciphertexts[0]), 1, CONTEXT)
    last.load(0, last.block_count, third.to_host())
    total = cuda.add([*ciphertexts, cuda.Ciphertext.from_host(last)])
    total.to_bytes()
    chunks(params)
    opening = pf.CollectiveKey.sum(keys)
    out = [cuda.DeviceArray(500, np.float16), cuda.DeviceArray(len(total) - 500, np.float64)]
    cuda.decrypt(opening, total, out)
    if params.rounding == "nearest":
        exact = 3 * pf.quantize(params, values(params))
        assert np.array_equal(cuda.decrypt(opening, total, integers=True).to_host(), exact)


def chunks(params: pf.CkksParams) -> None:
    """What aggregators ask for: identity, encryption and opening in ranges."""
    key, x = pf.CollectiveKey.generate(params), tensors(params)
    tags, bad = cuda.tag_pieces(x, bytes(range(16)), 1000)
    assert tags.any() and bad is None
    pieces = cuda.encrypt_in_pieces(key, x, CONTEXT)
    header = Header.of(params, Kind.COLLECTIVE, pieces.length, 1, CONTEXT)
    opening, out = pf.CollectiveKey.sum([key]), cuda.DeviceArray(pieces.length, np.float64)
    for start in range(pieces.blocks):
        packed = bytearray(pieces.packed_bytes(start, start + 1))
        pieces.write(start, start + 1, memoryview(packed), None if start else memoryview(bytes(len(packed))))
        cuda.decrypt_range(opening, header, start, start + 1, [packed], out, 0.5)
    assert np.abs(out.to_host() / 2 - np.clip(values(params), -1, 1)).max() < 1e-3
    cuda.wipe(out)


if __name__ == "__main__":
    main()

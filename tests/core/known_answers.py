"""Known answers of encryption and opening, made by the oracle in Python integers, which shares no code with the core.

    python tests/core/known_answers.py --write

writes ``known_answers.json`` anew. That is right only after a deliberate change of the specification: parties whose
answers differ cannot sum together. Every name in a case can be recomputed from its seeds; ``oracle.py`` says how.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import oracle

import pppml_fast as pf

PATH = Path(__file__).with_name("known_answers.json")
PARTIES, LENGTH = 3, 200


def seed(*names: object) -> bytes:
    """32 bytes of a stated origin: SHA-256 of the names."""
    return hashlib.sha256(" ".join(map(str, ("pppml known answer", *names))).encode()).digest()


def weights(party: int, length: int) -> np.ndarray:
    """Exact in every float type, a fifth of them beyond the clip of 0.625."""
    return (((37 * np.arange(length) + 11 * party) % 401 - 200) / 256).astype(np.float32)


def words_of(params: pf.CkksParams, residues: Sequence[int]) -> bytes:
    """Residues as little-endian words of the width that the core holds them in."""
    return np.array(residues, "<u4" if max(params.primes) < 2**31 else "<u8").tobytes()


def packed(params: pf.CkksParams, residues: Sequence[int], rows: Sequence[int]) -> bytes:
    """Residues as they travel."""
    result, at = b"", 0
    for row in rows:
        for q in params.primes:
            result += oracle.pack(list(residues[at : at + row]), q.bit_length())
            at += row
    return result


def rejecting_context(params: pf.CkksParams) -> tuple[bytes, int]:
    """The first context of a count whose block 0 holds a candidate that is not below the prime, and where."""
    q, n, count = params.primes[0], params.ring_dimension, 0
    while True:
        context = seed("rejection", count)
        key = oracle.expansion_key(params, context)
        for k in range(n):
            if oracle.word32(key, 0, 0, k) & (2 ** q.bit_length() - 1) >= q:
                return context, k
        count += 1


def collective_or_secret(case: dict[str, Any], params: pf.CkksParams, parties: int) -> None:
    """Ciphertexts of one polynomial, their sum, and what it opens to."""
    key = oracle.expansion_key(params, bytes.fromhex(case["context"]))
    rows, length = oracle.Geometry.of(params, case["length"]).rows, case["length"]
    total, opening, sums = None, [0] * params.ring_dimension, [0] * length
    case["ciphertexts"] = []
    for party in range(parties):
        own = seed("secret", party)
        if params.keys == "collective":
            secret = oracle.gaussian("collective_secret", own, oracle.LANE["secret"], 0, params.ring_dimension)
        else:
            secret = oracle.ternary(own, oracle.LANE["secret"], 0, params.ring_dimension)
        values = oracle.quantize(params, weights(party, length))
        residues = oracle.encrypt(params, secret, seed("noise", party), key, values)
        case["ciphertexts"].append(hashlib.sha256(words_of(params, residues)).hexdigest())
        moduli = [q for row in rows for q in params.primes for _ in range(row)]
        total = residues if total is None else [(a + b) % q for a, b, q in zip(total, residues, moduli, strict=True)]
        opening = [a + b for a, b in zip(opening, secret, strict=True)]
        sums = [a + b for a, b in zip(sums, values, strict=True)]
    assert total is not None
    assert oracle.open_sum(params, opening, key, total, length) == sums
    payload = packed(params, total, rows)
    case |= {
        "sum_first_words": total[:4],
        "sum_payload_sha256": hashlib.sha256(payload).hexdigest(),
        "opened_first": sums[:8],
        "opened_sha256": hashlib.sha256(np.array(sums, "<i8").tobytes()).hexdigest(),
    }


def public(case: dict[str, Any], params: pf.CkksParams) -> None:
    """A public key and one encryption under it."""
    key, n = oracle.expansion_key(params, bytes.fromhex(case["context"])), params.ring_dimension
    secret = oracle.ternary(seed("secret", 0), oracle.LANE["secret"], 0, n)
    error = oracle.gaussian("error", seed("key error"), oracle.LANE["key_error"], 0, n)
    pk0: list[int] = []
    for index, q in enumerate(params.primes):
        a = oracle.public_polynomial(params, key, index, 0)
        s, e = (oracle.ntt([c % q for c in f], q) for f in (secret, error))
        pk0 += [(ek - ak * sk) % q for ak, sk, ek in zip(a, s, e, strict=True)]
    values = oracle.quantize(params, weights(0, case["length"]))
    c0, c1 = oracle.encrypt_public(params, pk0, key, seed("noise", 0), values)
    case |= {
        "public_key_sha256": hashlib.sha256(words_of(params, pk0)).hexdigest(),
        "ciphertexts": [hashlib.sha256(words_of(params, c0) + words_of(params, c1)).hexdigest()],
        "sum_first_words": c0[:4],
        "opened_first": values[:8],
        "opened_sha256": hashlib.sha256(np.array(values, "<i8").tobytes()).hexdigest(),
    }


def cases() -> list[dict[str, Any]]:
    """All known answers, recomputed."""
    found = []
    for name in ("p31", "p50", "p62", "compact"):
        for keys in ("collective", "secret", "public"):
            params = pf.CkksParams.preset(name, parties=PARTIES, clip=0.625, keys=keys)
            case: dict[str, Any] = {
                "set": name,
                "keys": keys,
                "length": LENGTH,
                "context": seed("context").hex(),
                "parameter_id": params.id.hex(),
            }
            if (name, keys) == ("p31", "collective"):
                context, at = rejecting_context(params)
                case |= {"context": context.hex(), "length": 2048 + LENGTH, "rejected_coefficient": at}
            case["expansion_key"] = oracle.expansion_key(params, bytes.fromhex(case["context"])).hex()
            if keys == "public":
                public(case, params)
            else:
                collective_or_secret(case, params, PARTIES if keys == "collective" else 1)
            found.append(case)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the file with what the oracle says now, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    document = {
        "provenance": {
            "command": "python tests/core/known_answers.py --write",
            "origin": "tests/core/oracle.py: Python integers, ChaCha20 streams, no code shared with the core",
            "seeds": "SHA-256 of 'pppml known answer' and the names, joined by spaces (known_answers.seed)",
        },
        "cases": cases(),
    }
    if options.write:
        PATH.write_text(json.dumps(document, indent=1) + "\n")
        return 0
    same = json.loads(PATH.read_text()) == document
    sys.stdout.write(f"{PATH.name} is {'what' if same else 'NOT what'} the oracle says\n")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

"""Vectors encrypted by the core under OpenFHE's keys, and OpenFHE's sums, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openfhe
import pytest
from openfhe_support import Side, make_context

import pppml_fast as pf
from pppml_fast.errors import CiphertextError, InputError, OpeningError, ParameterError
from pppml_fast.interop.blocks import residue_blocks
from pppml_fast.interop.openfhe import OpenfheBridge, OpenfheExchange

Sides = Callable[..., Any]

CONTEXTS: dict[str, dict[str, Any]] = {
    "p50": {},
    "complex": {"data_type": openfhe.COMPLEX},
    "60 bits": {"ring_dimension": 8192, "first": 60, "scaling": 50},
    "flexible": {"ring_dimension": 16384, "first": 60, "scaling": 50, "depth": 2, "technique": openfhe.FLEXIBLEAUTO},
}
CASES = pytest.mark.parametrize("options", CONTEXTS.values(), ids=CONTEXTS.keys())


def exchange_with(there: Side, parties: int = 3, clip: float = 1.0, level: int = 0) -> OpenfheExchange:
    return OpenfheExchange(there.bridge, there.keys.publicKey, parties=parties, clip=clip, level=level)


def vectors(exchange: OpenfheExchange, count: int = 3, blocks: float = 2.4) -> list[np.ndarray]:
    """As many vectors, of two blocks and a part of one."""
    generator = np.random.default_rng(2024)
    length = int(exchange.params.block_weights * blocks)
    return [generator.uniform(-1, 1, length) for _ in range(count)]


def flat(exchange: OpenfheExchange, opened: list[np.ndarray], length: int) -> np.ndarray:
    """The weights in OpenFHE's slots: a block's first half in the real parts, its second in the imaginary ones."""
    if exchange.params.packing == "real_slots":
        return np.concatenate([slots.real for slots in opened])[:length]
    return np.concatenate([half for slots in opened for half in (slots.real, slots.imag)])[:length]


def in_slots(exchange: OpenfheExchange, values: np.ndarray) -> list[np.ndarray]:
    """The inverse of :func:`flat`: what OpenFHE encodes, one array per block."""
    width = exchange.params.block_weights
    padded = np.zeros(-(-len(values) // width) * width)
    padded[: len(values)] = values
    if exchange.params.packing == "real_slots":
        return list(padded.reshape(-1, width))
    return [real + 1j * imaginary for real, imaginary in padded.reshape(-1, 2, width // 2)]


def added_there(there: Side, exchange: OpenfheExchange, ours: np.ndarray, theirs: np.ndarray) -> list[Any]:
    """What OpenFHE makes of a vector encrypted here and one that it encrypted itself."""
    sent = exchange.send(exchange.public_key.encrypt(ours))
    own = [there.encrypt(slots) for slots in in_slots(exchange, theirs)]
    return [there.context.EvalAdd(left, right) for left, right in zip(sent, own, strict=True)]


@CASES
def test_sums_made_here_are_decrypted_there(side: Sides, options: dict[str, Any]) -> None:
    there = side(**options)
    exchange = exchange_with(there)
    given = vectors(exchange)
    total = pf.add([exchange.public_key.encrypt(vector) for vector in given])
    opened = flat(exchange, [there.decrypt(one) for one in exchange.send(total)], len(given[0]))
    assert 0 < np.abs(opened - sum(given)).max() < exchange.params.max_error


@CASES
def test_openfhe_adds_its_own_to_ours(side: Sides, options: dict[str, Any]) -> None:
    there = side(**options)
    exchange = exchange_with(there)
    ours, theirs, _ = vectors(exchange)
    totals = added_there(there, exchange, ours, theirs)
    opened = flat(exchange, [there.decrypt(one) for one in totals], len(ours))
    assert np.abs(opened - ours - theirs).max() < exchange.params.max_error


@CASES
def test_the_core_opens_its_own_sum_exactly_with_openfhes_secret(side: Sides, options: dict[str, Any]) -> None:
    there = side(**options)
    exchange = exchange_with(there)
    given = vectors(exchange)
    total = pf.add([exchange.public_key.encrypt(vector) for vector in given])
    integers = exchange.secret_key(there.keys.secretKey).decrypt(total, integers=True)
    assert (integers == sum(pf.quantize(exchange.params, vector) for vector in given)).all()


@CASES
def test_openfhes_sums_are_decrypted_here(side: Sides, options: dict[str, Any]) -> None:
    there = side(**options)
    exchange = exchange_with(there)
    ours, theirs, _ = vectors(exchange)
    totals = added_there(there, exchange, ours, theirs)
    received = exchange.receive(totals, len(ours), bound=3.0)
    secret = exchange.secret_key(there.keys.secretKey)
    expected = ours + theirs
    raw, rounded = received.decrypt(secret, rounded=False), received.decrypt(secret)
    assert np.abs(raw - expected).max() < received.error
    assert np.abs(rounded - expected).max() <= received.error + received.release_step / 2
    assert (rounded == np.rint(rounded / received.release_step) * received.release_step).all()


def test_what_openfhe_encrypted_is_refused_by_exact_opening(side: Sides) -> None:
    """Its phase is no multiple of delta: the residual check releases nothing."""
    there = side()
    exchange = exchange_with(there)
    total = exchange.public_key.encrypt(np.zeros(exchange.params.block_weights))
    read = there.bridge.read_ciphertext(there.encrypt(there.values(1)))
    total.first[:], total.second[:] = read.residues[0].reshape(-1), read.residues[1].reshape(-1)
    with pytest.raises(OpeningError, match="residual check"):
        exchange.secret_key(there.keys.secretKey).decrypt(total)


@pytest.mark.parametrize("level", [1, 2])
def test_lower_levels(side: Sides, level: int) -> None:
    there = side(**CONTEXTS["flexible"])
    exchange = exchange_with(there, level=level)
    (given,) = vectors(exchange, 1, 0.5)
    (sent,) = exchange.send(exchange.public_key.encrypt(given))
    assert sent.GetLevel() == level
    assert np.abs(there.decrypt(sent)[: len(given)] - given).max() < exchange.params.max_error


def test_openfhe_multiplies_what_came_from_here(side: Sides) -> None:
    there = side(**CONTEXTS["flexible"])
    there.context.EvalMultKeyGen(there.keys.secretKey)
    exchange = exchange_with(there, parties=1)
    left, right = vectors(exchange, 2, 1.0)
    pair = [exchange.send(exchange.public_key.encrypt(vector))[0] for vector in (left, right)]
    product = there.context.EvalMult(*pair)
    assert np.abs(there.decrypt(product) - left * right).max() < 4 * exchange.params.max_error


def test_joint_keys(side: Sides) -> None:
    """Encrypted by the core under a joint public key, decrypted there by shares, rounded to a public precision."""
    context = make_context(first=60, scaling=50, ring_dimension=8192)
    lead = context.KeyGen()
    main = context.MultipartyKeyGen(lead.publicKey)
    exchange = OpenfheExchange(OpenfheBridge(context), main.publicKey, parties=2, clip=1.0)
    given = vectors(exchange, 2)
    sent = exchange.send(pf.add([exchange.public_key.encrypt(vector) for vector in given]))
    leads = context.MultipartyDecryptLead(sent, lead.secretKey)
    mains = context.MultipartyDecryptMain(sent, main.secretKey)
    opened = [
        np.array(context.MultipartyDecryptFusion([left, right]).GetRealPackedValueArray())
        for left, right in zip(leads, mains, strict=True)
    ]
    step = 2.0**-18
    rounded = np.rint(flat(exchange, opened, len(given[0])) / step) * step
    assert np.abs(rounded - sum(given)).max() < step
    with pytest.raises(CiphertextError, match="the public key"):
        exchange.secret_key(lead.secretKey)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_unsound_contexts_are_refused(side: Sides) -> None:
    with pytest.raises(ParameterError, match="128"):
        exchange_with(side(depth=2))
    with pytest.raises(ParameterError):
        exchange_with(side(), clip=1e6)


def test_ciphertexts_of_other_parameters_are_not_sent(side: Sides) -> None:
    there = side()
    other = exchange_with(there, parties=4)
    with pytest.raises(CiphertextError, match="other parameters"):
        exchange_with(there).send(other.public_key.encrypt(np.zeros(5)))


def test_coefficients_are_no_slots() -> None:
    params = pf.CkksParams.preset("p50", parties=2, clip=1.0)
    made = pf.keygen(params).public.encrypt(np.zeros(5))
    with pytest.raises(CiphertextError, match="slot set"):
        residue_blocks(made)


def test_what_is_no_vector_of_blocks_is_not_received(side: Sides) -> None:
    there = side()
    exchange = exchange_with(there)
    own = there.encrypt(there.values(1))
    with pytest.raises(CiphertextError, match="1 ciphertexts for 5000 weights"):
        exchange.receive([own], 5000, bound=1.0)
    with pytest.raises(CiphertextError, match="8 slots"):
        exchange.receive([there.encrypt(there.values(2, 8))], 8, bound=1.0)
    stranger = there.context.KeyGen()
    foreign = there.context.Encrypt(stranger.publicKey, there.context.MakeCKKSPackedPlaintext(there.values(3)))
    with pytest.raises(CiphertextError, match="not of one level, scale and key"):
        exchange.receive([own, foreign], 4096, bound=1.0)


def test_a_secret_that_is_not_ternary_is_refused(side: Sides) -> None:
    there = side()
    secret = there.bridge.read_secret_key(there.keys.secretKey)
    doubled = there.bridge.write_secret_key(2 * secret, there.keys.secretKey.GetKeyTag())
    with pytest.raises(InputError, match="-1, 0, 1"):
        exchange_with(there).secret_key(doubled)

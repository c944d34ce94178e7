"""What does not fit is refused: other contexts, damaged documents, impossible ciphertexts."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import openfhe
import pytest

from pppml_fast.errors import CiphertextError, ParameterError
from pppml_fast.interop.openfhe import OpenfheBridge, ResidueCiphertext
from pppml_fast.interop.openfhe.documents import Document
from pppml_fast.interop.openfhe.frames import Frame

Sides = Callable[..., Any]


@pytest.fixture
def fresh(side: Sides) -> ResidueCiphertext:
    there = side()
    return there.bridge.read_ciphertext(there.encrypt(there.values(1)))


# --- contexts --------------------------------------------------------------------------------------------------------


def test_objects_of_another_context_are_refused(side: Sides) -> None:
    other = side(depth=2)
    for read, thing in (
        ("read_ciphertext", other.encrypt(other.values(1))),
        ("read_public_key", other.keys.publicKey),
        ("read_secret_key", other.keys.secretKey),
    ):
        with pytest.raises(CiphertextError, match="another context"):
            getattr(side().bridge, read)(thing)


def test_contexts_of_other_schemes_are_refused() -> None:
    parameters = openfhe.CCParamsBFVRNS()
    parameters.SetPlaintextModulus(65537)
    parameters.SetMultiplicativeDepth(1)
    with pytest.raises(ParameterError, match="only CKKS"):
        OpenfheBridge(openfhe.GenCryptoContext(parameters))


def test_composite_scaling_is_refused() -> None:
    parameters = openfhe.CCParamsCKKSRNS()
    parameters.SetMultiplicativeDepth(1)
    parameters.SetRingDim(4096)
    parameters.SetSecurityLevel(openfhe.HEStd_NotSet)
    parameters.SetScalingTechnique(openfhe.COMPOSITESCALINGAUTO)
    parameters.SetScalingModSize(50)
    parameters.SetFirstModSize(60)
    parameters.SetRegisterWordSize(32)
    with pytest.raises(ParameterError, match="composites"):
        OpenfheBridge(openfhe.GenCryptoContext(parameters))


# --- ciphertexts that do not fit -------------------------------------------------------------------------------------


def test_other_shapes_are_not_written(side: Sides, fresh: ResidueCiphertext) -> None:
    one = dataclasses.replace(fresh, residues=fresh.residues[:1])
    with pytest.raises(CiphertextError, match="only pairs"):
        side().bridge.write_ciphertext(one)
    half = dataclasses.replace(fresh, residues=fresh.residues[:, :, :2048].copy(), slots=1024)
    with pytest.raises(CiphertextError, match="ring dimension 2048"):
        side().bridge.write_ciphertext(half)


def test_other_primes_and_levels_are_not_written(side: Sides, fresh: ResidueCiphertext) -> None:
    with pytest.raises(CiphertextError, match="at level 0 are not"):
        side(depth=2).bridge.write_ciphertext(fresh)
    with pytest.raises(CiphertextError, match="at level 1 are not"):
        side().bridge.write_ciphertext(dataclasses.replace(fresh, level=1))
    with pytest.raises(CiphertextError, match="level 3 is outside"):
        side(depth=2).bridge.fresh_scale(3)


def test_decrypting_under_another_key_is_refused_by_openfhe(side: Sides) -> None:
    there = side()
    stranger = there.context.KeyGen().secretKey
    made = there.bridge.write_ciphertext(there.bridge.read_ciphertext(there.encrypt(there.values(2))))
    with pytest.raises(RuntimeError, match="approximation error is too high"):
        there.context.Decrypt(stranger, made)


def test_a_secret_key_whose_residues_disagree_is_refused(side: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    there = side(depth=2)
    document = json.loads(openfhe.Serialize(there.keys.secretKey, openfhe.JSON))
    rows = _find(document, "s")["v"]
    values = rows[1]["v"]["ptr_wrapper"]["data"]["v"]
    values[7] = (values[7] + 1) % there.bridge.primes[1]
    monkeypatch.setattr(openfhe, "Serialize", lambda *_: json.dumps(document))
    with pytest.raises(CiphertextError, match="no polynomial with small coefficients"):
        there.bridge.read_secret_key(there.keys.secretKey)


# --- damaged documents -----------------------------------------------------------------------------------------------


def _find(node: Any, name: str) -> Any:
    """The first field of that name whose value is an object or a list, depth first."""
    if isinstance(node, dict):
        if isinstance(node.get(name), (dict, list)):
            return node[name]
        node = list(node.values())
    for value in node if isinstance(node, list) else ():
        if (found := _find(value, name)) is not None:
            return found
    return None


def _first_polynomial(tree: Any) -> Any:
    return tree["value0"]["ptr_wrapper"]["data"]["v"][0]


def _row(tree: Any) -> Any:
    return _first_polynomial(tree)["v"][0]["v"]["ptr_wrapper"]["data"]


def _prime(tree: Any) -> Any:
    return _find(tree, "p")[0]["ptr_wrapper"]["data"]["value0"]


def _set(where: Callable[[Any], Any], name: Any, value: Any) -> Callable[[Any], None]:
    def damage(tree: Any) -> None:
        where(tree)[name] = value

    return damage


DAMAGES: dict[str, tuple[Callable[[Any], None], str]] = {
    "negative residue": (lambda tree: _row(tree)["v"].__setitem__(5, -1), "not within 0"),
    "residue at its prime": (lambda tree: _row(tree)["v"].__setitem__(5, 1125899906826241), "not within 0"),
    "residue beyond 64 bits": (lambda tree: _row(tree)["v"].__setitem__(5, 1 << 70), "not within 0"),
    "fractional residue": (lambda tree: _row(tree)["v"].__setitem__(5, 1.5), "not within 0"),
    "text for a residue": (lambda tree: _row(tree)["v"].__setitem__(5, "7"), "not within 0"),
    "short row": (lambda tree: _row(tree)["v"].pop(), "4095 residues"),
    "empty row": (_set(_row, "v", []), "0 residues"),
    "row is no list": (_set(_row, "v", "residues"), "in place of"),
    "other modulus": (lambda tree: _row(tree)["m"].__setitem__("v", 1125899906826240), "its ring says"),
    "missing row": (lambda tree: _first_polynomial(tree)["v"].clear(), "0 rows for 1 primes"),
    "coefficient form": (_set(_first_polynomial, "f", 1), "coefficient form"),
    "row in coefficient form": (lambda tree: _first_polynomial(tree)["v"][0].__setitem__("f", 1), "coefficient form"),
    "lost field": (lambda tree: _first_polynomial(tree).pop("p"), "no field 'p'"),
    "lost pointer": (lambda tree: _first_polynomial(tree).__setitem__("p", {"ptr_wrapper": {"id": 99}}), "points to"),
    "other root of unity": (lambda tree: _prime(tree)["ru"].__setitem__("v", 1), "the context is of"),
    "no polynomial": (lambda tree: tree["value0"]["ptr_wrapper"]["data"]["v"].clear(), "no polynomial"),
    "other degree": (lambda tree: _prime(tree).__setitem__("rd", 8), "different dimensions"),
    "scale of zero": (lambda tree: tree["value0"]["ptr_wrapper"]["data"].__setitem__("s", 0.0), "scale"),
    "slots beyond N/2": (lambda tree: tree["value0"]["ptr_wrapper"]["data"].__setitem__("sl", 4096), "slots"),
    "no root": (lambda tree: tree.clear(), "no field 'value0'"),
}


@pytest.fixture(scope="module")
def written(side: Sides) -> tuple[Any, Any]:
    there = side()
    ciphertext = there.encrypt(there.values(3))
    return ciphertext, json.loads(openfhe.Serialize(ciphertext, openfhe.JSON))


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_ciphertexts_are_refused(
    side: Sides, written: tuple[Any, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, message = DAMAGES[name]
    ciphertext, tree = written[0], copy.deepcopy(written[1])
    damage(tree)
    bridge, serialize = OpenfheBridge(side().context), openfhe.Serialize
    monkeypatch.setattr(
        openfhe,
        "Serialize",
        lambda thing, form: json.dumps(tree) if form == openfhe.JSON else serialize(thing, form),
    )
    with pytest.raises(CiphertextError, match=message):
        bridge.read_ciphertext(ciphertext)
    assert bridge._readers == {}


@pytest.mark.parametrize("text", ["", "{", "\x00", "nul"])
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(CiphertextError, match="no JSON"):
        Document(text)


@pytest.mark.parametrize("text", ["[]", "3", '{"value0": {"ptr_wrapper": {"id": 3}}}', '{"value0": [1, 2]}'])
def test_documents_of_other_things_are_refused(text: str) -> None:
    with pytest.raises(CiphertextError):
        document = Document(text)
        document.get(document.root, "v")


# --- frames ----------------------------------------------------------------------------------------------------------


def test_a_frame_takes_only_objects_that_differ_in_residues_alone() -> None:
    rows = np.arange(8, dtype=np.uint64).reshape(2, 4) + 1000
    data = b"head" + rows[0].tobytes() + b"between" + rows[1].tobytes() + b"tail"
    frame = Frame(data, rows)
    other = rows + np.uint64(5)
    assert frame.join(rows) == data
    assert (frame.split(frame.join(other)) == other).all()
    for position in (0, 3, 4 + 32, 4 + 32 + 6, len(data) - 1):
        damaged = bytearray(frame.join(other))
        damaged[position] ^= 1
        assert frame.split(bytes(damaged)) is None, position
    for resized in (data + b"\0", data[:-1], b"\0" + data, b""):
        assert frame.split(resized) is None


def test_a_binary_form_without_the_residues_is_refused() -> None:
    rows = np.arange(8, dtype=np.uint64).reshape(2, 4)
    with pytest.raises(CiphertextError, match="does not hold"):
        Frame(rows[0].tobytes(), rows)


def test_a_residue_beyond_its_prime_in_the_binary_form_is_refused(side: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    there = side()
    bridge, serialize = OpenfheBridge(there.context), openfhe.Serialize
    ciphertext = there.encrypt(there.values(4))
    bridge.read_ciphertext(ciphertext)
    ((frame, _, _),) = next(iter(bridge._readers.values()))
    rows = frame.split(serialize(ciphertext, openfhe.BINARY))
    assert rows is not None
    rows = rows.copy()
    rows[1, 17] = bridge.primes[0]
    monkeypatch.setattr(openfhe, "Serialize", lambda *_: frame.join(rows))
    with pytest.raises(CiphertextError, match="not below its prime"):
        bridge.read_ciphertext(ciphertext)

"""The federation's file: strict to read, signed by each, merged from copies, checked against a site's own policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pppml_fast as pf
from pppml_fast.aggregation import Identity, Member, Policy, Roster, SessionOptions
from pppml_fast.aggregation.parameters import sum_parameters
from pppml_fast.errors import DataError, LayoutMismatchError, PppmlError, ProtocolError
from pppml_fast.site.federation_file import FederationFile

NAMES = ("north", "east", "south")
NODES = {name: Identity.from_private_bytes(name, bytes([at]) * 32) for at, name in enumerate((*NAMES, "hub"), 1)}
LAYOUT = pf.Layout.from_arrays({"stem": np.zeros((5, 8), np.float32), "head": np.zeros(300, np.float32)})
PARAMS = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="collective", weights="public")


def entry(name: str, weight: float = 1.0) -> Member:
    return Member(name, NODES[name].public.hex(), weight)


def roster(star: bool = False, **changes: Any) -> Roster:
    fields: dict[str, Any] = {
        "members": tuple(entry(name, 1 / 3) for name in NAMES),
        "parameters": PARAMS.to_dict(),
        "sum_parameters": sum_parameters(PARAMS).to_dict(),
        "layout": LAYOUT.fingerprint.hex(),
        "options": SessionOptions(topology="star" if star else "ring"),
        "relay": entry("hub") if star else None,
    }
    return Roster(**{**fields, **changes})


def federation(star: bool = False, **changes: Any) -> FederationFile:
    addresses = {"hub": "hub.example:7443"} if star else {name: f"{name}.example:7443" for name in NAMES}
    return FederationFile(roster(star, **changes), LAYOUT, addresses)


def signed(star: bool = False) -> FederationFile:
    file = federation(star)
    for name in NAMES:
        file = file.signed_by(NODES[name])
    return file


FIELDS = json.loads(signed().encode())


# --- reading and writing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("star", [False, True])
def test_what_is_written_is_read_again(tmp_path: Path, star: bool) -> None:
    file = signed(star)
    again = FederationFile.parse(file.encode())
    assert again == file and again.encode() == file.encode()
    assert again.roster.canonical_bytes() == file.roster.canonical_bytes()
    assert (again.params, again.sum_params) == (PARAMS, sum_parameters(PARAMS))
    path = tmp_path / "deep" / "federation.json"
    file.save(path)
    file.save(path)
    assert FederationFile.load(path) == file and list(path.parent.iterdir()) == [path]


def test_white_space_and_order_mean_nothing() -> None:
    backwards = dict(reversed(list(FIELDS.items())))
    assert FederationFile.parse(json.dumps(backwards, separators=(",", ":")).encode()) == signed()


def test_a_model_with_odd_tensors_is_written_as_it_is() -> None:
    odd = pf.Layout.from_arrays({'a"\n': np.float32(0), "ä,[": np.zeros((0, 3), np.float16)})
    for layout in (odd, pf.Layout(())):
        file = FederationFile(roster(layout=layout.fingerprint.hex()), layout, signed().addresses)
        assert FederationFile.parse(file.encode()) == file


def test_a_model_beyond_all_measure_is_refused() -> None:
    huge = pf.Layout((pf.TensorSpec("a", (10**3000, 10**3000), "float32"),))
    with pytest.raises(ProtocolError, match="more than 1099511627776 weights"):
        FederationFile(roster(layout=huge.fingerprint.hex()), huge, signed().addresses)


def test_load_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "federation.json"
    with pytest.raises(DataError, match=r"cannot read '.*federation\.json' \(No such file"):
        FederationFile.load(path)
    path.write_text("{")
    with pytest.raises(ProtocolError, match=r"federation\.json'.*cannot be read as JSON"):
        FederationFile.load(path)


def changed(*where: str | int, to: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(FIELDS))
    place = document
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = to
    return document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({**FIELDS, "more": 1}, "unknown field 'more'"),
        ({key: value for key, value in FIELDS.items() if key != "layout"}, "lacks the field 'layout'"),
        ([FIELDS], "no JSON object"),
        (changed("format", to="pppml federation v2"), "another kind of file"),
        (changed("addresses", to=[]), "addresses must be an object"),
        (changed("addresses", "north", to=7443), "entry of 'north' is int, expected text"),
        (changed("addresses", "north", to="north"), "is not host:port"),
        (changed("addresses", "west", to="a:1"), "'west' is not in the roster"),
        (changed("addresses", to={"north": "a:1"}), "no address of east, south"),
        (changed("signatures", "north", to="ab"), "for 'north', holds a signature that is not 128 digits"),
        (changed("signatures", "north", to="AB" * 64), "not 128 digits of lower-case hex"),
        (changed("signatures", "north", to=FIELDS["signatures"]["east"]), "roster signature of north is not valid"),
        (changed("signatures", "west", to="00" * 64), "'west' is not in the roster"),
        (changed("roster", "more", to=1), "not in canonical form"),
        (changed("roster", "members", 0, "weight", to=1), "is not a finite number"),
        (changed("roster", "members", 0, "name", to="norðe"), "signature of|not in the roster"),
        (changed("roster", "members", 1, "name", to="north"), "the same name"),
        (changed("roster", "options", "topology", to="star"), "a star roster names one relay"),
        (changed("roster", "options", "chunk_blocks", to=64.5), "chunk_blocks 64.5 is out of range"),
        (changed("roster", "options", "chunk_blocks", to=True), "chunk_blocks True is out of range"),
        (changed("roster", "options", "sum_check", to="no"), "sum_check 'no'"),
        (changed("roster", "options", "threshold", to="3"), "threshold '3'"),
        (changed("roster", "options", "protocol", to="initiator"), "needs parameters with keys='public'"),
        (changed("roster", "version", to=99), "protocol version 99"),
        (changed("roster", "rounding", to="up"), "rounding 'up'"),
        (changed("roster", "parameters", "parties", to=2), "for 2 parties, 3 take part"),
        (changed("roster", "parameters", "clip", to=1), "not in canonical form|signature of"),
        (changed("roster", "parameters", "more", to=1), "parameters make no parameter set"),
        (changed("roster", "sum_parameters", to={}), "sum_parameters make no parameter set"),
        (changed("roster", "layout", to="00" * 32), "the roster is for layout 0000"),
        (changed("layout", 0, 1, 0, to=6), "the file holds"),
        (changed("layout", 0, 1, 0, to=-5), "no side of a tensor is below 0"),
        (changed("layout", 0, 1, 0, to="5"), "layout is not in canonical form"),
        (changed("layout", 1, 0, to="stem"), "appears twice"),
        (changed("layout", to={}), "layout|canonical"),
    ],
)
def test_anything_but_a_federation_is_refused_in_one_line(document: Any, words: str) -> None:
    with pytest.raises(PppmlError, match=words) as refused:
        FederationFile.parse(json.dumps(document).encode())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"addresses":', '"addresses": {}, "addresses":', "the field 'addresses' twice"),
        ('"weight":', '"weight": 1.0, "weight":', "the field 'weight' twice"),
        ('"clip": 1.0', '"clip": NaN', "holds the number NaN"),
        ('"clip": 1.0', '"clip": 1e999', "cannot be written as JSON"),
        ('"parties": 3', '"parties": ' + "9" * 5000, "cannot be read as JSON"),
        ('"layout": [', '"layout": [' + "[" * 100_000, "cannot be read as JSON"),
        ("north", "\xff", "cannot be read as JSON"),
    ],
)
def test_text_that_is_no_plain_json_is_refused(old: str, new: str, words: str) -> None:
    text = signed().encode().decode().replace(old, new)
    assert text != signed().encode().decode()
    with pytest.raises(ProtocolError, match=words):
        FederationFile.parse(text.encode("latin-1"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def edited(draw: Callable[[st.SearchStrategy[Any]], Any]) -> dict[str, Any]:
    """The document with one value anywhere in it replaced by some other JSON."""
    document: dict[str, Any] = json.loads(json.dumps(FIELDS))
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        if not place[key] or not isinstance(place[key], dict | list) or draw(st.booleans()):
            place[key] = draw(JSON)
            return document
        place = place[key]


@given(edited())
def test_an_edited_file_is_refused_or_means_what_it_says(document: dict[str, Any]) -> None:
    try:
        file = FederationFile.parse(json.dumps(document).encode())
    except PppmlError as error:
        assert "\n" not in str(error)
        return
    assert json.loads(file.encode()) == document
    assert FederationFile.parse(file.encode()) == file


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(PppmlError):
        FederationFile.parse(data)


def test_peers() -> None:
    def names(star: bool, me: str) -> set[str]:
        found = federation(star).peers(me)
        assert found == {name: NODES[name].public for name in found}
        return set(found)

    assert names(False, "north") == {"east", "south"}
    assert names(True, "north") == {"hub"} and names(True, "hub") == set(NAMES)
    with pytest.raises(ProtocolError, match="'hub' is not in the roster"):
        names(False, "hub")


# --- signatures ------------------------------------------------------------------------------------------------------


def test_signatures_are_those_of_the_handshake() -> None:
    """The same domain and bytes as a hello's roster signature, so that one signature is as good as the other."""
    from pppml_fast.aggregation.identity import verify

    file = federation().signed_by(NODES["east"])
    verify(NODES["east"].public, "roster", roster().canonical_bytes(), bytes.fromhex(file.signatures["east"]), "east")
    assert file.unsigned == ("north", "south")
    with pytest.raises(ProtocolError, match=r"not signed by north, south; .*pppml roster sign"):
        file.require_signatures()
    signed().require_signatures()


def test_the_relay_may_sign_and_need_not() -> None:
    file = signed(star=True)
    file.require_signatures()
    assert set(file.signed_by(NODES["hub"]).signatures) == {*NAMES, "hub"}


def test_only_those_on_the_roster_sign() -> None:
    with pytest.raises(ProtocolError, match="'hub' is not in the roster"):
        federation().signed_by(NODES["hub"])
    with pytest.raises(ProtocolError, match=r"lists the identity .* for 'north', its own key is"):
        federation().signed_by(Identity.generate("north"))


def test_copies_join() -> None:
    copies = [federation().signed_by(NODES[name]) for name in NAMES]
    joined = copies[0].merged(copies[1]).merged(copies[2])
    assert joined == signed()
    assert joined.merged(copies[0]) == joined


def test_copies_of_other_federations_do_not_join() -> None:
    other = federation(options=SessionOptions(chunk_blocks=65)).signed_by(NODES["east"])
    with pytest.raises(ProtocolError, match="different rosters"):
        federation().merged(other)
    moved = replace(federation(), addresses={**federation().addresses, "east": "elsewhere:1"})
    with pytest.raises(ProtocolError, match=r"'east' the addresses east\.example:7443 and elsewhere:1"):
        federation().merged(moved)


# --- policy ----------------------------------------------------------------------------------------------------------


def test_a_site_checks_its_own_entry() -> None:
    file = federation()
    file.check("north", NODES["north"].public, Policy())
    with pytest.raises(ProtocolError, match="'west' is not in the roster"):
        file.check("west", NODES["north"].public, Policy())
    with pytest.raises(ProtocolError, match="its own key is"):
        file.check("north", NODES["east"].public, Policy())


def test_puppets_are_refused_by_pins() -> None:
    pinned = {name: NODES[name].public for name in NAMES}
    file = federation()
    file.check("north", NODES["north"].public, Policy(pinned=pinned))
    with pytest.raises(ProtocolError, match="'south' is not the pinned one"):
        file.check("north", NODES["north"].public, Policy(pinned={**pinned, "south": bytes(32)}))
    del pinned["south"]
    with pytest.raises(ProtocolError, match="'south' is not on this party's list"):
        file.check("north", NODES["north"].public, Policy(pinned=pinned))


def test_weights_and_sizes_are_refused_by_policy() -> None:
    file = federation(members=(entry("north", 0.8), entry("east", 0.1), entry("south", 0.1)))
    with pytest.raises(ProtocolError, match=r"'north' holds 0\.800 of the weight"):
        file.check("north", NODES["north"].public, Policy())
    with pytest.raises(ProtocolError, match="under the minimum of 4"):
        federation().check("north", NODES["north"].public, Policy(min_parties=4))
    light = federation(members=tuple(entry(name, 0.2) for name in NAMES))
    with pytest.raises(ProtocolError, match="add up to"):
        light.check("north", NODES["north"].public, Policy())


@pytest.mark.parametrize("star", [False, True])
def test_the_policy_of_a_site_pins_what_it_has_signed(star: bool) -> None:
    base = Policy(min_parties=3, max_share=0.4)
    file = federation(star)
    with pytest.raises(ProtocolError, match=r"'north' has not signed this roster"):
        file.policy(base, "north")
    policy = file.signed_by(NODES["north"]).policy(base, "north")
    assert policy == replace(base, pinned={name: NODES[name].public for name in (*NAMES, *["hub"] * star)})
    with pytest.raises(ProtocolError, match="not the pinned one"):
        file.policy(Policy(pinned={**dict(policy.pinned or {}), "east": bytes(32)}))


def test_the_terms_are_those_of_the_file() -> None:
    file = signed(star=True)
    assert file.terms.layout == LAYOUT and file.terms.options == file.roster.options
    public = NODES["north"].public
    file.terms.check(file.roster, LAYOUT.canonical_bytes(), "north", public, file.policy(Policy(), "north"))
    other = replace(file.terms, layout=pf.Layout(LAYOUT.tensors[:1]))
    with pytest.raises(LayoutMismatchError):
        other.check(file.roster, LAYOUT.canonical_bytes(), "north", public, Policy())

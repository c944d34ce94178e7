"""The Python of docs/ciphertexts.md runs as it stands, from top to bottom, and its tables are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from core_support import Parties, vector

import pppml_fast as pf
from pppml_fast.cipher import Kind
from pppml_fast.cipher.wire import HEADER_BYTES

PAGE = Path(__file__).parents[2] / "docs" / "ciphertexts.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_examples_run() -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) > 5
    names: dict[str, object] = {}
    for block in blocks:
        # Line numbers of the page in tracebacks.
        lines = "\n" * text[: block.start(1)].count("\n")
        exec(compile(lines + block[1], str(PAGE), "exec"), names)


def test_the_repr_that_is_shown_is_the_one_that_is() -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    (shown,) = re.findall(r"`(Ciphertext\([^`]*\))`", text)
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="secret")
    assert repr(pf.Ciphertext.zeros(params, 100_000)) == shown


@pytest.mark.parametrize("kind", list(Kind))
def test_the_table_of_kinds_is_the_code(kind: Kind) -> None:
    (row,) = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{kind.name}` |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    keys = {Kind.PUBLIC: "public", Kind.COLLECTIVE: "collective"}.get(kind, "secret")
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys=keys)
    one = Parties(params, 1).encrypt(0, vector(3 * params.block_weights))
    one = one.expanded() if kind is Kind.EXPANDED else one
    assert one.kind is kind and len(one.residues) == int(cells[5][0])
    assert (one.context is None) is (cells[4] == "none")
    rows = one.block_count * len(one.residues)
    assert one.nbytes == HEADER_BYTES + rows * params.ring_dimension * 31 // 8


@pytest.mark.parametrize("name", ["p31", "p50", "p62", "compact"])
def test_seeded_ciphertexts_take_half_of_public_ones(name: str) -> None:
    sets = {keys: pf.CkksParams.preset(name, parties=3, clip=1.0, keys=keys) for keys in ("public", "secret")}
    length = 4 * sets["secret"].block_weights
    seeded, public = (pf.Ciphertext.wire_size(sets[keys], length) for keys in ("secret", "public"))
    assert 2 * (seeded - HEADER_BYTES) == public - HEADER_BYTES
    assert pf.Ciphertext.wire_size(sets["secret"], length, Kind.EXPANDED) == public
    # A cut last block is one of c0 alone: what is added to a full block by a short one.
    short = pf.Ciphertext.wire_size(sets["secret"], length + 1, Kind.EXPANDED)
    assert short - public < 2 * (seeded - HEADER_BYTES) // 4


@pytest.mark.parametrize("name", ["p31", "p62"])
def test_what_becomes_of_the_seed(name: str) -> None:
    params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys="secret")
    parties, vectors = Parties(params, 3), [vector(9000, seed) for seed in range(3)]
    ones = [parties.encrypt(party, x) for party, x in enumerate(vectors)]
    assert len({one.seed for one in ones}) == 3 and all(one.seed == one.to_bytes()[36:68] for one in ones)
    kept = [one.to_bytes() for one in ones]
    steps = [ones[0] + ones[1], ones[0] + ones[1] + ones[2], ones[0].expanded() + ones[1], pf.add(ones)]
    for total in steps:
        assert (total.kind, total.seed, total.context) == (Kind.EXPANDED, None, None)
        assert pf.Ciphertext.from_bytes(params, total.to_bytes()).to_bytes() == total.to_bytes()
    assert steps[1].to_bytes() == steps[3].to_bytes() and steps[0].to_bytes() == steps[2].to_bytes()
    # The second polynomial of a sum is the sum of what the seeds stand for.
    q = np.array(params.primes, np.uint64)
    expanded = [one.expanded().second.reshape(-1, len(q), params.ring_dimension).astype(np.uint64) for one in ones]
    assert np.array_equal(
        steps[1].second.reshape(expanded[0].shape), sum(expanded).astype(np.uint64) % q[None, :, None]
    )
    assert [one.to_bytes() for one in ones] == kept, "the summands are left as they were"
    exact = sum(pf.quantize(params, x) for x in vectors)
    assert np.array_equal(parties.opener.decrypt(steps[3], integers=True), exact)
    room = pf.Ciphertext.zeros(params, 9000, kind=Kind.EXPANDED)
    assert pf.add(ones, out=room) is room and room.to_bytes() == steps[3].to_bytes()
    with pytest.raises(pf.InputError, match="the sum is of expanded kind"):
        pf.add(ones[:2], out=ones[2])


def test_a_seeded_ciphertext_added_to_itself_does_not_open() -> None:
    """Twice one noise has the variance that a block is refused from: half of 50 blocks exceed it."""
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="secret")
    parties = Parties(params, 1)
    one = parties.encrypt(0, vector(50 * params.block_weights))
    assert (one + one).terms == 2
    with pytest.raises(pf.OpeningError, match="missing, doubled or foreign"):
        parties.opener.decrypt(one + one)


@pytest.mark.parametrize("keys", ["secret", "collective"])
def test_zeros_without_a_context_are_none_on_the_wire(keys: str) -> None:
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys=keys)
    zeros = pf.Ciphertext.zeros(params, 100)
    for write in (zeros.to_bytes, lambda: bytes(zeros), lambda: zeros.to_bytes(bytearray(zeros.nbytes))):
        with pytest.raises(pf.CiphertextError, match="names no context and is none on the wire"):
            write()

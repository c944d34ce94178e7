"""What the documents of trust say: every test they name exists, and the figures they state are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pppml_fast.levels import CASES, sanity_bits

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("SOUNDNESS.md", "docs/derivations.md")
# `file.py::test`, `file.py`, or `::test`, which stands for the file named last in its section or table row.
NAMED = re.compile(r"`(?:tests/\w+/)?(test_\w+\.py)?(?:::(test_\w+))?`")


def known_tests() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        names = re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
        found.setdefault(path.name, set()).update(names)
    return found


def claims(text: str) -> list[tuple[str, str]]:
    """(file, test or nothing) of everything that looks like a test's name."""
    found = []
    for part in re.split(r"\n## |\n(?=\|)", text):
        file = ""
        for match in NAMED.finditer(part):
            if match[1] or match[2]:
                file = match[1] or file
                found.append((file, match[2] or ""))
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document: str) -> None:
    known, named = known_tests(), claims((ROOT / document).read_text())
    assert len(named) > 20
    missing = [f"{file}::{test}" for file, test in named if file not in known or (test and test not in known[file])]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
        assert target.startswith("http") or ((ROOT / document).parent / target).exists() or (ROOT / target).exists()


def test_the_table_of_levels_is_the_scripts() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs/derivations.md").read_text().splitlines()
        if re.match(r"\|[^|]*\|[^|]*\| (collective|public)", line)
    ]
    assert len(rows) == len(CASES)
    for case, row in zip(CASES, rows, strict=True):
        stated, sanity = row[4], tuple(float(bits) for bits in row[5].split("/"))
        assert row[0] in (case.name, "")
        assert row[2].startswith(case.keys.split(",")[0])
        assert stated == ("–" if case.stated is None else f"{case.stated[0]} / {case.stated[1]}")
        assert sanity == pytest.approx(sanity_bits(case), abs=0.051)

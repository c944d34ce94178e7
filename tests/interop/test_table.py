"""The table of interoperation names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parents[1] / "docs" / "interoperation.md"
NAMED = re.compile(r"`((?:openfhe/|seal/)?test_\w+\.py)(?:::(test_\w+))?`")


def test_every_cell_names_a_test_that_exists() -> None:
    named = NAMED.findall(DOCUMENT.read_text())
    assert len(named) > 30
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (TESTS / file).is_file() or (test and f"def {test}(" not in (TESTS / file).read_text())
    ]
    assert missing == []

"""Contexts for the tests against OpenFHE."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]


@pytest.fixture(scope="session")
def side() -> Callable[..., Any]:
    """Makes the sides of a test; one for each set of options in the session."""
    from openfhe_support import Side, make_context

    made: dict[tuple[Any, ...], Side] = {}

    def get(**options: Any) -> Side:
        key = tuple(sorted(options.items()))
        if key not in made:
            made[key] = Side(make_context(**options))
        return made[key]

    return get

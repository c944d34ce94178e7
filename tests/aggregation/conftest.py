"""Fixtures of the aggregation tests; helpers are in ``aggregation_support``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pppml_fast.aggregation.session import Gate, Message

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Message]]:
    """What each party reads: every message that passed its gate, sealed ones opened."""
    seen: dict[str, list[Message]] = {}
    accept = Gate.accept

    def spy(self: Gate, frame: Any) -> Message:
        message = accept(self, frame)
        seen.setdefault(self._session.identity.name, []).append(message)
        return message

    monkeypatch.setattr(Gate, "accept", spy)
    return seen

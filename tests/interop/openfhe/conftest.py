"""Contexts for the tests against OpenFHE, and the last line that `make test-openfhe` promises."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """After pytest's own summary: the counts in one line."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    stats: dict[str, list[Any]] = reporter.stats
    passed, skipped = len(stats.get("passed", [])), len(stats.get("skipped", []))
    failed = len(stats.get("failed", [])) + len(stats.get("error", []))
    reporter.ensure_newline()
    reporter.write_line(f"{passed} passed, {failed} failed, {skipped} skipped")

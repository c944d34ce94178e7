"""A pytest plugin: the counts of a run in its last line. `make test-openfhe` and `make test-seal` load it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


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

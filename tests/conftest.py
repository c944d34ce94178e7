"""Options of the whole suite."""

import os

import pytest
from hypothesis import settings

# Mistaken events raise in tests, and in the processes that tests start (pppml_fast.site.events).
os.environ["PPPML_STRICT_EVENTS"] = "1"
# The same examples in every run, so that a red one is red again; HYPOTHESIS_PROFILE=explore draws others every time.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", derandomize=False, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-backend",
        action="append",
        default=[],
        metavar="NAME",
        help="fail unless this kernel backend (scalar, avx2, avx512) runs on this machine; may be repeated",
    )

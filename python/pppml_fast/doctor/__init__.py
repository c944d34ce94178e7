"""What this machine offers the library, and whether what the library needs holds: ``run()`` gives a report.

NumPy is all it takes: ``python -m pppml_fast.doctor`` prints the report where the command line's extra is missing.
"""

from __future__ import annotations

from collections.abc import Callable

from pppml_fast.doctor.backends import choice, parameter_sets
from pppml_fast.doctor.environment import (
    certificates,
    clock,
    extras,
    memory,
    processor,
    program,
    randomness,
    threads,
)
from pppml_fast.doctor.report import Check, Report, Status
from pppml_fast.doctor.self_test import NOT_RUN, self_test_checks

__all__ = ["Check", "Report", "Status", "run"]

_SECTIONS: tuple[Callable[[], list[Check]], ...] = (
    program,
    processor,
    choice,
    parameter_sets,
    threads,
    memory,
    randomness,
    clock,
    certificates,
    extras,
)


def run(*, self_tests: bool = True) -> Report:
    """Examine this machine and, unless told otherwise, hold every backend against `scalar`, in about a second.

    Nothing is written, nothing is sent. Problems are in the report; none is raised.
    """
    checks = [check for section in _SECTIONS for check in section()]
    return Report(tuple(checks + (self_test_checks() if self_tests else [NOT_RUN])))

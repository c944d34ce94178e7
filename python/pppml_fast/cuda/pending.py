"""What an operation has found out, once it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pppml_fast import _native
from pppml_fast.cuda.device import native_errors

__all__ = ["Findings", "Pending"]

# Clipped values, first NaN or Inf or None, invalid residues, largest residual, refused block or None.
Findings = tuple[int, int | None, int, int, int | None]


class Pending:
    """An operation on its way. It keeps alive what the device still reads, until it is known to be done."""

    __slots__ = ("_error", "_explain", "_findings", "_keep", "_report")

    def __init__(
        self, report: _native.cuda.PendingReport, explain: Callable[[Findings], Exception | None], keep: Any
    ) -> None:
        self._report: _native.cuda.PendingReport | None = report
        self._explain = explain
        self._keep = keep
        self._findings: Findings | None = None
        self._error: Exception | None = None

    def wait(self) -> Findings:
        """Wait for the operation; raises what it was refused for, every time."""
        if self._findings is None:
            assert self._report is not None
            with native_errors():
                self._findings = self._report.wait()
            self._error = self._explain(self._findings)
            self._report = self._keep = None
        if self._error is not None:
            raise self._error
        return self._findings

"""Measurements of this library, of plain memory loops and of peers, taken in the same run; NumPy and the core only."""

from pppml_fast.bench.rows import OPERATIONS, Ratio, Report, Row, SetupRow
from pppml_fast.bench.run import BenchPlan, run_bench

__all__ = ["OPERATIONS", "BenchPlan", "Ratio", "Report", "Row", "SetupRow", "run_bench"]

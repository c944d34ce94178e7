"""`python -m pppml_fast.doctor`: the report as plain text; exit status 1 where something that must hold does not."""

from __future__ import annotations

import sys

from pppml_fast.doctor import run


def main() -> None:
    report = run()
    print("\n".join(report.lines()))
    sys.exit(0 if report.ok else 1)


main()

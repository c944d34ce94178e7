"""`python -m pppml_fast.cli`: the program without its entry point."""

from __future__ import annotations

from pppml_fast.cli.app import main

main()

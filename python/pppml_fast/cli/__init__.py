"""The program `pppml`. Heavy libraries load only in the commands that use them."""

from __future__ import annotations

from pppml_fast.cli.app import main

__all__ = ["main"]

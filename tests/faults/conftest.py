"""Puts the kit, and the light site and the proxy it is made of, within reach of an import."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
for folder in (HERE, HERE.parent / "site", HERE.parent / "transport"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

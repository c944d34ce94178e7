"""Puts the light site and the proxy, of which the kit is made, within reach of an import."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).parent.parent
for _folder in (_TESTS / "site", _TESTS / "transport"):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))

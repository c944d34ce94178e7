"""Where figures come from: processor, compiler, commit, versions, load, date. No host or user name."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pppml_fast import _native
from pppml_fast.doctor.machine import (
    available_memory,
    compiler,
    core_count,
    cpu_field,
    features,
    huge_pages,
    package_version,
)

__all__ = ["available_memory", "compiler", "describe_machine"]


def describe_machine() -> dict[str, Any]:
    """All that a reader needs to judge or repeat a measurement."""
    return {
        "cpu": cpu_field("model name") or platform.processor() or "unknown",
        "cores": core_count(),
        "flags": features(),
        "system": f"{platform.system()} {platform.machine()}",
        "huge_pages": huge_pages(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "compiler": compiler(),
        "backends": list(_native.supported_backends()),
        "commit": _commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": {"python": platform.python_version(), **_versions("pppml-fast", "numpy")},
    }


def _versions(*packages: str) -> dict[str, str]:
    return {package: package_version(package) or "not installed as a package" for package in packages}


def _commit() -> str:
    """The commit of the checkout the package is imported from, `-dirty` when its sources differ from it."""
    here = Path(__file__).parents[1]
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"

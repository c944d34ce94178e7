"""Where figures come from: processor, compiler, commit, versions, load, date. No host or user name."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pppml_fast import _native

__all__ = ["available_memory", "compiler", "describe_machine"]

# The processor's abilities that a kernel may use.
_FLAGS = (
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512ifma",
    "avx512vbmi",
    "vaes",
    "aes",
    "sha_ni",
    "asimd",
)
_COMPILER = re.compile(rb"(?:GCC: \([^)\0]*\) |clang version )\d[\w.\-]*")


def describe_machine() -> dict[str, Any]:
    """All that a reader needs to judge or repeat a measurement."""
    return {
        "cpu": _cpu_field("model name") or platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": _flags(),
        "system": f"{platform.system()} {platform.machine()}",
        "huge_pages": _huge_pages(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "compiler": compiler(),
        "backends": list(_native.supported_backends()),
        "commit": _commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": {"python": platform.python_version(), **_versions("pppml-fast", "numpy")},
    }


def available_memory() -> int | None:
    """Bytes that a process may still take without swapping; None where the system does not tell."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def compiler() -> str:
    """The compiler that built the extension, as its own mark in the file says."""
    names = _COMPILER.findall(Path(_native.__file__).read_bytes())
    return names[0].decode() if names else "unknown"


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def _cpu_field(name: str) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass
    return ""


def _flags() -> list[str]:
    present = set((_cpu_field("flags") or _cpu_field("Features")).split())
    return [flag for flag in _FLAGS if flag in present]


def _huge_pages() -> str:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    chosen = re.search(r"\[(\w+)\]", text)
    return chosen.group(1) if chosen else "unknown"


def _commit() -> str:
    """The commit of the checkout the package is imported from, `-dirty` when its sources differ from it."""
    here = Path(__file__).parents[1]
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"

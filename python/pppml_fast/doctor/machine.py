"""Facts about the processor, its memory and the built extension, as the system tells them."""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pppml_fast import _native

__all__ = [
    "FEATURES",
    "available_memory",
    "compiler",
    "core_count",
    "cpu_field",
    "features",
    "huge_pages",
    "memory_field",
    "package_version",
]

# The processor's abilities that a kernel may use.
FEATURES = (
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


def cpu_field(name: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty where there is none."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass
    return ""


def features() -> list[str]:
    """Those of FEATURES that the system lists for this processor."""
    present = set((cpu_field("flags") or cpu_field("Features")).split())
    return [feature for feature in FEATURES if feature in present]


def core_count() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def huge_pages() -> str:
    """The system's policy of transparent huge pages: always, madvise, never, or unknown."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    chosen = re.search(r"\[(\w+)\]", text)
    return chosen.group(1) if chosen else "unknown"


def memory_field(name: str) -> int | None:
    """A field of /proc/meminfo in bytes; None where the system does not tell."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def available_memory() -> int | None:
    """Bytes that a process may still take without swapping; None where the system does not tell."""
    return memory_field("MemAvailable")


def compiler() -> str:
    """The compiler that built the extension, as its own mark in the file says."""
    names = _COMPILER.findall(Path(_native.__file__).read_bytes())
    return names[0].decode() if names else "unknown"


def package_version(name: str) -> str | None:
    """The version of an installed package, None where it is not installed as one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None

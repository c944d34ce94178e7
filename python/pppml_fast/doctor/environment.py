"""What surrounds the library: versions, processor, threads, memory, randomness, clock, certificates, extras."""

from __future__ import annotations

import mmap
import os
import platform
import resource
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from pppml_fast import _native
from pppml_fast._version import __version__
from pppml_fast.doctor.backends import example
from pppml_fast.doctor.machine import (
    FEATURES,
    available_memory,
    compiler,
    core_count,
    cpu_field,
    features,
    huge_pages,
    memory_field,
    package_version,
)
from pppml_fast.doctor.report import Check, failed, held, note
from pppml_fast.errors import ParameterError
from pppml_fast.memory import memory_statistics
from pppml_fast.threads import get_num_threads

__all__ = ["certificates", "clock", "extras", "memory", "processor", "program", "randomness", "threads"]

# By the extra of this package that installs them; those of no extra stand alone.
_EXTRAS = {
    "net": ("cryptography",),
    "torch": ("torch",),
    "imaging": ("monai", "nibabel", "pydicom", "safetensors"),
    "cli": ("typer", "rich", "pydantic", "jinja2", "matplotlib", "tomlkit"),
    "bench": ("pytest-benchmark", "tenseal"),
    "": ("openfhe",),
}
_DRAWS = 8
# Linux 4.14; the standard library has no name for it.
_MADV_WIPEONFORK = 18
# Nothing of this library is older.
_FIRST_YEAR = 2026
_LAST_YEAR = 2100


def program() -> list[Check]:
    """Versions of the library and of what it runs on."""
    section = "program"
    return [
        note(section, "pppml_fast", f"{__version__}, extension built by {compiler()}"),
        note(section, "python", f"{platform.python_version()} ({platform.python_implementation()})"),
        note(section, "numpy", np.__version__),
        note(section, "system", f"{platform.system()} {platform.release()} {platform.machine()}"),
    ]


def processor() -> list[Check]:
    """The processor and those of its abilities that kernels may use."""
    section, present = "processor", features()
    model = cpu_field("model name") or platform.processor() or "unknown"
    absent = [feature for feature in FEATURES if feature not in present and feature != "asimd"]
    checks = [note(section, "model", f"{model}, {core_count()} cores for this process")]
    checks.append(note(section, "features", " ".join(present) or "none that a backend uses, or the system lists none"))
    if absent:
        checks.append(note(section, "without", " ".join(absent)))
    return checks


def threads() -> list[Check]:
    """How many threads a call may use, and why."""
    section, wanted, count = "threads", os.environ.get("OMP_NUM_THREADS"), get_num_threads()
    why = "the processors of this machine" if wanted is None else f"OMP_NUM_THREADS={wanted}"
    remedy = "more than this process has cores: set OMP_NUM_THREADS" if count > core_count() else ""
    if wanted is not None and wanted.strip() != str(count):
        remedy = "OMP_NUM_THREADS was not understood, or set_num_threads was called since"
    return [note(section, "per call", f"{count}: {why}", remedy)]


def memory() -> list[Check]:
    """Memory that is there, how it is handed out, and what keeps secrets in it."""
    section = "memory"
    available, swap, policy = available_memory(), memory_field("SwapTotal"), huge_pages()
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_CORE)]
    space, core = ("unlimited" if limit == resource.RLIM_INFINITY else _gib(limit) for limit in limits)
    core = core if limits[1] else "none"
    kept = memory_statistics()["limit"]
    told = "unknown" if available is None else _gib(available)
    checks = [
        note(section, "available", f"{told}; address space {space}; at most {_gib(kept)} kept for later arrays"),
        note(
            section,
            "huge pages",
            policy,
            "large arrays take small pages and are slower: choose madvise or always" if policy == "never" else "",
        ),
    ]
    advised = [_advice(getattr(mmap, "MADV_DONTDUMP", None)), _advice(_MADV_WIPEONFORK)]
    told = "kept out of core dumps, " if advised[0] else "not kept out of core dumps, "
    told += "zero in forked children" if advised[1] else "refused in forked children by process id"
    checks.append(note(section, "pads", told, "" if advised[0] or not limits[1] else "set ulimit -c 0"))
    checks.append(
        note(section, "core dumps", core, "keys other than pads would be in one: set ulimit -c 0" if limits[1] else "")
    )
    if swap:
        checks.append(note(section, "swap", _gib(swap), "keys are not locked in memory: encrypt it, or do without"))
    return checks


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _advice(advice: int | None) -> bool:
    if advice is None:
        return False
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        try:
            page.madvise(advice)
        except (OSError, ValueError):
            return False
    return True


def randomness() -> list[Check]:
    """Whether the system's generator answers at once, and keys differ that the core draws from it."""
    section, name = "randomness", "system generator"
    try:
        draws = {os.getrandom(32, os.GRND_NONBLOCK) for _ in range(_DRAWS)} | {os.urandom(32) for _ in range(_DRAWS)}
        scheme = example("p31")._scheme
        fresh = (scheme.generate_secret(_native.StreamKey.from_system()) for _ in range(_DRAWS))
        keys = {secret.coefficients().tobytes() for secret in fresh}
    except BlockingIOError:
        remedy = "wait for the system to gather entropy, or give this virtual machine a source"
        return [failed(section, name, "getrandom would block: not seeded yet", remedy)]
    except ParameterError as error:
        return [failed(section, "keys", str(error), "see the backend in use")]
    except (OSError, RuntimeError) as error:
        return [failed(section, name, str(error), "allow the getrandom system call in this sandbox")]
    if len(draws) != 2 * _DRAWS or len(keys) != _DRAWS:
        told = f"{2 * _DRAWS} draws gave {len(draws)} values, {_DRAWS} keys {len(keys)}"
        return [failed(section, name, told, "this system repeats its random bytes: make no keys on it")]
    return [held(section, name, f"getrandom answers at once; {2 * _DRAWS} draws and {_DRAWS} keys all differ")]


def clock() -> list[Check]:
    """Whether the clock tells a time that can be, and time does not go back. It is compared with no other clock."""
    section, now = "clock", datetime.now(timezone.utc)
    told = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    installed = datetime.fromtimestamp(Path(_native.__file__).stat().st_mtime, timezone.utc)
    remedy = "set the clock: certificates and sessions will depend on it"
    if not _FIRST_YEAR <= now.year < _LAST_YEAR:
        checks = [failed(section, "time of day", f"{told}, outside {_FIRST_YEAR} .. {_LAST_YEAR}", remedy)]
    elif now < installed:
        checks = [
            failed(section, "time of day", f"{told}, before the extension was built ({installed:%Y-%m-%d})", remedy)
        ]
    else:
        checks = [held(section, "time of day", f"{told}, after the extension was built; compared with no other clock")]
    readings = [time.monotonic_ns() for _ in range(1000)]
    if time.get_clock_info("monotonic").monotonic and readings == sorted(readings):
        return [*checks, held(section, "monotonic", "1000 readings, none before the last")]
    return [*checks, failed(section, "monotonic", "it went back", "timeouts would be wrong: mend the virtual machine")]


def certificates() -> list[Check]:
    """What stands for identities on a network."""
    return [note("certificates", "configured", "none: this version's transports stay within one process")]


def extras() -> list[Check]:
    """Optional packages, found or not."""
    checks = []
    for extra, packages in _EXTRAS.items():
        found = [f"{name} {package_version(name) or 'not found'}" for name in packages]
        missing = any(text.endswith("not found") for text in found)
        remedy = f"pip install 'pppml-fast[{extra}]'" if missing and extra else ""
        checks.append(note("extras", extra or "peers", ", ".join(found), remedy))
    return checks

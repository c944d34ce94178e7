"""Which backend runs and why, and what every parameter set holds."""

from __future__ import annotations

import os

from pppml_fast import _native, cuda
from pppml_fast.doctor.report import Check, failed, held, note
from pppml_fast.errors import ParameterError
from pppml_fast.params import PRESETS, CkksParams, KeyMode

__all__ = ["SHOWN_PARTIES", "choice", "example", "parameter_sets"]

# The parties of the sums that sizes and precisions are shown for.
SHOWN_PARTIES = 3
# Below this no library should offer a set: the least level of the 2024 tables (eprint 2024/463).
_LEAST_BITS = 128


def example(name: str, keys: KeyMode = "collective") -> CkksParams:
    """A preset for three parties and a clip of 1. Raises ParameterError where it serves no such keys."""
    return CkksParams.preset(name, parties=SHOWN_PARTIES, clip=1.0, keys=keys)


def choice() -> list[Check]:
    """The backends that were built, that run here, and the one that is used."""
    section, forced = "backend", os.environ.get("PPPML_BACKEND", "")
    supported = _native.supported_backends()
    checks = [note(section, "built", ", ".join(_native.built_backends()))]
    missing = [name for name in _native.built_backends() if name not in supported]
    checks.append(note(section, "run here", ", ".join(supported)))
    if missing:
        checks.append(note(section, "not here", ", ".join(missing), "this processor lacks their instructions"))
    try:
        chosen = _native.choose_backend()
    except _native.RequirementError as error:
        remedy = f"unset PPPML_BACKEND or set it to one of {', '.join(supported)}"
        return [*checks, failed(section, "in use", str(error), remedy)]
    why = f"forced by PPPML_BACKEND={forced}" if forced else "the best that this processor runs"
    checks.append(held(section, "in use", f"{chosen}: {why}"))
    if chosen != supported[0]:
        checks.append(note(section, "faster", supported[0], "unset PPPML_BACKEND to use it"))
    cipher = example(next(iter(PRESETS)))._scheme.private_cipher
    return [*checks, note(section, "private stream cipher", cipher), note(section, "CUDA", _devices())]


def _devices() -> str:
    """The CUDA devices, or why there are none."""
    devices = [cuda.device_info(index) for index in range(cuda.device_count())]
    return ", ".join(f"{d.index}: {d.name}" for d in devices) or cuda.why_unavailable()


def parameter_sets() -> list[Check]:
    """Level, size and precision of every preset."""
    section, checks = "parameter sets", []
    for name in PRESETS:
        try:
            params = example(name)
        except ParameterError as error:
            checks.append(failed(section, name, str(error), "see the backend in use, or reinstall"))
            continue
        told = (
            f"level {params.level}; {params.bytes_per_weight:.3f} bytes per weight, {params.exact_bits:.1f} exact bits "
            f"for {SHOWN_PARTIES} parties, collective keys"
        )
        if params.level_bits["classical"] >= _LEAST_BITS:
            checks.append(held(section, name, told))
        else:
            checks.append(failed(section, name, told, f"below {_LEAST_BITS} bits: do not use it"))
    return checks

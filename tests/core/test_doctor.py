"""The doctor: what it finds on a sound machine, and that it finds what is wrong on others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pppml_fast as pf
from pppml_fast import _native, doctor
from pppml_fast.doctor import backends, environment, machine, self_test

SECTIONS = [
    "program",
    "processor",
    "backend",
    "parameter sets",
    "threads",
    "memory",
    "randomness",
    "clock",
    "certificates",
    "extras",
    "self-test",
]


def found(checks: Any, name: str) -> doctor.Check:
    (check,) = [check for check in checks if check.name == name]
    return check


@pytest.fixture(autouse=True)
def _no_forced_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PPPML_BACKEND", raising=False)


# --- a sound machine -------------------------------------------------------------------------------------------------


def test_a_sound_machine() -> None:
    report = doctor.run()
    assert report.ok and report.failures == (), report.verdict
    assert list(dict.fromkeys(check.section for check in report.checks)) == SECTIONS
    tested = [check for check in report.checks if check.section == "self-test"]
    assert [check.name for check in tested] == ["known answers", "scalar", *others()]
    assert all(check.status == "ok" for check in tested)
    assert json.loads(json.dumps(report.to_dict()))["checks"][0]["section"] == "program"
    assert report.lines()[-1] == report.verdict
    assert len(report.lines()) == len(SECTIONS) + len(report.checks) + 1


def others() -> list[str]:
    return [name for name in _native.supported_backends() if name != "scalar"]


def test_the_self_test_can_be_left_out_and_says_so() -> None:
    report = doctor.run(self_tests=False)
    assert report.ok and report.checks[-1] == self_test.NOT_RUN


def test_what_is_told_is_what_the_library_says() -> None:
    checks = doctor.run(self_tests=False).checks
    assert found(checks, "built").value == ", ".join(_native.built_backends())
    assert found(checks, "in use").value.startswith(f"{_native.choose_backend()}: the best")
    for name in pf.PRESETS:
        params = pf.CkksParams.preset(name, parties=3, clip=1.0, keys="collective")
        assert f"level {params.level};" in found(checks, name).value
        assert f"{params.exact_bits:.1f} exact bits" in found(checks, name).value
    assert found(checks, "numpy").value == np.__version__
    present = machine.features()
    for backend in set(_native.supported_backends()) & {"avx2", "avx512"}:
        assert any(feature.startswith(backend) for feature in present)


def test_every_set_and_key_mode_is_tried_at_the_edges_of_rows_and_blocks() -> None:
    for name in pf.PRESETS:
        params = backends.example(name)
        block = params.block_weights
        lengths = self_test.edge_lengths(params)
        assert lengths[0] == 1 and block + 1 in lengths and max(map(params.block_count, lengths)) == 3
    tried = {(params.name, params.keys) for params in self_test._sets()}
    assert tried == {(name, keys) for name in pf.PRESETS for keys in ("public", "secret", "collective")}


# --- backends that compute something else ----------------------------------------------------------------------------

# What is spoilt of each operation: the array among its arguments that it writes to, or None for what it returns.
OPERATIONS: dict[str, tuple[int | None, str]] = {
    "generate_public": (None, "public key differs"),
    "quantize": (None, "quantising differs"),
    "encrypt": (5, "encryption differs"),
    "encrypt_public": (4, "encryption differs"),
    "make_pads": (6, "encryption from pads differs"),
    "encrypt_prepared": (4, "encryption from pads differs"),
    "expand": (None, "public polynomials differs"),
    "pack": (None, "packing differs"),
    "hop": (None, "hop differs"),
    "add": (3, "addition differs"),
    "tag": (None, "sum check differs"),
    "open": (6, "opening differs"),
}


def spoilt(value: Any) -> Any:
    """``value`` with one bit turned."""
    if isinstance(value, tuple):
        return spoilt(value[0]), *value[1:]
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    value[-1] = value[-1] ^ value.dtype.type(1)
    return value


def install(monkeypatch: pytest.MonkeyPatch, broken: str, backend: str) -> None:
    """Two backends, both `scalar`, of which ``backend`` does ``broken`` wrong."""
    real, stream = _native.Scheme, _native.primitives.stream

    class Scheme:
        def __init__(self, checked: Any, name: str = "", cipher: str = "") -> None:
            self._real, self._broken = real(checked, "scalar", cipher), broken if name == backend else None

        def __getattr__(self, name: str) -> Any:
            operation = getattr(self._real, name)
            if name != self._broken:
                return operation
            place, _ = OPERATIONS[name]

            def wrong(*arguments: Any, **options: Any) -> Any:
                result = operation(*arguments, **options)
                if place is None:
                    return spoilt(result)
                spoilt(arguments[place])
                return result

            return wrong

    def same_stream(*arguments: Any) -> Any:
        words = stream(*arguments[:5], "scalar", arguments[6])
        return words ^ 1 if broken == arguments[6] and arguments[5] == backend else words

    monkeypatch.setattr(_native, "Scheme", Scheme)
    monkeypatch.setattr(_native, "supported_backends", lambda: ["other", "scalar"])
    monkeypatch.setattr(_native.primitives, "stream", same_stream)


def test_two_equal_backends_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "nothing", "other")
    assert [(check.name, check.status) for check in self_test.self_test_checks()] == [
        ("known answers", "ok"),
        ("scalar", "ok"),
        ("other", "ok"),
    ]


@pytest.mark.parametrize("broken", OPERATIONS)
def test_one_wrong_bit_of_any_operation_fails(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    install(monkeypatch, broken, "other")
    report = doctor.run()
    assert not report.ok and report.verdict.endswith("checks failed: self-test: other")
    (failure,) = report.failures
    assert OPERATIONS[broken][1] in failure.value and "and " in failure.value
    assert "set PPPML_BACKEND=scalar" in failure.remedy


@pytest.mark.parametrize("broken", ["quantize", "open"])
def test_a_scalar_backend_that_opens_something_else_fails(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    install(monkeypatch, broken, "scalar")
    failures = {check.name: check for check in self_test.self_test_checks() if check.status == "failed"}
    assert set(failures) == {"scalar", "other"}
    assert "what was opened is not what was encrypted" in failures["scalar"].value


@pytest.mark.parametrize("cipher", ["chacha20", "aes256"])
def test_a_cipher_that_misses_its_known_answer_fails(monkeypatch: pytest.MonkeyPatch, cipher: str) -> None:
    install(monkeypatch, cipher, "other")
    assert found(self_test.self_test_checks(), "known answers").value == f"wrong: {cipher} on other"


# --- machines with something wrong -----------------------------------------------------------------------------------


def test_a_forced_backend_that_is_none_fails_without_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPPML_BACKEND", "sse9")
    report = doctor.run()
    assert not report.ok
    choice = found(report.checks, "in use")
    assert "backend 'sse9' was not built" in choice.value and "unset PPPML_BACKEND or set it to one of" in choice.remedy
    assert found([c for c in report.checks if c.section == "self-test"], "all backends").status == "failed"


def test_a_forced_backend_is_told_with_what_would_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPPML_BACKEND", "scalar")
    checks = backends.choice()
    assert found(checks, "in use").value == "scalar: forced by PPPML_BACKEND=scalar"
    faster = [check.value for check in checks if check.name == "faster"]
    assert faster == others()[:1]


def test_a_level_below_128_bits_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    weak = SimpleNamespace(level="100 classical", level_bits={"classical": 100}, bytes_per_weight=1.0, exact_bits=20.0)
    monkeypatch.setattr(backends, "example", lambda _: weak)
    assert {(check.status, check.remedy) for check in backends.parameter_sets()} == {
        ("failed", "below 128 bits: do not use it")
    }


class Stopped(datetime):
    """A clock that stands where it is told to."""

    at = datetime(1999, 1, 1, tzinfo=timezone.utc)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.at


@pytest.mark.parametrize(
    ("year", "message"),
    [(1999, "1999-01-01"), (2200, "outside 2026 .. 2100"), (2026, "before the extension was built")],
)
def test_a_clock_that_cannot_be_right_fails(monkeypatch: pytest.MonkeyPatch, year: int, message: str) -> None:
    monkeypatch.setattr(Stopped, "at", datetime(year, 1, 1, tzinfo=timezone.utc))
    monkeypatch.setattr(environment, "datetime", Stopped)
    check = found(environment.clock(), "time of day")
    assert check.status == "failed" and message in check.value


def test_a_clock_that_goes_back_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(range(10_000, 0, -1))
    monkeypatch.setattr(environment.time, "monotonic_ns", lambda: next(readings))
    assert found(environment.clock(), "monotonic").status == "failed"


def blocked(*_: Any) -> bytes:
    raise BlockingIOError


def refused(*_: Any) -> bytes:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (blocked, "getrandom would block"),
        (refused, "Operation not permitted"),
        (lambda *_: bytes(32), "16 draws gave 9 values"),
    ],
)
def test_a_generator_that_does_not_serve_fails(
    monkeypatch: pytest.MonkeyPatch, generator: Callable[..., bytes], message: str
) -> None:
    monkeypatch.setattr(os, "getrandom", generator)
    (check,) = environment.randomness()
    assert check.status == "failed" and message in check.value and check.remedy


def test_a_thread_count_that_was_not_understood_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted, remedy in (("several", "was not understood"), (str(pf.get_num_threads()), "")):
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
        (check,) = environment.threads()
        assert check.status == "note" and remedy in check.remedy


def test_packages_that_are_missing_are_noted_with_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "package_version", lambda name: None if name == "monai" else "1.0")
    checks = environment.extras()
    assert found(checks, "imaging").remedy == "pip install 'pppml-fast[imaging]'"
    assert "monai not found" in found(checks, "imaging").value and found(checks, "torch").remedy == ""
    assert {check.status for check in checks} == {"note"}


# --- as a program ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "code", "last"), [("", 0, "checks hold"), ("sse9", 1, "checks failed: ")])
def test_the_module_runs_without_the_command_line(backend: str, code: int, last: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pppml_fast.doctor"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "PPPML_BACKEND": backend},
    )
    assert run.returncode == code and last in run.stdout.splitlines()[-1], run.stderr

"""What type checkers see: the package is typed, a strict user's program passes, and mistakes in it do not."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = Path(__file__).with_name("typed_program.py")


def mypy(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, str(path)]
    environment = {**os.environ, "MYPYPATH": str(ROOT / "python")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)


def test_the_package_says_that_it_is_typed() -> None:
    package = resources.files("pppml_fast")
    for name in ("py.typed", "_native/__init__.pyi", "_native/primitives.pyi"):
        assert package.joinpath(name).is_file(), name


def test_a_strict_program_passes_and_runs() -> None:
    checked = mypy(PROGRAM)
    assert (checked.returncode, checked.stdout) == (0, "Success: no issues found in 1 source file\n"), checked.stdout
    run = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=900, check=False)
    assert (run.returncode, run.stdout) == (0, "0 failures; parameter set 'p31'\n"), run.stderr


MISTAKES = {
    'pf.CkksParams.preset("p31", parties=3, clip=1.0, keys="private")': "arg-type",
    'pf.CkksParams.preset("p31", parties="3", clip=1.0)': "arg-type",
    "pf.keygen(params).public.encrypt([0.5])": "union-attr",
    "pf.keygen(params).secret.decrypt(b'')": "arg-type",
    "pf.keygen(params).secret.private": "attr-defined",
    "pf.add([1, 2])": "list-item",
    'pf.Ciphertext.from_bytes(params, "text")': "arg-type",
    "_native.Scheme(params)": "arg-type",
    "_native.primitives.stream(1, 2)": "call-arg",
}


def test_mistakes_do_not_pass(tmp_path: Path) -> None:
    """The types are no `Any`: each line of a program of mistakes is found."""
    path = tmp_path / "mistaken.py"
    head = ["import pppml_fast as pf", "from pppml_fast import _native", "params: pf.CkksParams"]
    path.write_text("\n".join([*head, *MISTAKES]) + "\n")
    # mypy's cache may name the folder of an earlier run with the same text.
    found = mypy(path).stdout
    for number, (line, code) in enumerate(MISTAKES.items(), start=len(head) + 1):
        told = [text for text in found.splitlines() if f"/{path.name}:{number}: error: " in text]
        assert any(text.endswith(f"[{code}]") for text in told), (line, found)


@pytest.mark.parametrize("changed", ["", "x: int\n"])
def test_stubs_that_differ_are_shown(changed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "csrc" / "bindings"))
    import stubs

    present = {path.name: path.read_text() for path in stubs.STUBS.glob("*.pyi")}
    shown = stubs.difference({**present, "primitives.pyi": present["primitives.pyi"] + changed})
    assert shown.splitlines()[3:][-1:] == (["+x: int"] if changed else [])
    assert ("primitives.pyi of the built extension" in shown) is bool(changed)
    gone = stubs.difference({"__init__.pyi": present["__init__.pyi"]})
    assert "-__all__: list[str] = [" in gone

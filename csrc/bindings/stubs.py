"""Write the types of the extension, `python/pppml_fast/_native/*.pyi`, from the extension itself, or check them.

    python csrc/bindings/stubs.py             write
    python csrc/bindings/stubs.py --check     exit with 1 and a diff where the files differ

pybind11-stubgen reads the signatures that pybind11 gave the functions; ruff brings them into the project's style. A
binding needs nothing here: name its arguments with py::arg and give it types (std::optional, std::tuple, py::typing).
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULE = "pppml_fast._native"
STUBS = ROOT / "python" / "pppml_fast" / "_native"
NOTICE = "# Written by `make stubs` from the built extension: change csrc/bindings instead.\n"
# pybind11 spells the buffer type as the interpreter that it is built for has it; type checkers know this one for all.
SPELLINGS = {"collections.abc.Buffer": "typing_extensions.Buffer"}


def generate() -> dict[str, str]:
    """The stubs by file name."""
    with tempfile.TemporaryDirectory() as folder:
        _run("pybind11_stubgen", MODULE, "--exit-code", "--numpy-array-use-type-var", "--output-dir", folder)
        written = Path(folder, *MODULE.split("."))
        for path in written.glob("*.pyi"):
            text = path.read_text()
            for found, wanted in SPELLINGS.items():
                text = text.replace(found, wanted)
            if "typing_extensions." in text and "import typing_extensions" not in text:
                text = text.replace("import typing\n", "import typing\nimport typing_extensions\n", 1)
            # Docstrings of enumerations come with spaces at the ends of lines.
            path.write_text(NOTICE + "".join(line.rstrip() + "\n" for line in text.splitlines()))
        config = ("--config", str(ROOT / "pyproject.toml"), "--quiet", str(written))
        _run("ruff", "check", "--fix", "--exit-zero", *config)
        _run("ruff", "format", *config)
        return {path.name: path.read_text() for path in sorted(written.glob("*.pyi"))}


def difference(generated: dict[str, str]) -> str:
    """A unified diff from the files on disk to the generated ones; empty where they are the same."""
    present = {path.name: path.read_text() for path in sorted(STUBS.glob("*.pyi"))}
    lines: list[str] = []
    for name in sorted({*present, *generated}):
        old, new = (texts.get(name, "").splitlines(keepends=True) for texts in (present, generated))
        shown = (STUBS / name).relative_to(ROOT)
        lines += difflib.unified_diff(old, new, f"{shown} on disk", f"{shown} of the built extension")
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write or check the stubs of the extension.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where the files differ")
    check = parser.parse_args().check
    generated = generate()
    changed = difference(generated)
    if check and changed:
        sys.stdout.write(changed)
        sys.exit("the stubs on disk are not those of the built extension: run `make stubs` and commit the result")
    if not check and changed:
        STUBS.mkdir(exist_ok=True)
        for path in STUBS.glob("*.pyi"):
            path.unlink()
        for name, text in generated.items():
            (STUBS / name).write_text(text)
    print(f"{len(generated)} stubs: {'rewritten' if changed else 'as the built extension gives them'}")


def _run(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{module} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()

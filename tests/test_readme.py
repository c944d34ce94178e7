"""The Python of README.md runs as it stands, from top to bottom; `make help` names what `make` knows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "README.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert np.abs(names["opened"] - names["x"]).max() < 1e-5
    assert np.abs(names["values"] - names["x"]).max() <= names["mean"].error + names["mean"].release_step / 2
    assert "rescale" in capsys.readouterr().out


def test_make_help_names_every_target_once() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {name for line in re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE) for name in line.split()}
    told = re.findall(r'^\t@echo "make (.*)"$', makefile, re.MULTILINE)
    # A line begins with the targets it is about, two spaces after them; it may name another as "make that".
    about = [line.partition("  ")[0].split(", ") for line in told]
    also = [name for line in told for name in re.findall(r"make ([a-z-]+)", line)]
    listed = [name for names in about for name in names]
    assert len(listed) == len(set(listed)), "a target has two lines"
    assert set(listed) <= targets <= {"help", *listed, *also}

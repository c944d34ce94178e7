"""The commands of docs/operations.md marked `sh` run as they stand, from top to bottom."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from pppml_fast.site.federation_file import FederationFile
from pppml_fast.site.keys import SiteKeys

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def test_the_commands_run(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    program = tmp_path / "bin" / "pppml"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pppml_fast.cli "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for file in ("federation.json", "star.json"):
        FederationFile.load(tmp_path / "trial" / file).require_signatures()
    for name in ("north", "east", "south", "hub"):
        assert SiteKeys.load(tmp_path / "trial" / name / "keys", need_certificate=True).name == name


def test_the_table_of_files_is_the_folder(tmp_path: Path) -> None:
    from pppml_fast.site.authority import TrialAuthority

    keys, authority = SiteKeys.create(tmp_path / "keys", "north"), TrialAuthority.create(tmp_path / "ca")
    SiteKeys.install(keys.folder, authority.issue(keys.request), authority.certificate)
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (0\d{3}) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert rows == {path.name: f"0{path.stat().st_mode & 0o777:o}" for path in keys.folder.iterdir()}

"""``test_constant_time`` under memcheck: secrets decide no branch and no address but where constant_time.supp says so.

``python constant_time.py BINARY`` fails on a report that no suppression explains, on a suppression that explains none
(the positive controls are among them), and where valgrind is missing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

EXCEPTIONS = Path(__file__).with_suffix(".supp")


def known_exceptions() -> set[str]:
    """The names that stand first in every suppression."""
    return set(re.findall(r"^\{\n\s+(.+)$", EXCEPTIONS.read_text(), re.MULTILINE))


def main(binary: str) -> int:
    """Runs the binary and compares what memcheck explained with what it should have."""
    if shutil.which("valgrind") is None:
        print("valgrind is not here: install Debian's package valgrind", file=sys.stderr)
        return 1
    options = ["--error-limit=no", "--num-callers=8", "--show-error-list=yes", f"--suppressions={EXCEPTIONS}"]
    done = subprocess.run(["valgrind", *options, binary], check=False, capture_output=True, text=True)
    unexplained = re.search(r"ERROR SUMMARY: (\d+) errors from (\d+) contexts", done.stderr)
    used = {
        name for name in known_exceptions() if re.search(rf"used_suppression: +\d+ {re.escape(name)} ", done.stderr)
    }
    if done.returncode != 0 or unexplained is None or unexplained[1] != "0":
        print(done.stdout, done.stderr[-20000:], sep="\n")
        return 1
    print(done.stdout.strip())
    for name in sorted(used):
        print(f"reported as it should be: {name}")
    for name in sorted(known_exceptions() - used):
        print(f"never reported: {name}; take it out of {EXCEPTIONS.name}", file=sys.stderr)
    return 0 if used == known_exceptions() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

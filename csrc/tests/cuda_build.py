"""Build the extension with CUDA and read the compiler's resource report: no fused kernel may spill registers.

    python csrc/tests/cuda_build.py BUILD_FOLDER

Prints registers, shared memory and spilled bytes of every kernel and architecture; exits with 1 where a fused kernel
spills or a kernel is missing. The report of what is not compiled again is kept in BUILD_FOLDER/resources.json.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

FUSED = ("encrypt", "encrypt_public", "open")
KERNELS = (*FUSED, "sum", "move")
SHAPES = {"IjLj11ELj1E": "p31", "ImLj12ELj1E": "p50", "IjLj12ELj2E": "p62", "ImLj11ELj1E": "compact"}
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
MANGLED = re.compile(r"cuda\d+([a-z_]+)_kernel(?:INS1_5Shape(I\w+?E)EE)?")
SPILL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def parse(log: str) -> dict[str, dict[str, int]]:
    """What ptxas said of each kernel, by `kernel/shape/architecture`."""
    found: dict[str, dict[str, int]] = {}
    name = ""
    for line in log.splitlines():
        if entry := ENTRY.search(line):
            mangled = MANGLED.search(entry[1])
            shape = SHAPES.get(mangled[2] or "", "") if mangled else ""
            name = f"{mangled[1]}/{shape or 'all'}/{entry[2]}" if mangled else ""
        elif name and (spill := SPILL.search(line)):
            found[name] = {"stack": int(spill[1]), "spilled": int(spill[2]) + int(spill[3])}
        elif name and "Used " in line and "registers" in line:
            found[name]["registers"] = int(re.search(r"Used (\d+) registers", line)[1])  # type: ignore[index]
            shared = re.search(r"(\d+) bytes smem", line)
            found[name]["shared"] = int(shared[1]) if shared else 0
            name = ""
    return found


def build(folder: Path) -> dict[str, dict[str, int]]:
    """Build, and give the whole report: what was compiled now, and what is known from before."""
    kept = folder / "resources.json"
    report: dict[str, dict[str, int]] = json.loads(kept.read_text()) if kept.exists() else {}
    if not report:
        for compiled in folder.rglob("*.cu.o"):
            compiled.unlink()
    command = ["cmake", "--build", str(folder), "--target", "_native"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stdout)
    report |= parse(done.stdout)
    kept.write_text(json.dumps(report, indent=1, sort_keys=True))
    return report


def main() -> None:
    report = build(Path(sys.argv[1]))
    architectures = sorted({name.split("/")[2] for name in report}, key=lambda a: int(re.sub(r"\D", "", a)))
    wrong = []
    print("registers / bytes of shared memory / bytes spilled")
    print(f"{'kernel':24s}" + "".join(f"{a:>18s}" for a in architectures))
    for kernel in KERNELS:
        for shape in SHAPES.values():
            cells = []
            for architecture in architectures:
                name = f"{kernel}/{shape}/{architecture}"
                found = report.get(name)
                if found is None:
                    wrong.append(f"{name} is missing from the report")
                    continue
                if kernel in FUSED and found["spilled"]:
                    wrong.append(f"{name} spills {found['spilled']} bytes")
                cells.append(f"{found['registers']} / {found['shared']} / {found['spilled']}")
            print(f"{kernel + ' ' + shape:24s}" + "".join(f"{cell:>18s}" for cell in cells))
    if wrong or not architectures:
        sys.exit("\n".join(wrong or ["no kernel was compiled"]))
    print(f"{len(report)} kernels for {', '.join(architectures)}; no fused kernel spills")


if __name__ == "__main__":
    main()

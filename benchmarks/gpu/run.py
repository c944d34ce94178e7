"""On a machine with a GPU: build, hold the kernels to the bits of `scalar`, run the sanitizers, measure.

    python3 benchmarks/gpu/run.py test  --results DIR
    python3 benchmarks/gpu/run.py bench --results DIR

Needs nvcc, CMake, ninja, a C++ compiler, and in this Python NumPy, pybind11, pytest, hypothesis and (for bench and the
tests of tensors) torch; no virtual environment and no network. Writes build.json, test.json, sanitizers.json and
bench.json with logs beside them; exits with 2 where there is no GPU, with 1 where anything failed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "gpu"
SANITIZERS = ("memcheck", "racecheck")
TEST_SECONDS, SANITIZER_SECONDS, BENCH_SECONDS = 240, 120, 240


def main() -> None:
    parser = argparse.ArgumentParser(description="Test or measure the CUDA kernels on this machine's GPU.")
    parser.add_argument("what", choices=("test", "bench"))
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "gpu")
    arguments = parser.parse_args()
    results: Path = arguments.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    gpu = find_gpu()
    native = build(results, gpu)
    passed = test(results, native, gpu) if arguments.what == "test" else bench(results, native, gpu)
    sys.exit(0 if passed else 1)


def find_gpu() -> dict[str, str]:
    """Name, driver and compute capability of the first GPU, as nvidia-smi has them; ends the program without one."""
    tool = shutil.which("nvidia-smi") or "/usr/local/nvidia/bin/nvidia-smi"
    query = [tool, "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60)
        name, driver, capability, memory = (field.strip() for field in done.stdout.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        print(f"no GPU: {tool} does not answer ({type(error).__name__}). Nothing was tested or measured.")
        print("`make test-cuda-host` runs the same kernels on the processor.")
        sys.exit(2)
    return {"name": name, "driver": driver, "capability": capability, "memory": memory}


def provenance(gpu: dict[str, str]) -> dict[str, Any]:
    """What every file of results begins with."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "gpu": gpu,
        "machine": platform.node(),
        "processor_cores": os.cpu_count(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown: no git here",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
    }


def build(results: Path, gpu: dict[str, str]) -> Path:
    """The extension for this GPU alone, which takes a third of the time that all architectures take."""
    architecture = gpu["capability"].replace(".", "")
    cmakedir = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, check=False
    )
    if cmakedir.returncode != 0:
        sys.exit(f"{sys.executable} has no pybind11: {cmakedir.stderr.strip()}")
    began = time.monotonic()
    configure = [
        "cmake", "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", "-DPPPML_CUDA=ON",
        f"-DPPPML_CUDA_ARCHITECTURES={architecture}-real", f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={cmakedir.stdout.strip()}",
    ]  # fmt: skip
    log = ""
    for command in (configure, ["cmake", "--build", str(BUILD), "--target", "_native"]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        log += done.stdout
        (results / "build.log").write_text(log)
        if done.returncode != 0:
            sys.exit(f"the build failed:\n{log[-4000:]}")
    (native,) = BUILD.glob("_native*.so")
    seconds = round(time.monotonic() - began, 1)
    write(results / "build.json", {**provenance(gpu), "seconds": seconds, "native": str(native.relative_to(ROOT))})
    print(f"built for sm_{architecture} in {seconds} s")
    return native


def environment(native: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PPPML_NATIVE": str(native), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def run(command: list[str], native: Path, log: Path, seconds: int) -> int:
    """The exit status; 124 where it ran out of time."""
    with log.open("w") as out:
        try:
            return subprocess.run(
                command,
                cwd=ROOT,
                env=environment(native),
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return 124


def test(results: Path, native: Path, gpu: dict[str, str]) -> bool:
    """The tests of the device, then each sanitizer over one small run of everything."""
    report = results / "test.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    status = run([*command, "tests/cuda/device"], native, results / "test.log", TEST_SECONDS)
    counts = counted(report)
    write(results / "test.json", {**provenance(gpu), "status": status, **counts})
    sanitizers = {tool: sanitize(results, native, tool) for tool in SANITIZERS}
    write(results / "sanitizers.json", {**provenance(gpu), **sanitizers})
    for tool, verdict in sanitizers.items():
        print(f"{tool}: {verdict}")
    failed = counts["failed"] + (1 if status not in (0, 1) or not counts["passed"] else 0)
    if failed:
        print((results / "test.log").read_text()[-6000:])
    print(f"{counts['passed']} passed, {failed} failed")
    return failed == 0 and all(verdict in ("clean", "absent") for verdict in sanitizers.values())


def counted(report: Path) -> dict[str, int]:
    if not report.exists():
        return {"passed": 0, "failed": 0, "skipped": 0}
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    failed, skipped = int(suite.get("failures", 0)) + int(suite.get("errors", 0)), int(suite.get("skipped", 0))
    return {"passed": int(suite.get("tests", 0)) - failed - skipped, "failed": failed, "skipped": skipped}


def sanitize(results: Path, native: Path, tool: str) -> str:
    """`clean`, `absent` where there is no compute-sanitizer, or what it found."""
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(sanitizer).exists():
        return "absent"
    log = results / f"{tool}.log"
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "benchmarks/gpu/small.py"]
    status = run(command, native, log, SANITIZER_SECONDS)
    text = log.read_text()
    if status == 0 and re.search(r"(ERROR SUMMARY|RACECHECK SUMMARY).*\b0 (errors|hazards)", text):
        return "clean"
    return "out of time" if status == 124 else f"status {status}: {text[-1500:]}"


def bench(results: Path, native: Path, gpu: dict[str, str]) -> bool:
    """Measure, and print the table."""
    found = results / "figures.json"
    found.unlink(missing_ok=True)
    command = [sys.executable, "benchmarks/gpu/figures.py", str(found)]
    status = run(command, native, results / "bench.log", BENCH_SECONDS)
    print((results / "bench.log").read_text()[-6000:])
    figures = json.loads(found.read_text()) if found.exists() else {}
    write(results / "bench.json", {**provenance(gpu), "status": status, "figures": figures})
    return status == 0


def write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

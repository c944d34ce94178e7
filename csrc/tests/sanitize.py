"""The suite of the core under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer: ``make test-sanitize``.

(a) ``build/asan``: extension and C++ tests with ASan and UBSan, every finding fatal. The tests in ``SUITE`` load that
    extension in place of the installed one; the C++ tests run beside them, with LeakSanitizer.
(b) ``build/tsan``: the C++ tests, which share everything between threads, under TSan.

Ends with ``N passed, M failed``, summed over the reports that pytest and ctest wrote, and fails unless M is 0.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What reaches native code in more than a call or two. PPPML_SANITIZE_TESTS takes fewer files or folders.
SUITE = os.environ.get("PPPML_SANITIZE_TESTS", "tests/core tests/aggregation").split()
# Freed memory that ASan keeps back counts as the process's own where a test measures that.
LITTLE_QUARANTINE = {"test_streaming.py": ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64"}
JOBS = len(os.sched_getaffinity(0))
TOOLS = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@dataclass
class Result:
    """How many tests of one report passed, failed and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Result) -> Result:
        return Result(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)


def run_tool(*command: str | Path) -> None:
    """Runs a build tool; what it prints is shown only if it fails."""
    done = subprocess.run([*map(str, command)], check=False, cwd=ROOT, env=TOOLS, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}{done.stderr}\n{' '.join(map(str, command))} failed")


def build(folder: Path, sanitizers: str, targets: list[str]) -> None:
    """Builds ``targets`` in ``folder`` with ``-fsanitize=sanitizers``."""
    import pybind11

    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "PPPML_TESTS": "ON",
        "PPPML_CUDA": "HOST",  # the kernels of CUDA devices are watched as well
        "PPPML_SANITIZE": sanitizers,
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        # pybind11 would optimise at link time: minutes, with what sanitizers add.
        "CMAKE_INTERPROCEDURAL_OPTIMIZATION": "OFF",
    }
    run_tool(
        "cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *(f"-D{name}={value}" for name, value in options.items())
    )
    run_tool("cmake", "--build", folder, "--parallel", str(JOBS), "--target", *targets)


def make_environment(folder: Path) -> Path:
    """A virtual environment that finds the extension of ``folder``, and all else where this interpreter finds it.

    The installed package cannot come in between: an editable install works through hooks of its own environment.
    """
    package = folder / "package" / "pppml_fast"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "python" / "pppml_fast", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for extension in folder.glob("_native*.so"):
        shutil.copy(extension, package)
    home = folder / "venv"
    venv.create(home, clear=True, symlinks=True)
    (site,) = home.glob("lib/python3*/site-packages")
    found = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "sanitize.pth").write_text("\n".join([str(package.parent), *found]) + "\n")
    return home / "bin" / "python"


def compiler_file(name: str) -> str:
    """The path of one of the compiler's own libraries."""
    found = subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        sys.exit(f"g++ has no {name}: install its sanitizer libraries (Debian: libasan8, libtsan2, libubsan1)")
    return found


def read_report(path: Path, title: str, output: str) -> Result:
    """The counts of one JUnit report; a run that left none counts as one failure."""
    result = Result(failed=1)
    if path.is_file():
        root = ElementTree.parse(path).getroot()
        suite = root if root.tag == "testsuite" else root[0]
        count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped", "disabled")}
        failed, skipped = count["failures"] + count["errors"], count["skipped"] + count["disabled"]
        result = Result(count["tests"] - failed - skipped, failed, skipped)
    print(f"{title}: {result.passed} passed, {result.failed} failed, {result.skipped} skipped", flush=True)
    if result.failed != 0 or result.passed == 0:
        print(output[-20000:], flush=True)
    return result


def run_tests(title: str, report: Path, command: list[str], variables: Mapping[str, str]) -> Result:
    """Runs one pytest or ctest, which writes ``report``."""
    report.unlink(missing_ok=True)
    done = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env={**TOOLS, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    result = read_report(report, title, done.stdout)
    # Such as a sanitizer that found something after the last test.
    return result if done.returncode in (0, 5) or result.failed else result + Result(failed=1)


def run_python_file(python: Path, folder: Path, file: Path) -> Result:
    """One file of the suite, in a process of its own: what crashes takes no other results along."""
    report = folder / "reports" / f"{file.parent.name}-{file.stem}.xml"
    variables = {
        # The interpreter knows nothing of ASan, which must be there first, and finds exceptions in libstdc++.
        "LD_PRELOAD": f"{compiler_file('libasan.so')} {compiler_file('libstdc++.so.6')}",
        # CPython and NumPy leave memory to the system at exit: every such block would count as a leak.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1" + LITTLE_QUARANTINE.get(file.name, ""),
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", str(file)]
    return run_tests(f"asan  {file.relative_to(ROOT)}", report, command, variables)


def run_binaries(folder: Path, variables: Mapping[str, str]) -> Result:
    """The C++ tests of one build, one at a time: they bring threads of their own.

    Without ``detect_stack_use_after_return``: GCC 12 aligns its stand-in stack to less than vectors need.
    """
    report = folder / "reports" / "ctest.xml"
    command = ["ctest", "--test-dir", str(folder), "--output-on-failure", "--output-junit", str(report)]
    return run_tests(f"{folder.name}  csrc/tests", report, command, variables)


def main() -> int:
    """Builds, runs and sums up."""
    asan, tsan = ROOT / "build" / "asan", ROOT / "build" / "tsan"
    build(asan, "address,undefined,float-cast-overflow", ["_native", "pppml_tests"])
    build(tsan, "thread", ["pppml_tests"])
    for folder in (asan, tsan):
        (folder / "reports").mkdir(exist_ok=True)
    python = make_environment(asan)
    files = [
        file for name in SUITE for file in ([ROOT / name] if name.endswith(".py") else (ROOT / name).glob("test_*.py"))
    ]
    files.sort(key=lambda file: -file.stat().st_size)
    with ThreadPoolExecutor(JOBS) as pool:
        pending = [pool.submit(run_binaries, tsan, {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"})]
        pending += [pool.submit(run_python_file, python, asan, file) for file in files]
        pending += [pool.submit(run_binaries, asan, {"ASAN_OPTIONS": "detect_leaks=1"})]
        total = sum((one.result() for one in pending), Result())
    print(f"{total.passed} passed, {total.failed} failed")
    return 0 if total.failed == 0 and total.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())

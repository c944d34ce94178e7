"""All fuzz targets in one run: builds the native ones, writes the corpora, and sums up.

    python tests/fuzz/run.py                    at least 10^7 executions, guided by coverage where the tools are
    python tests/fuzz/run.py --smoke            a short run of the mutation drivers: the same inputs every time
    python tests/fuzz/run.py --executions N --seed S --only rows --only wire

The last line is ``executions=… targets=… crashes=…``. After a finding the status is 1, and the lines before it name the
saved input and the command that runs it again.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from targets import NATIVE, PYTHON, NativeTarget, PythonTarget, python_target

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EXECUTIONS = 10_500_000
# An input that takes longer is a finding; a whole round on a busy machine stays well below.
TIMEOUT_SECONDS = 25
MEMORY_MB = 2048
CLANGS = ("clang++", *(f"clang++-{version}" for version in range(21, 13, -1)))
PROBE = """#include <cstddef>
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) { return size > 0 && data[0] > 256; }
"""


@dataclass(frozen=True)
class Outcome:
    """What one target did; ``finding`` is the text to show, empty where there is none."""

    name: str
    executions: int
    finding: str


def main() -> int:
    options = _options()
    work = Path(options.work).resolve()
    chosen = [target for target in (*NATIVE, *PYTHON) if not options.only or target.name in options.only]
    compiler = None if options.smoke or options.mutation else find_clang(work, options.install)
    binaries = build(work, compiler) if any(isinstance(target, NativeTarget) for target in chosen) else work
    guided = not (options.smoke or options.mutation) and has_atheris(options.install)
    print(
        f"native targets: {compiler or 'mutation driver'}; Python targets: {'atheris' if guided else 'mutation driver'}"
    )
    lock = threading.Lock()

    def one(target: NativeTarget | PythonTarget) -> Outcome:
        runs = target.smoke if options.smoke else max(1, round(target.share * options.executions))
        corpus = write_corpus(target, work / "corpus" / target.name)
        command = _command(target, binaries, guided)
        outcome = run_target(target, command, runs, options.seed, corpus, work / "findings")
        with lock:
            print(f"{outcome.name:18} {outcome.executions:>10} executions{outcome.finding}", flush=True)
        return outcome

    # The longest first, so that none of them is left alone at the end.
    chosen.sort(key=lambda target: -target.smoke if options.smoke else -target.share)
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(one, chosen))
    crashes = sum(bool(outcome.finding) for outcome in outcomes)
    total = sum(outcome.executions for outcome in outcomes)
    print(f"executions={total} targets={len(outcomes)} crashes={crashes}")
    return 1 if crashes else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=EXECUTIONS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", action="append", default=[], metavar="TARGET")
    parser.add_argument("--smoke", action="store_true", help="the short deterministic run")
    parser.add_argument("--mutation", action="store_true", help="no clang, no atheris: mutation drivers")
    parser.add_argument("--install", action="store_true", help="install clang and atheris where that is possible")
    parser.add_argument("--work", default=ROOT / "build" / "fuzz", help="builds, corpora and findings")
    return parser.parse_args()


# --- tools -----------------------------------------------------------------------------------------------------------


def find_clang(work: Path, install: bool) -> str | None:
    """A clang++ that links libFuzzer, installed if need be and allowed; None where there is none."""
    for attempt in range(2):
        for name in CLANGS:
            if shutil.which(name) and _links_libfuzzer(name, work):
                return name
        if attempt == 0 and not (install and _apt("clang-14", "libclang-rt-14-dev")):
            break
    print("no clang with libFuzzer here: GCC builds the native targets, with a mutation driver")
    return None


def _links_libfuzzer(compiler: str, work: Path) -> bool:
    work.mkdir(parents=True, exist_ok=True)
    source = work / "probe.cpp"
    source.write_text(PROBE)
    command = [compiler, "-fsanitize=fuzzer,address,undefined", str(source), "-o", str(work / "probe")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _apt(*packages: str) -> bool:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def apt(*words: str) -> bool:
        command = ["apt-get", "-q", "-y", *words]
        return subprocess.run(command, capture_output=True, check=False, env=environment).returncode == 0

    return apt("install", *packages) or (apt("update") and apt("install", *packages))


def has_atheris(install: bool) -> bool:
    """Whether atheris can be imported, installed if need be and allowed."""
    probe = [sys.executable, "-c", "import atheris"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return True
    if not install:
        return False
    wheel = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "atheris>=2.3"]
    subprocess.run(wheel, capture_output=True, check=False)
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def build(work: Path, compiler: str | None) -> Path:
    """The folder of the native targets, built with ``compiler`` or with GCC."""
    folder = work / ("libfuzzer" if compiler else "driver")
    tools = Path(sys.executable).parent
    cmake, ninja = (str(tools / name) if (tools / name).exists() else name for name in ("cmake", "ninja"))
    configure = [cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    configure += ["-DPPPML_FUZZ=ON", "-DPPPML_CUDA=OFF", f"-DCMAKE_CXX_COMPILER={compiler or 'g++'}"]
    for command in (configure, [cmake, "--build", str(folder), "--target", "fuzz_targets"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{shlex.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return folder / "csrc" / "tests" / "fuzz"


# --- one target ------------------------------------------------------------------------------------------------------


def write_corpus(target: NativeTarget | PythonTarget, folder: Path) -> Path:
    """A fresh folder of seeds, made by the library itself, and of the inputs that once were findings."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if isinstance(target, PythonTarget):
        seeds = python_target(target.name)[2]
    else:
        from native_seeds import native_seeds

        seeds = native_seeds(target.name)
    for number, seed in enumerate(seeds):
        (folder / f"seed-{number:03}").write_bytes(seed)
    for file in sorted((HERE / "regressions").glob(f"{target.name}-*")):
        shutil.copy(file, folder / file.name)
    return folder


def _command(target: NativeTarget | PythonTarget, binaries: Path, guided: bool) -> list[str]:
    if isinstance(target, NativeTarget):
        return [str(binaries / f"fuzz_{target.name}")]
    command = [sys.executable, str(HERE / "targets.py"), target.name]
    return command if guided else [*command, "-engine=mutation"]


def run_target(
    target: NativeTarget | PythonTarget, command: list[str], runs: int, seed: int, corpus: Path, findings: Path
) -> Outcome:
    """Run one target to its end."""
    findings.mkdir(parents=True, exist_ok=True)
    prefix = findings / f"{target.name}-"
    options = [f"-runs={runs}", f"-seed={seed}", f"-max_len={target.max_len}", f"-timeout={TIMEOUT_SECONDS}"]
    options += [f"-artifact_prefix={prefix}", f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    process = subprocess.run(
        [*command, *options, str(corpus)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=environment,
    )
    text = process.stdout + process.stderr
    counted = re.findall(r"stat::number_of_executed_units: *(\d+)", text)
    executions = int(counted[-1]) if counted else 0
    if process.returncode == 0 and executions >= runs:
        return Outcome(target.name, executions, "")
    saved = re.findall(r"Test unit written to (\S+)", text)
    again = shlex.join([*(word for word in command if not word.startswith("-engine")), saved[-1]]) if saved else ""
    how = f"again by: {again}" if again else f"no input was saved; status {process.returncode}"
    return Outcome(target.name, executions, f"\n{text[-3000:]}\nFINDING in {target.name}; {how}")


if __name__ == "__main__":
    sys.exit(main())

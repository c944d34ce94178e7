"""The layers of the architecture: a file includes or imports only from below it, and stays short."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CSRC, PACKAGE = ROOT / "csrc", ROOT / "python" / "pppml_fast"
LONGEST_FILE = 450

# --- C++ -------------------------------------------------------------------------------------------------------------

CPP_LAYERS = ("base", "kernels", "ring", "ckks", "bindings")  # lowest first
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.MULTILINE)
CPP_SUFFIXES = (".cpp", ".hpp", ".cu", ".cuh", ".h", ".inc")


def cpp_files() -> list[Path]:
    return [path for path in sorted(CSRC.rglob("*")) if path.suffix in CPP_SUFFIXES]


def cpp_layer(path: Path) -> str:
    return path.relative_to(CSRC).parts[0]


def test_the_cpp_layers_are_all_known() -> None:
    folders = {cpp_layer(path) for path in cpp_files()}
    assert set(CPP_LAYERS) <= folders <= {*CPP_LAYERS, "tests"}


def test_cpp_includes_only_from_below() -> None:
    wrong = []
    for path in cpp_files():
        layer = cpp_layer(path)
        if layer == "tests":
            continue
        below = CPP_LAYERS[: CPP_LAYERS.index(layer) + 1]
        for bracket, header in INCLUDE.findall(path.read_text()):
            if bracket == '"' and header.split("/")[0] not in below:
                wrong.append(f"{path.relative_to(ROOT)} includes {header}")
            if bracket == '"' and not (CSRC / header).is_file():
                wrong.append(f"{path.relative_to(ROOT)} includes {header}, which does not exist under csrc")
            pybind = header.startswith(("pybind11/", "Python.h"))
            if pybind and layer != "bindings":
                wrong.append(f"{path.relative_to(ROOT)} includes {header}; only bindings knows Python")
    assert wrong == []


def test_instruction_sets_are_known_to_kernels_alone() -> None:
    intrinsics = ("immintrin.h", "x86intrin.h", "arm_neon.h", "cpuid.h", "cuda_runtime.h", "cuda.h")
    wrong = [
        f"{path.relative_to(ROOT)} includes {header}"
        for path in cpp_files()
        if cpp_layer(path) not in ("kernels", "tests")
        for _, header in INCLUDE.findall(path.read_text())
        if header in intrinsics
    ]
    assert wrong == []


def test_every_source_is_listed_in_cmake() -> None:
    listed = (ROOT / "CMakeLists.txt").read_text()
    sources = [path for path in cpp_files() if path.suffix == ".cpp" and cpp_layer(path) != "tests"]
    assert [path.name for path in sources if str(path.relative_to(ROOT)) not in listed] == []


# --- Python ----------------------------------------------------------------------------------------------------------

# What each package may import from, itself aside. `transport` stands beside `aggregation`: it moves the bytes of the
# state machines, which name its message type and drive its in-process form.
ALLOWED = {
    "core": set[str](),
    "transport": {"core", "aggregation"},
    "aggregation": {"core", "transport"},
    "learning": {"core", "aggregation", "transport"},
    "imaging": {"core", "aggregation", "transport", "learning"},
    "bench": {"core", "aggregation", "transport"},
    "interop": {"core", "bench"},
    "site": {"core", "aggregation", "transport"},
    "attacks": {"core", "aggregation", "transport", "learning"},
    "integrations": {"core", "aggregation", "transport", "learning"},
}
ALLOWED["experiment"] = set(ALLOWED)
ALLOWED["bench"] = {"core", "transport", "aggregation", "site"}  # beside experiment
ALLOWED["cli"] = set(ALLOWED)
CORE_FOLDERS = ("cipher", "cuda", "doctor")
NETWORK_FREE_TRANSPORT = {
    "pppml_fast.transport",
    "pppml_fast.transport.base",
    "pppml_fast.transport.in_process",
    "pppml_fast.transport.link",
}


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def package_of(module: str) -> str:
    """The room of a module named `pppml_fast.…`: a package of ALLOWED, or core."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED and parts[1] != "core" else "core"


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class _AtRunTime(ast.NodeTransformer):
    """Leaves out what stands under `if TYPE_CHECKING:`."""

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
        return self.generic_visit(node)


def imports_of(path: Path, at_run_time: bool = False) -> Iterator[str]:
    """Absolute names of all modules that a file imports, inside functions as well."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(_AtRunTime().visit(tree) if at_run_time else tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)} imports relatively; write the full name"
            assert node.module is not None
            if node.module == "pppml_fast":
                yield from (f"pppml_fast.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_the_packages_are_all_known() -> None:
    folders = {path.relative_to(PACKAGE).parts[0] for path in python_files() if path.parent != PACKAGE}
    assert folders <= {*ALLOWED, *CORE_FOLDERS} - {"core"}
    assert {"aggregation", "transport", "learning", "imaging", "experiment", "bench", "cli", "cipher"} <= folders


def test_python_imports_only_from_below() -> None:
    wrong = []
    for path in python_files():
        here = package_of(module_of(path))
        for name in imports_of(path):
            if name.split(".")[0] == "pppml_fast" and package_of(name) not in {here, *ALLOWED[here]}:
                wrong.append(f"{path.relative_to(ROOT)} ({here}) imports {name}")
    assert wrong == []


def test_core_needs_numpy_alone() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in python_files()
        if package_of(module_of(path)) == "core"
        for name in imports_of(path)
        if (top := name.split(".")[0]) not in ("numpy", "pppml_fast") and top not in sys.stdlib_module_names
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["aggregation", "transport"])
def test_aggregation_and_transport_know_no_learning_framework(package: str) -> None:
    forbidden = {"torch", "monai", "nibabel", "pydicom", "typer", "rich", "matplotlib"}
    names = {name for path in (PACKAGE / package).rglob("*.py") for name in imports_of(path)}
    assert {name for name in names if name.split(".")[0] in forbidden} == set()


def test_state_machines_do_no_input_or_output() -> None:
    forbidden = {"socket", "socketserver", "ssl", "asyncio", "http", "urllib", "grpc", "selectors", "subprocess"}
    for path in (PACKAGE / "aggregation").rglob("*.py"):
        names = set(imports_of(path))
        assert {name for name in names if name.split(".")[0] in forbidden} == set(), path.name
        moved = {name for name in names if name.startswith("pppml_fast.transport")}
        assert moved <= NETWORK_FREE_TRANSPORT, path.name


def test_modules_import_in_no_circle() -> None:
    modules = {module_of(path): path for path in python_files()}
    graph = {module: set(imports_of(path, at_run_time=True)) & set(modules) for module, path in modules.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


BLOCKED_IMPORT = """
import sys

allowed = set(sys.stdlib_module_names) | {"numpy", "pppml_fast"}
blocked = []

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in allowed or top.startswith("_sysconfigdata"):
            return None
        blocked.append(name)
        raise ModuleNotFoundError(f"{name} is blocked: the core needs NumPy alone")

before = {name.partition(".")[0] for name in sys.modules}
sys.meta_path.insert(0, Blocker())
import pppml_fast as pf

for keys in ("public", "collective"):
    params = pf.CkksParams.preset("p31", parties=3, clip=1.0, keys=keys)
    if keys == "public":
        pair = pf.keygen(params)
        opened = pair.secret.decrypt(pair.public.encrypt([0.5, -0.25]))
    else:
        key = pf.CollectiveKey.generate(params)
        opened = pf.CollectiveKey.sum([key]).decrypt(key.encrypt([0.5, -0.25], context=bytes(32)))
    assert abs(opened - [0.5, -0.25]).max() < params.step
pf.Layout.from_arrays({"w": opened}).flatten({"w": opened})
foreign = {name.partition(".")[0] for name in sys.modules} - before - allowed
assert not [name for name in foreign if not name.startswith("_sysconfigdata")], foreign
for extra in ("torch", "cryptography", "pydantic", "monai"):
    assert extra not in sys.modules, extra
try:
    import torch
except ModuleNotFoundError:
    print("works without", blocked[-1])
"""


def test_the_core_works_with_numpy_alone() -> None:
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED_IMPORT], capture_output=True, text=True, timeout=900, check=False
    )
    assert (run.returncode, run.stdout) == (0, "works without torch\n"), run.stderr


QUICK_IMPORT = """
import sys, numpy
before = set(sys.modules)
import pppml_fast
loaded = set(sys.modules) - before
slow = loaded & {"_hashlib", "asyncio", "email", "json", "logging", "ssl", "subprocess", "typing_extensions"}
assert not slow, slow
assert len(loaded) < 60, len(loaded)
"""


def test_the_import_loads_nothing_slow() -> None:
    """A deterministic stand-in for the milliseconds that `pppml bench` measures."""
    run = subprocess.run([sys.executable, "-c", QUICK_IMPORT], capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stderr


# --- length ----------------------------------------------------------------------------------------------------------


def test_files_are_short() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in (*cpp_files(), *python_files())}
    assert len(lengths) > 60
    assert {str(path): lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}

"""All targets: which there are, how many of the executions each gets, and how a Python target is run.

    python tests/fuzz/targets.py NAME -runs=N -seed=S [-max_len=B] [-timeout=T] [-artifact_prefix=P] CORPUS_FOLDER
    python tests/fuzz/targets.py NAME FILE       one input: how a finding is reproduced

Where atheris is installed, coverage guides the mutations; without it, or with -engine=mutation, `driver.py` makes them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

__all__ = ["NATIVE", "PYTHON", "NativeTarget", "PythonTarget", "python_target"]


@dataclass(frozen=True)
class NativeTarget:
    """A binary ``fuzz_NAME`` of csrc/tests/fuzz. ``share`` is its part of all executions; ``smoke`` of a short run."""

    name: str
    share: float
    smoke: int
    max_len: int


@dataclass(frozen=True)
class PythonTarget:
    """A function of a module beside this one, with its seeds in ``NAME_seeds``."""

    name: str
    module: str
    function: str
    seeds: str
    share: float
    smoke: int
    max_len: int = 4096


# Cheap parsers get the bulk; where an input costs an opening or a handshake, coverage saturates after thousands.
NATIVE = (
    NativeTarget("rows", 0.75, 100000, 500),
    NativeTarget("hop", 0.06, 40000, 2000),
    NativeTarget("parameters", 0.12, 50000, 80),
    NativeTarget("open", 0.0006, 150, 600),
    NativeTarget("turn", 0.0003, 100, 2000),
    NativeTarget("public_key", 0.0002, 60, 600),
    NativeTarget("secret_key", 0.0006, 150, 200),
)
PYTHON = (
    PythonTarget("wire", "core_targets", "wire", "wire_seeds", 0.006, 4000, 8192),
    PythonTarget("header", "core_targets", "header", "header_seeds", 0.02, 20000, 100),
    PythonTarget("opening", "core_targets", "opening", "wire_seeds", 0.002, 1500, 8192),
    PythonTarget("public_key_bytes", "core_targets", "public_key", "public_key_seeds", 0.002, 1500, 1 << 17),
    PythonTarget("tag", "core_targets", "tag", "tag_seeds", 0.001, 500, 1 << 17),
    PythonTarget("literal", "core_targets", "parameters", "parameters_seeds", 0.004, 4000),
    PythonTarget("frame", "protocol_targets", "frame", "frame_seeds", 0.015, 20000, 256),
    PythonTarget("body", "protocol_targets", "body", "body_seeds", 0.015, 20000),
    PythonTarget("roster", "protocol_targets", "roster", "roster_seeds", 0.005, 8000),
    PythonTarget("layout", "protocol_targets", "layout", "layout_seeds", 0.005, 8000),
    PythonTarget("journal", "protocol_targets", "journal", "journal_seeds", 0.005, 8000),
    PythonTarget("federation", "site_targets", "federation", "federation_seeds", 0.001, 600),
    PythonTarget("card", "site_targets", "card", "card_seeds", 0.002, 2000),
    PythonTarget("handshake", "protocol_targets", "handshake", "handshake_seeds", 0.0004, 300, 8192),
    PythonTarget("round", "protocol_targets", "whole_round", "round_seeds", 0.0001, 72, 512),
    PythonTarget("notice", "node_targets", "notice", "notice_seeds", 0.015, 8000),
    PythonTarget("link_frame", "node_targets", "link_frame", "link_frame_seeds", 0.005, 3000),
    PythonTarget("member", "node_targets", "member", "member_seeds", 0.001, 800),
    PythonTarget("transcript", "record_targets", "transcript", "transcript_seeds", 0.0005, 1000),
    PythonTarget("log_line", "record_targets", "log_line", "log_line_seeds", 0.005, 8000),
)


def python_target(name: str) -> tuple[PythonTarget, Callable[[bytes], None], list[bytes], Sequence[bytes]]:
    """A target with its function, its seeds, and words that its inputs are made of."""
    target = next(target for target in PYTHON if target.name == name)
    from json_edits import WORDS

    module = import_module(target.module)
    words = (
        WORDS
        if name in ("literal", "roster", "layout", "handshake", "federation", "card", "transcript", "log_line")
        else ()
    )
    return target, getattr(module, target.function), getattr(module, target.seeds)(), words


def _guided(function: Callable[[bytes], None], words: Sequence[bytes], arguments: list[str]) -> None:
    import atheris

    if words:
        dictionary = Path(arguments[-1]).with_suffix(".dict")
        dictionary.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words))
        arguments = [f"-dict={dictionary}", *arguments]
    atheris.Setup([sys.argv[0], *arguments], function)
    atheris.Fuzz()


def _instrumented(name: str) -> tuple[Callable[[bytes], None], Sequence[bytes]]:
    import atheris

    with atheris.instrument_imports(include=["pppml_fast"]):
        _, function, _, words = python_target(name)
    return function, words


def main(arguments: list[str]) -> int:
    """Run one target as the options say."""
    name, rest = arguments[0], arguments[1:]
    options = dict(word[1:].split("=", 1) for word in rest if word.startswith("-"))
    path = Path(next(word for word in rest if not word.startswith("-")))
    if path.is_file():
        python_target(name)[1](path.read_bytes())
        print(f"{path}: no finding")
        return 0
    if options.pop("engine", "coverage") == "coverage":
        _guided(*_instrumented(name), [word for word in rest if not word.startswith("-engine=")])
        return 0
    from driver import fuzz

    target, function, _, words = python_target(name)
    corpus = [file.read_bytes() for file in sorted(path.iterdir())]
    seed = int(options.get("seed", 1))
    return fuzz(
        function,
        corpus,
        runs=int(options["runs"]),
        seed=seed,
        timeout=int(options.get("timeout", 10)),
        max_len=int(options.get("max_len", target.max_len)),
        artifact=Path(f"{options.get('artifact_prefix', '')}crash-{seed}"),
        dictionary=words,
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main(sys.argv[1:]))

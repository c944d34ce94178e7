"""Small runs of the real thing, and what is refused before anything is measured."""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from pppml_fast import CkksParams, _native, memory
from pppml_fast.bench import BenchPlan, run_bench
from pppml_fast.bench.memory import memory_cases
from pppml_fast.bench.ours import PARTIES, Workbench, our_cases, parse_setting
from pppml_fast.bench.peers import PEERS, found_peers, open_peer, parse_peers
from pppml_fast.bench.run import use_threads
from pppml_fast.bench.timing import Case, measure
from pppml_fast.errors import ConfigError

OURS = {"encrypt", "pack", "unpack", "add2", "add16", "hop", "open"}
PREPARED = {"encrypt_prepared"}


@pytest.mark.parametrize(
    "setting",
    ["p31/collective", "p31/public", "p31/secret", "p62/collective", "p62x3/collective", "compact/collective"],
)
def test_a_tiny_run_measures_everything_and_checks_it(setting: str) -> None:
    told: list[str] = []
    report = run_bench(BenchPlan(size=3000, settings=(setting,), repetitions=2), told.append)
    schema = json.loads(files("pppml_fast.bench").joinpath("schema/bench.schema.json").read_text())
    jsonschema.validate(json.loads(json.dumps(report.to_dict())), schema)
    mine = {row.operation: row for row in report.rows if row.system == "pppml_fast"}
    prepared = PREPARED if setting.endswith("/collective") else set()
    assert set(mine) == OURS | prepared and {row.setting for row in mine.values()} == {setting}
    assert {row.operation for row in report.rows if row.system == "memory"} == {"memcpy", "add2", "add16"}
    assert [(row.operation, row.setting) for row in report.setup[1:]] == [("keygen", setting)]
    assert report.setup[0].operation == "import"
    assert all(0 < row.ms_least <= row.ms <= row.ms_most and row.repetitions == 2 for row in report.setup)
    for row in report.rows:
        assert row.weights == 3000 and row.repetitions == 2 and row.max_error == 0
        assert 0 < row.ns_least <= row.ns_per_weight <= row.ns_most
    shares = {ratio.operation: ratio for ratio in report.ratios() if ratio.kind == "bandwidth"}
    assert set(shares) == {"add2", "add16", "hop"} | prepared
    assert any("repetition 2 of 2" in line for line in told)


def test_bytes_per_weight_are_those_of_the_wire() -> None:
    params = CkksParams.preset("p31", parties=PARTIES, clip=0.25, keys="collective")
    case = next(case for case in our_cases("p31/collective", 4096, 1) if case.operation == "encrypt")
    assert case.bytes_per_weight == pytest.approx(params.bytes_per_weight + 84 / 4096)


def test_a_setting_may_say_how_many_values_share_a_coefficient() -> None:
    params = CkksParams.preset("p62", parties=PARTIES, clip=0.25, keys="collective", values_per_coefficient=3)
    assert parse_setting("p62x3/collective") == params and params.bytes_per_weight == pytest.approx(62 / 24)
    assert parse_setting("p31x1/public") == parse_setting("p31/public")
    assert parse_setting("compact/collective").values_per_coefficient == 2


@pytest.mark.parametrize("operation", sorted(OURS | PREPARED))
def test_a_wrong_answer_is_noticed(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in our_cases("p31/collective", 3000, 1) if case.operation == operation)
    right = case.run(case.prepare())
    assert case.check(right) == 0
    wrong_quantised = (np.zeros(3000, np.int64), np.zeros(3000, np.int64))
    if operation == "pack":
        with pytest.raises(AssertionError):
            case.check(bytes(right[:-1]) + bytes([right[-1] ^ 1]))
        return
    bench = case.check.__self__  # type: ignore[attr-defined]
    monkeypatch.setitem(bench.__dict__, "quantised", wrong_quantised)
    with pytest.raises(AssertionError, match="p31/collective"):
        case.check(case.run(case.prepare()))


def test_a_run_that_memory_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"size = 10000000000 takes about 2\d{3}\.\d GiB for p31/collective"):
        run_bench(BenchPlan(size=10_000_000_000, settings=("p31/collective",)))


def test_cases_take_turns_and_only_runs_are_timed() -> None:
    order: list[str] = []

    def case(name: str) -> Case:
        return Case("pppml_fast", name, "pack", "b", 1, 10, None, lambda _: order.append(name), lambda _: 0.5)

    rows = measure([case("a"), case("b")], 3)
    assert order == ["a", "a", "b", "b"] * 3
    assert [row.repetitions for row in rows] == [3, 3] and rows[0].max_error == 0.5


def test_the_median_counts_and_a_worker_has_its_own_clock() -> None:
    seconds = iter([100.0, 5.0, 0.1, 1.0, 0.2, 2.0])
    case = Case("openfhe", "s", "open", "b", 1, 1000, None, lambda _: next(seconds), lambda _: 0.0, clock=float)
    (row,) = measure([case], 3)
    assert (row.ns_per_weight, row.ns_least, row.ns_most) == pytest.approx((2e6, 1e6, 5e6))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 16])
def test_memory_loops_add_each_piece_of_every_input(count: int, threads: int) -> None:
    source = np.random.default_rng(0)
    inputs = [source.integers(0, 1 << 32, 300_003, dtype=np.uint32) for _ in range(count)]
    expected = (sum(part.astype(np.uint64) for part in inputs) % (1 << 32)).astype(np.uint32)
    total, copied = memory.empty(300_003, np.uint32), memory.empty(300_003, np.uint32)
    with use_threads(threads):
        _native.primitives.add_loop(inputs, total)
        _native.primitives.copy_loop(inputs[0], copied)
    assert np.array_equal(total, expected) and np.array_equal(copied, inputs[0])
    for unfit in ([], [inputs[0], inputs[0][:-1]]):
        with pytest.raises(ValueError):
            _native.primitives.add_loop(unfit, total)


def test_memory_loops_and_operations_work_in_the_same_kind_of_memory() -> None:
    size = 1 << 20
    assert [case.moved_bytes_per_weight for case in memory_cases(8, 1)] == [8, 12, 68]
    bench = Workbench("p31/collective", size)
    results = [case.run(None) for case in memory_cases(size, 1)]
    results += [bench.run_add(2).first, bench.run_pack(None), bench.run_hop(None), bench.opened]
    results += [ciphertext.first for ciphertext in bench.ciphertexts]
    assert [np.asarray(result).__array_interface__["data"][0] % (1 << 21) for result in results] == [0] * len(results)


@pytest.mark.parametrize(
    "plan, words",
    [
        ({"against": "seal"}, "tenseal, openfhe"),
        ({"against": "tenseal,hexl"}, "'hexl'"),
        ({"settings": ("p31",)}, "p31/collective"),
        ({"settings": ("p99/public",)}, "p31, p50"),
        ({"settings": ("p62x4/collective",)}, "SETx3"),
        ({"settings": ("p62x/collective",)}, "SETx3"),
        ({"size": 0}, "size = 0"),
        ({"threads": -1}, "threads = -1"),
        ({"repetitions": 0}, "repetitions = 0"),
        ({"stream": -1}, "stream = -1"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(plan: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BenchPlan(**plan)


def test_a_missing_peer_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tenseal", None)
    monkeypatch.setenv("PPPML_OPENFHE_PYTHON", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match=r"pip install 'pppml-fast\[bench\]'"):
        run_bench(BenchPlan(size=10, against="tenseal"))
    with pytest.raises(ConfigError, match=r"PPPML_OPENFHE_PYTHON.*pip install openfhe"):
        run_bench(BenchPlan(size=10, against="openfhe"))
    found, missing = found_peers()
    assert found == () and [line.partition(":")[0] for line in missing] == list(PEERS)
    report = run_bench(BenchPlan(size=10, settings=("p31/collective",), against="found", repetitions=1))
    assert sum("not measured" in note for note in report.notes) == len(PEERS)


def test_peers_that_are_here_run_beside_us() -> None:
    """Whichever peers this environment has; with none, their absence is what the report says."""
    found = parse_peers("found")
    report = run_bench(BenchPlan(size=300, settings=("p31/collective",), against="found", repetitions=1))
    assert {row.system for row in report.rows} == {"pppml_fast", "memory", *found}
    for name in found:
        rows = [row for row in report.rows if row.system == name]
        assert {row.operation for row in rows} == {"encrypt", "pack", "unpack", "add2", "open"}
        assert all(row.max_error < 2e-3 for row in rows) and name in report.machine["versions"]
        faster = [r for r in report.ratios() if r.against.startswith(name) and r.kind == "time"]
        assert {ratio.operation for ratio in faster} == {"encrypt", "pack", "unpack", "add2", "open"}
    assert sum("not measured" in note for note in report.notes) == len(PEERS) - len(found)


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(ConfigError, match="no peer 'seal'"):
        open_peer("seal", 10, 1)


OPENFHE_STAND_IN = """#!{python}
import json, sys
if sys.argv[1] == "-c":
    sys.exit(0)
print(json.dumps({{"version": "9", "bytes_per_weight": 32.0}}), flush=True)
for line in sys.stdin:
    print(json.dumps({{"seconds": 0.25, "max_error": {error}, **json.loads(line)}}), flush=True)
"""


@pytest.mark.parametrize("error", [1e-10, 1e-3])
def test_the_openfhe_worker_is_driven_by_lines(error: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(OPENFHE_STAND_IN.format(python=sys.executable, error=error))
    python.chmod(0o755)
    monkeypatch.setenv("PPPML_OPENFHE_PYTHON", str(python))
    peer = open_peer("openfhe", 1_000_000, 1)
    try:
        cases = peer.cases()
        assert {case.weights for case in cases} == {250_000} and cases[0].bytes_per_weight == 32.0
        if error > 1e-8:
            with pytest.raises(AssertionError, match="stated error"):
                measure(cases, 1)
        else:
            assert {row.ns_per_weight for row in measure(cases, 1)} == {0.25e9 / 250_000}
    finally:
        peer.close()


def test_threads_are_set_for_a_while_and_put_back() -> None:
    bench = Workbench("p31/collective", 10_000)
    kept = [bench.run_add(16).first.copy() for _ in range(1)]
    for threads in (1, 2, 3):
        with use_threads(threads):
            assert np.array_equal(bench.run_add(16).first, kept[0])


def test_the_processors_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = count(3)
    monkeypatch.setattr("os.getloadavg", lambda: (float(next(loads)), 0.0, 0.0))
    report = run_bench(BenchPlan(size=10, settings=("p31/collective",), repetitions=1))
    assert any("load 3.00" in note for note in report.notes)

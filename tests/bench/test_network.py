"""The network benchmark as a whole, small: every mean exact, every figure there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pppml_fast.bench import network
from pppml_fast.bench.network_party import tile_of
from pppml_fast.bench.network_report import Result, Run, Shape, verdicts
from pppml_fast.bench.network_split import STEPS

WEIGHTS = 200_000


def test_three_parties_over_loopback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "made" / "network.json"
    options = (
        f"--weights {WEIGHTS} --parties 3 --links loopback --runs 1 --chunk-blocks 16 --no-namespaces --json {path}"
    )
    assert network.main(options.split()) == 0
    found = json.loads(path.read_text())
    plain, encrypted = found["rows"]
    assert (plain["kind"], encrypted["kind"]) == ("plain float32", "encrypted")
    for row in found["rows"]:
        assert (row["parties"], row["weights"], row["link"], row["exact"]) == (3, WEIGHTS, "loopback", True)
        assert row["chunks"] == 7 and set(row["cpu_split_s"]) == {*STEPS, "links"}
        assert min(row["seconds"], row["cpu_s_per_party"], row["cpu_split_s"]["hash"]) > 0
        assert row["bytes_sent"] > 4 * 4 * WEIGHTS * 0.96, "two laps over two links"
    assert plain["ratio"] is None and encrypted["ratio"] > 0
    assert encrypted["bytes_ratio"] is None, "the host's loopback counters count others too"
    assert {party for run in found["rounds"] for party in run["parties"]} == {"north", "east", "south"}
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3:] == found["verdicts"] and len(printed) > 10


def test_shaped_links_are_left_out_where_namespaces_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(network, "namespaces_refused", lambda: "ip of iproute2 cannot be found")
    measured: list[Shape] = []

    def measure(shape: Shape, pairs: int) -> Result:
        assert not shape.isolated
        measured.append(shape)
        return _result(shape, 2.0, 3.0)

    monkeypatch.setattr(network, "measure", measure)
    assert network.main(["--runs", "1"]) == 0
    assert [(len(shape.parties), shape.mbit) for shape in measured] == [(3, None), (5, None)]
    out = capsys.readouterr().out
    assert "not permitted here (ip of iproute2 cannot be found); loopback alone" in out
    assert "encrypted / plain time 1.500, missed by 15 % (aim <= 1.3)" in out


def test_model_and_verdicts() -> None:
    shape = Shape(("a", "b", "c"), 1000.0, 100_000_000, 128, 1)
    result = _result(shape, 6.0, 6.5)
    # 382 chunks of 1 MiB and 2 * 3 more, twice over one link of 125 MB/s.
    assert result.chunks() == 382 and result.predicted(False) == pytest.approx(388 * 2 * (1 << 20) / 125e6)
    assert verdicts([result]) == [
        "ring of 3, 1000 Mbit/s: encrypted / plain time 1.083, met (aim <= 1.1)",
        "ring of 3, 1000 Mbit/s: bytes on the wire 0.9700, met (aim <= 1.02)",
        "ring of 3, 1000 Mbit/s: model + 300 MiB per party, missed by 17 % (aim <= 256)",
    ]


def test_a_wrong_mean_is_no_result() -> None:
    with pytest.raises(AssertionError, match="7 values of a's mean are wrong"):
        Run.of(True, {"a": {"exact": False, "wrong": 7, "began": 0.0, "ended": 1.0}})


def test_every_round_has_its_own_update() -> None:
    assert (tile_of("a", 0, 100) != tile_of("a", 1, 100)).any() and (tile_of("a", 0, 100) != tile_of("b", 0, 100)).any()


def _result(shape: Shape, plain: float, encrypted: float) -> Result:
    def run(kind: bool, seconds: float, sent: int) -> Run:
        party = {
            "exact": True,
            "wrong": 0,
            "began": 1.0,
            "ended": 1.0 + seconds,
            "user_s": 2.0,
            "system_s": 1.0,
            "sent": sent,
            "highest": 4 * shape.weights + (300 << 20),
            "split": dict.fromkeys(STEPS, 0.125),
        }
        return Run.of(kind, dict.fromkeys(shape.parties, party))

    return Result(shape, network.params_of(shape), [(run(False, plain, 10_000), run(True, encrypted, 9_700))])

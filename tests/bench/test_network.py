"""The network benchmark as a whole, small: every mean exact, every figure there."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from pppml_fast.aggregation.roster import Member, Roster, SessionOptions
from pppml_fast.aggregation.standing import StateId
from pppml_fast.bench import network
from pppml_fast.bench.network_lab import Lab
from pppml_fast.bench.network_party import Spec, _Vector, expected_mean, tile_of
from pppml_fast.bench.network_report import Result, Run, Shape, verdicts
from pppml_fast.bench.network_split import STEPS, Split
from pppml_fast.errors import DataError

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


def test_a_port_that_another_program_has_is_left_to_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, Lab(["a", "b"], None, isolated=False) as lab:
        port = taken.getsockname()[1]
        addresses = lab.addresses(port)
        assert list(addresses) == ["a", "b"] and len(set(addresses.values())) == 2
        assert f"127.0.0.1:{port}" not in addresses.values()
        for address in addresses.values():
            socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))).close()


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


class _NothingTimed(Split):
    """Wraps no step of this process."""

    def __init__(self) -> None:
        pass

    def read(self) -> dict[str, float]:
        return {}


def _vector(path: Path, rounds: int) -> _Vector:
    """A party's application after some rounds."""
    members = (Member("a", "00" * 32, 0.5), Member("b", "01" * 32, 0.5))
    params = network.params_of(Shape(("a", "b"), None, 100, 1, 1))
    roster = Roster(members, params.to_dict(), params.to_dict(), "00" * 32, SessionOptions())
    spec = Spec("a", str(path), "", {}, 100, 9, False, "lo", 1)
    made = _Vector(spec, roster, _NothingTimed())
    for round_ in range(rounds):
        made._began = made._figures()
        made.commit(round_, expected_mean(roster, round_, 100, encrypted=False))
    return made


def test_a_party_that_fell_behind_takes_the_others_state(tmp_path: Path) -> None:
    ahead, behind = _vector(tmp_path, 2), _vector(tmp_path, 0)
    newest, before = ahead.states
    assert (newest.round, before.round) == (2, 1)
    for state in ahead.states:
        assert ahead.export(state) == state.hash
    with pytest.raises(DataError, match="round 2 with hash"):
        behind.export(newest)
    with pytest.raises(DataError, match="not the one agreed on"):
        behind.adopt(newest, before.hash)
    assert [state.round for state in behind.states] == [0]
    behind.adopt(newest, ahead.export(newest))
    assert behind.states == (newest,)


def test_a_party_that_is_ahead_steps_back(tmp_path: Path) -> None:
    ahead = _vector(tmp_path, 2)
    newest, before = ahead.states
    with pytest.raises(DataError, match="nothing was changed"):
        ahead.step_back(StateId(1, bytes(32)))
    assert ahead.states == (newest, before)
    ahead.step_back(before)
    assert ahead.states == (before,)
    ahead.step_back(before)
    assert ahead.states == (before,)


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

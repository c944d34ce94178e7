"""`pppml party`, `pppml coordinator`, `pppml demo-network`: what they print, how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from site_files import make_site_files

from pppml_fast.errors import DataError
from pppml_fast.experiment import network_demo, site_process
from pppml_fast.experiment.demo_layout import METHOD, DemoSite
from pppml_fast.site.authority import TrialAuthority
from pppml_fast.site.keys import SiteKeys


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory, npz: Path) -> dict[str, Path]:
    return make_site_files(tmp_path_factory.mktemp("ring"), npz)


def test_a_dry_run_shows_the_plan(pppml: Any, ring: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_process, "run_site_process", None)
    shown = pppml("party", "--config", ring["north"], "--dry-run")
    assert shown.code == 0, shown.err
    for word in ("north, identity", "peer east", "peer south", "bytes", "precision", "level", "listens at", "journal"):
        assert word in shown.out


def test_a_coordinator_shows_its_plan(pppml: Any, npz: Path, tmp_path: Path) -> None:
    files = make_site_files(tmp_path, npz, star=True)
    shown = pppml("coordinator", "--config", files["hub"], "--dry-run")
    assert shown.code == 0, shown.err
    assert "hub, identity" in shown.out and "dials in" in shown.out


@pytest.mark.parametrize("command", ["party", "coordinator"])
def test_bad_input_is_one_line(pppml: Any, tmp_path: Path, command: str) -> None:
    (tmp_path / "site.toml").write_text("[site]\n[coordinator]\n")
    for path in (tmp_path / "site.toml", tmp_path / "none.toml"):
        refused = pppml(command, "--config", path)
        assert refused.code == 2 and refused.err.count("\n") == 1 and refused.err.startswith("pppml: error: ")


@pytest.fixture
def star(npz: Path, tmp_path: Path) -> dict[str, Path]:
    """Configurations that a test may spoil."""
    return make_site_files(tmp_path, npz, star=True)


def spoiled(config: Path) -> tuple[str, Path, TrialAuthority]:
    """A node's command, its folder of keys, and who signs its certificate."""
    command = "coordinator" if config.parent.name == "hub" else "party"
    return command, config.parent / "site" / "keys", TrialAuthority.load(config.parents[1] / "authority")


@pytest.mark.parametrize("name", ["north", "hub"])
def test_a_node_with_an_expired_certificate_does_not_start(pppml: Any, star: dict[str, Path], name: str) -> None:
    """It names file, date and remedy; the others would only close connections in its face."""
    command, folder, authority = spoiled(star[name])
    ended = datetime.now(timezone.utc) - timedelta(days=2)
    (folder / "tls.crt").write_bytes(authority.issue((folder / "tls.csr").read_bytes(), 1, now=ended - timedelta(1)))
    refused = pppml(command, "--config", star[name])
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert f"certificate {str(folder / 'tls.crt')!r} expired on {ended:%Y-%m-%d %H:%M} UTC" in refused.err
    assert "have tls.csr signed anew and install the result with pppml keys install" in refused.err


def test_a_process_that_is_refused_ends_with_the_line(star: dict[str, Path]) -> None:
    """As a service would be started."""
    _, folder, authority = spoiled(star["hub"])
    ended = datetime.now(timezone.utc) - timedelta(days=2)
    (folder / "tls.crt").write_bytes(authority.issue((folder / "tls.csr").read_bytes(), 1, now=ended - timedelta(1)))
    program = [sys.executable, "-m", "pppml_fast.cli", "coordinator", "--config", str(star["hub"])]
    run = subprocess.run(program, capture_output=True, text=True, timeout=900, check=False)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert run.stderr.startswith("pppml: error: certificate ") and " expired on " in run.stderr


@pytest.mark.parametrize("name", ["north", "hub"])
def test_a_node_that_is_not_in_the_roster_does_not_start(pppml: Any, star: dict[str, Path], name: str) -> None:
    command, folder, authority = spoiled(star[name])
    shutil.rmtree(folder)
    made = SiteKeys.create(folder, "west", "127.0.0.1:7999")
    SiteKeys.install(folder, authority.issue(made.request), authority.certificate)
    star[name].write_text(star[name].read_text().replace(f'name = "{name}"', 'name = "west"'))
    refused = pppml(command, "--config", star[name])
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "'west' is not in the roster of " in refused.err
    assert "federation.json', which lists north, east, south, hub" in refused.err
    assert "have the organiser make a roster with this node's card" in refused.err


@pytest.mark.parametrize("terminated", [False, True])
def test_the_exit_status(pppml: Any, ring: dict[str, Path], monkeypatch: pytest.MonkeyPatch, terminated: bool) -> None:
    def run(_: Any, stop: site_process.Stop) -> dict[str, Any] | None:
        stopped = threading.Event()
        stop.by(stopped.set)
        if terminated:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopped.wait(300)
            return None
        dice = {"0": {"a": 0.25, "b": 0.75}, "2": {"a": 1.0, "b": 1.0}}
        return {"methods": {METHOD: {"dice": dice}}, "model": {"round": 2, "sha256": "ab" * 32}}

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(site_process, "run_site_process", run)
    done = pppml("party", "--config", ring["north"])
    assert done.code == (143 if terminated else 0)
    assert ("Dice 0.500 after 0 steps, 1.000 after 2 steps" in done.out) == (not terminated)
    assert signal.getsignal(signal.SIGTERM) == before


# Stands for `pppml party`: trains by copying what the run in one process left, the second site in its second life.
PARTY = """
import json, shutil, sys, time
from pathlib import Path

folder, whole, name, victim, spoil = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:6]
log = folder / "site" / "logs" / "events.jsonl"
log.parent.mkdir(parents=True, exist_ok=True)
second = log.exists()
with log.open("a") as stream:
    for number in (0, 1):
        stream.write(json.dumps({"kind": "training", "round": number, "site": name}) + chr(10))
    stream.write("half a li")
if name == victim and not second:
    time.sleep(3600)
if spoil == "fails":
    sys.exit("no disk")
models = folder / "site" / "run" / "models" / "per_fedavg_fo"
models.mkdir(parents=True)
for file in ("global", name):
    shutil.copy(whole / "models" / "per_fedavg_fo" / (file + ".safetensors"), models)
if spoil == name:
    (models / "global.safetensors").write_bytes(b"other")
"""


@pytest.fixture
def five(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[DemoSite]:
    """A demo whose work is replaced: five folders, and models of a few bytes."""
    names = ["one", "two", "three", "four", "five"]
    made = [DemoSite(name, tmp_path / "out" / name) for name in names]

    def lay_out(out: Path, **_: Any) -> tuple[list[DemoSite], Path]:
        for site in made:
            site.folder.mkdir(parents=True)
        return made, out / "experiment.toml"

    def run(_: Any, out: Path) -> None:
        models = out / "models" / METHOD
        models.mkdir(parents=True)
        for name in ["global", *names]:
            (models / f"{name}.safetensors").write_bytes(name.encode())

    monkeypatch.setattr(network_demo, "lay_out", lay_out)
    monkeypatch.setattr(network_demo, "load_config", lambda path: path)
    monkeypatch.setattr(network_demo, "run_experiment", run)
    return made


def party(monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
    def command(site: DemoSite) -> list[str]:
        whole = site.folder.parent / "in_one_process"
        return [sys.executable, "-c", PARTY, str(site.folder), str(whole), site.name, "two", spoil]

    monkeypatch.setattr(network_demo, "party_command", command)


def test_the_demo_kills_restarts_and_compares(
    pppml: Any, five: list[DemoSite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    party(monkeypatch, "")
    shown = pppml("demo-network", "--out", tmp_path / "out")
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[-1] == "identical=5/5"
    assert "two: killed (SIGKILL) in round 2, started again" in shown.out
    assert shown.out.count("shared model identical, personal model identical") == len(five)


def test_the_demo_sees_a_difference(
    pppml: Any, five: list[DemoSite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    party(monkeypatch, "four")
    shown = pppml("demo-network", "--out", tmp_path / "out")
    assert shown.code == 1 and shown.out.splitlines()[-1] == "identical=4/5"
    assert "four: shared model DIFFERENT, personal model identical" in shown.out
    assert len(five) == 5


def test_the_demo_ends_when_a_process_fails(
    five: list[DemoSite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    party(monkeypatch, "fails")
    with pytest.raises(DataError, match=r"ended with status 1; the last lines of .*no disk"):
        network_demo.run_network_demo(tmp_path / "out", lambda _: None)
    assert len(five) == 5


def test_the_demo_wants_a_new_folder(pppml: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused = pppml("demo-network", "--out", tmp_path)
    assert refused.code == 2 and "is not empty" in refused.err
    assert (tmp_path / "file").read_text() == "mine"


def test_events_are_read_while_they_are_written(tmp_path: Path) -> None:
    path, calls = tmp_path / "log", []

    def check() -> None:
        calls.append(None)
        if len(calls) == 1:
            path.write_bytes(b'{"kind": "training", "round": 0}\n{"kind": "tr')
        if len(calls) == 2:
            path.write_bytes(path.read_bytes() + b'aining", "round": 1}\n')

    found = []
    for event in network_demo.follow(path, check):
        found.append(event["round"])
        if event["round"] == 1:
            break
    assert found == [0, 1] and json.loads(path.read_bytes().splitlines()[1]) == event


def test_a_ring_has_no_coordinator_to_kill(pppml: Any, tmp_path: Path) -> None:
    refused = pppml("demo-network", "--out", tmp_path / "out", "--kill-coordinator")
    assert refused.code == 2 and "--topology star" in refused.err and not (tmp_path / "out").exists()

"""A site's process around a runtime: what it opens, what it is given, what it leaves."""

from __future__ import annotations

import json
import queue
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from site_files import make_site_files

from pppml_fast.aggregation.journal import MemoryStore
from pppml_fast.experiment import site_process
from pppml_fast.experiment.site_config import load_coordinator, load_site
from pppml_fast.experiment.site_process import Stop, run_coordinator_process, run_site_process
from pppml_fast.experiment.site_setup import Site, prepare_coordinator, prepare_site
from pppml_fast.site import member as site_member
from pppml_fast.site.events import EventKind, Events

Drive = Callable[..., None]


def drive_by(monkeypatch: pytest.MonkeyPatch, drive: Drive) -> None:
    """Put something in place of the runtime between machines."""
    monkeypatch.setattr(site_process, "_drive_site", drive)


def rounds(count: int) -> Drive:
    """Every sum is a small constant, for so many rounds."""

    def drive(given: Site, application: Any, journal: Any, events: Events, _: Stop) -> None:
        results: queue.Queue[Any] = queue.Queue()
        site = application(lambda *result: results.put(result), results.put)
        journal.append(b"a record")
        for _ in range(count):
            number = site.states[0].round
            events.emit(EventKind.TRAINING, round=number, salt=0)
            site.train(number, 0)
            assert results.get(timeout=600)[:2] == (number, 0)
            site.commit(number, np.full(given.study.layout.size, 1e-3, np.float32))

    return drive


@pytest.fixture
def files(tmp_path: Path, npz: Path) -> dict[str, Path]:
    return make_site_files(tmp_path, npz)


@pytest.fixture
def north(files: dict[str, Path]) -> Site:
    return prepare_site(load_site(files["north"]))


def test_a_site_goes_on_where_it_was_and_ends_with_its_models(north: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = north.config.folder
    drive_by(monkeypatch, rounds(1))
    assert run_site_process(north, Stop()) is None
    assert not (folder.run / "models").exists()
    summary = run_site_process(north, Stop())
    assert summary is not None
    assert [record["round"] for record in summary["rounds"]] == [1, 2]
    assert (folder.run / "models" / "per_fedavg_fo" / "north.toml").is_file()
    kinds = [json.loads(line)["kind"] for line in folder.log.read_text().splitlines()]
    assert kinds == ["started", "training", "stopped"] * 2
    assert stat.S_IMODE(folder.journal.parent.stat().st_mode) == 0o700


def test_a_site_that_is_through_needs_nobody_for_its_models(north: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: Any) -> None:
        rounds(2)(*arguments)
        raise KeyboardInterrupt

    summary = north.config.folder.run / "summary.json"
    drive_by(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        run_site_process(north, Stop())
    assert not summary.exists()
    last = json.loads(north.config.folder.log.read_text().splitlines()[-1])
    assert last["kind"] == "stopped" and "KeyboardInterrupt" in last["reason"]

    def nobody(_: Site, application: Any, *__: Any) -> None:
        application(print, print)
        assert json.loads(summary.read_text())["model"]["round"] == 2

    drive_by(monkeypatch, nobody)
    assert run_site_process(north, Stop()) == json.loads(summary.read_text())


def test_a_site_that_is_told_to_stop_leaves_no_thread(north: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(_: Site, application: Any, *__: Any) -> None:
        application(print, print).train(0, 0)

    drive_by(monkeypatch, told)
    assert run_site_process(north, Stop()) is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("training round")]


@pytest.mark.parametrize(("device", "ahead"), [("cpu", True), ("cuda", False)])
def test_a_site_makes_nothing_ahead_of_an_encryption_on_a_gpu(
    north: Site, device: str, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MadeError(Exception):
        pass

    def member(*_: Any, prepares: bool, **__: Any) -> None:
        assert prepares is ahead
        raise MadeError

    monkeypatch.setattr(site_member, "Member", member)
    config = north.study.config.model_copy(update={"device": device})
    site = replace(north, study=replace(north.study, config=config))
    with pytest.raises(MadeError):
        site_process._drive_site(
            site,
            lambda *_: SimpleNamespace(noise=None),
            MemoryStore(),
            Events(lambda: 0.0),
            Stop(),
        )


def test_a_wish_to_stop_is_fulfilled_whenever_it_was_made() -> None:
    fulfilled: list[str] = []
    early, late = Stop(), Stop()
    early.ask()
    early.by(lambda: fulfilled.append("early"))
    late.by(lambda: fulfilled.append("late"))
    assert fulfilled == ["early"] and early.asked and not late.asked
    late.ask()
    assert fulfilled == ["early", "late"]


def test_a_coordinator_has_no_journal_and_no_data(tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare_coordinator(load_coordinator(make_site_files(tmp_path, npz, star=True)["hub"]))
    given: list[Any] = []
    monkeypatch.setattr(site_process, "_drive_coordinator", lambda *arguments: given.extend(arguments))
    run_coordinator_process(prepared, Stop())
    assert given[0] is prepared
    assert prepared.policy.pinned is not None and len(prepared.policy.pinned) == 4
    assert not prepared.config.folder.journal.exists() and not prepared.config.folder.run.exists()
    assert json.loads(prepared.config.folder.log.read_text().splitlines()[0])["relay"] == "hub"

"""A site's process around a runtime: what it opens, what it is given, what it leaves."""

from __future__ import annotations

import json
import queue
import stat
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from site_files import make_site_files

from pppml_fast.experiment.site_config import load_coordinator, load_site
from pppml_fast.experiment.site_process import run_coordinator_process, run_site_process
from pppml_fast.experiment.site_setup import Site, prepare_coordinator, prepare_site
from pppml_fast.site.events import EventKind

Runtime = Callable[..., int]


def with_runtime(monkeypatch: pytest.MonkeyPatch, **functions: Runtime) -> None:
    """Put a runtime in place of the one between machines."""
    module = types.ModuleType("pppml_fast.site.runtime")
    module.__dict__.update(functions)
    monkeypatch.setitem(sys.modules, "pppml_fast.site.runtime", module)


def rounds(count: int) -> Runtime:
    """A runtime whose every sum is a small constant, for so many rounds."""

    def run_site(application: Any, *, events: Any, journal: Any, spool: Path, federation: Any, **_: Any) -> int:
        results: queue.Queue[Any] = queue.Queue()
        site = application(lambda *result: results.put(result), results.put)
        journal.append(b"a record")
        assert spool.is_dir()
        for _ in range(count):
            number = site.states[0].round
            events.emit(EventKind.TRAINING, round=number, salt=0)
            site.train(number, 0)
            assert results.get(timeout=60)[:2] == (number, 0)
            site.commit(number, np.full(federation.layout.size, 1e-3, np.float32))
        return 0

    return run_site


@pytest.fixture
def files(tmp_path: Path, npz: Path) -> dict[str, Path]:
    return make_site_files(tmp_path, npz)


@pytest.fixture
def north(files: dict[str, Path]) -> Site:
    return prepare_site(load_site(files["north"]))


def test_a_site_goes_on_where_it_was_and_ends_with_its_models(north: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = north.config.folder
    with_runtime(monkeypatch, run_site=rounds(1))
    assert run_site_process(north, threading.Event()) == (0, None)
    assert not (folder.run / "models").exists()
    status, summary = run_site_process(north, threading.Event())
    assert status == 0 and summary is not None
    assert [record["round"] for record in summary["rounds"]] == [1, 2]
    assert (folder.run / "models" / "per_fedavg_fo" / "north.toml").is_file()
    kinds = [json.loads(line)["kind"] for line in folder.log.read_text().splitlines()]
    assert kinds.count("training") == 2
    for private in (folder.journal.parent, folder.spool):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_a_site_that_is_through_needs_nobody_for_its_models(north: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(application: Any, **options: Any) -> int:
        rounds(2)(application, **options)
        raise KeyboardInterrupt

    with_runtime(monkeypatch, run_site=killed)
    with pytest.raises(KeyboardInterrupt):
        run_site_process(north, threading.Event())
    assert not (north.config.folder.run / "summary.json").exists()

    def nobody(application: Any, **_: Any) -> int:
        application(print, print)
        return 3

    with_runtime(monkeypatch, run_site=nobody)
    status, summary = run_site_process(north, threading.Event())
    assert status == 3 and summary is not None and summary["model"]["round"] == 2


def test_a_site_that_is_told_to_stop_stops(north: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def told(application: Any, *, stop: threading.Event, **_: Any) -> int:
        application(print, print).train(0, 0)
        stop.set()
        return 0

    with_runtime(monkeypatch, run_site=told)
    assert run_site_process(north, stop) == (0, None)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("training round")]


def test_a_coordinator_has_no_journal_and_no_data(tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare_coordinator(load_coordinator(make_site_files(tmp_path, npz, star=True)["hub"]))
    given: dict[str, Any] = {}

    def run_coordinator(**options: Any) -> int:
        given.update(options)
        return 0

    with_runtime(monkeypatch, run_coordinator=run_coordinator)
    assert run_coordinator_process(prepared, threading.Event()) == 0
    assert set(given) == {"keys", "federation", "policy", "links", "events", "patience_s", "stop"}
    assert given["policy"].pinned is not None and len(given["policy"].pinned) == 4
    assert not prepared.config.folder.journal.exists()

"""Kills and full disks while a site keeps its states: what it finds afterwards is what was there before, or after."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from site_rounds import DrivenSite

import pppml_fast
from pppml_fast.errors import DataError, SiteError
from pppml_fast.experiment.checkpoint import Checkpoint, StateFolder
from pppml_fast.experiment.study import Study

FILE_OPERATIONS = [
    (os, "replace"),
    (os, "fsync"),
    (os, "open"),
    (Path, "write_bytes"),
    (Path, "unlink"),
    (Path, "mkdir"),
]


class KilledError(BaseException):
    """Stands for the end of the process."""


def at_operation(monkeypatch: pytest.MonkeyPatch, number: int, after: bool, error: BaseException) -> list[int]:
    """Raise at the file operation of that number, before or after it is done; what is returned counts them.

    A killed process does nothing more: every operation that follows raises too.
    """
    count = [0]

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == number and after:
                original(*arguments, **options)
            if count[0] == number or (count[0] > number > 0 and isinstance(error, KilledError)):
                raise error
            return original(*arguments, **options)

        return call

    for owner, name in FILE_OPERATIONS:
        monkeypatch.setattr(owner, name, wrapped(getattr(owner, name)))
    return count


def checkpoint(number: int) -> Checkpoint:
    return Checkpoint(number, {"w": torch.full((64,), float(number))}, [{"round": number}])


def numbers(states: list[Checkpoint]) -> list[int]:
    for state in states:
        assert torch.equal(state.state["w"], torch.full((64,), float(state.round)))
        assert state.records == [{"round": state.round}]
    return [state.round for state in states]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["killed", "refused"])
def test_every_file_operation_may_be_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, after: bool
) -> None:
    error: BaseException = KilledError() if kind == "killed" else OSError(errno.ENOSPC, "No space left on device")
    found, number = [], 0
    while True:
        number += 1
        folder = StateFolder(tmp_path / str(number))
        folder.keep([checkpoint(1), checkpoint(0)])
        folder = StateFolder(folder.folder)
        kept = folder.load()
        with monkeypatch.context() as patched:
            count = at_operation(patched, number, after, error)
            with contextlib.suppress(KilledError, DataError):
                folder.keep([checkpoint(2), kept[0]])
            if count[0] < number:
                break
        found.append(numbers(StateFolder(folder.folder).load()))
        assert found[-1] in ([1, 0], [2, 1]), number
        # What was interrupted can be done again, by this process or the next.
        folder.keep([checkpoint(2), kept[0]])
        assert numbers(StateFolder(folder.folder).load()) == [2, 1]
    assert [1, 0] in found and [2, 1] in found and len(found) > 8


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_memory_follows_the_disk_when_it_refuses(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    mean = np.full(study.layout.size, 1e-3, np.float32)
    expected = None
    for number in range(1, 9):
        site = DrivenSite(study, 0, tmp_path / str(number))
        before = site.training.states
        update = np.concatenate(site.trained(0))
        with monkeypatch.context() as patched:
            at_operation(patched, number, after, OSError(errno.ENOSPC, "No space left on device"))
            with contextlib.suppress(SiteError):
                site.training.commit(0, mean)
        in_memory = site.training.states
        site.restart()
        assert site.training.states == in_memory
        if in_memory == before:
            assert np.array_equal(np.concatenate(site.trained(0)), update)
            site.training.commit(0, mean)
        expected = expected or site.training.states
        assert site.training.states == expected and [state.round for state in expected] == [1, 0]
        site.training.close()


# Keeps states one after the other until it is killed; a child of its own each time, forked after torch is loaded. The
# child says when it has loaded and after each state, so that kills are spread over what it does at the disk's speed.
KEEPER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from pppml_fast.experiment.checkpoint import Checkpoint, StateFolder

torch.set_num_threads(1)
where, kills = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(11)

def checkpoint(number):
    return Checkpoint(number, {"w": torch.full((20000,), float(number))}, [{"round": number}])

def check():
    states = StateFolder(where).load()
    for state in states:
        assert torch.equal(state.state["w"], torch.full((20000,), float(state.round))), state.round
    rounds = [state.round for state in states]
    assert rounds in ([], [0]) or rounds == [rounds[0], rounds[0] - 1], rounds
    return rounds[0] if rounds else -1

last, took = -1, 0.005
for kill in range(kills):
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        folder = StateFolder(where)
        states = folder.load()
        while True:
            os.write(telling, b".")
            number = states[0].round + 1 if states else 0
            states = [checkpoint(number), *states[:1]]
            folder.keep(states)
    os.close(telling)
    least = kill % 3
    assert os.read(told, 1)
    for _ in range(least):
        began = time.monotonic()
        assert os.read(told, 1)
        took = min(time.monotonic() - began, 5.0)
    time.sleep(draw.uniform(0, 2 * took))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(told)
    found = check()
    assert found >= last + least, (found, last, least)
    last = found
folder = StateFolder(where)
folder.keep([checkpoint(last + 1), *folder.load()[:1]])
print(last, check() - last, len(list(where.glob("state_*"))))
"""


def test_a_process_killed_at_any_instant(tmp_path: Path) -> None:
    roots = [str(Path(root).parent) for root in pppml_fast.__path__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*roots, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", KEEPER, str(tmp_path / "states"), "60"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    kept, progress, files = (int(word) for word in done.stdout.split())
    assert kept >= 59 and progress == 1
    assert files == 2, "what was written and not committed is gone after the next commit"

"""A federation of real processes that a test watches: what each tells from a moment on, its rounds, its memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from real_federation import RealFederation

__all__ = ["WAIT_S", "Attended"]

WAIT_S = 300.0
"""For a machine that does other things; seconds are enough when all is well."""
Line = dict[str, Any]


class Attended:
    """Trains without end until `finish`. `mark` forgets what was told before."""

    def __init__(self, federation: RealFederation) -> None:
        self.federation = federation
        self.names = federation.names
        self._marks: dict[str, int] = {}
        self._held = 0

    def start(self) -> None:
        self.federation.start()
        self.reach(1)
        self.mark()

    def mark(self) -> None:
        self._marks = {name: len(node.lines) for name, node in self.federation.nodes.items()}

    def told(self, name: str, *kinds: str) -> list[Line]:
        """What a node told since the mark, of these kinds or of all."""
        lines = self.federation.nodes[name].lines[self._marks[name] :]
        return [line for line in lines if not kinds or line["what"] in kinds]

    @property
    def newest(self) -> int:
        """Rounds of the newest model that any member has."""
        return max(node.round for node in self.federation.members)

    def wait(self, until: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not until():
            rounds = {node.name: (node.round, node.status) for node in self.federation.nodes.values()}
            last = {name: node.lines[-3:] for name, node in self.federation.nodes.items()}
            assert time.monotonic() < deadline, f"{what}, within {WAIT_S:g} s; {rounds}; {last}"
            time.sleep(0.02)

    def reach(self, rounds: int, names: Iterable[str] = ()) -> None:
        """Wait until these members, or all, hold a model of so many rounds."""
        nodes = [self.federation.nodes[name] for name in names or self.names]
        self.wait(lambda: all(node.round >= rounds for node in nodes), f"no model of {rounds} rounds")

    def check(self) -> None:
        """No rule is broken: every sum is exact, none has two values, models are where they were."""
        self.federation.judge()
        checks = self.federation.checks
        assert (checks.wrong, checks.double_share) == ([], [])
        assert [text for node in self.federation.members for text in node.lost] == []

    def finish(self) -> None:
        """All processes end by themselves, with one model."""
        end = self.newest + 4  # so that all hear of it before
        for node in self.federation.nodes.values():
            node.order(finish=end)
        for node in self.federation.nodes.values():
            assert node.reap(WAIT_S), f"{node.name} does not end"
            assert node.status == 0, (node.name, node.lines[-3:])
        self.check()
        models = {node.name: (node.round, node.models[0]) for node in self.federation.members}
        assert len(set(models.values())) == 1, models

    # --- memory and files ---------------------------------------------------------------------------------

    def watch_memory(self, name: str) -> None:
        """From now on, `grown` of this node."""
        self._proc(name, "clear_refs").write_text("5")
        self._held = self._highest(name)

    def grown(self, name: str) -> int:
        """Bytes by which the node's memory was at most above what it was."""
        return self._highest(name) - self._held

    def files(self, name: str) -> int:
        """Files that the node's process has open, sockets among them."""
        return sum(1 for _ in self._proc(name, "fd").iterdir())

    def _highest(self, name: str) -> int:
        line = next(line for line in self._proc(name, "status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) << 10

    def _proc(self, name: str, what: str) -> Path:
        return Path(f"/proc/{self.federation.nodes[name].pid}/{what}")

"""On the way to a site's links shares come first: what they are waited for at others' is not held up by an opening."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from loopback import Star

from pppml_fast.aggregation.messages import MessageType, parse_header
from pppml_fast.aggregation.opened import HostSum
from pppml_fast.site.runtime import Runtime


def test_a_sites_shares_are_handed_over_before_it_opens_the_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[str]] = {}
    hand_over, fill = Runtime._hand_over, HostSum._fill

    def note(what: str) -> None:
        seen.setdefault(threading.current_thread().name, []).append(what)

    def spy_hand_over(self: Runtime, message: Any) -> None:
        hand_over(self, message)
        if parse_header(message.data)[0].type is MessageType.SHARE:
            note("share")

    def spy_fill(self: HostSum, *arguments: Any, **named: Any) -> None:
        note("opens")
        fill(self, *arguments, **named)

    monkeypatch.setattr(Runtime, "_hand_over", spy_hand_over)
    monkeypatch.setattr(HostSum, "_fill", spy_fill)
    star = Star(tmp_path, parties=3, rounds=2)
    try:
        star.run()
    finally:
        star.stop()
    members = [seen[f"node {name}"] for name in star.names]
    assert members == [["share", "share", "opens"] * 2] * 3

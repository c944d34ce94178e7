"""`pppml doctor`: its table, its JSON and its exit status."""

from __future__ import annotations

import json
from typing import Any

import pytest


def test_the_table_ends_with_the_verdict_and_has_no_colours_in_a_pipe(pppml: Any) -> None:
    shown = pppml("doctor")
    assert shown.code == 0 and shown.err == ""
    assert "\x1b" not in shown.out
    assert shown.out.splitlines()[-1].startswith("all ") and shown.out.splitlines()[-1].endswith(" checks hold")
    for text in ("parameter sets", "p31", "compact", "ChaCha20 of RFC 8439", "compared with no other clock"):
        assert text in shown.out


def test_json_holds_what_the_table_shows(pppml: Any) -> None:
    report = json.loads(pppml("doctor", "--json", "--no-self-test").out)
    assert report["ok"] is True and report["verdict"].endswith("checks hold")
    assert {"section", "name", "status", "value", "remedy"} == set(report["checks"][0])
    assert report["checks"][-1]["value"] == "not run, as told"


def test_a_failure_is_an_exit_status_of_one(pppml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPPML_BACKEND", "sse9")
    for options in ((), ("--json",)):
        shown = pppml("doctor", "--no-self-test", *options)
        assert shown.code == 1 and "backend 'sse9' was not built" in shown.out and shown.err == ""

"""Rows, ratios, and the form that `pppml bench --json` writes."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import pytest

from pppml_fast.bench import Ratio, Report, Row, SetupRow
from pppml_fast.bench.report import markdown
from pppml_fast.errors import DataError

MACHINE = {
    "cpu": "a processor",
    "cores": 2,
    "flags": ["avx2"],
    "system": "Linux x86_64",
    "huge_pages": "madvise",
    "load": [0.1, 0.2, 0.3],
    "compiler": "GCC: (x) 12",
    "backends": ["scalar"],
    "commit": "0123456789ab",
    "date": "2026-01-02T03:04:05Z",
    "versions": {"python": "3.11.7"},
}


def row(system: str, operation: str, ns: float, sent: float | None = None, moved: float | None = None) -> Row:
    setting = {"pppml_fast": "p31/collective", "memory": "streams"}.get(system, "best")
    return Row(system, setting, operation, "b", 1, ns, sent, 1000, 5, ns / 2, ns * 2, 0.0, moved)


REPORT = Report(
    (
        row("pppml_fast", "encrypt", 2.0, sent=4.0),
        row("pppml_fast", "add16", 10.0, moved=68.0),
        row("pppml_fast", "hop", 3.0, sent=4.0, moved=12.0),
        row("memory", "add2", 2.0, moved=12.0),
        row("memory", "add16", 5.0, moved=68.0),
        row("memory", "memcpy", 1.0, moved=8.0),
        row("tenseal", "encrypt", 700.0, sent=32.0),
        row("openfhe", "open", 300.0),
    ),
    (
        SetupRow("pppml_fast", "beyond NumPy's own", "import", 21.5, 20.0, 30.0, 5, "as it is counted"),
        SetupRow("pppml_fast", "p31/collective", "keygen", 0.25, 0.2, 0.3, 5),
    ),
    MACHINE,
    ("a note",),
)


def test_ratios_compare_like_with_like() -> None:
    assert set(REPORT.ratios()) == {
        Ratio("p31/collective", "encrypt", "tenseal best", "time", 350.0),
        Ratio("p31/collective", "encrypt", "tenseal best", "bytes", 8.0),
        Ratio("p31/collective", "add16", "memory add16", "bandwidth", 0.5),
        Ratio("p31/collective", "add16", "memory add2", "bandwidth", (68 / 10) / (12 / 2)),
        # A hop reads two streams and writes one: its loop is the addition of two.
        Ratio("p31/collective", "hop", "memory add2", "bandwidth", (12 / 3) / (12 / 2)),
    }


def test_the_report_has_the_form_of_its_schema_and_comes_back() -> None:
    schema = json.loads(files("pppml_fast.bench").joinpath("schema/bench.schema.json").read_text())
    values = json.loads(json.dumps(REPORT.to_dict()))
    jsonschema.validate(values, schema)
    assert Report.from_dict(values) == REPORT
    assert [row["ms"] for row in values["setup"]] == [21.5, 0.25]
    for section in ("rows", "setup"):
        wrong = json.loads(json.dumps(values))
        wrong[section][0]["operation"] = "guess"
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"rows": [], "machine": {}, "notes": []},
        {"rows": [{}], "setup": [], "machine": {}, "notes": []},
        {"rows": [], "setup": [{}], "machine": {}, "notes": []},
        {"rows": 3, "setup": [], "machine": {}, "notes": []},
    ],
)
def test_a_foreign_file_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(DataError, match="pppml bench --json"):
        Report.from_dict(values)


def test_the_table_shows_rows_ratios_and_where_they_come_from() -> None:
    text = markdown(REPORT, "pppml bench --size 1000")
    for words in ("`pppml bench --size 1000`", "a processor", "0123456789ab", "GCC: (x) 12", "> a note", "350×"):
        assert words in text, words
    encrypt = next(line for line in text.splitlines() if line.startswith("| p31/collective") and "350×" in line)
    assert "8.00× smaller" in encrypt and "against tenseal best" in text
    shared = next(line for line in text.splitlines() if line.startswith("| p31/collective | add16"))
    assert "0.500" in shared and "bandwidth of memory add16" in text
    assert any(
        line.startswith("| pppml_fast | p31/collective     | keygen") and "0.250" in line for line in text.splitlines()
    )
    assert "- pppml_fast import: as it is counted" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables[: 2 + len(REPORT.rows)]}) == 1

"""What a finished run leaves: a summary that follows its schema, tables, models, a report that stands alone."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pppml_fast.experiment import build_config
from pppml_fast.experiment.cards import load_model
from pppml_fast.experiment.report import identity_line
from pppml_fast.experiment.results import RunResult
from pppml_fast.experiment.runner import run_experiment
from pppml_fast.experiment.summary import summary_schema

METHODS = ["local", "fedavg", "fedavg_ft", "per_fedavg_fo", "per_fedavg_hf"]

Finished = tuple[RunResult, Path]


@pytest.fixture(scope="module")
def summary(finished: Finished) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((finished[1] / "summary.json").read_text())
    return loaded


def test_the_summary_follows_its_schema(summary: dict[str, Any]) -> None:
    schema = summary_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(summary, schema)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.pop("aggregation"),
        lambda s: s["aggregation"].pop("max_difference_from_plain"),
        lambda s: s["methods"].update({"fedsgd": s["methods"]["local"]}),
        lambda s: s["methods"]["local"].update(worst=1.5),
        lambda s: s["methods"]["local"]["per_party"]["north"].pop("after"),
        lambda s: s["methods"]["local"]["per_party"]["north"].update(cases=[]),
        lambda s: s["parties"][0].pop("cases_test"),
        lambda s: s["provenance"].update(host="somebody"),
        lambda s: s.update(extra=1),
    ],
)
def test_the_schema_refuses_what_is_no_summary(summary: dict[str, Any], spoil: Any) -> None:
    spoiled = json.loads(json.dumps(summary))
    spoil(spoiled)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoiled, summary_schema())


def test_the_summary_agrees_with_itself(summary: dict[str, Any]) -> None:
    assert [party["name"] for party in summary["parties"]] == ["north", "east", "south"]
    assert list(summary["methods"]) == METHODS
    for method in summary["methods"].values():
        after = [party["after"] for party in method["per_party"].values()]
        assert method["mean"] == pytest.approx(sum(after) / 3)
        assert method["worst"] == min(after)
        assert method["gradients"] == 8
        for party in method["per_party"].values():
            assert party["after"] == pytest.approx(sum(c["after"] for c in party["cases"]) / len(party["cases"]))
    fedavg, tuned = summary["methods"]["fedavg"], summary["methods"]["fedavg_ft"]
    for name in fedavg["per_party"]:
        assert fedavg["per_party"][name]["after"] == fedavg["per_party"][name]["before"]
        assert fedavg["per_party"][name]["before"] == tuned["per_party"][name]["before"]
    assert fedavg["steps"] == 0 and tuned["steps"] == 2
    assert set(tuned["by_steps"]) == {"0", "1", "2"}


def test_the_sums_were_encrypted_and_equal_the_plain_ones(summary: dict[str, Any]) -> None:
    costs = summary["aggregation"]
    assert costs["protocol"] == "collective"
    assert costs["max_difference_from_plain"] == 0 and costs["identical_models"] is True
    assert costs["rounds"] == 6
    assert costs["bytes_per_weight"] > 0 and costs["overhead_bytes"] > 0
    assert 0 < costs["encrypt_s"] <= costs["ring_s"] and 0 < costs["open_s"] <= costs["ring_s"]
    assert costs["plain_s"] < costs["ring_s"]
    assert 0 < costs["share_of_round"] < 1


def test_provenance_without_paths_or_hosts(summary: dict[str, Any]) -> None:
    provenance = summary["provenance"]
    assert provenance["seeds"] == [0] and provenance["command"] == "pppml run tiny.toml"
    assert {"python", "torch", "numpy", "monai"} <= set(provenance["versions"])
    assert provenance["config"]["data"]["path"] == "tiny.npz"
    assert set(provenance["models"]) == {f"seed 0 {t}" for t in METHODS if t != "fedavg_ft"}
    assert "/" not in provenance["config"]["data"]["path"]


def test_tables_hold_every_score_and_every_round(finished: Finished) -> None:
    result, out = finished
    cases = list(csv.DictReader((out / "cases.csv").open()))
    # Three hospitals of one test case: fedavg at k = 0 alone, the four others at k = 0, 1, 2.
    assert len(cases) == 3 * (1 + 4 * 3)
    row = next(r for r in cases if (r["method"], r["party"], r["personal_steps"]) == ("per_fedavg_hf", "east", "2"))
    method = next(m for m in result.methods if m.name == "per_fedavg_hf")
    assert float(row["dice"]) == pytest.approx(method.party("east", 2), abs=1e-6)
    rounds = list(csv.DictReader((out / "rounds.csv").open()))
    assert len(rounds) == 4 * 2
    assert {r["max_difference_from_plain"] for r in rounds if r["track"] != "local"} == {"0"}
    assert all(float(r["loss"]) > 0 for r in rounds)
    assert len(list(csv.DictReader((out / "scores.csv").open()))) == len(cases)


def test_models_are_left_for_use(finished: Finished) -> None:
    models = finished[1] / "models"
    found = {str(path.relative_to(models)) for path in models.rglob("*.toml")}
    personal = {f"{m}/{p}.toml" for m in METHODS if m != "fedavg" for p in ("north", "east", "south")}
    shared = {f"{m}/global.toml" for m in METHODS if m != "local"}
    assert found == personal | shared
    for name in found:
        assert load_model(models / name).neighbours == 1


class References(HTMLParser):
    """Collects everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_the_report_stands_alone(finished: Finished) -> None:
    html = (finished[1] / "report.html").read_text(encoding="utf-8")
    page = References()
    page.feed(html)
    assert page.fetched and all(value.startswith("data:image/png;base64,") for value in page.fetched)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", html)


def test_the_report_says_what_it_must(finished: Finished) -> None:
    result, out = finished
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "Plain and encrypted models are identical bit for bit" in html
    for text in ("north", "east", "south", "FedAvg + fine-tuning", "Per-FedAvg (HF)", "volume_2", "key shares"):
        assert text in html, text
    method = result.methods[-1]
    assert f"{method.party('north', 0):.3f} → {method.party('north', 2):.3f}" in html


def test_real_data_leave_no_pictures(finished: Finished) -> None:
    plots = {path.name for path in (finished[1] / "plots").iterdir()}
    assert plots == {"dice_by_hospital.png", "dice_by_steps.png", "training_loss.png", "round_cost.png"}
    assert "Example slices" not in (finished[1] / "report.html").read_text(encoding="utf-8")


def test_a_difference_from_plain_would_be_shouted() -> None:
    aggregation = {"rounds": 3, "protocol": "collective", "identical_models": False, "max_difference_from_plain": 2}
    assert "DIFFER" in identity_line(aggregation)
    assert "not encrypted" in identity_line({**aggregation, "protocol": "plain"})


def test_a_finished_run_is_not_done_again(finished: Finished, table: dict[str, Any]) -> None:
    result, out = finished
    before = {path: path.stat().st_mtime_ns for path in (out / "checkpoints").rglob("*") if path.is_file()}
    again = run_experiment(build_config(table), out, command="again")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.provenance["models"] == result.provenance["models"]
    assert [m.scores for m in again.methods] == [m.scores for m in result.methods]
    assert again.provenance["resumed"] is True
    run_experiment(build_config(table), out, command="pppml run tiny.toml")


def test_phantoms_several_seeds_and_the_initiator(tmp_path: Path, table: dict[str, Any]) -> None:
    phantoms = {
        "kind": "phantoms",
        "size": 32,
        "hospitals": ["east", "south", "west"],
        "cases_train": 1,
        "cases_test": 1,
    }
    changes = {"data": phantoms, "board": ["per_fedavg_fo"], "seeds": [1, 2], "rounds": 1}
    config = build_config({**table, **changes}, ["aggregation.protocol=initiator"])
    result = run_experiment(config, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    jsonschema.validate(summary, summary_schema())
    assert summary["aggregation"]["protocol"] == "initiator"
    assert summary["aggregation"]["max_difference_from_plain"] == 0
    assert summary["methods"]["per_fedavg_fo"]["interval"] == pytest.approx(result.methods[0].interval(2))
    assert (tmp_path / "run" / "plots" / "examples.png").stat().st_size > 1000
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Synthetic test cases" in html and "over 2 seeds" in html
    cards = {str(p.relative_to(tmp_path / "run" / "models")) for p in (tmp_path / "run" / "models").rglob("*.toml")}
    names = ("global", "east", "south", "west")
    assert cards == {f"seed_{seed}/per_fedavg_fo/{name}.toml" for seed in (1, 2) for name in names}

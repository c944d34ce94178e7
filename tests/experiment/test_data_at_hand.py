"""The real set that PPPML_DATA points at, through the whole program; without that variable nothing is collected."""

from __future__ import annotations

import json
import os
from pathlib import Path

DATA = os.environ.get("PPPML_DATA")

if DATA is None:
    print("tests/experiment/test_data_at_hand.py: PPPML_DATA is not set, its tests are not collected")
else:
    import jsonschema
    import tiny_study

    from pppml_fast.cli import main
    from pppml_fast.experiment.summary import summary_schema

    def test_one_short_encrypted_round_on_real_ct(tmp_path: Path) -> None:
        assert DATA is not None
        network = tiny_study.table(tmp_path)["network"]["arguments"]
        settings = [
            "threads=1",
            "gradients_per_round=2",
            "personal_steps=[0, 1]",
            "reported_steps=1",
            "board=['local', 'fedavg_ft', 'per_fedavg_fo']",
            "network.target=monai.networks.nets:UNet",
            f"network.arguments.channels={network['channels']}",
            f"network.arguments.strides={network['strides']}",
            "task.batch_size=2",
        ]
        options = [part for setting in settings for part in ("--set", setting)]
        try:
            main(["demo", "--data", DATA, "--out", str(tmp_path / "real"), "--rounds", "1", *options])
        except SystemExit as stopped:
            assert stopped.code == 0
        summary = json.loads((tmp_path / "real" / "summary.json").read_text())
        jsonschema.validate(summary, summary_schema())
        assert [(p["cases_train"], p["cases_test"]) for p in summary["parties"]] == [(7, 3), (2, 1), (5, 2)]
        assert summary["aggregation"]["max_difference_from_plain"] == 0
        assert len(summary["methods"]["per_fedavg_fo"]["per_party"]["coronacases_thin"]["cases"]) == 3
        assert DATA not in json.dumps({**summary["provenance"], "command": ""})
        assert not (tmp_path / "real" / "plots" / "examples.png").exists()

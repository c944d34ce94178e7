"""What `pppml demo-network` lays out is what five hospitals would have: every site passes its own checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from pppml_fast.experiment import demo_layout, load_config
from pppml_fast.experiment.site_config import load_coordinator, load_site
from pppml_fast.experiment.site_setup import prepare_coordinator, prepare_site
from pppml_fast.imaging import DEFAULT_HOSPITALS


def test_five_sites_are_ready_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_layout, "SIZE", 32)
    monkeypatch.setattr(demo_layout, "TRAINING_CASES", 1)
    sites, experiment = demo_layout.lay_out(tmp_path / "out", rounds=3, seed=2)
    assert [site.name for site in sites] == [*(hospital.name for hospital in DEFAULT_HOSPITALS), "harbour"]
    whole = load_config(experiment)
    assert (whole.rounds, whole.seeds, whole.threads) == (3, (2,), 1)
    ready = [prepare_site(load_site(site.config)) for site in sites]
    assert len({one.config.node.listen for one in ready}) == 5
    for site, one in zip(sites, ready, strict=True):
        assert one.study.party_names == [site.name]
        assert (one.config.folder.run, one.config.folder.log) == (site.run, site.log)
        assert one.policy.minimum(5) == 5
        assert one.config.experiment.model_copy(update={"data": whole.data}) == whole


def test_in_a_star_nobody_listens_but_the_coordinator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_layout, "SIZE", 32)
    monkeypatch.setattr(demo_layout, "TRAINING_CASES", 1)
    (*sites, hub), _ = demo_layout.lay_out(tmp_path / "out", rounds=2, star=True)
    prepared = prepare_coordinator(load_coordinator(hub.config))
    assert hub.coordinates and prepared.policy.minimum(5) == 5
    assert set(prepared.federation.addresses) == {demo_layout.COORDINATOR}
    ready = [prepare_site(load_site(site.config)) for site in sites]
    assert [one.config.node.listen for one in ready] == [None] * 5

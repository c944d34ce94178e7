"""Five hospitals on one machine as they would be on five: data, keys and a site.toml each, and one federation file.

A star has a coordinator beside them, to which all dial out: no site listens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomlkit

from pppml_fast.errors import DataError
from pppml_fast.experiment.agreement import roster_of
from pppml_fast.experiment.config_file import load_config
from pppml_fast.experiment.files import write_text
from pppml_fast.experiment.phantom_files import write_phantoms
from pppml_fast.imaging import DEFAULT_HOSPITALS, PhantomHospital
from pppml_fast.site.addresses import free_addresses
from pppml_fast.site.authority import TrialAuthority
from pppml_fast.site.federation_file import FederationFile
from pppml_fast.site.keys import SiteKeys

__all__ = ["COORDINATOR", "METHOD", "DemoSite", "lay_out"]

METHOD = "per_fedavg_fo"
COORDINATOR = "coordinator"
HARBOUR = PhantomHospital(
    "harbour", slice_mm=4, noise_hu=40, sharpness=0.1, offset_hu=10, field_mm=360, lesion_mm=13, infected_share=0.15
)
TRAINING_CASES, TEST_CASES, SIZE = 2, 1, 64


@dataclass(frozen=True)
class DemoSite:
    """One node's name and files: a site, or a star's coordinator."""

    name: str
    folder: Path

    @property
    def coordinates(self) -> bool:
        """Whether this is the coordinator."""
        return self.name == COORDINATOR

    @property
    def config(self) -> Path:
        """Its site.toml or coordinator.toml."""
        return self.folder / ("coordinator.toml" if self.coordinates else "site.toml")

    @property
    def log(self) -> Path:
        """Its events, as JSON lines."""
        return self.folder / "site" / "logs" / "events.jsonl"

    @property
    def run(self) -> Path:
        """Its checkpoints, models and summary."""
        return self.folder / "site" / "run"


def lay_out(out: Path, *, rounds: int, seed: int = 0, star: bool = False) -> tuple[list[DemoSite], Path]:
    """Write all of it below ``out``: the sites, and the experiment's TOML file for a run in one process.

    A ``star`` has its coordinator as the last of the nodes. Raises DataError unless ``out`` is new or empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{str(out)!r} exists and is not empty; choose another --out, or delete that folder")
    out = out.resolve()
    hospitals = tuple(
        replace(hospital, train_cases=TRAINING_CASES, test_cases=TEST_CASES)
        for hospital in (*DEFAULT_HOSPITALS, HARBOUR)
    )
    lists = write_phantoms(hospitals, out / "data", seed=seed, size=SIZE)
    names = [hospital.name for hospital in hospitals]
    experiment = out / "experiment.toml"
    parties = {name: str(path.relative_to(out)) for name, path in zip(names, lists, strict=True)}
    write_text(experiment, tomlkit.dumps(_experiment(parties, rounds, seed)))
    nodes = [DemoSite(name, out / name) for name in (*names, *([COORDINATOR] if star else []))]
    listening = [COORDINATOR] if star else names
    addresses = dict(zip(listening, free_addresses(len(listening)), strict=True))
    _found(out, nodes, experiment, addresses)
    for node in nodes:
        data = None if node.coordinates else lists[names.index(node.name)]
        write_text(node.config, tomlkit.dumps(_node(node, data, addresses.get(node.name), len(names))))
    return nodes, experiment


def _found(out: Path, nodes: list[DemoSite], experiment: Path, addresses: dict[str, str]) -> None:
    """Keys and certificates for every node, the roster of the experiment, signed by all."""
    authority = TrialAuthority.create(out / "authority")
    keys = {}
    for node in nodes:
        made = SiteKeys.create(node.folder / "site" / "keys", node.name, addresses.get(node.name))
        keys[node.name] = SiteKeys.install(made.folder, authority.issue(made.request), authority.certificate)
    cards = {name: one.card.member for name, one in keys.items()}
    relay = cards.pop(COORDINATOR, None)
    roster, layout = roster_of(load_config(experiment), list(cards.values()), relay=relay)
    federation = FederationFile(roster, layout, addresses)
    for one in keys.values():
        federation = federation.signed_by(one.identity)
    federation.save(out / "federation.json")


def _experiment(parties: dict[str, str], rounds: int, seed: int) -> dict[str, Any]:
    arguments = {
        "spatial_dims": 2,
        "in_channels": 3,
        "out_channels": 1,
        "channels": [16, 32, 64],
        "strides": [2, 2],
        "norm": ["instance", {"affine": True}],
    }
    return {
        "name": "network",
        "title": "Five synthetic hospitals, five processes",
        "seeds": [seed],
        "threads": 1,
        "rounds": rounds,
        "gradients_per_round": 16,
        "personal_steps": [0, 5],
        "reported_steps": 5,
        "board": [METHOD],
        "data": {"kind": "datalists", "parties": parties},
        "network": {"target": "monai.networks.nets:UNet", "multiple": 8, "arguments": arguments},
        "task": {"batch_size": 4},
        "methods": {METHOD: {"alpha": 0.05, "beta": 0.5}},
    }


def _node(node: DemoSite, data: Path | None, address: str | None, members: int) -> dict[str, Any]:
    """A site.toml, or without data a coordinator.toml."""
    common = {
        "name": node.name,
        "folder": "site",
        "federation": "../federation.json",
        **({} if address is None else {"listen": address}),
        "patience_s": 300.0,
        "grace_s": 10.0,
        "linger_s": 30.0,
    }
    # All or none: with fewer members a sum would be right, but not that of the run in one process.
    policy = {"min_parties": members}
    if data is None:
        return {"coordinator": common, "policy": policy}
    return {
        "site": common,
        "policy": policy,
        "experiment": {"path": "../experiment.toml"},
        "data": {"kind": "datalists", "path": f"../data/{data.name}"},
    }

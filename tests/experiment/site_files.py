"""A tiny federation as files: keys, roster, one site.toml each, made as hospitals would make them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tiny_study

from pppml_fast.experiment.agreement import roster_of
from pppml_fast.experiment.config_file import load_config
from pppml_fast.site.authority import TrialAuthority
from pppml_fast.site.federation_file import FederationFile
from pppml_fast.site.keys import SiteKeys

EXPERIMENT = 'board = ["per_fedavg_fo"]\n'


def make_site_files(
    base: Path,
    npz: Path,
    *,
    star: bool = False,
    members: Sequence[str] = tiny_study.SITES,
    more: str = "",
    first_port: int = 7400,
) -> dict[str, Path]:
    """The configuration of every node by name, in folders below ``base``; a star has the node ``hub``.

    ``more`` ends the experiment's file.
    """
    experiment = base / "experiment.toml"
    experiment.write_text(tiny_study.toml(npz, EXPERIMENT) + more)
    authority = TrialAuthority.create(base / "authority")
    names = [*members, *(["hub"] if star else [])]
    addresses = {name: f"127.0.0.1:{first_port + index}" for index, name in enumerate(names)}
    keys = {}
    for name in names:
        made = SiteKeys.create(base / name / "site" / "keys", name, addresses[name])
        keys[name] = SiteKeys.install(made.folder, authority.issue(made.request), authority.certificate)
    relay = keys["hub"].card.member if star else None
    roster, layout = roster_of(load_config(experiment), [keys[name].card.member for name in members], relay=relay)
    federation = FederationFile(roster, layout, {"hub": addresses["hub"]} if star else addresses)
    for one in keys.values():
        federation = federation.signed_by(one.identity)
    federation.save(base / "federation.json")
    files = {}
    for name in names:
        path = files[name] = base / name / "site.toml"
        path.write_text(coordinator_toml(name) if name == "hub" else site_toml(name, npz, addresses[name]))
    return files


def site_toml(name: str, npz: Path, listen: str) -> str:
    """A site.toml as it is meant to look."""
    return f"""
[site]
name = "{name}"
folder = "site"
federation = "../federation.json"
listen = "{listen}"

[experiment]
path = "../experiment.toml"

[data]
kind = "npz"
path = "{npz}"
"""


def coordinator_toml(name: str) -> str:
    """A coordinator.toml."""
    return f"""
[coordinator]
name = "{name}"
folder = "site"
federation = "../federation.json"
listen = "127.0.0.1:7400"
"""

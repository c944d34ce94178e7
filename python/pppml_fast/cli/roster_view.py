"""The federation's file for people and for programs: members, parameters, and what a policy makes of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pppml_fast.aggregation import Policy
from pppml_fast.aggregation.roster import check_policy
from pppml_fast.aggregation.sharing import default_threshold
from pppml_fast.cli.console import show_lines
from pppml_fast.errors import PppmlError, ProtocolError
from pppml_fast.experiment.privacy import planned_epsilon
from pppml_fast.privacy import PrivacyPlan
from pppml_fast.site.card import identity_fingerprint
from pppml_fast.site.federation_file import FederationFile

__all__ = ["roster_values", "show_roster"]


def roster_values(file: FederationFile, policy: Policy) -> dict[str, Any]:
    """Everything that `show_roster` prints, as plain JSON values."""
    roster, params = file.roster, file.params
    blocks = params.block_count(file.layout.size)
    plain = roster.options.protocol == "plain"
    per_weight = 4.0 if plain else params.bytes_per_weight
    return {
        "roster": roster.fingerprint.hex(),
        "members": [
            {
                "name": member.name,
                "role": "member" if member in roster.members else "relay",
                "fingerprint": identity_fingerprint(member.public),
                "weight": member.weight if member in roster.members else None,
                "address": file.addresses.get(member.name),
                "signed": member.name in file.signatures,
            }
            for member in roster.everyone
        ],
        "protocol": roster.options.protocol,
        "topology": roster.options.topology,
        "sum_check": roster.options.checks_sum,
        "threshold": roster.options.threshold or default_threshold(len(roster.members)),
        "model": f"{len(file.layout.tensors)} tensors, {file.layout.size:,} weights",
        "layout": roster.layout,
        "parameters": "NOT ENCRYPTED: every member sees every update" if plain else params.describe(),
        "level": "none" if plain else params.level,
        "exact_bits": round(params.exact_bits, 1),
        "bytes_per_weight": round(per_weight, 3),
        "bytes_per_round": round(per_weight * file.layout.size),
        "chunks": -(-blocks // roster.options.chunk_blocks),
        "privacy": _privacy(file),
        "policy": _verdict(file, policy),
    }


def show_roster(console: Console, file: FederationFile, policy: Policy) -> None:
    """Who takes part, then what they agree on."""
    values = roster_values(file, policy)
    table = Table(box=box.SIMPLE_HEAD, title=f"Roster {values['roster'][:16]}", title_justify="left")
    for title in ("", "name", "identity fingerprint", "weight", "address", "signed"):
        table.add_column(title, overflow="fold", justify="right" if title == "weight" else "left")
    for number, row in enumerate(values["members"], 1):
        relay = row["role"] == "relay"
        table.add_row(
            "relay" if relay else str(number),
            # Names come from other sites: no markup in them is obeyed.
            Text(row["name"]),
            row["fingerprint"],
            "" if relay else f"{row['weight']:.3f}",
            row["address"] or "dials out",
            "yes" if row["signed"] else ("not needed" if relay else Text("no", style="bold red")),
        )
    console.print(table)
    precision = f"{values['exact_bits']} exact bits, clip {file.params.clip:g}, step {file.params.step:.3g}"
    size = f"{values['bytes_per_weight']} bytes per weight, {values['bytes_per_round'] / 1e6:.2f} MB each way per round"
    shape = f"{values['protocol']}, {values['topology']}, sum check {'on' if values['sum_check'] else 'off'}"
    show_lines(
        console,
        "Agreed",
        [
            ("protocol", f"{shape}, {values['threshold']} members open a sum"),
            ("model", f"{values['model']}, layout {values['layout'][:16]}"),
            ("parameters", values["parameters"]),
            ("level", values["level"]),
            ("precision", precision),
            ("bytes", f"{size}, {_count(values['chunks'], 'chunk')}"),
            *_noise_lines(values["privacy"]),
            ("policy", values["policy"]),
        ],
    )


def _privacy(file: FederationFile) -> dict[str, Any] | None:
    """The agreed noise and what it comes to over all planned rounds; None: sums are exact."""
    terms, members = file.roster.options.privacy, len(file.roster.members)
    if terms is None:
        return None
    values: dict[str, Any] = {**asdict(terms), "fewest_members": terms.least}
    try:
        plan = PrivacyPlan.of(terms, file.params, parties=members, length=file.layout.size)
        values["epsilon"] = {str(live): planned_epsilon(plan, live) for live in sorted({members, terms.least})}
    except PppmlError as error:
        values["epsilon"] = {str(members): f"not computed: {error}"}
    return values


def _noise_lines(values: dict[str, Any] | None) -> list[tuple[str, str]]:
    if values is None:
        return [("privacy", "no noise: sums are exact")]
    noise = f"{values['mechanism']}, L2 clip {values['l2_clip']:g}, noise multiplier {values['noise_multiplier']:g}"
    protected = (
        f"one hospital's updates over {values['rounds']} rounds, against everyone who sees the sums and "
        f"{values['colluders']} other members; not single patients"
    )
    found = [(f"epsilon with {live} members in every sum", text) for live, text in values["epsilon"].items()]
    return [("noise", noise), ("protects", protected), *found]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")


def _verdict(file: FederationFile, policy: Policy) -> str:
    roster = file.roster
    try:
        check_policy(roster, policy)
        least = policy.minimum(len(roster.members))
    except ProtocolError as error:
        return f"REFUSED: {error}"
    return (
        f"accepted: sums of {least} to {len(roster.members)} members, none above {policy.max_share:g} of the weight; "
        "everyone pinned once signed"
    )

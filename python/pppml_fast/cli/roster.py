"""`pppml roster`: the federation's file, made by an organiser, checked and signed by every site."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pppml_fast.cli.runs import SetOption

if TYPE_CHECKING:
    from pppml_fast.aggregation import Policy
    from pppml_fast.site.card import NodeCard
    from pppml_fast.site.federation_file import FederationFile

__all__ = ["roster"]

roster = typer.Typer(
    help="The federation's file: who sums what, under which rules, signed by every site.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The federation's file.")]
MinOption = Annotated[int | None, typer.Option(min=2, help="Fewest members that this site sums with.")]
ShareOption = Annotated[float, typer.Option(min=0.0, max=1.0, help="Largest share of the weight of one member.")]
TwoOption = Annotated[bool, typer.Option("--allow-two-parties", help="Accept two members, who hide nothing.")]


class Topology(str, Enum):
    """How messages travel: between all members, or through one keyless coordinator to which all dial out."""

    ring = "ring"
    star = "star"


@roster.command()
def make(
    cards: Annotated[list[Path], typer.Argument(metavar="CARD...", help="Cards of the members, in ring order.")],
    config: Annotated[Path, typer.Option(help="Experiment (TOML file or a ready name): network, parameters, weights.")],
    out: Annotated[Path, typer.Option(help="The file to write; it must not exist.")],
    topology: Annotated[Topology | None, typer.Option(help="Default: the configuration's.")] = None,
    relay: Annotated[Path | None, typer.Option(metavar="CARD", help="Card of a star's coordinator.")] = None,
    weight: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Weight of a member, e.g. its cases. Repeatable.")
    ] = None,
    address: Annotated[
        list[str] | None, typer.Option(metavar="NAME=HOST:PORT", help="Address in place of the card's. Repeatable.")
    ] = None,
    threshold: Annotated[int | None, typer.Option(min=1, help="Members that open a sum; default: the rule.")] = None,
    overrides: SetOption = None,
) -> None:
    """Make the federation's file from the members' cards and an experiment's configuration."""
    from pppml_fast.cli.runs import load_experiment
    from pppml_fast.errors import ConfigError
    from pppml_fast.experiment.agreement import roster_of
    from pppml_fast.site.card import NodeCard
    from pppml_fast.site.federation_file import FederationFile
    from pppml_fast.site.files import create_file

    experiment = load_experiment(config, overrides or [])
    shape = topology.value if topology is not None else experiment.aggregation.topology
    if (shape == "star") != (relay is not None):
        raise ConfigError("a star needs --relay CARD, the card of its coordinator; a ring takes none")
    members = [NodeCard.load(path) for path in cards]
    hub = None if relay is None else NodeCard.load(relay)
    weights = {name: _positive(name, text) for name, text in _pairs(weight, "--weight").items()} or None
    agreed, layout = roster_of(
        experiment,
        [card.member for card in members],
        relay=None if hub is None else hub.member,
        weights=weights,
        threshold=threshold,
    )
    reached = _addresses(members if hub is None else [*members, hub], address)
    made = FederationFile(agreed, layout, reached)
    create_file(out, made.encode(), 0o644)
    _show(made, _default_policy(experiment.aggregation.allow_two_parties))
    typer.echo(f"send {out} to every site; each compares the fingerprints and signs: pppml roster sign")


@roster.command()
def sign(
    file: FileArgument,
    folder: Annotated[Path, typer.Option(help="Folder of the keys of the node that signs.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the signed file; in place by default.")] = None,
    min_parties: MinOption = None,
    max_share: ShareOption = 0.5,
    allow_two_parties: TwoOption = False,
) -> None:
    """Check the file against this site's policy, and sign it."""
    from pppml_fast.site.federation_file import FederationFile
    from pppml_fast.site.keys import SiteKeys

    identity = SiteKeys.load_private(folder).identity
    found = FederationFile.load(file)
    policy = _policy(min_parties, max_share, allow_two_parties)
    found.check(identity.name, identity.public, policy)
    signed = found.signed_by(identity)
    signed.save(out or file)
    _show(signed, policy)
    typer.echo(f"{identity.name} has signed roster {signed.roster.fingerprint.hex()[:16]} in {out or file}")


@roster.command()
def check(
    file: FileArgument,
    folder: Annotated[Path | None, typer.Option(help="Keys of a node: also check that this is its federation.")] = None,
    min_parties: MinOption = None,
    max_share: ShareOption = 0.5,
    allow_two_parties: TwoOption = False,
) -> None:
    """Check the file, the policy, all signatures and, with --folder, this node's entry and certificate."""
    from pppml_fast.site.federation_file import FederationFile
    from pppml_fast.site.keys import SiteKeys

    found = FederationFile.load(file)
    policy = _policy(min_parties, max_share, allow_two_parties)
    me = None
    if folder is not None:
        keys = SiteKeys.load(folder, need_certificate=True)
        me = keys.name
        found.check(me, keys.identity.public, policy)
    found.require_signatures()
    found.policy(policy, me)
    typer.echo(f"ok: roster {found.roster.fingerprint.hex()[:16]}, {len(found.roster.members)} members, all signed")


@roster.command()
def merge(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Copies that the sites have signed.")],
    out: Annotated[Path, typer.Option(help="The file to write; it may be one of the copies.")],
) -> None:
    """Join the signatures of several copies of one federation's file."""
    from pppml_fast.site.federation_file import FederationFile

    joined, *others = [FederationFile.load(path) for path in files]
    for other in others:
        joined = joined.merged(other)
    joined.save(out)
    missing = ", ".join(joined.unsigned)
    typer.echo(f"{out}: " + (f"still to sign: {missing}" if missing else "signed by every member"))


@roster.command()
def show(
    file: FileArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    min_parties: MinOption = None,
    max_share: ShareOption = 0.5,
    allow_two_parties: TwoOption = False,
) -> None:
    """Print who takes part and who has signed, the parameters, and what the policy makes of it."""
    import json

    from pppml_fast.cli.roster_view import roster_values
    from pppml_fast.site.federation_file import FederationFile

    found, policy = FederationFile.load(file), _policy(min_parties, max_share, allow_two_parties)
    if as_json:
        typer.echo(json.dumps(roster_values(found, policy), indent=2))
    else:
        _show(found, policy)


def _show(file: FederationFile, policy: Policy) -> None:
    from pppml_fast.cli.console import make_console
    from pppml_fast.cli.roster_view import show_roster

    show_roster(make_console(), file, policy)


def _policy(min_parties: int | None, max_share: float, allow_two_parties: bool) -> Policy:
    from pppml_fast.aggregation import Policy

    return Policy(min_parties=min_parties, max_share=max_share, allow_two_parties=allow_two_parties)


def _default_policy(allow_two_parties: bool) -> Policy:
    return _policy(None, 0.5, allow_two_parties)


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    from pppml_fast.errors import ConfigError

    found: dict[str, str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name or not value or name in found:
            raise ConfigError(f"{option} {text!r} is not NAME=VALUE, once per name; write for example {option} north=3")
        found[name] = value
    return found


def _positive(name: str, text: str) -> float:
    from pppml_fast.errors import ConfigError

    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"--weight {name}={text} is no number above 0; give for example its training cases")
    return value


def _addresses(cards: list[NodeCard], texts: list[str] | None) -> dict[str, str]:
    found = {card.name: card.address for card in cards if card.address is not None}
    return {**found, **_pairs(texts, "--address")}

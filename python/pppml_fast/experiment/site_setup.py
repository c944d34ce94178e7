"""All that a site needs before it starts, read and checked; and its plan in words, the text of `--dry-run`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from pppml_fast.aggregation import Policy
from pppml_fast.errors import ConfigError, ProtocolError
from pppml_fast.experiment.data import describe_data
from pppml_fast.experiment.devices import check_device
from pppml_fast.experiment.own_data import load_own
from pppml_fast.experiment.plan import aggregation_lines, device_lines
from pppml_fast.experiment.privacy import noise_asked, planned_epsilon
from pppml_fast.experiment.site_config import CoordinatorConfig, NodeConfig, NodeSection, SiteConfig
from pppml_fast.experiment.study import Study, site_study
from pppml_fast.privacy import PrivacyTerms
from pppml_fast.site.federation_file import FederationFile
from pppml_fast.site.keys import SiteKeys

__all__ = ["Coordinator", "Site", "coordinator_lines", "prepare_coordinator", "prepare_site", "site_lines"]

Lines = list[tuple[str, str]]


@dataclass(frozen=True)
class Site:
    """A site that may start: nothing was written or trained yet."""

    config: SiteConfig
    keys: SiteKeys
    federation: FederationFile
    policy: Policy
    study: Study


@dataclass(frozen=True)
class Coordinator:
    """A coordinator that may start."""

    config: CoordinatorConfig
    keys: SiteKeys
    federation: FederationFile
    policy: Policy


def prepare_site(config: SiteConfig) -> Site:
    """Load and check keys, federation and data. Writes nothing.

    Raises ConfigError, DataError, ProtocolError (LayoutMismatchError for another network), one line each.
    """
    check_device(config.experiment.device, "site.device", encrypts=not noise_asked(config.experiment))
    two = config.experiment.aggregation.allow_two_parties
    keys, federation, policy = _node(config, two)
    roster = federation.roster
    if config.node.name not in roster.names:
        raise ConfigError(f"site.name = {config.node.name!r} is no member of the roster: {', '.join(roster.names)}")
    federation.require_signatures()
    if roster.relay is None and config.node.listen is None:
        raise ConfigError("site.listen is missing: members of a ring reach each other; add listen = 'HOST:PORT'")
    party = load_own(config.experiment.data, config.node.name)
    study = site_study(config.experiment, party, roster.weights)
    _check_agreement(study, federation)
    study.check_kernels("site.device")
    return Site(config, keys, federation, policy, study)


def prepare_coordinator(config: CoordinatorConfig) -> Coordinator:
    """Load and check keys and federation. Raises ConfigError, DataError, ProtocolError, one line each."""
    node = config.node
    keys, federation, policy = _node(config, False)
    relay = federation.roster.relay
    if relay is None:
        raise ConfigError(
            "the roster is of a ring, which has no coordinator; make one with --topology star --relay CARD"
        )
    if relay.name != node.name:
        raise ConfigError(f"coordinator.name = {node.name!r}, the roster's coordinator is {relay.name!r}")
    federation.require_signatures()
    return Coordinator(config, keys, federation, policy)


def site_lines(site: Site) -> Lines:
    """Who, data, parameters, ciphertexts, bytes, level, precision, peers, ports and files of a site."""
    config, study = site.config, site.study
    experiment, node = config.experiment, config.node
    info = study.infos()[0]
    return [
        *_who(site.keys, site.federation),
        ("experiment", experiment.title or experiment.name),
        ("data", describe_data(experiment.data)),
        (
            "cases",
            f"{info.cases_train} for training ({info.slices_train} slices), {info.cases_test} for tests "
            f"({info.slices_test} slices), weight {info.weight:.3f}",
        ),
        ("network", f"{study.spec.target}, {study.weight_count:,} weights, {study.layout.size:,} travel"),
        ("training", f"{config.track}, seed {config.seed}, {experiment.rounds} rounds, {experiment.threads} threads"),
        *device_lines(study),
        *aggregation_lines(study, {config.track: experiment.rounds}),
        *_fewest(site),
        ("parameters, in full", study.params.describe()),
        *_network(node, site.federation, site.policy),
        *_files(config, with_run=True),
    ]


def coordinator_lines(coordinator: Coordinator) -> Lines:
    """Who, parameters, peers, ports and files of a coordinator."""
    config, federation = coordinator.config, coordinator.federation
    return [
        *_who(coordinator.keys, federation),
        ("parameters, in full", federation.params.describe()),
        *_network(config.node, federation, coordinator.policy),
        *_files(config, with_run=False),
    ]


def _node(config: NodeConfig, allow_two_parties: bool) -> tuple[SiteKeys, FederationFile, Policy]:
    node, section = config.node, config.policy
    keys = SiteKeys.load(config.keys, need_certificate=True)
    if keys.name != node.name:
        raise ConfigError(f"the name is {node.name!r}, the keys in {str(config.keys)!r} are those of {keys.name!r}")
    federation = FederationFile.load(config.federation)
    listed = [member.name for member in federation.roster.everyone]
    if node.name not in listed:
        raise ConfigError(
            f"{node.name!r} is not in the roster of {str(config.federation)!r}, which lists {', '.join(listed)}: name "
            "the right file in federation, or have the organiser make a roster with this node's card, which all sign"
        )
    base = Policy(min_parties=section.min_parties, max_share=section.max_share, allow_two_parties=allow_two_parties)
    members = len(federation.roster.members)
    if section.min_parties is not None and section.min_parties > members:
        raise ConfigError(
            f"policy.min_parties = {section.min_parties} is more than the {members} members of the roster"
        )
    federation.check(node.name, keys.identity.public, base)
    me = node.name if node.name in federation.roster.names else None
    return keys, federation, federation.policy(_with_noise(base, federation), me)


def _with_noise(policy: Policy, federation: FederationFile) -> Policy:
    """The policy, with no live set in which the agreed noise would have fewer than two honest members behind it."""
    terms, members = federation.roster.options.privacy, len(federation.roster.members)
    if terms is None:
        return policy
    return replace(policy, min_parties=max(policy.minimum(members), terms.least))


def _check_agreement(study: Study, federation: FederationFile) -> None:
    """Raise unless the roster asks for what the site's own experiment says."""
    roster, section = federation.roster, study.config.aggregation
    study.layout.check_same(federation.layout, "the federation's model")
    if roster.options.protocol != section.protocol:
        raise ConfigError(
            f"aggregation.protocol = {section.protocol!r}, the roster says {roster.options.protocol!r}; "
            "agree on one experiment"
        )
    _check_noise(study, federation)
    ours = study.params.to_dict()
    for key in sorted({*ours, *roster.parameters}):
        if ours.get(key) != roster.parameters.get(key):
            raise ProtocolError(
                f"the roster's parameters have {key} = {roster.parameters.get(key)!r}, this site's experiment gives "
                f"{ours.get(key)!r}; agree on one [aggregation]"
            )


def _check_noise(study: Study, federation: FederationFile) -> None:
    """Raise ProtocolError unless site and roster mean the same noise."""
    theirs, ours = (_plain(terms) for terms in (federation.roster.options.privacy, study.terms))
    name = study.party_names[0]
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            raise ProtocolError(
                f"the roster's noise has {key} = {_said(theirs, key)}, the experiment of {name!r} gives "
                f"{_said(ours, key)}; agree on one [privacy]"
            )


def _fewest(site: Site) -> Lines:
    """What the training costs in privacy where as few take part as the policy admits."""
    plan, members = site.study.privacy, len(site.federation.roster.members)
    least = site.policy.minimum(members)
    if plan is None or least == members:
        return []
    return [(f"epsilon with {least} members in every sum", planned_epsilon(plan, least))]


def _plain(terms: PrivacyTerms | None) -> dict[str, Any]:
    return {"mechanism": "none"} if terms is None else asdict(terms)


def _said(terms: dict[str, Any], key: str) -> str:
    return repr(terms[key]) if key in terms else "nothing"


def _who(keys: SiteKeys, federation: FederationFile) -> Lines:
    expires = "" if keys.expires is None else f", certificate until {keys.expires:%Y-%m-%d}"
    return [
        ("node", f"{keys.name}, identity {keys.identity.public.hex()[:16]}{expires}"),
        (
            "federation",
            f"roster {federation.roster.fingerprint.hex()[:16]}, signed by all {len(federation.roster.names)}",
        ),
    ]


def _network(node: NodeSection, federation: FederationFile, policy: Policy) -> Lines:
    roster = federation.roster
    star = roster.relay is not None
    others = [member for member in roster.everyone if member.name != node.name]
    if star and node.name in roster.names:
        others = [member for member in others if roster.relay is not None and member.name == roster.relay.name]
    peers = [
        (f"peer {member.name}", f"{federation.addresses.get(member.name, 'dials in')}, identity {member.identity[:16]}")
        for member in others
    ]
    listens = "nowhere, outbound connections only" if node.listen is None else f"{node.listen} (TCP, mutual TLS)"
    members = len(roster.members)
    return [
        (
            "policy",
            f"at least {policy.minimum(members)} of {members} members, none above {policy.max_share:g} of the weight",
        ),
        *peers,
        ("listens at", listens),
        ("metrics at", node.metrics or "nowhere"),
        (
            "waits",
            f"{node.patience_s:g} s for absent members, {node.grace_s:g} s for a broken connection, "
            f"{node.training_s:g} s for the slowest update",
        ),
    ]


def _files(config: NodeConfig, *, with_run: bool) -> Lines:
    folder = config.folder
    lines = [
        ("configuration", str(config.path)),
        ("federation file", str(config.federation)),
        ("keys", str(config.keys)),
        ("log", str(folder.log)),
        ("transcript", str(folder.transcript)),
    ]
    if with_run:
        lines += [("journal", str(folder.journal)), ("spool", str(folder.spool)), ("models", str(folder.run))]
    return lines

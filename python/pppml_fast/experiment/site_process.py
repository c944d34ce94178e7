"""One site's or coordinator's process: everything opened, driven to its end, closed; then the site's own models."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from pppml_fast._version import __version__
from pppml_fast.aggregation import AttemptLedger
from pppml_fast.aggregation.journal import FileStore
from pppml_fast.experiment.checkpoint import StateFolder
from pppml_fast.experiment.folder import RunFolder
from pppml_fast.experiment.site_config import NodeFolder, NodeSection
from pppml_fast.experiment.site_noise import SiteNoise
from pppml_fast.experiment.site_results import conclude
from pppml_fast.experiment.site_setup import Coordinator, Site
from pppml_fast.experiment.site_training import Failed, Ready, SiteTraining
from pppml_fast.experiment.study import data_fingerprint
from pppml_fast.site.events import EventKind, Events
from pppml_fast.site.federation_file import FederationFile
from pppml_fast.site.keys import SiteKeys
from pppml_fast.site.lead import Timing
from pppml_fast.site.observe import observed
from pppml_fast.transport.base import Links

__all__ = ["Stop", "application_of", "noise_of", "run_coordinator_process", "run_site_process"]

NewApplication = Callable[[Ready, Failed], SiteTraining]


class Stop:
    """A wish to stop, made once, from any thread or a signal handler; whoever can fulfil it says how."""

    def __init__(self) -> None:
        self.asked = False
        self._fulfil: Callable[[], None] = lambda: None

    def ask(self) -> None:
        """Stop as soon as it can be done cleanly."""
        self.asked = True
        self._fulfil()

    def by(self, fulfil: Callable[[], None]) -> None:
        """From now on, and at once where it was asked for already, this is how to stop."""
        self._fulfil = fulfil
        if self.asked:
            fulfil()


def run_site_process(site: Site, stop: Stop) -> dict[str, Any] | None:
    """Train with the others until the last round, or until a stop is asked for; then personalise, score, save.

    The site's summary where the training is at its end, None where it was stopped before. Raises what the training,
    the disk or the links raise.
    """
    config, folder = site.config, site.config.folder
    folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    run = RunFolder.claim(folder.run, config.experiment, data_fingerprint(site.study.parties), any_device=True)
    torch.set_num_threads(config.experiment.threads)
    trainings: list[SiteTraining] = []

    def application(ready: Ready, failed: Failed) -> SiteTraining:
        training = application_of(site, run, ready, failed)
        trainings.append(training)
        if training.finished():
            conclude(training, run)  # the others may be gone for good; their absence costs this site nothing
        return training

    try:
        with _opened(config.node, folder, site.keys, site.federation, stop) as events, ExitStack() as stack:
            journal = FileStore(_parent_made(folder.journal))
            stack.callback(journal.close)
            _drive_site(site, application, journal, events, stop)
    finally:
        for training in trainings:
            training.close()
    return conclude(trainings[-1], run) if trainings and trainings[-1].finished() else None


def run_coordinator_process(coordinator: Coordinator, stop: Stop) -> None:
    """Relay sums until the training is at its end, or until a stop is asked for."""
    config = coordinator.config
    with _opened(config.node, config.folder, coordinator.keys, coordinator.federation, stop) as events:
        _drive_coordinator(coordinator, events, stop)


def application_of(site: Site, run: RunFolder, ready: Ready, failed: Failed) -> SiteTraining:
    """The training of a site, from the states in its run folder."""
    config = site.config
    states = StateFolder(run.checkpoint(config.seed, config.track).folder)
    return SiteTraining(
        site.study, states, track=config.track, seed=config.seed, ready=ready, failed=failed, noise=noise_of(site)
    )


def noise_of(site: Site) -> SiteNoise | None:
    """The noise of a site's updates and the count of its releases, which stand beside its journal."""
    plan, members = site.study.privacy, len(site.federation.roster.members)
    if plan is None:
        return None
    multiple = members * site.study.weights[site.config.node.name]
    return SiteNoise(plan, multiple, site.config.folder.journal.parent, site.policy.minimum(members))


# --- what knows the runtime ----------------------------------------------------------------------------------------


def _drive_site(site: Site, application: NewApplication, journal: FileStore, events: Events, stop: Stop) -> None:
    from pppml_fast.site.member import Member
    from pppml_fast.site.runtime import Runtime

    node, federation, spool = site.config.node, site.federation, site.config.folder.spool
    spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    training = application(
        lambda round, salt, values, out: runtime.post(lambda: member.ready(round, salt, values, out=out)),
        lambda error: runtime.post(lambda: member.failed(error)),
    )
    if training.noise is not None:
        events.add(training.noise.hear)
    member = Member(
        site.keys.identity,
        federation.roster,
        site.policy,
        federation.terms,
        AttemptLedger(journal),
        training,
        events,
        _timing(node),
        spool=spool,
        prepares=not site.study.encrypts_on_device,  # pads made ahead are the host's
    )
    runtime = Runtime(member, _links(node, site.keys, federation, events))
    stop.by(runtime.stop)
    runtime.run()


def _drive_coordinator(coordinator: Coordinator, events: Events, stop: Stop) -> None:
    from pppml_fast.site.coordinator import Coordinator as CoordinatorNode
    from pppml_fast.site.runtime import Runtime

    node, federation = coordinator.config.node, coordinator.federation
    hub = CoordinatorNode(
        coordinator.keys.identity, federation.roster, federation.layout, coordinator.policy, events, _timing(node)
    )
    runtime = Runtime(hub, _links(node, coordinator.keys, federation, events))
    stop.by(runtime.stop)
    runtime.run()


def _timing(node: NodeSection) -> Timing:
    return Timing(patience=node.patience_s, training=node.training_s, linger=node.linger_s)


def _links(node: NodeSection, keys: SiteKeys, federation: FederationFile, events: Events) -> Links:
    from pppml_fast.transport.grpc_links import GrpcLinks

    peers = federation.peers(node.name)
    return GrpcLinks(
        node.name,
        os.urandom(16),
        peers,
        key=keys.tls_key,
        certificate=keys.certificate,
        authorities=keys.authorities,
        listen=node.listen,
        addresses={name: address for name, address in federation.addresses.items() if name in peers},
        grace_s=node.grace_s,
        on_refused=lambda peer, reason: events.emit(EventKind.LINK_REFUSED, peer=peer, reason=reason),
    )


# --- what goes with every process ----------------------------------------------------------------------------------


@contextmanager
def _opened(
    node: NodeSection, folder: NodeFolder, keys: SiteKeys, federation: FederationFile, stop: Stop
) -> Iterator[Events]:
    """The events of a process with all that hears them, from its start to its end."""
    logging.getLogger("pppml.site").setLevel(node.log_level.upper())
    metrics = None
    if node.metrics is not None:
        host, _, port = node.metrics.rpartition(":")
        metrics = (host.strip("[]"), int(port))
    roster = federation.roster
    with observed(keys.identity, log=folder.log, transcript=folder.transcript, metrics=metrics) as events:
        events.emit(
            EventKind.STARTED,
            version=__version__,
            protocol=roster.options.protocol,
            topology=roster.options.topology,
            members=list(roster.names),
            **({} if roster.relay is None else {"relay": roster.relay.name}),
        )
        try:
            yield events
        except BaseException as error:
            events.emit(EventKind.STOPPED, reason=f"{type(error).__name__}: {error}")
            raise
        events.emit(EventKind.STOPPED, reason="asked to stop" if stop.asked else "ended")


def _parent_made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path

"""One site's or coordinator's process: everything opened, driven to its end, closed; then the site's own models."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from pppml_fast.aggregation.journal import FileStore
from pppml_fast.experiment.checkpoint import StateFolder
from pppml_fast.experiment.folder import RunFolder
from pppml_fast.experiment.site_config import NodeFolder, NodeSection
from pppml_fast.experiment.site_results import conclude
from pppml_fast.experiment.site_setup import Coordinator, Site
from pppml_fast.experiment.site_training import Failed, Ready, SiteTraining
from pppml_fast.experiment.study import data_fingerprint
from pppml_fast.site.events import EventKind, Events
from pppml_fast.site.federation_file import FederationFile
from pppml_fast.site.keys import SiteKeys
from pppml_fast.site.observe import observed
from pppml_fast.transport.base import Links

__all__ = ["application_of", "run_coordinator_process", "run_site_process"]


def run_site_process(site: Site, stop: threading.Event) -> tuple[int, dict[str, Any] | None]:
    """Train with the others until the last round, or until ``stop`` is set; then personalise, score, save.

    The exit status of the runtime, and the site's summary where the training is at its end.
    """
    config, folder = site.config, site.config.folder
    folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    run = RunFolder.claim(folder.run, config.experiment, data_fingerprint(site.study.parties))
    torch.set_num_threads(config.experiment.threads)
    trainings: list[SiteTraining] = []

    def application(ready: Ready, failed: Failed) -> SiteTraining:
        training = application_of(site, run, ready, failed)
        trainings.append(training)
        if training.finished():
            conclude(training, run)  # the others may be gone for good; their absence costs this site nothing
        return training

    try:
        with _opened(config.node, folder, site.keys) as events, ExitStack() as stack:
            journal = FileStore(_parent_made(folder.journal))
            stack.callback(journal.close)
            status = _drive_site(site, application, journal, events, stop)
    finally:
        for training in trainings:
            training.close()
    summary = conclude(trainings[-1], run) if trainings and trainings[-1].finished() and not stop.is_set() else None
    return status, summary


def run_coordinator_process(coordinator: Coordinator, stop: threading.Event) -> int:
    """Relay sums until the training is at its end, or until ``stop`` is set; the exit status of the runtime."""
    config = coordinator.config
    with _opened(config.node, config.folder, coordinator.keys) as events:
        return _drive_coordinator(coordinator, events, stop)


def application_of(site: Site, run: RunFolder, ready: Ready, failed: Failed) -> SiteTraining:
    """The training of a site, from the states in its run folder."""
    config = site.config
    states = StateFolder(run.checkpoint(config.seed, config.track).folder)
    return SiteTraining(site.study, states, track=config.track, seed=config.seed, ready=ready, failed=failed)


# --- the two places that know the runtime --------------------------------------------------------------------------


def _drive_site(
    site: Site,
    application: Callable[[Ready, Failed], SiteTraining],
    journal: FileStore,
    events: Events,
    stop: threading.Event,
) -> int:
    from pppml_fast.site.runtime import run_site

    node = site.config.node
    folder = site.config.folder
    folder.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    return run_site(
        application,
        keys=site.keys,
        federation=site.federation,
        policy=site.policy,
        journal=journal,
        spool=folder.spool,
        links=_links(node, site.keys, site.federation, events),
        events=events,
        patience_s=node.patience_s,
        stop=stop,
    )


def _drive_coordinator(coordinator: Coordinator, events: Events, stop: threading.Event) -> int:
    from pppml_fast.site.runtime import run_coordinator

    node = coordinator.config.node
    return run_coordinator(
        keys=coordinator.keys,
        federation=coordinator.federation,
        policy=coordinator.policy,
        links=_links(node, coordinator.keys, coordinator.federation, events),
        events=events,
        patience_s=node.patience_s,
        stop=stop,
    )


def _links(node: NodeSection, keys: SiteKeys, federation: FederationFile, events: Events) -> Links:
    from pppml_fast.transport.grpc_links import GrpcLinks

    roster = federation.roster
    others = {member.name: member.public for member in roster.everyone if member.name != node.name}
    if roster.relay is not None and node.name != roster.relay.name:
        others = {roster.relay.name: roster.relay.public}
    return GrpcLinks(
        node.name,
        os.urandom(16),
        others,
        key=keys.tls_key,
        certificate=keys.certificate,
        authorities=keys.authorities,
        listen=node.listen,
        addresses={name: address for name, address in federation.addresses.items() if name in others},
        grace_s=node.grace_s,
        on_refused=lambda peer, reason: events.emit(EventKind.LINK_REFUSED, peer=peer, reason=reason),
    )


# --- what goes with every process ----------------------------------------------------------------------------------


@contextmanager
def _opened(node: NodeSection, folder: NodeFolder, keys: SiteKeys) -> Iterator[Events]:
    """The events of a process with all that hears them."""
    logging.getLogger("pppml.site").setLevel(node.log_level.upper())
    metrics = None
    if node.metrics is not None:
        host, _, port = node.metrics.rpartition(":")
        metrics = (host.strip("[]"), int(port))
    with observed(keys.identity, log=folder.log, transcript=folder.transcript, metrics=metrics) as events:
        yield events


def _parent_made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path

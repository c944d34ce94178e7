"""Everything a run needs, loaded and checked before any work: data, network, layout, parameters, weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pppml_fast.errors import ConfigError
from pppml_fast.experiment.config import ExperimentConfig
from pppml_fast.experiment.data import load_parties
from pppml_fast.experiment.devices import check_device, check_kernels, torch_device
from pppml_fast.experiment.privacy import noise_asked, plan_of
from pppml_fast.experiment.results import PartyInfo
from pppml_fast.experiment.tracks import algorithm_of, tracks_of
from pppml_fast.imaging import Case, NetworkSpec, PartyData, SliceBatches, build_network, segmentation_loss
from pppml_fast.layout import Layout
from pppml_fast.learning import (
    Objective,
    buffers_of,
    derive_seed,
    layout_of,
    parameters_of,
    shared_statistics,
)
from pppml_fast.params import CkksParams, KeyMode
from pppml_fast.privacy import PrivacyPlan, PrivacyTerms

__all__ = ["Study", "batches_of", "data_fingerprint", "prepare", "site_study", "study_of"]


LARGEST_SHARE = 0.5
"""Largest public weight of one hospital; what the members' default policy would refuse anyway, in round 1."""


@dataclass(frozen=True)
class Study:
    """A checked experiment: nothing in it was written or trained yet."""

    config: ExperimentConfig
    parties: tuple[PartyData, ...]
    weights: Mapping[str, float]
    spec: NetworkSpec
    layout: Layout
    params: CkksParams
    weight_count: int
    privacy: PrivacyPlan | None = None

    @property
    def terms(self) -> PrivacyTerms | None:
        """The noise to agree on; None: none."""
        return None if self.privacy is None else self.privacy.terms

    @property
    def party_names(self) -> list[str]:
        """Names of the hospitals, in order."""
        return [party.name for party in self.parties]

    @property
    def device(self) -> torch.device:
        """Where models, batches and updates are."""
        return torch_device(self.config.device)

    @property
    def encrypts_on_device(self) -> bool:
        """Whether updates are encrypted on a GPU. Noise is drawn on the host: noised updates are encrypted there."""
        return self.device.type == "cuda" and self.privacy is None

    def network(self, seed: int) -> nn.Module:
        """The initial network of a seed, the same for every method and, but for where it lies, on every device."""
        return build_network(self.spec, derive_seed(seed, "network")).to(self.device)

    def objective(self, module: nn.Module) -> Objective:
        """The training loss on a network."""
        return Objective(module, segmentation_loss(self.config.task.loss), statistics=self.config.statistics)

    def check_kernels(self, key: str = "device") -> None:
        """Raise ConfigError where the device, by ``key`` of the configuration, cannot encrypt under the parameters."""
        if self.encrypts_on_device:
            check_kernels(self.params, self.device, key)

    def infos(self) -> tuple[PartyInfo, ...]:
        """Cases, slices and weight of every hospital."""
        return tuple(
            PartyInfo(
                party.name,
                len(party.train),
                len(party.test),
                sum(case.image.shape[0] for case in party.train),
                sum(case.image.shape[0] for case in party.test),
                self.weights[party.name],
            )
            for party in self.parties
        )


def prepare(config: ExperimentConfig) -> Study:
    """Load and check all that a configuration names. Writes nothing.

    Raises ConfigError, DataError or ParameterError, one line each.
    """
    check_device(config.device, encrypts=not noise_asked(config))
    for track in tracks_of(config.board):
        algorithm_of(config, track)
    study = study_of(config, load_parties(config.data))
    study.check_kernels()
    return study


def study_of(config: ExperimentConfig, parties: tuple[PartyData, ...]) -> Study:
    """The study of a configuration on data already loaded."""
    _check_parties(config, [party.name for party in parties])
    return _assemble(config, parties, _weights(config, parties))


def site_study(config: ExperimentConfig, party: PartyData | None, weights: Mapping[str, float]) -> Study:
    """The study of one hospital that has its own data alone, or of an organiser without any.

    ``weights`` are the roster's, of all members by name. Network, layout and parameters are those of `study_of` on
    everybody's data. Raises ConfigError and ParameterError.
    """
    _check_parties(config, list(weights))
    if config.selection.enabled:
        raise ConfigError(
            "selection.enabled = true: step sizes are chosen on all hospitals' data, which no site has; "
            "choose them beforehand and set them under [methods]"
        )
    return _assemble(config, () if party is None else (party,), dict(weights))


def _assemble(config: ExperimentConfig, parties: tuple[PartyData, ...], weights: Mapping[str, float]) -> Study:
    spec = NetworkSpec(config.network.target, config.network.arguments, config.network.multiple, config.network.window)
    module = build_network(spec, derive_seed(config.seeds[0], "network"))
    _check_input(module, config)
    buffers = buffers_of(module)
    travelling = {**parameters_of(module), **shared_statistics(module, buffers, config.statistics)}
    layout = layout_of(travelling, include=config.include, exclude=config.exclude)
    count = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    privacy = plan_of(config, weights, layout.size)
    params = _ckks(config, len(weights)) if privacy is None else privacy.params
    return Study(config, parties, weights, spec, layout, params, count, privacy)


def batches_of(study: Study, cases: tuple[Case, ...], seed: int) -> SliceBatches:
    """The batches of one hospital's training cases, from a seed of their own."""
    task = study.config.task
    return SliceBatches(
        cases,
        batch_size=task.batch_size,
        seed=seed,
        neighbours=task.neighbours,
        augment=task.augment,
        positive_share=task.positive_share,
        multiple=study.spec.multiple,
    )


def data_fingerprint(parties: tuple[PartyData, ...]) -> str:
    """SHA-256 over every name, image and mask, so that a run does not go on over other data."""
    digest = hashlib.sha256(b"pppml data v1\0")
    for party in parties:
        for kind, cases in (("train", party.train), ("test", party.test)):
            for case in cases:
                digest.update(f"{party.name}\0{kind}\0{case.name}\0{case.image.shape}\0".encode())
                digest.update(np.ascontiguousarray(case.image).data)
                digest.update(np.ascontiguousarray(case.mask).data)
    return digest.hexdigest()


def _check_parties(config: ExperimentConfig, names_seen: list[str]) -> None:
    least = 2 if config.aggregation.allow_two_parties else 3
    if len(names_seen) < least:
        names = ", ".join(names_seen)
        raise ConfigError(
            f"{len(names_seen)} parties ({names}) are fewer than {least}: the exact sum of two tells each the "
            "other's "
            "update; add a hospital to [data]"
        )
    for name in names_seen:
        if names_seen.count(name) > 1:
            raise ConfigError(f"party {name!r} occurs twice in [data]; give every hospital its own name")


def _check_input(module: nn.Module, config: ExperimentConfig) -> None:
    """One forward pass of a single slice: a network of other channels is found here, not in round 1."""
    channels = 2 * config.task.neighbours + 1
    side = max(config.network.multiple, 32)
    try:
        with torch.no_grad():
            output = module.eval()(torch.zeros(1, channels, side, side))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"network {config.network.target!r} does not take {channels} slices as channels "
            f"(task.neighbours = {config.task.neighbours}): {reason}; set its input channels to {channels}"
        ) from None
    finally:
        module.train()
    if tuple(output.shape) != (1, 1, side, side):
        raise ConfigError(
            f"network {config.network.target!r} gives {tuple(output.shape)} for one slice of {side} x "
            f"{side}, "
            f"expected (1, 1, {side}, {side}); set its output channels to 1"
        )


def _weights(config: ExperimentConfig, parties: tuple[PartyData, ...]) -> dict[str, float]:
    """Public weights with sum 1, from the configuration."""
    chosen = config.aggregation.weights
    names = [party.name for party in parties]
    if isinstance(chosen, dict):
        odd = sorted(set(chosen) ^ set(names))
        if odd:
            raise ConfigError(
                f"aggregation.weights and the parties differ in {odd[0]!r}; give a weight to each of {', '.join(names)}"
            )
        raw = {name: float(chosen[name]) for name in names}
    elif chosen == "cases":
        raw = {party.name: float(len(party.train)) for party in parties}
    else:
        raw = {name: 1.0 for name in names}
    total = sum(raw.values())
    shares = {name: value / total for name, value in raw.items()}
    heaviest = max(shares, key=lambda name: shares[name])
    if shares[heaviest] > LARGEST_SHARE + 1e-9 and len(names) > 2:
        raise ConfigError(
            f"party {heaviest!r} has weight {shares[heaviest]:.3f}, above the limit of {LARGEST_SHARE}: a "
            "mean that "
            "is mostly one hospital's opens that hospital; set aggregation.weights to 'uniform' or lower it"
        )
    return shares


def _ckks(config: ExperimentConfig, parties: int) -> CkksParams:
    section = config.aggregation
    keys: KeyMode = "public" if section.protocol == "initiator" else "collective"
    if section.params == "auto":
        return CkksParams.for_sum(
            parties=parties,
            clip=section.clip,
            bits=section.bits,
            level=section.level,
            keys=keys,
            weights="public",
        )
    return CkksParams.preset(section.params, parties=parties, clip=section.clip, keys=keys, weights="public")

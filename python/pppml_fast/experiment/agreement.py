"""What hospitals agree on before they train: the roster of an experiment, made without anybody's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pppml_fast.aggregation import Member, Policy, Roster, SessionOptions
from pppml_fast.aggregation.parameters import sum_parameters
from pppml_fast.aggregation.roster import check_policy
from pppml_fast.errors import ConfigError
from pppml_fast.experiment.config import ExperimentConfig
from pppml_fast.experiment.study import site_study
from pppml_fast.layout import Layout
from pppml_fast.params import CkksParams

__all__ = ["public_weights", "roster_of"]

_LARGEST_CHUNK, _SMALLEST_CHUNK = 2 << 20, 64 << 10
_CHUNKS_PER_PARTY = 8


def roster_of(
    config: ExperimentConfig,
    members: Sequence[Member],
    *,
    relay: Member | None = None,
    weights: Mapping[str, float] | None = None,
    threshold: int | None = None,
) -> tuple[Roster, Layout]:
    """The roster and the layout of an experiment for these members, in ring order; a ``relay`` makes it a star.

    ``weights`` (any scale, by name) replace those of the configuration. Raises ConfigError, ParameterError, and
    ProtocolError for a roster that no member's default policy would accept.
    """
    names = [member.name for member in members]
    shares = public_weights(config, names, weights)
    study = site_study(config, None, shares)
    section = config.aggregation
    chunk = _chunk_blocks(study.params, study.layout.size, len(names))
    topology = "ring" if relay is None else "star"
    roster = Roster(
        members=tuple(Member(member.name, member.identity, shares[member.name]) for member in members),
        parameters=study.params.to_dict(),
        sum_parameters=sum_parameters(study.params).to_dict(),
        layout=study.layout.fingerprint.hex(),
        options=SessionOptions(section.protocol, topology, section.sum_check, threshold, chunk, study.terms),
        relay=relay,
    )
    check_policy(roster, Policy(allow_two_parties=section.allow_two_parties))
    return roster, study.layout


def public_weights(
    config: ExperimentConfig, names: Sequence[str], given: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Public weights with sum 1, from what is ``given`` or from the configuration. Raises ConfigError."""
    chosen = given if given is not None else config.aggregation.weights
    if chosen == "cases":
        raise ConfigError(
            "aggregation.weights = 'cases' counts the cases of every hospital, which are not here; give "
            "--weight NAME=CASES for each of " + ", ".join(names)
        )
    if chosen == "uniform":
        return {name: 1 / len(names) for name in names}
    raw = dict(chosen)
    odd = sorted(set(raw) ^ set(names))
    if odd:
        raise ConfigError(f"weights and members differ in {odd[0]!r}; give a weight to each of {', '.join(names)}")
    total = sum(raw.values())
    return {name: float(raw[name]) / total for name in names}


def _chunk_blocks(params: CkksParams, size: int, parties: int) -> int:
    """Blocks of one chunk: about 2 MiB; of a small model less, so that a ring has several chunks on its way."""
    block = params.bytes_per_weight * params.block_weights
    largest, smallest = int(_LARGEST_CHUNK / block), int(_SMALLEST_CHUNK / block)
    wanted = params.block_count(size) // (_CHUNKS_PER_PARTY * parties)
    return max(1, smallest, min(largest, wanted))

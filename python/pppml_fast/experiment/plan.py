"""What a run will do and cost, before it does anything: the text of `--dry-run`."""

from __future__ import annotations

from collections.abc import Mapping

from pppml_fast.experiment.data import describe_data
from pppml_fast.experiment.devices import describe_device
from pppml_fast.experiment.privacy import planned_lines
from pppml_fast.experiment.study import Study
from pppml_fast.experiment.tracks import algorithm_of, personal_step_size, tracks_of

__all__ = ["aggregation_lines", "device_lines", "plan_lines"]


def plan_lines(study: Study) -> list[tuple[str, str]]:
    """Parties, parameters, level, precision, ciphertexts, bytes and rounds as pairs of a name and a value."""
    config, params = study.config, study.params
    gradients = config.rounds * config.gradients_per_round
    lines = [("experiment", config.title or config.name), ("data", describe_data(config.data))]
    for info in study.infos():
        lines.append(
            (
                f"party {info.name}",
                f"{info.cases_train} training cases ({info.slices_train} slices), {info.cases_test} test "
                "cases "
                f"({info.slices_test} slices), weight {info.weight:.3f}",
            )
        )
    lines += [
        ("network", f"{study.spec.target}, {study.weight_count:,} weights, {study.layout.size:,} travel"),
        ("methods", ", ".join(f"{method} ({_step_sizes(study, method)})" for method in config.board)),
        (
            "rounds",
            f"{config.rounds} of {config.gradients_per_round} gradients per party: {gradients} for every method",
        ),
        ("personalisation", f"k in {list(config.personal_steps)}, reported at k = {config.reported_steps}"),
        ("seeds", ", ".join(map(str, config.seeds))),
        *device_lines(study),
    ]
    federated = [track for track in tracks_of(config.board) if algorithm_of(config, track).federated]
    sums = {track: config.rounds * len(config.seeds) for track in federated}
    lines += aggregation_lines(study, sums)
    here = ", from copies on the host" if study.device.type == "cuda" else ""
    compared = f"{sum(sums.values())} ({', '.join(sums) or 'none'}), each compared with its plain sum{here}"
    return [*lines, ("encrypted sums", compared), ("parameters, in full", params.describe())]


def device_lines(study: Study) -> list[tuple[str, str]]:
    """Where a training computes, and what leaves a GPU; nothing to say of a processor."""
    if study.device.type != "cuda":
        return []
    if study.privacy is not None:
        left = "noise is drawn on the host: updates are copied there, noised and encrypted there"
    elif study.config.aggregation.protocol == "plain":
        left = "nothing is encrypted: updates are copied to the host as they are"
    else:
        left = "updates are encrypted there: what leaves it of them is ciphertext"
    return [("device", f"{describe_device(study.config.device)}: {left}")]


def _step_sizes(study: Study, method: str) -> str:
    section = study.config.method(method)
    sizes = {name: value for name, value in section.model_dump().items() if value is not None}
    if method != "fedavg":
        sizes["personal_lr"] = personal_step_size(study.config, method)
    return ", ".join(f"{name} {value:g}" for name, value in sizes.items())


def aggregation_lines(study: Study, sums: Mapping[str, int]) -> list[tuple[str, str]]:
    """Protocol, parameters, level, precision, ciphertexts, bytes and privacy of ``sums`` per training."""
    config, params = study.config, study.params
    if config.aggregation.protocol == "plain":
        bytes_each, blocks, kind = 4.0 * study.layout.size, 0, "no encryption"
    else:
        blocks = params.block_count(study.layout.size)
        bytes_each = params.bytes_per_weight * study.layout.size
        kind = f"level {params.level}"
    in_all = bytes_each * sum(sums.values())
    return [
        (
            "aggregation",
            f"{config.aggregation.protocol}, {config.aggregation.topology}, {len(study.weights)} parties",
        ),
        ("parameters", f"{params.name}, {kind}, failure 2^{params.failure_log2:.0f}"),
        ("precision", f"{params.exact_bits:.1f} exact bits, clip {params.clip:g}, step {params.step:.3g}"),
        (
            "ciphertexts",
            f"{blocks} blocks per party and round, {params.bytes_per_weight:.3f} bytes per weight",
        ),
        (
            "bytes",
            f"{bytes_each / 1e6:.2f} MB per party and round, {in_all / 1e6:.1f} MB per party in all",
        ),
        *planned_lines(study.privacy, sums),
    ]

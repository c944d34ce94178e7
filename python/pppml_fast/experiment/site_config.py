"""A site's configuration, ``site.toml``, and a coordinator's: who, where, with whom, on which data.

Paths are relative to the file they stand in. Every unknown key and every value out of range ends as a one-line
ConfigError that names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pppml_fast.errors import ConfigError
from pppml_fast.experiment.config import Data, Device, ExperimentConfig, MethodName, Section
from pppml_fast.experiment.config_file import READY_CONFIGS, check_table, read_table, ready_table, resolve_data
from pppml_fast.experiment.own_data import own_data
from pppml_fast.experiment.tracks import algorithm_of, methods_of, track_of, tracks_of

__all__ = [
    "CoordinatorConfig",
    "NodeConfig",
    "NodeFolder",
    "NodeSection",
    "PolicySection",
    "SiteConfig",
    "SiteSection",
    "load_coordinator",
    "load_site",
]

_ADDRESS = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$"
LogLevel = Literal["debug", "info", "warning", "error"]


class NodeSection(Section):
    """What a site and a coordinator have in common.

    ``folder`` takes journal, checkpoints, spool, logs and results; ``keys`` is the folder of the keys (default: keys
    below ``folder``); ``federation`` is the federation file; ``listen`` is host:port, and needed where others dial in;
    ``grace_s`` is how long a broken connection may stay away unnoticed, ``patience_s`` how long absent members are
    waited for, ``training_s`` how long for the slowest update of a round (inf: for ever), ``linger_s`` how long after
    the last round for those who lack its model; ``metrics`` is host:port.
    """

    name: str = Field(min_length=1, max_length=64)
    folder: str
    keys: str | None = None
    federation: str
    listen: str | None = Field(default=None, pattern=_ADDRESS)
    patience_s: PositiveFloat = 600.0
    training_s: PositiveFloat = 86400.0
    grace_s: PositiveFloat = 30.0
    linger_s: PositiveFloat = 60.0
    log_level: LogLevel = "info"
    metrics: str | None = Field(default=None, pattern=_ADDRESS)


class SiteSection(NodeSection):
    """``[site]``. ``threads`` are torch's; ``device`` trains and encrypts: cpu, cuda or cuda:N. Both are the site's own
    matter: sums have the same bits wherever their members compute."""

    threads: PositiveInt = 1
    device: Device = "cpu"


class PolicySection(Section):
    """``[policy]``: what this site demands of any roster and of those present, whatever the others accept.

    ``min_parties`` defaults to max(3, ⌊n/2⌋ + 1); ``max_share`` bounds one member's share of the weights.
    """

    min_parties: PositiveInt | None = None
    max_share: float = Field(default=0.5, gt=0, le=1)


class _SiteFile(Section):
    site: SiteSection
    policy: PolicySection = PolicySection()


class _CoordinatorFile(Section):
    coordinator: NodeSection
    policy: PolicySection = PolicySection()


class _Choice(Section):
    """What ``[experiment]`` holds besides an experiment: where its file is, and which of its trainings is run."""

    path: str | None = None
    method: MethodName | None = None
    seed: int | None = Field(default=None, ge=0)


@dataclass(frozen=True)
class NodeFolder:
    """Where a node keeps what: all below one folder."""

    path: Path

    @property
    def journal(self) -> Path:
        """What must survive a crash of the protocol: one file."""
        return self.path / "journal" / "journal.bin"

    @property
    def spool(self) -> Path:
        """Bulk that does not stay in memory; may be deleted when no process runs."""
        return self.path / "spool"

    @property
    def log(self) -> Path:
        """Events as JSON lines."""
        return self.path / "logs" / "events.jsonl"

    @property
    def transcript(self) -> Path:
        """Signed hashes of every round, to compare with the others'."""
        return self.path / "logs" / "transcript.jsonl"

    @property
    def run(self) -> Path:
        """Checkpoints, models with their cards, scores, summary."""
        return self.path / "run"


@dataclass(frozen=True)
class NodeConfig:
    """A checked file of a node."""

    path: Path
    node: NodeSection
    policy: PolicySection

    @property
    def folder(self) -> NodeFolder:
        """Where the node keeps what."""
        return NodeFolder((self.path.parent / self.node.folder).resolve())

    @property
    def keys(self) -> Path:
        """Identity, TLS key, certificate, authorities."""
        return self.folder.path / "keys" if self.node.keys is None else (self.path.parent / self.node.keys).resolve()

    @property
    def federation(self) -> Path:
        """The federation file."""
        return (self.path.parent / self.node.federation).resolve()


@dataclass(frozen=True)
class SiteConfig(NodeConfig):
    """A checked site.toml. ``experiment`` is narrowed to the one training of the site, on the site's own data."""

    experiment: ExperimentConfig
    track: str

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return self.experiment.seeds[0]


@dataclass(frozen=True)
class CoordinatorConfig(NodeConfig):
    """A checked coordinator.toml."""


def load_site(path: Path) -> SiteConfig:
    """The site of a TOML file. Raises ConfigError or DataError, one line."""
    table = read_table(path, "give the path of a site.toml")
    base = path.resolve().parent
    _need(table, ("site", "experiment", "data"), path)
    experiment, data = table.pop("experiment"), table.pop("data")
    node = check_table(_SiteFile, table)
    config, track = _experiment(experiment, data, base, node.site)
    return SiteConfig(path.resolve(), node.site, node.policy, config, track)


def load_coordinator(path: Path) -> CoordinatorConfig:
    """The coordinator of a TOML file. Raises ConfigError, one line."""
    table = read_table(path, "give the path of a coordinator.toml")
    _need(table, ("coordinator",), path)
    node = check_table(_CoordinatorFile, table)
    if node.coordinator.listen is None:
        raise ConfigError(
            "coordinator.listen is missing; add it to the configuration, for example listen = '0.0.0.0:7443'"
        )
    return CoordinatorConfig(path.resolve(), node.coordinator, node.policy)


def _need(table: dict[str, Any], sections: tuple[str, ...], path: Path) -> None:
    for name in sections:
        if name not in table:
            raise ConfigError(f"configuration {str(path)!r} lacks the section [{name}]; add it")
        if not isinstance(table[name], dict):
            raise ConfigError(f"{name} = {table[name]!r} in {str(path)!r} is no section; write [{name}]")


def _experiment(
    table: dict[str, Any], data: dict[str, Any], base: Path, site: SiteSection
) -> tuple[ExperimentConfig, str]:
    """The experiment narrowed to one training on the site's data, and the name of that training."""
    keys = set(_Choice.model_fields)
    choice = check_table(_ExperimentTable, {"experiment": {k: v for k, v in table.items() if k in keys}}).experiment
    inline = {key: value for key, value in table.items() if key not in keys}
    if choice.path is not None and inline:
        raise ConfigError(
            f"[experiment] gives path and {next(iter(inline))!r}; give either the path of an experiment or its keys"
        )
    for key, where in (("data", "[data]"), ("threads", "site.threads"), ("device", "site.device")):
        if key in inline:
            raise ConfigError(f"[experiment] holds {key!r}; set {where} instead")
    whole = _table_at(choice.path, base) if choice.path is not None else inline
    own = {"data": dict(data)}
    resolve_data(own, base)
    config = check_table(ExperimentConfig, {**whole, **own, "threads": site.threads, "device": site.device})
    return _narrowed(config, choice, own_data(config.data, site.name))


class _ExperimentTable(Section):
    experiment: _Choice


def _table_at(path: str, base: Path) -> dict[str, Any]:
    where = base / path
    if path in READY_CONFIGS and not where.exists():
        return ready_table(path)
    return read_table(where, "set experiment.path to the TOML file of the experiment")


def _narrowed(config: ExperimentConfig, choice: _Choice, data: Data) -> tuple[ExperimentConfig, str]:
    if choice.seed is None and len(config.seeds) > 1:
        raise ConfigError(f"the experiment has seeds {list(config.seeds)}, a site trains one; set experiment.seed")
    federated = [name for name in tracks_of(config.board) if algorithm_of(config, name).federated]
    if choice.method is not None:
        track = track_of(choice.method)
        if not algorithm_of(config, track).federated:
            raise ConfigError(f"experiment.method = {choice.method!r} exchanges nothing; name a federated method")
    elif len(federated) == 1:
        track = federated[0]
    else:
        names = ", ".join(federated) or "none"
        raise ConfigError(
            f"the experiment's board holds {len(federated)} federated trainings ({names}), a site runs one; "
            "set experiment.method"
        )
    board = dict.fromkeys([*methods_of(track, config.board), *([choice.method] if choice.method else [])])
    seed = config.seeds[0] if choice.seed is None else choice.seed
    changes = {"board": tuple(board), "seeds": (seed,), "data": data}
    return config.model_copy(update=changes), track

"""What an experiment is: the sections of its TOML file, checked and immutable.

`config_file` reads the file and applies overrides; every unknown key and every value out of range ends as a
one-line ConfigError there.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

__all__ = [
    "METHOD_NAMES",
    "Aggregation",
    "Data",
    "DatalistData",
    "Device",
    "ExperimentConfig",
    "FedAvgMethod",
    "FedProxMethod",
    "FineTuneMethod",
    "LocalMethod",
    "MetaMethod",
    "Method",
    "Methods",
    "Network",
    "NpzData",
    "PhantomData",
    "Privacy",
    "Selection",
    "Task",
    "device_name",
]

MethodName = Literal["local", "fedavg", "fedavg_ft", "fedprox", "per_fedavg_fo", "per_fedavg_hf"]
METHOD_NAMES: tuple[MethodName, ...] = (
    "local",
    "fedavg",
    "fedavg_ft",
    "fedprox",
    "per_fedavg_fo",
    "per_fedavg_hf",
)


def device_name(name: str) -> str:
    """``name`` where it is one of a device. Raises ValueError else."""
    if not re.fullmatch(r"cpu|cuda(:(0|[1-9][0-9]{0,2}))?", name):
        raise ValueError(f"{name!r} is no device; use 'cpu', 'cuda' (the first GPU) or 'cuda:N'")
    return name


Device = Annotated[str, AfterValidator(device_name)]


class Section(BaseModel):
    """A table of the file: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PhantomData(Section):
    """Chest-CT phantoms, one synthetic hospital per party; nothing is read from disk.

    `hospitals` names some of the ready ones (default: all); `cases_train` and `cases_test` override how many
    patients each has.
    """

    kind: Literal["phantoms"] = "phantoms"
    seed: int = Field(default=0, ge=0)
    size: int = Field(default=96, ge=32, le=512)
    hospitals: tuple[str, ...] | None = None
    cases_train: PositiveInt | None = None
    cases_test: PositiveInt | None = None


class NpzData(Section):
    """One NPZ file. `mapping` names its keys and mask bits; without it the keys of the file decide."""

    kind: Literal["npz"] = "npz"
    path: str
    mapping: dict[str, Any] | None = None


class DatalistData(Section):
    """One MONAI datalist JSON per party: `parties` maps names to files, or `path` is a folder of them."""

    kind: Literal["datalists"] = "datalists"
    parties: dict[str, str] | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> DatalistData:
        if (self.parties is None) == (self.path is None):
            raise ValueError("give either parties (name = file) or path (a folder of datalists), not both")
        return self


Data = Annotated[PhantomData | NpzData | DatalistData, Field(discriminator="kind")]


class Network(Section):
    """The network as `module:Class` with the arguments of its constructor."""

    target: str = Field(default="monai.networks.nets:BasicUNet", pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    arguments: dict[str, Any] = Field(default_factory=dict)
    multiple: PositiveInt = 16
    window: PositiveInt = 256


class Task(Section):
    """How slices become batches and probabilities become masks."""

    kind: Literal["segmentation"] = "segmentation"
    batch_size: PositiveInt = 8
    neighbours: int = Field(default=1, ge=0, le=8)
    augment: bool = True
    positive_share: float = Field(default=0.5, ge=0, le=1)
    loss: Literal["dice_ce", "dice_focal"] = "dice_ce"
    threshold: float = Field(default=0.5, gt=0, lt=1)


class LocalMethod(Section):
    """Training alone: the same gradients, no exchange."""

    lr: PositiveFloat = 0.1
    personal_lr: PositiveFloat | None = None


class FedAvgMethod(Section):
    """FedAvg: local SGD with step size `lr`, weighted mean of the updates."""

    lr: PositiveFloat = 0.1


class FineTuneMethod(Section):
    """FedAvg's own model, then k fine-tuning steps of size `personal_lr` (default: FedAvg's `lr`)."""

    personal_lr: PositiveFloat | None = None


class FedProxMethod(Section):
    """FedProx: FedAvg with the proximal term `mu`/2 times the squared distance from the broadcast weights."""

    lr: PositiveFloat = 0.1
    mu: PositiveFloat = 0.01
    personal_lr: PositiveFloat | None = None


class MetaMethod(Section):
    """Per-FedAvg: inner step `alpha`, outer step `beta`; personalisation steps are `alpha` unless told."""

    alpha: PositiveFloat = 0.1
    beta: PositiveFloat = 0.1
    personal_lr: PositiveFloat | None = None
    hvp_delta: PositiveFloat = 1e-3


Method = LocalMethod | FedAvgMethod | FineTuneMethod | FedProxMethod | MetaMethod


class Methods(Section):
    """Step sizes of every method; `board` says which of them run."""

    local: LocalMethod = LocalMethod()
    fedavg: FedAvgMethod = FedAvgMethod()
    fedavg_ft: FineTuneMethod = FineTuneMethod()
    fedprox: FedProxMethod = FedProxMethod()
    per_fedavg_fo: MetaMethod = MetaMethod()
    per_fedavg_hf: MetaMethod = MetaMethod()


class Aggregation(Section):
    """How updates become one sum: protocol, parameter set, precision.

    `params` is the name of a preset, or "auto" to let (parties, clip, bits, level) choose the set. `clip`
    bounds each value of an update before it is encrypted.
    """

    protocol: Literal["collective", "initiator", "plain"] = "collective"
    params: str = "auto"
    clip: PositiveFloat = 1.0
    bits: int = Field(default=16, ge=2, le=60)
    level: Literal["128", "128c", "192", "192c"] = "128"
    topology: Literal["ring", "star"] = "ring"
    sum_check: bool | None = None
    weights: Literal["uniform", "cases"] | dict[str, PositiveFloat] = "uniform"
    allow_two_parties: bool = False

    @model_validator(mode="after")
    def _initiator_needs_a_ring(self) -> Aggregation:
        if self.protocol == "initiator" and self.topology == "star":
            raise ValueError("protocol 'initiator' runs on topology 'ring' only; use 'collective' on a star")
        return self


class Privacy(Section):
    """Noise on the sums: hospital-level (epsilon, delta)-privacy against everyone who sees them.

    `l2_clip` bounds the L2 norm of a hospital's whole update; `noise_multiplier` is the honest members' noise in the
    sum over that bound. `colluders` is how many members the guarantee allows to share what they know (default: as many
    as the encryption does).
    """

    mechanism: Literal["none", "discrete_gaussian", "skellam"] = "discrete_gaussian"
    l2_clip: PositiveFloat = 1.0
    noise_multiplier: PositiveFloat = 1.0
    delta: float = Field(default=1e-5, gt=0, lt=0.5)
    colluders: int | None = Field(default=None, ge=0)


class Selection(Section):
    """Step sizes by leaving one training volume out; the test cases are never looked at.

    `grid` maps a method to the lists of values to try for its step sizes.
    """

    enabled: bool = False
    rounds: PositiveInt = 5
    folds: PositiveInt = 1
    grid: dict[MethodName, dict[str, list[PositiveFloat]]] = Field(default_factory=dict)


class ExperimentConfig(Section):
    """A whole experiment.

    Every method of `board` spends `rounds` x `gradients_per_round` gradients per party. `device` trains and encrypts:
    cpu, cuda or cuda:N; results of a GPU differ from a processor's in their last bits.
    """

    name: str = Field(default="experiment", pattern=r"^[\w.-]+$")
    title: str = ""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    threads: PositiveInt = 2
    device: Device = "cpu"
    rounds: PositiveInt = 10
    gradients_per_round: PositiveInt = 8
    personal_steps: tuple[Annotated[int, Field(ge=0, le=1000)], ...] = Field(default=(0, 1, 5, 10), min_length=1)
    reported_steps: int = Field(default=5, ge=0)
    board: tuple[MethodName, ...] = Field(
        default=("local", "fedavg", "fedavg_ft", "per_fedavg_fo", "per_fedavg_hf"), min_length=1
    )
    statistics: Literal["shared", "local", "frozen"] = "local"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    data: Data = PhantomData()
    network: Network
    task: Task = Task()
    methods: Methods = Methods()
    aggregation: Aggregation = Aggregation()
    privacy: Privacy | None = None
    selection: Selection = Selection()

    @model_validator(mode="after")
    def _steps_belong_together(self) -> ExperimentConfig:
        if self.reported_steps not in self.personal_steps:
            raise ValueError(
                f"reported_steps = {self.reported_steps} is not among personal_steps "
                f"{list(self.personal_steps)}; "
                "add it there or report another k"
            )
        if len(set(self.board)) != len(self.board):
            raise ValueError("board names a method twice; name each method once")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds holds a seed twice; name each seed once")
        return self

    @model_validator(mode="after")
    def _noise_fits(self) -> ExperimentConfig:
        if self.privacy is None or self.privacy.mechanism == "none":
            return self
        if self.aggregation.protocol != "collective":
            raise ValueError(
                f"[privacy] with aggregation.protocol {self.aggregation.protocol!r} would show sums with one "
                "hospital's noise alone; use 'collective'"
            )
        if self.selection.enabled:
            raise ValueError(
                "[privacy] with selection.enabled would choose step sizes by sums without noise; choose them before, "
                "on other data, or set selection.enabled = false"
            )
        return self

    def method(self, name: str) -> Method:
        """The step sizes of a method of the board."""
        section: Method = getattr(self.methods, name)
        return section

"""Model cards: a trained model as safetensors with a TOML card that says how to use it.

The card names the network, the input it expects, the threshold, the personalisation it was made for and where
it comes from; `personalize` and `predict` need nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import tomlkit
import torch
from safetensors.torch import load, save
from torch import nn

from pppml_fast.errors import DataError, PppmlError
from pppml_fast.experiment.config_file import tomllib
from pppml_fast.experiment.files import write_bytes, write_text
from pppml_fast.imaging import NetworkSpec, Preprocessing, build_network, segmentation_loss
from pppml_fast.learning import (
    Buffers,
    Parameters,
    Statistics,
    buffers_of,
    device_of,
    on_host,
    parameters_of,
    write_back,
)

__all__ = ["Model", "load_model", "save_model"]

FORMAT = "pppml-model-1"


@dataclass(frozen=True)
class Model:
    """A trained model with all that its use needs. `party` is None for the shared model.

    `personal_lr` and `batch_size` are what personalisation was run with; `statistics` is the treatment of
    normalisation statistics in training.
    """

    method: str
    spec: NetworkSpec
    params: Parameters
    buffers: Buffers
    preprocessing: Preprocessing
    neighbours: int
    threshold: float
    personal_lr: float
    batch_size: int
    augment: bool
    loss: str
    statistics: Statistics
    party: str | None = None
    personal_steps: int = 0
    seed: int = 0
    data: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def module(self) -> nn.Module:
        """The network with this model's weights, in evaluation mode, where the weights are."""
        module = write_back(build_network(self.spec, 0), self.params, self.buffers).eval()
        return module.to(device_of(self.params))

    def to(self, device: torch.device) -> Model:
        """The same model on a device."""
        params, buffers = ({name: t.to(device) for name, t in group.items()} for group in (self.params, self.buffers))
        return replace(self, params=params, buffers=buffers)


def save_model(model: Model, card: Path) -> None:
    """Write `card` (TOML) and the tensors beside it as safetensors, the card last, each in one piece."""
    tensors_path = card.with_suffix(".safetensors")
    tensors = {name: on_host(t) for name, t in {**model.params, **model.buffers}.items()}
    data = save(tensors, metadata={"format": "pt"})
    write_bytes(tensors_path, data)
    write_text(card, tomlkit.dumps(_card(model, tensors_path.name, data)))


def load_model(path: Path) -> Model:
    """The model of a card (`.toml`) or of the safetensors beside it.

    Raises DataError when a file is missing, is no model of this program, or does not match its card.
    """
    card_path = path.with_suffix(".toml") if path.suffix == ".safetensors" else path
    if card_path.is_dir() or card_path.suffix != ".toml":
        raise DataError(f"{str(path)!r} is no model card; give the .toml (or .safetensors) of a model that a run left")
    try:
        card = tomllib.loads(card_path.read_text(encoding="utf-8"))
        if card.get("format") != FORMAT:
            raise ValueError(f"its format is {card.get('format')!r}, not {FORMAT!r}")
        data = (card_path.parent / Path(card["parameters"]["file"]).name).read_bytes()
        if hashlib.sha256(data).hexdigest() != card["parameters"]["sha256"]:
            raise ValueError("the tensors do not have the hash that the card names")
        return _model(card, load(data))
    except PppmlError as error:
        raise DataError(f"model {str(path)!r}: {error}") from None
    except KeyError as error:
        raise DataError(f"model {str(path)!r}: its card lacks {error.args[0]!r}; copy card and tensors again") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(
            f"model {str(path)!r} cannot be used ({reason}); give the .toml card that a run left, with its .safetensors"
        ) from None


def _card(model: Model, file: str, data: bytes) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "method": model.method,
        "kind": "personal" if model.party else "global",
        "party": model.party or "",
        "seed": model.seed,
        "data": model.data,
        "network": model.spec.to_dict(),
        "parameters": {
            "file": file,
            "sha256": hashlib.sha256(data).hexdigest(),
            "weights": sum(tensor.numel() for tensor in model.params.values()),
        },
        "input": {**model.preprocessing.to_dict(), "neighbours": model.neighbours, "range": [0.0, 1.0]},
        "output": {"threshold": model.threshold},
        "personalisation": {
            "steps": model.personal_steps,
            "lr": model.personal_lr,
            "batch_size": model.batch_size,
            "augment": model.augment,
            "loss": model.loss,
            "statistics": model.statistics,
        },
        "provenance": dict(model.provenance),
    }


def _model(card: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Model:
    spec = NetworkSpec.from_dict(card["network"])
    module = build_network(spec, 0)
    source, use, personal = card["input"], card["output"], card["personalisation"]
    segmentation_loss(personal["loss"])
    if personal["statistics"] not in get_args(Statistics):
        raise ValueError(f"statistics is {personal['statistics']!r}, not one of {get_args(Statistics)}")
    # Names and shapes are checked by write_back; the order of names is the network's.
    write_back(module, {name: tensor for name, tensor in tensors.items()})
    missing = [name for name in {**parameters_of(module), **buffers_of(module)} if name not in tensors]
    if missing:
        raise ValueError(f"the tensors lack {missing[0]!r}")
    return Model(
        method=str(card["method"]),
        spec=spec,
        params=parameters_of(module),
        buffers=buffers_of(module),
        preprocessing=Preprocessing.from_dict({k: source[k] for k in ("window", "matrix") if k in source}),
        neighbours=int(source["neighbours"]),
        threshold=float(use["threshold"]),
        personal_lr=float(personal["lr"]),
        batch_size=int(personal["batch_size"]),
        augment=bool(personal["augment"]),
        loss=str(personal["loss"]),
        statistics=personal["statistics"],
        party=str(card["party"]) or None,
        personal_steps=int(personal["steps"]),
        seed=int(card["seed"]),
        data=str(card["data"]),
        provenance=dict(card["provenance"]),
    )

"""Which encryption parameters a roster may name, and those of plain sums that follow from them."""

from __future__ import annotations

from collections.abc import Mapping

from pppml_fast.aggregation.roster import SessionOptions
from pppml_fast.errors import ParameterError
from pppml_fast.params import CkksParams

__all__ = ["check_parameters", "sum_parameters"]

_KEYS = {"collective": "collective", "initiator": "public"}


def check_parameters(
    params: CkksParams, options: SessionOptions, parties: int, weights: Mapping[str, float] | None
) -> None:
    """Raise ParameterError when parameters do not fit the protocol, the number of parties or the given weights."""
    needed = _KEYS.get(options.protocol)
    if needed is not None and params.keys != needed:
        raise ParameterError(
            f"protocol {options.protocol!r} needs parameters with keys={needed!r}, these have {params.keys!r}"
        )
    if params.insecure_for_comparison:
        raise ParameterError(f"parameter set {params.name!r} is for comparison only; no aggregator takes it for data")
    if params.parties < parties:
        raise ParameterError(f"the parameters are for {params.parties} parties, {parties} take part")
    if weights is not None and params.weights != "public":
        raise ParameterError("weights were given, but the parameters have weights='free'; build them with 'public'")


def sum_parameters(params: CkksParams, sum_clip: float | None = None) -> CkksParams:
    """Parameters of `sum` beside those of the training rounds; ``sum_clip`` None: 1, or the clip if that is larger."""
    clip = max(1.0, params.clip) if sum_clip is None else sum_clip
    return CkksParams.from_dict({**params.to_dict(), "weights": "free", "clip": float(clip), "slot_scale": None})

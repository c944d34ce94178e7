"""`pppml params`: the parameter set that fits, or why none does."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated

import typer

__all__ = ["params"]


class Level(str, Enum):
    """Security level: 128 and 192 against quantum attacks, 128c and 192c against classical ones."""

    quantum128 = "128"
    classical128 = "128c"
    quantum192 = "192"
    classical192 = "192c"


class Keys(str, Enum):
    """Who can decrypt: the owner of a public key, or nobody alone."""

    public = "public"
    collective = "collective"


def params(
    parties: Annotated[int, typer.Option(help="Number of hospitals in the sum, at least 3.")],
    clip: Annotated[float, typer.Option(help="Largest absolute value of one number of an update.")],
    bits: Annotated[int, typer.Option(help="Bits of one value that must come back exactly.")] = 16,
    level: Annotated[Level, typer.Option(help="Security level.")] = Level.quantum128,
    keys: Annotated[Keys, typer.Option(help="Key layout.")] = Keys.public,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Choose the encryption parameters for a sum and print their level, size and precision."""
    from pppml_fast import CkksParams
    from pppml_fast.errors import ParameterError

    if parties < 3:
        raise ParameterError(
            f"parties = {parties} is below the limit of 3: an exact sum of two tells each the other's value; "
            "give --parties 3 or more"
        )
    chosen = CkksParams.for_sum(parties=parties, clip=clip, bits=bits, level=level.value, keys=keys.value)
    figures = ("level", "bytes_per_weight", "exact_bits", "step", "failure_log2")
    values = {**chosen.to_dict(), **{name: getattr(chosen, name) for name in figures}}
    typer.echo(json.dumps(values, indent=2) if as_json else chosen.describe())

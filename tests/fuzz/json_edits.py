"""Changes of a JSON document that stay JSON: a value anywhere in it is replaced by one of another kind or size."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

__all__ = ["WORDS", "edited"]

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 1.5, -0.0, 1e-320, 1e300, math.inf, -math.inf, math.nan),
    *(2**31, 2**32, 2**33, 2**63, 2**64, -(2**63) - 1, 10**400),
    *("", "a", "0", "star", "initiator", "plain", "public", "secret", "collective", "\ud800", "\0", "x" * 200),
    *([], [[]], [None], ["ab"], [1, 2], {}, {"a": 1}, {"name": "a", "identity": "b", "weight": 1.0}),
)
# For the engines, whose own edits are of bytes.
WORDS = tuple(json.dumps(value).encode() for value in ODD_VALUES)


def edited(document: Any, edits: bytes) -> bytes:
    """``document`` as canonical JSON, after at most two changes of two bytes each: which of its values, and by what.

    Past the last of the odd values, an entry is removed or doubled instead. More changes would only hide each other.
    """
    changed = {"": copy.deepcopy(document)}
    for where, what in zip(edits[:4:2], edits[1:4:2], strict=False):
        places = list(_places(changed))
        holder, key = places[where % len(places)]
        action = what % (len(ODD_VALUES) + 2)
        if action < len(ODD_VALUES):
            holder[key] = copy.deepcopy(ODD_VALUES[action])
        elif holder is not changed and action == len(ODD_VALUES):
            del holder[key]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
    return json.dumps(changed[""], sort_keys=True, separators=(",", ":")).encode()


def _places(value: Any) -> Any:
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(entries):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)

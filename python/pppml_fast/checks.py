"""Checks of numbers that callers hand in."""

from __future__ import annotations

import operator
from typing import Any

from pppml_fast.errors import InputError

__all__ = ["whole_number"]


def whole_number(
    name: str, value: Any, least: int, most: int = (1 << 63) - 1, error: type[Exception] = InputError
) -> int:
    """``value``, of any integer type, as an int; raises ``error`` unless it lies within ``least .. most``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or not least <= number <= most:
        limits = f"{least} or more" if most == (1 << 63) - 1 else f"within {least} .. {most}"
        raise error(f"{name} = {value!r} must be a whole number, {limits}")
    return number

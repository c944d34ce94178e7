"""What every object that holds a secret refuses."""

from __future__ import annotations

from typing import Any

__all__ = ["Secret"]


class Secret:
    """Base of secret keys: never pickled, copied, hashed or compared."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise TypeError("secret keys are not compared")

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"{type(self).__name__} holds a secret and is never pickled or copied")

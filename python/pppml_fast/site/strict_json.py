"""JSON objects of files that people exchange: every field known, present and there once, no number that is none."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from pppml_fast.aggregation.identity import SIGNATURE_SIZE
from pppml_fast.errors import ProtocolError

__all__ = ["check_format", "parse_object", "signature_bytes", "text_map"]

_SIGNATURE = re.compile(rf"[0-9a-f]{{{2 * SIGNATURE_SIZE}}}")


def parse_object(data: bytes, what: str, fields: Sequence[str]) -> dict[str, Any]:
    """The JSON object of exactly these ``fields``. Raises ProtocolError, one line that begins with ``what``."""

    def no_constant(text: str) -> NoReturn:
        raise ProtocolError(f"{what} holds the number {text}; only finite numbers are allowed")

    def no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ProtocolError(f"{what} holds the field {key[:80]!r} twice; remove one of them")
            found[key] = value
        return found

    try:
        value = json.loads(data.decode("utf-8"), parse_constant=no_constant, object_pairs_hook=no_doubles)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{what} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} is no JSON object; get it again from who wrote it")
    for field in value:
        if field not in fields:
            raise ProtocolError(f"{what} holds the unknown field {field[:80]!r}; it may have {', '.join(fields)}")
    for field in fields:
        if field not in value:
            raise ProtocolError(f"{what} lacks the field {field!r}; get it again from who wrote it")
    return value


def check_format(value: object, expected: str, what: str) -> None:
    """Raise ProtocolError unless a file says that it is of the ``expected`` kind and version."""
    if value != expected:
        raise ProtocolError(f"{what} has format {str(value)[:80]!r}, expected {expected!r}; it is another kind of file")


def signature_bytes(text: str, what: str) -> bytes:
    """The 64 bytes of an Ed25519 signature in lower-case hex. Raises ProtocolError."""
    if not _SIGNATURE.fullmatch(text):
        raise ProtocolError(f"{what} holds a signature that is not {2 * SIGNATURE_SIZE} digits of lower-case hex")
    return bytes.fromhex(text)


def text_map(value: object, what: str) -> dict[str, str]:
    """A JSON object whose values are all text. Raises ProtocolError."""
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} must be an object of names and text")
    for name, text in value.items():
        if not isinstance(text, str):
            raise ProtocolError(f"{what}: the entry of {name[:80]!r} is {type(text).__name__}, expected text")
    return value

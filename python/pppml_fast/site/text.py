"""What may be written where people and programs read it: one line, plain values, nothing a peer could forge with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pppml_fast.site.events import Event

__all__ = ["json_line", "plain", "printable", "readable"]

LONGEST_TEXT = 400
MOST_ENTRIES = 1024
"""As many as a roster may have members: lists of names are whole, vectors are not wanted."""
_DEPTH = 4


def printable(text: str, limit: int = LONGEST_TEXT) -> str:
    """The text on one line, cut after ``limit`` characters: control, direction and other unprintable ones escaped."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """The value as JSON can hold it, small: texts printable, bytes, arrays and other objects as their type's name."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return printable(value)
    if depth and isinstance(value, Mapping):
        rows = list(value.items())[:MOST_ENTRIES]
        return {printable(str(name)): plain(entry, depth - 1) for name, entry in rows}
    if depth and isinstance(value, (list, tuple)):
        return [plain(entry, depth - 1) for entry in value[:MOST_ENTRIES]]
    return f"<{type(value).__name__}>"


def json_line(event: Event, site: str) -> bytes:
    """The event as one line of JSON in ASCII with its end of line: time, site, kind, then its fields."""
    head = {"time": round(event.time, 3), "site": printable(site), "kind": event.kind.value}
    row = {**head, **{name: value for name, value in plain(event.fields).items() if name not in head}}
    return json.dumps(row, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode() + b"\n"


def readable(event: Event) -> str:
    """The event as one line for people: its kind, then name=value; a value with spaces or quotes stands in quotes."""
    return " ".join([event.kind.value, *(f"{name}={_value(name, entry)}" for name, entry in event.fields.items())])


def _value(name: str, value: Any) -> str:
    value = plain(value)
    if isinstance(value, str):
        if name in ("session", "root", "transcript", "model") and len(value) > 16:
            return _word(value[:16])
        return _word(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ",".join(_word(str(entry)) for entry in value) or "-"
    if isinstance(value, dict):
        return ",".join(f"{_word(name)}:{_value('', entry)}" for name, entry in value.items()) or "-"
    return str(value)


def _word(text: str) -> str:
    """The text itself where it cannot be taken for anything else, else in quotes with quotes escaped."""
    if text and not set(text) & set(" =,:\"'\\"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

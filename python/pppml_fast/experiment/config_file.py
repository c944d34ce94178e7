"""From a TOML file and `key=value` overrides to an ExperimentConfig, with errors a hospital can act on."""

from __future__ import annotations

import difflib
import re
import sys
import types
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pppml_fast.errors import ConfigError
from pppml_fast.experiment.config import ExperimentConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "READY_CONFIGS",
    "build_config",
    "check_table",
    "load_config",
    "parse_override",
    "read_table",
    "ready_config",
    "ready_table",
    "resolve_data",
    "tomllib",
]

READY_CONFIGS = ("demo", "covid_ct_seg")

SectionT = TypeVar("SectionT", bound=BaseModel)

_BARE_WORD = re.compile(r"[\w./:+*~-]+")
_KEY = re.compile(r"[\w-]+(\.[\w-]+)*")


def load_config(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The experiment of a TOML file, with `key=value` overrides applied in order.

    Paths inside the file are relative to the file. Raises ConfigError for a file that cannot be read, an
    unknown key, a value out of range.
    """
    table = read_table(path, f"give the path of a TOML file, or use a ready one: {', '.join(READY_CONFIGS)}")
    resolve_data(table, path.resolve().parent)
    return build_config(table, overrides)


def read_table(path: Path, remedy: str) -> dict[str, Any]:
    """The table of a TOML file. Raises ConfigError with the remedy when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"configuration {str(path)!r} cannot be read ({reason}); {remedy}") from None
    return _parse(text, str(path))


def ready_config(name: str, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """A configuration that ships with the package, by name, with overrides applied."""
    return build_config(ready_table(name), overrides)


def ready_table(name: str) -> dict[str, Any]:
    """The table of a configuration that ships with the package."""
    if name not in READY_CONFIGS:
        raise ConfigError(f"no ready configuration {name!r}; there are: {', '.join(READY_CONFIGS)}")
    text = (files("pppml_fast.experiment") / "configs" / f"{name}.toml").read_text(encoding="utf-8")
    return _parse(text, f"{name}.toml")


def build_config(table: Mapping[str, Any], overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Check a table (as TOML gives it) with overrides and freeze it. Raises ConfigError, one line."""
    merged = _copy(table)
    for override in overrides:
        key, value = parse_override(override)
        _assign(merged, key, value)
    return check_table(ExperimentConfig, merged, override="--set")


def check_table(model: type[SectionT], table: Mapping[str, Any], *, override: str = "") -> SectionT:
    """A table as a section, every key known and every value in its range. Raises ConfigError, one line.

    ``override`` names the option of the command line that can replace a value, if there is one.
    """
    _check_keys(model, table, "")
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise ConfigError(_first_problem(error, override)) from None


def parse_override(text: str) -> tuple[str, Any]:
    """`a.b=value` as a dotted key and a TOML value; a bare word counts as a string."""
    key, equals, raw = text.partition("=")
    key, raw = key.strip(), raw.strip()
    if not equals or not raw or not _KEY.fullmatch(key):
        raise ConfigError(f"override {text!r} is not key=value; write for example rounds=3 or methods.fedavg.lr=0.05")
    try:
        parsed = tomllib.loads(f"value = {raw}")
        if set(parsed) == {"value"}:
            return key, parsed["value"]
    except tomllib.TOMLDecodeError:
        if _BARE_WORD.fullmatch(raw):
            return key, raw
    raise ConfigError(f"override {text!r}: {raw!r} is no TOML value; quote text as key='\"text\"'")


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration {where!r} is not TOML: {error}; correct that line") from None


def _copy(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in table.items()}


def _assign(table: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    here = table
    for depth, name in enumerate(parents):
        below = here.setdefault(name, {})
        if not isinstance(below, dict):
            prefix = ".".join(parents[: depth + 1])
            raise ConfigError(f"override {dotted!r}: {prefix!r} holds a value, not a table; set {prefix!r} itself")
        here = below
    if last == "kind" and here.get("kind") not in (None, value):
        # Another kind of data has other keys: what was said about the old kind goes.
        here.clear()
    here[last] = value


def resolve_data(table: dict[str, Any], base: Path) -> None:
    """Make the paths of a table's [data] relative to ``base``, in place."""
    data = table.get("data")
    if not isinstance(data, dict):
        return
    if isinstance(data.get("path"), str):
        data["path"] = str(base / data["path"])
    parties = data.get("parties")
    if isinstance(parties, dict):
        data["parties"] = {
            name: str(base / value) if isinstance(value, str) else value for name, value in parties.items()
        }


def _check_keys(model: type[BaseModel], table: Mapping[str, Any], prefix: str) -> None:
    for key, value in table.items():
        if key not in model.model_fields:
            raise ConfigError(_unknown_key(model, prefix, key))
        if isinstance(value, Mapping):
            field = model.model_fields[key]
            below = _section_of(field.annotation, value)
            if below is not None:
                _check_keys(below, value, f"{prefix}{key}.")


def _unknown_key(model: type[BaseModel], prefix: str, key: str) -> str:
    valid = list(model.model_fields)
    near = difflib.get_close_matches(key, valid, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(prefix + name) for name in near)}? " if near else ""
    place = f"in [{prefix[:-1]}]" if prefix else "at the top level"
    return f"unknown key {prefix + key!r}: {hint}remove it or use one of those {place}: {', '.join(valid)}"


def _section_of(annotation: Any, value: Mapping[str, Any]) -> type[BaseModel] | None:
    """The section a table is checked against; of several kinds the one that its `kind` names."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    choices = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    sections = [choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel)]
    if len(sections) <= 1:
        return sections[0] if sections else None
    kind = value.get("kind")
    for section in sections:
        if kind == section.model_fields["kind"].default:
            return section
    return None


def _first_problem(error: ValidationError, override: str) -> str:
    problem = error.errors(include_url=False)[0]
    kinds = ("phantoms", "npz", "datalists")
    # Pydantic names the chosen kind of data in the path; the file does not.
    path = [part for depth, part in enumerate(problem["loc"]) if not (depth == 1 and part in kinds)]
    where = ".".join(str(part) for part in path)
    message = problem["msg"].removeprefix("Value error, ")
    more = f" ({error.error_count()} problems in all)" if error.error_count() > 1 else ""
    if problem["type"] == "value_error" and not where:
        return f"{message}{more}"
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return f"{where}.kind must be one of {', '.join(kinds)}{more}"
    if problem["type"] == "missing":
        also = f" or give {override} {where}=..." if override else ""
        return f"{where} is missing; add it to the configuration{also}{more}"
    if problem["type"] == "value_error":
        return f"{where}: {message}{more}"
    shown = repr(problem["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    message = message[0].lower() + message[1:]
    also = f" or with {override} {where}=..." if override else ""
    return f"{where} = {shown}: {message}; correct it in the configuration{also}{more}"

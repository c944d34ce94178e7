"""`pppml transcript verify`: whether the parties' transcripts are whole, signed, and tell of the same sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pppml_fast.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from pppml_fast.site.transcript_check import Comparison

__all__ = ["app", "verify"]

EXIT_DIFFERENT = 1
_WIDTH = 160
_LARGEST_FEDERATION = 1 << 26

app = typer.Typer(help="What the parties signed of every attempt.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def transcript() -> None:
    """What the parties signed of every attempt."""


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="Transcripts, one per party or more.")],
    federation: Annotated[Path | None, typer.Option(help="The federation's file, with everyone's public key.")] = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="NAME=HEX", help="A party's Ed25519 public key. Repeatable.")
    ] = None,
) -> None:
    """Check every chain and signature, compare the parties; exit with 1 at the first difference."""
    from rich.console import Console
    from rich.text import Text

    from pppml_fast.site.transcript_check import compare, read_transcript

    keys = {**(_federation_keys(federation) if federation else {}), **dict(map(_key, key or []))}
    transcripts = [read_transcript(path, keys or None) for path in files]
    found = compare(transcripts, tuple(keys))
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=_WIDTH)
    _show(found, console)
    if not keys:
        found_words = "signatures were not checked: give --federation FILE or --key NAME=HEX"
        console.print(Text(found_words, style="yellow"))
    if found.faults:
        console.print(Text(f"first difference: {found.faults[0]}", style="bold red"))
    console.print(Text(found.summary))
    raise typer.Exit(EXIT_DIFFERENT if found.faults else 0)


def _show(found: Comparison, console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for title in ("round", "attempt", "session", *found.parties, "root", "model", "away", ""):
        table.add_column(Text(title), overflow="fold")
    for row in found.rows:
        table.add_row(
            str(row.round),
            str(row.attempt),
            row.session[:8],
            *(row.outcomes.get(name, "-") for name in found.parties),
            row.root[:8] or "-",
            row.model[:8] or "-",
            Text(", ".join(row.missing)),
            Text("differs", style="bold red") if row.differs else Text("same", style="green"),
        )
    console.print(table)
    for note in found.notes:
        console.print(Text(note, style="dim"))


def _key(text: str) -> tuple[str, bytes]:
    name, _, digits = text.rpartition("=")
    try:
        public = bytes.fromhex(digits)
    except ValueError:
        public = b""
    if not name or len(public) != 32:
        raise ConfigError(f"--key {text!r} is not NAME=HEX with the 64 hex digits of an Ed25519 public key")
    return name, public


def _federation_keys(path: Path) -> dict[str, bytes]:
    """Public keys by name, members first, then a star's relay."""
    from pppml_fast.aggregation.roster import Roster

    if path.stat().st_size > _LARGEST_FEDERATION:
        raise DataError(f"{str(path)!r} exceeds {_LARGEST_FEDERATION} bytes; it is no federation file")
    try:
        roster = json.loads(path.read_bytes())["roster"]
        data = json.dumps(roster, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{str(path)!r} is no federation file: {type(error).__name__}: {error}") from None
    return {member.name: member.public for member in Roster.parse(data).everyone}

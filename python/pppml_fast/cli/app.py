"""The program's commands and the one place where errors become a line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from pppml_fast.cli.bench import bench
from pppml_fast.cli.demo_network import demo_network
from pppml_fast.cli.doctor import doctor
from pppml_fast.cli.files import phantoms
from pppml_fast.cli.keys import keys
from pppml_fast.cli.models import personalize, predict
from pppml_fast.cli.params import params
from pppml_fast.cli.roster import roster
from pppml_fast.cli.runs import demo, run
from pppml_fast.cli.sites import coordinator, party
from pppml_fast.cli.transcript import app as transcript
from pppml_fast.cli.watch import watch
from pppml_fast.errors import PppmlError

__all__ = ["app", "main"]

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="pppml",
    help="Personalised, private federated learning on medical images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(demo)
app.command()(run)
app.command()(personalize)
app.command()(predict)
app.command()(params)
app.command()(phantoms)
app.command()(bench)
app.command()(doctor)
app.command()(party)
app.command()(coordinator)
app.command(name="demo-network")(demo_network)
app.add_typer(keys, name="keys")
app.add_typer(roster, name="roster")
app.command()(watch)
app.add_typer(transcript, name="transcript")


@app.command()
def version() -> None:
    """Print the version of the program and of what it builds on."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    for name in ("pppml-fast", "numpy", "torch", "monai", "cryptography"):
        try:
            typer.echo(f"{name} {installed(name)}")
        except PackageNotFoundError:
            typer.echo(f"{name} not installed")
    typer.echo(f"python {platform.python_version()}")


@app.callback()
def settings(
    log_level: Annotated[
        str, typer.Option(help="Log to stderr from this level on: debug, info, warning, error.")
    ] = "warning",
) -> None:
    """Set up logging before any command."""
    level = logging.getLevelNamesMapping().get(log_level.upper()) if hasattr(logging, "getLevelNamesMapping") else None
    if level is None:
        level = getattr(logging, log_level.upper(), None)
    if not isinstance(level, int):
        raise typer.BadParameter(f"{log_level!r} is no level; use debug, info, warning or error")
    logging.basicConfig(level=level, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    if level > logging.DEBUG:
        # Notices of libraries about their own future are not for the user of this program.
        warnings.filterwarnings("ignore", module=r"(monai|torch|nibabel|pydicom|matplotlib)(\..*)?$")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit: 0, or 2 with one line on stderr for bad input, or 130 when interrupted."""
    sys.exit(_guarded(arguments))


def _guarded(arguments: Sequence[str] | None) -> int:
    try:
        code = app(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except PppmlError as error:
        return _refuse(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pppml_fast"):
            raise
        return _refuse(f"this command needs {error.name!r}; install it with: pip install 'pppml-fast[cli]'")
    except BrokenPipeError:
        # The reader of a pipe left (`| head`); silence the flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f" {str(error.filename)!r}" if error.filename else ""
        return _refuse(f"cannot use{where}: {error.strerror or error}; check the path and its permissions")
    except KeyboardInterrupt:
        sys.stderr.write("pppml: interrupted; the same command goes on from the last finished round\n")
        return EXIT_INTERRUPTED
    except Exception as error:
        # Usage errors of the option parser, whichever module it keeps them in.
        if hasattr(error, "format_message"):
            return _refuse(f"{error.format_message()} (see pppml --help)")
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which most commands do without
            reason = str(error).partition(". GPU")[0].rstrip(".")
            return _refuse(f"{reason}; take smaller batches, free the GPU, or set device = 'cpu'")
        raise


def _refuse(message: str) -> int:
    sys.stderr.write("pppml: error: " + " ".join(message.split()) + "\n")
    return EXIT_BAD_INPUT

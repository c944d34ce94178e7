"""`pppml keys`: a node's identity, TLS key, certificate and card; a small authority for trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pppml_fast.site.keys import SiteKeys

__all__ = ["keys"]

keys = typer.Typer(
    help="A node's identity, TLS key and certificate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

FolderOption = Annotated[Path, typer.Option(help="The node's folder of keys, mode 0700.")]
AuthorityOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Trial authority that signs at once; made if it is not there.")
]
DaysOption = Annotated[int, typer.Option(min=1, help="Days until a certificate of the trial authority ends.")]


@keys.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the node, as it will stand in the roster.")],
    folder: FolderOption,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where others reach it; not needed to dial out only.")
    ] = None,
    authority: AuthorityOption = None,
    days: DaysOption = 365,
) -> None:
    """Make a node's keys, its certificate request and its card. Existing keys are never overwritten."""
    from pppml_fast.site.keys import SiteKeys

    _finish(SiteKeys.create(folder, name, address), authority, days)
    typer.echo(f"send {folder / 'card.json'} to the organiser, and tell the fingerprint by another way")


@keys.command()
def renew(
    folder: FolderOption,
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder, to be used in place of the old one.")],
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Default: that of the old folder.")] = None,
    authority: AuthorityOption = None,
    days: DaysOption = 365,
) -> None:
    """Make a new TLS key under the same identity, in a new folder. To renew a certificate alone, use install."""
    from pppml_fast.site.keys import SiteKeys

    _finish(SiteKeys.renew(folder, out, address), authority, days)


@keys.command()
def issue(
    cards: Annotated[list[Path], typer.Argument(metavar="CARD...", help="Cards or signing requests (PEM) of nodes.")],
    authority: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the trial authority; made if need be.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.crt and the authority's authorities.pem.")],
    days: DaysOption = 365,
) -> None:
    """Sign requests with the trial authority. In earnest, a hospital's or the consortium's own takes its place."""
    from pppml_fast.site.authority import TrialAuthority
    from pppml_fast.site.files import write_file
    from pppml_fast.site.keys import AUTHORITIES_FILE

    requests = [_request(path) for path in cards]
    trial = TrialAuthority.open(authority)
    write_file(out / AUTHORITIES_FILE, trial.certificate)
    for name, request in requests:
        path = out / (name.replace("/", "_") + ".crt")
        write_file(path, trial.issue(request, days))
        typer.echo(f"{name}: {path}")
    typer.echo(f"authorities: {out / AUTHORITIES_FILE}")


@keys.command()
def install(
    folder: FolderOption,
    certificate: Annotated[Path, typer.Option(metavar="FILE", help="Certificate (PEM), then intermediate ones.")],
    authorities: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bundle (PEM) of authorities; the one in place by default.")
    ] = None,
) -> None:
    """Check a certificate and put it in place; also to renew one."""
    from pppml_fast.site.files import read_file
    from pppml_fast.site.keys import SiteKeys

    bundle = None if authorities is None else read_file(authorities)
    _show(SiteKeys.install(folder, read_file(certificate), bundle))


@keys.command()
def show(
    folder: FolderOption,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a node's folder and print who it is; a certificate that cannot be used is an error."""
    from pppml_fast.site.keys import SiteKeys

    _show(SiteKeys.load(folder), as_json)


def _finish(made: SiteKeys, authority: Path | None, days: int) -> None:
    """Show fresh keys; the trial authority signs at once, any other is waited for."""
    from pppml_fast.site.authority import TrialAuthority
    from pppml_fast.site.keys import SiteKeys

    if authority is not None:
        trial = TrialAuthority.open(authority)
        made = SiteKeys.install(made.folder, trial.issue(made.request, days), trial.certificate)
    _show(made)
    if authority is None:
        folder = made.folder
        typer.echo(
            f"have {folder / 'tls.csr'} signed, then: "
            f"pppml keys install --folder {folder} --certificate FILE --authorities FILE"
        )


def _request(path: Path) -> tuple[str, bytes]:
    """Name and signing request of a card, or of a request that came without one."""
    from pppml_fast.site.card import NodeCard
    from pppml_fast.site.certificates import parse_request
    from pppml_fast.site.files import read_file

    if path.is_file() and (data := read_file(path)).lstrip().startswith(b"-----BEGIN"):
        return parse_request(data, repr(str(path))).common_name, data
    card = NodeCard.load(path)
    return card.name, card.csr.encode()


def _show(made: SiteKeys, as_json: bool = False) -> None:
    import json

    from pppml_fast.site.card import identity_fingerprint
    from pppml_fast.transport.tls_names import tls_name

    public = made.identity.public
    ends = "none yet" if made.expires is None else f"valid until {made.expires:%Y-%m-%d %H:%M} UTC"
    values = {
        "name": made.name,
        "identity": public.hex(),
        "fingerprint": identity_fingerprint(public),
        "address": made.card.address,
        "tls_name": tls_name(public),
        "certificate": ends,
        "folder": str(made.folder),
    }
    if as_json:
        typer.echo(json.dumps(values, indent=2))
        return
    for key, value in values.items():
        typer.echo(f"{key.replace('_', ' '):12} {value or 'none: dials out only'}")

"""`pppml demo-network`: five sites as five processes on this machine, one of them killed on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pppml_fast.cli.roster import Topology

__all__ = ["demo_network"]


def demo_network(
    out: Annotated[Path, typer.Option(help="New folder for the five sites.")] = Path("runs/demo-network"),
    rounds: Annotated[int, typer.Option(min=2, help="Number of rounds.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of patients and training.")] = 0,
    timeout: Annotated[float, typer.Option(min=10, help="Seconds the five processes may take.")] = 900.0,
    topology: Annotated[Topology, typer.Option(help="A star has a coordinator as a sixth process.")] = Topology.ring,
    kill_coordinator: Annotated[
        bool, typer.Option("--kill-coordinator", help="Kill and restart the star's coordinator in the last round.")
    ] = False,
) -> None:
    """Five hospitals as five processes with TLS, one killed in round two: the same bits as in one process."""
    from pppml_fast.experiment.network_demo import run_network_demo

    identical = run_network_demo(
        out,
        typer.echo,
        rounds=rounds,
        seed=seed,
        timeout_s=timeout,
        star=topology is Topology.star,
        kill_coordinator=kill_coordinator,
    )
    typer.echo(f"identical={identical}/5")
    if identical != 5:
        raise typer.Exit(1)

"""What commands share: the console, one progress bar, and the options that several of them take."""

import logging
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.config import ClusterKind
from pipeline.progress import progress_bar as bar_on

console = Console()
log = logging.getLogger("landcover")

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="The campaign's YAML file.", show_default=False)]
DomainOption = Annotated[
    list[str] | None, typer.Option("--domain", help="A domain of the campaign, such as D064_2021; may be repeated.")
]
TileOption = Annotated[
    list[str] | None,
    typer.Option("--tile", help="A tile by its north-west corner, such as 0595-6890; may be repeated."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Map the chosen tiles again, also sealed ones.")]
FailedOption = Annotated[bool, typer.Option("--failed", help="Only tiles whose last attempt failed.")]
MissingOption = Annotated[bool, typer.Option("--only-missing", help="Only tiles without a product.")]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Worker processes (per node), instead of the campaign's number."),
]
ClusterOption = Annotated[
    ClusterKind | None,
    typer.Option(
        "--cluster", help="This machine, its GPUs, or all nodes of this SLURM job; by default as in the campaign."
    ),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="ADDRESS|FILE", help="A running Dask scheduler, instead of --cluster."),
]


progress_bar = partial(bar_on, console=console)
"""A progress bar on the commands' console."""

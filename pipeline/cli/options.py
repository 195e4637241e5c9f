"""What commands share: options, the console, and how results are shown."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Column, Table

from pipeline.cli.help import argument, option
from pipeline.config import Campaign, ClusterKind, EngineName, Precision, load_campaign
from pipeline.domain import Domain
from pipeline.durable import write_json
from pipeline.legend import Nomenclature
from pipeline.progress import progress_bar as bar_on

BD_ORTHO_TILE_M = 5_000
"""Side of BD ORTHO's tiles in metres."""

console = Console()
log = logging.getLogger("landcover")
progress_bar = partial(bar_on, console=console)
"""A progress bar on the commands' console."""
say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
"""Prints a line as it is: not wrapped, so that paths in logs stay whole."""

ConfigArgument = Annotated[Path, argument("CONFIG", "The campaign's YAML file.")]
DataArgument = Annotated[list[Path], argument("DATA", "Labelled patches: folders or CSV lists.")]
DomainOption = Annotated[
    list[str] | None, option("--domain NAME", "Only this domain of the campaign, such as D064_2021. Can be repeated.")
]
OneDomainOption = Annotated[
    Domain, option("--domain NAME", "Département and vintage, such as D064_2021.", parser=Domain)
]
TileOption = Annotated[
    list[str] | None,
    option("--tile NAME", "Only this tile, named after its north-west corner, such as 0595-6890. Can be repeated."),
]
ForceOption = Annotated[bool, option("--force", "Map the chosen tiles again even if they are up to date.")]
FailedOption = Annotated[bool, option("--failed", "Only tiles that failed when they were last mapped.")]
MissingOption = Annotated[bool, option("--only-missing", "Only tiles that have never been sealed.")]
WorkersOption = Annotated[
    int | None, option("--workers N", "Worker processes per node, instead of the campaign's number.", min=1)
]
ClusterOption = Annotated[
    ClusterKind | None,
    option(
        "--cluster",
        "Where workers run: on this machine (local), one per GPU of it (cuda), or on all nodes of this "
        "SLURM job (slurm). By default as the campaign says.",
    ),
]
SchedulerOption = Annotated[
    str | None, option("--scheduler ADDRESS|FILE", "Use a running Dask scheduler instead of starting a cluster.")
]
RecipeOption = Annotated[
    str,
    option(
        "--recipe NAME|FILE",
        "The model's recipe: a name under configs/models, or a YAML file. "
        "By default that of IGN's U-Net with five bands and 12 classes.",
        show_default=False,
    ),
]
WeightsOption = Annotated[
    str, option("--weights PATH|HUB", "Checkpoint: a path, hf://org/name or hf://org/name/file.", show_default=False)
]
EngineOption = Annotated[EngineName, option("--engine", "What runs the network.")]
PrecisionOption = Annotated[Precision, option("--precision", "Arithmetic: fp16 needs CUDA, int8 needs OpenVINO.")]
NomenclatureOption = Annotated[Nomenclature, option("--reference-as", "Legend of the reference's class numbers.")]
FieldOption = Annotated[str, option("--field NAME", "Attribute of the polygons that has the class number.")]
MetadataOption = Annotated[
    Path | None, option("--metadata FILE", "JSON with each patch's domain and zone, if paths lack them.")
]
CatalogOption = Annotated[Path, option("--catalog FOLDER", "The input catalog.")]
TileSizeOption = Annotated[int, option("--tile-m N", "Side of a tile in metres.", min=10)]
BoxOption = Annotated[
    tuple[float, float, float, float] | None,
    option("--bbox W S E N", "Only what intersects this box; degrees of longitude and latitude."),
]
WhenOption = Annotated[str | None, option("--datetime WHEN", "Only items of a day, a month, a year or START/END.")]
JsonOption = Annotated[Path | None, option("--json FILE", "Also write the result to this JSON file.")]


def open_campaign(config: Path, domains: Sequence[str] | None = None, tiles: Sequence[str] | None = None) -> Campaign:
    """Loads a campaign, and checks names that were given as options before anything slow is imported."""
    campaign = load_campaign(config)
    for name in domains or ():
        campaign.domain(name)
    for name in tiles or ():
        campaign.tile(name)
    return campaign


def count(number: int, noun: str) -> str:
    """`1 tile`, `2 tiles`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shown(path: Path | str) -> str:
    """The path, relative to the current folder if it lies inside."""
    full, here = Path(path), Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(path)


def say_next(*words: object) -> None:
    """Prints the command to run next."""
    say(f"next: landcover {shlex.join(str(word) for word in words)}")


def save_json(file: Path | None, content: Any, what: str) -> None:
    """Writes the file that `--json` or `--out` names, if it was given, and says what was written."""
    if file:
        write_json(file, content)
        say(f"{what} written to {shown(file)}")


def number_table(first: str, *headings: str) -> Table:
    """A table of names and numbers. It fits into 80 columns: headings wrap, names do not."""
    columns = [Column(heading, justify="right") for heading in headings]
    return Table(Column(first, no_wrap=True), *columns, box=None, pad_edge=False, collapse_padding=True)


def same_choice(options: Mapping[str, Sequence[str] | bool | None]) -> list[str]:
    """The options that were given, as words of another command.

    Example:
        >>> same_choice({"--domain": ["D034_2021"], "--tile": None, "--force": True})
        ['--domain', 'D034_2021', '--force']
    """
    words: list[str] = []
    for name, value in options.items():
        if isinstance(value, bool):
            words += [name] * value
        else:
            words += [word for given in value or () for word in (name, given)]
    return words

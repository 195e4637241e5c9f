"""Options that several commands have, and the campaign that they name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

from typer import Context

from pipeline.cli.help import argument, option
from pipeline.config import (
    DEFAULT_RECIPE,
    Campaign,
    ClusterKind,
    EngineName,
    LimitName,
    Precision,
    Tta,
    config_folder,
    load_campaign,
)
from pipeline.domain import Domain
from pipeline.errors import ConfigError, LandcoverError
from pipeline.legend import Language, Nomenclature

if TYPE_CHECKING:
    from pipeline.model import Ensemble, Model

BD_ORTHO_TILE_M = 5_000
"""Side of BD ORTHO's tiles in metres."""


def _campaign(ctx: Context) -> Campaign | None:
    """The campaign on a command line that is being completed; None where it cannot be read yet."""
    # While an option has no value yet, arguments are not assigned to their names.
    given = ctx.params.get("config") or next(iter(ctx.args), None)
    try:
        return load_campaign(Path(given)) if given else None
    except LandcoverError:
        return None


def _complete_domains(ctx: Context, incomplete: str) -> list[str]:
    campaign = _campaign(ctx)
    return [section.name for section in campaign.domains if section.name.startswith(incomplete)] if campaign else []


def _complete_tiles(ctx: Context, incomplete: str) -> list[tuple[str, str]]:
    """Names of indexed tiles, by the names of their items; each with its domains."""
    campaign, found = _campaign(ctx), dict[str, list[str]]()
    for name in (section.name for section in campaign.domains) if campaign else ():
        for item in campaign.catalog.glob(f"{name}/{name}-{incomplete}*.json") if campaign else ():
            found.setdefault(item.stem.removeprefix(f"{name}-"), []).append(name)
    return [(tile, ", ".join(names)) for tile, names in sorted(found.items())]


def complete_editions(ctx: Context, incomplete: str) -> list[str]:
    """Numbers of the editions of the campaign on the command line."""
    campaign = _campaign(ctx)
    folders = campaign.output.national.glob("editions/[0-9]*") if campaign else ()
    return [number for number in sorted(str(int(f.name)) for f in folders) if number.startswith(incomplete)]


def _complete_names(below: str) -> Callable[[str], list[str]]:
    """Names of the YAML files in a folder of `configs`."""

    def complete(incomplete: str) -> list[str]:
        return sorted(p.stem for p in (config_folder() / below).glob("*.yaml") if p.stem.startswith(incomplete))

    return complete


complete_recipes, complete_clusters = _complete_names("models"), _complete_names("clusters")

Config = Annotated[Path, argument("CONFIG", "The campaign's YAML file.")]
Patches = Annotated[list[Path], argument("DATA", "Labelled patches: folders or CSV lists.")]
Domains = Annotated[
    list[str] | None,
    option(
        "--domain NAME",
        "Only this domain of the campaign, such as D064_2021. Can be repeated.",
        autocompletion=_complete_domains,
    ),
]
OneDomain = Annotated[Domain, option("--domain NAME", "Département and vintage, such as D064_2021.", parser=Domain)]
Tiles = Annotated[
    list[str] | None,
    option(
        "--tile NAME",
        "Only this tile, named after its north-west corner, such as 0595-6890. Can be repeated.",
        autocompletion=_complete_tiles,
    ),
]
Force = Annotated[bool, option("--force", "Map the chosen tiles again even if they are up to date.")]
Unscored = Annotated[bool, option("--unscored", "Also map tiles again that lack the novelty score of model.reference.")]
Failed = Annotated[bool, option("--failed", "Only tiles that failed when they were last mapped.")]
OnlyMissing = Annotated[bool, option("--only-missing", "Only tiles that have never been sealed.")]
ReResolve = Annotated[
    bool, option("--re-resolve", "Choose again what is `auto` in the campaign; `plan` only shows it.")
]
Workers = Annotated[
    int | None, option("--workers N", "Worker processes per node, instead of the campaign's number.", min=1)
]
Cluster = Annotated[
    ClusterKind | None,
    option(
        "--cluster",
        "Where workers run: on this machine (local), one per GPU of it (cuda), or on all nodes of this "
        "SLURM job (slurm). By default as the campaign says.",
    ),
]
Scheduler = Annotated[
    str | None, option("--scheduler ADDRESS|FILE", "Use a running Dask scheduler instead of starting a cluster.")
]
Dashboard = Annotated[
    bool,
    option(
        "--dashboard",
        "Serve Dask's dashboard. It asks for no key: every user of this machine (or of the job's first node) sees "
        "names of files and tasks there.",
    ),
]
Recipe = Annotated[
    str,
    option(
        "--recipe NAME|FILE",
        "The model's recipe: a name under configs/models, or a YAML file. "
        "By default that of IGN's U-Net with five bands and 12 classes.",
        show_default=False,
        autocompletion=complete_recipes,
    ),
]
Weights = Annotated[
    str, option("--weights PATH|HUB", "Checkpoint: a path, or hf://org/name@COMMIT[/file].", show_default=False)
]
WeightsSha256 = Annotated[
    str | None, option("--weights-sha256 HEX", "SHA-256 that the checkpoint must have; compared before it is loaded.")
]
SeveralWeights = Annotated[
    list[str] | None,
    option(
        "--weights PATH|HUB",
        "Checkpoint: a path, or hf://org/name@COMMIT[/file]. Can be repeated: several are averaged.",
    ),
]
SeveralRecipes = Annotated[
    list[str] | None,
    option(
        "--recipe NAME|FILE",
        "The model's recipe: a name under configs/models, or a YAML file. One for all --weights, or one for each, in "
        "their order. By default that of IGN's U-Net with five bands and 12 classes.",
        autocompletion=complete_recipes,
    ),
]
SeveralSha256 = Annotated[
    list[str] | None,
    option("--weights-sha256 HEX", "SHA-256 that the checkpoint must have; one for each of --weights."),
]
TurnedWindows = Annotated[Tta, option("--tta", "Average over mirrored windows (flips), and turned ones too (d4).")]
OfCampaign = Annotated[
    Path | None, option("--campaign FILE", "Instead of --weights: the network or the average of a campaign.")
]
Accept = Annotated[
    list[str] | None,
    option("--accept LIMIT", "A limit of the model card that the imagery may exceed. Can be repeated."),
]
Engine = Annotated[EngineName, option("--engine", "What runs the network.")]
Arithmetic = Annotated[Precision, option("--precision", "Arithmetic: fp16 needs CUDA, int8 needs OpenVINO.")]
ReferenceLegend = Annotated[Nomenclature, option("--reference-as", "Legend of the reference's class numbers.")]
Field = Annotated[str, option("--field NAME", "Attribute of the polygons that has the class number.")]
Metadata = Annotated[
    Path | None, option("--metadata FILE", "JSON with each patch's domain and zone, if paths lack them.")
]
Catalog = Annotated[Path, option("--catalog FOLDER", "The input catalog.")]
TileSize = Annotated[int, option("--tile-m N", "Side of a tile in metres.", min=10)]
FoundTileSize = Annotated[
    int | None, option("--tile-m N", "Side of a tile in metres. By default that of the first image.", min=10)
]
Box = Annotated[
    tuple[float, float, float, float] | None,
    option("--bbox W S E N", "Only what intersects this box; degrees of longitude and latitude."),
]
When = Annotated[str | None, option("--datetime WHEN", "Only items of a day, a month, a year or START/END.")]
Lang = Annotated[Language, option("--lang", "Language of what is written.")]
JsonFile = Annotated[Path | None, option("--json FILE", "Also write the result to this JSON file.")]


def limits(accept: Sequence[str] | None) -> tuple[LimitName, ...]:
    """The limits that `--accept` names.

    Raises:
        ConfigError: there is no such limit.
    """
    known = get_args(LimitName)
    if unknown := set(accept or ()) - set(known):
        raise ConfigError(f"unknown limit {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
    return tuple(name for name in known if name in (accept or ()))


def load_networks(
    weights: Sequence[str] | None,
    *,
    recipes: Sequence[str] | None,
    sha256: Sequence[str] | None,
    tta: Tta,
    campaign: Path | None,
) -> "Model | Ensemble":
    """The network, or the average of several, that a command line or a campaign names.

    Raises:
        ConfigError: neither weights nor a campaign, or both; or other numbers of recipes or checksums than of weights.
        ConfigError, WeightsError: as `load_model`.
    """
    if bool(weights) == (campaign is not None):
        raise ConfigError("expected either --weights or --campaign: what runs on the labelled patches")
    if campaign is not None:
        if recipes or sha256 or tta != "none":
            raise ConfigError("--campaign goes without --recipe, --weights-sha256 and --tta: its `model` has them")
        from pipeline.model import load_campaign_networks

        return load_campaign_networks(load_campaign(campaign))
    count = len(weights or ())
    chosen, checksums = list(recipes or [DEFAULT_RECIPE]), list[str | None](sha256 or [])
    if len(chosen) not in (1, count) or len(checksums) not in (0, count):
        raise ConfigError(
            f"expected one --recipe for all --weights, or one for each, and a --weights-sha256 for each or none; found "
            f"{count} --weights, {len(chosen)} --recipe and {len(checksums)} --weights-sha256"
        )
    from pipeline.model import averaged, load_model

    chosen, checksums = chosen * (count // len(chosen)), checksums or [None] * count
    members = zip(weights or (), chosen, checksums, strict=True)
    return averaged([load_model(path, recipe, sha256=known) for path, recipe, known in members], tta)


def open_campaign(config: Path, domains: Sequence[str] | None = None, tiles: Sequence[str] | None = None) -> Campaign:
    """Loads a campaign, and checks names that were given as options before anything slow is imported."""
    campaign = load_campaign(config)
    for name in domains or ():
        campaign.domain(name)
    for name in tiles or ():
        campaign.tile(name)
    return campaign

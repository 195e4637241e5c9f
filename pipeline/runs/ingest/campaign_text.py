"""The text of a new campaign: YAML with a comment for whoever changes it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline.config import GridSection, LimitName, Recipe
from pipeline.config.campaign import METROPOLITAN_FRANCE_KM
from pipeline.errors import ConfigError
from pipeline.grid import CRS, union
from pipeline.sources.domain_inputs import DomainInputs

_PLAIN = re.compile(r"[A-Za-z/][\w./-]*", re.ASCII)
_USUAL = GridSection()
"""Sizes for tiles of 5 km."""


@dataclass(frozen=True)
class CampaignDomain:
    """A domain of a new campaign."""

    inputs: DomainInputs
    """As it is indexed."""
    boundary: Path | None
    """GeoJSON of its département; None where no file has it."""


@dataclass(frozen=True)
class CampaignParts:
    """What a new campaign is made of."""

    name: str
    catalog: Path
    weights: str
    recipe_name: str
    """As `model.recipe` takes it."""
    recipe: Recipe
    domains: tuple[CampaignDomain, ...]

    @property
    def tile_size(self) -> int:
        """Side of the tiles in pixels."""
        return self.domains[0].inputs.tiles[0].tile.window.height

    @property
    def limits(self) -> tuple[LimitName, ...]:
        """The limits of the model's card that the domains exceed, and that were accepted when they were indexed."""
        return tuple(sorted({limit for d in self.domains for limit in d.inputs.limits}))


def campaign_text(parts: CampaignParts, folder: Path) -> str:
    """The campaign's YAML.

    Args:
        parts: of the campaign.
        folder: of the file. Paths inside of it are written relative to it.

    Raises:
        ConfigError: the domains lie on several lattices, or have tiles of several sizes.
    """
    crs = {d.inputs.crs for d in parts.domains}
    sizes = {t.tile.window.height for d in parts.domains for t in d.inputs.tiles}
    if len(crs) > 1 or len(sizes) > 1:
        raise ConfigError(
            f"the domains have tiles of {_listed(sizes)} px on {_listed(crs)}; make a campaign for each of them"
        )
    lines = [
        "# A campaign names everything that its maps depend on. `landcover init` wrote it; every value may be changed.",
        "# Relative paths start from the folder of this file. The reference has all keys: docs/reference/campaign.md",
        f"name: {_text(parts.name)}",
        "",
        "# The input catalog that `landcover index` writes: one STAC item for each tile.",
        f"catalog: {_path(parts.catalog, folder)}",
        "",
        *_model_lines(parts, folder),
        "",
        *_domain_lines(parts, folder),
        "",
        *_grid_lines(parts),
        "",
        *_output_lines(parts, next(iter(crs))),
        "",
        *_cluster_lines(),
    ]
    return "\n".join(lines) + "\n"


def _model_lines(parts: CampaignParts, folder: Path) -> list[str]:
    bands, classes = len(parts.recipe.bands), len(parts.recipe.live)
    on_hub = parts.weights.startswith("hf://")
    weights = _text(parts.weights) if on_hub else _path(Path(parts.weights), folder)
    recipe = _path(Path(parts.recipe_name), folder) if "/" in parts.recipe_name else _text(parts.recipe_name)
    lines = [
        "model:",
        "  # A path, or hf://org/name@COMMIT[/file]. `sha256:` beside it refuses any other file.",
        f"  weights: {weights}",
        f"  # A name under configs/models, or a path. It has {bands} bands and {classes} classes.",
        f"  recipe: {recipe}",
        "",
        "# What runs the network: auto is PyTorch on a CUDA device, else OpenVINO where it is installed, else PyTorch.",
        "engine: auto",
        "# Arithmetic: fp32, bf16, fp16 (CUDA only), int8 (OpenVINO only, after `landcover quantize`).",
        "precision: fp32",
    ]
    if parts.limits:
        lines += [
            "",
            "# Limits of the model's card that the imagery exceeds and that were accepted when it was indexed.",
            f"accept_limits: [{', '.join(parts.limits)}]",
        ]
    return lines


def _domain_lines(parts: CampaignParts, folder: Path) -> list[str]:
    lines = ["domains:"]
    for domain in parts.domains:
        lines.append(f"  - name: {domain.inputs.domain}")
        if domain.boundary:
            lines += [
                "    # Polygon of the département. Where domains overlap, it decides which one owns a pixel.",
                f"    boundary: {_path(domain.boundary, folder)}",
            ]
        else:
            lines += [
                "    # Without a polygon the domain owns every pixel of its tiles. `landcover init` finds it in ADMIN",
                "    # EXPRESS in one of its folders.",
                "    # boundary: departement.geojson",
            ]
    return lines


def _grid_lines(parts: CampaignParts) -> list[str]:
    grid = fitting_grid(parts.tile_size, parts.recipe)
    return [
        "# Sizes in pixels of 0.20 m: cores divide a block, and blocks a tile. A window is a core with its halo.",
        "grid:",
        *(f"  {key}: {getattr(grid, key)}" for key in ("tile", "block", "core", "halo", "window")),
    ]


def fitting_grid(tile: int, recipe: Recipe) -> GridSection:
    """The recipe's sizes, with the largest block that divides the tile.

    Args:
        tile: side of a tile in pixels.
        recipe: of the network.
    """
    block = _largest_divisor(tile, _USUAL.block)
    layout = recipe.layout(block)
    return GridSection(tile=tile, block=block, core=layout.core, halo=layout.halo, window=layout.window)


def _output_lines(parts: CampaignParts, crs: str) -> list[str]:
    extent = _extent_km(parts, crs)
    chunk = _largest_divisor(parts.tile_size, 1_000)
    return [
        "output:",
        "  # COGs and STAC items of each domain.",
        "  domains: products",
        "  # The national Zarr.",
        "  national: national",
        f"  # Its extent in km of {crs}: left, bottom, right, top. It must contain domains that are added later.",
        f"  extent_km: [{', '.join(f'{edge:g}' for edge in extent)}]",
        f"  chunk: {chunk}",
        "  # Producer of the imagery, named as its licence requires.",
        "  attribution: IGN",
    ]


def _extent_km(parts: CampaignParts, crs: str) -> tuple[float, ...]:
    """Metropolitan France for tiles of 5 km there, else what the tiles cover."""
    if crs == CRS and parts.tile_size == _USUAL.tile:
        return METROPOLITAN_FRANCE_KM
    covered = union([t.tile.window for d in parts.domains for t in d.inputs.tiles])
    return tuple(round(edge / 1000, 6) for edge in covered.bounds)


def _cluster_lines() -> list[str]:
    return [
        "# Where tasks run. Nothing here changes a byte of a map.",
        "cluster:",
        "  # local: this machine's processors. cuda: its GPUs, one worker each. slurm: all nodes of a SLURM job.",
        "  kind: local",
        "  # A worker is a process. Its threads read imagery and write tiles; one of them runs the network at a time.",
        "  workers: 1",
        "  threads: 2",
        "  tiles_in_flight: 2",
        "",
        "# `landcover verify` fails if a domain exceeds one of these. Changing them maps nothing again.",
        "limits:",
        "  missing_tiles: 0",
        "  # Class changes across edges of windows, blocks or tiles, relative to those nearby. 1 is seamless.",
        "  # seam_ratio: 1.1",
        "  # Share of sealed pixels that are nodata.",
        "  # no_data_share: 0.3",
    ]


def _largest_divisor(whole: int, most: int) -> int:
    return next(n for n in range(min(whole, most), 0, -1) if whole % n == 0)


def _path(path: Path, folder: Path) -> str:
    full = path.expanduser().absolute()
    return _text(str(full.relative_to(folder)) if full.is_relative_to(folder) else str(full))


def _text(value: str) -> str:
    """A text as YAML: plain where it is read back as the same text."""
    is_plain = _PLAIN.fullmatch(value) and yaml.safe_load(value) == value
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _listed(values: set[str] | set[int]) -> str:
    return " and ".join(sorted(str(v) for v in values))

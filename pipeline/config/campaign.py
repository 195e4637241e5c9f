"""The campaign: one YAML file with everything that a result depends on.

`load_campaign` reads the file, makes its paths absolute and checks that sizes fit each other. It opens no data.
"""

import math
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import Field, model_validator

from pipeline import legend
from pipeline.config.grid_section import GridSection
from pipeline.config.joint_recipe import joint_recipe
from pipeline.config.model_section import MemberSection, ModelSection
from pipeline.config.recipe import Recipe, load_recipe
from pipeline.config.section import ConfigPath, PlainName, Section, read_yaml
from pipeline.domain import Domain
from pipeline.errors import ConfigError, GridError
from pipeline.grid import PIXELS_PER_M, Tile, Window
from pipeline.legend import OptionalLayer

EngineName = Literal["auto", "torch", "openvino"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
CampaignPrecision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
ClusterKind = Literal["local", "cuda", "slurm"]
LimitName = Literal["resolution", "bit_depth", "territory", "radiometry", "height_encoding", "whole_window", "halo"]
"""Limits that the models' cards state, and two that seams come from: `whole_window`, networks whose windows show seams
in any layout, and `halo`, a halo that is smaller than the recipe's smallest.
`pipeline.sources.inspection.model_card_limits` explains and checks them."""

METROPOLITAN_FRANCE_KM = (90.0, 6040.0, 1250.0, 7120.0)
"""Metropolitan France with Corsica in EPSG:2154: (left, bottom, right, top), each a multiple of 5 km."""
MOST_UNIT_M2 = 10_000.0
"""Largest minimum mapping unit: what surrounds a tile grows with it."""
_OCSGE_M2 = {1: 200.0}
"""FLAIR value → minimum area of the preset `ocsge`; 500 m² for all others."""
MOST_KM = 10_000.0
"""Largest coordinate of a lattice: tile names have four digits of kilometres."""


class DomainSection(Section):
    """One domain and the file of its boundary."""

    name: Domain
    """Name of the domain, `D034_2021`: département 034, imagery of 2021."""
    boundary: ConfigPath | None = None
    """GeoJSON polygon of the département, in EPSG:4326 or with a `crs` member. It decides who owns the pixels along
    borders."""


class OutputSection(Section):
    """Where products are written, and the extent and chunks of the national store."""

    domains: ConfigPath = Field(default=Path("products"), validate_default=True)
    """Folder of the domain products, with one folder for each domain."""
    national: ConfigPath = Field(default=Path("national"), validate_default=True)
    """Folder of the national product."""
    extent_km: tuple[float, float, float, float] = METROPOLITAN_FRANCE_KM
    """(left, bottom, right, top) of the national store in km of the lattice's CRS; a multiple of the tile. The default
    is metropolitan France in EPSG:2154; a campaign overseas gives its own, which `landcover plan` proposes."""
    chunk: int = Field(default=1_000, ge=1)
    """Side of the national store's inner chunks in pixels. It divides the shard."""
    shard: int | None = Field(default=None, ge=1)
    """Side of the national store's shards in pixels. It divides the tile; by default it is the tile."""
    attribution: str = "IGN"
    """Producer of the imagery, named as its licence requires."""
    zones: ConfigPath | None = None
    """Polygons with a CRS, such as communes, whose class shares the map page lists: GeoPackage, Shapefile, FlatGeobuf
    or GeoJSON. A publish writes their outlines into the edition's `map/`."""
    zones_name: str = "nom"
    """The attribute of `zones` with their names."""


class ClusterSection(Section):
    """Where tasks run: workers are processes; their threads read, and one at a time computes.

    Nothing here changes a byte of a map.
    """

    kind: ClusterKind = "local"
    """`local`: this machine's processors. `cuda`: its GPUs, one worker each. `slurm`: all nodes of the SLURM job that
    this process runs in."""
    scheduler: str | None = None
    """Address or scheduler file of a running Dask cluster, to use instead of a kind."""
    dashboard: bool = False
    """Whether the scheduler serves Dask's dashboard, to every user of its machine."""
    workers: int = Field(default=1, ge=1, le=10_000)
    """Worker processes on this machine, or on each node of a job. With GPUs there is one for each GPU instead."""
    threads: int = Field(default=2, ge=1, le=10_000)
    """Tasks that a worker runs at once."""
    tiles_in_flight: int = Field(default=2, ge=1, le=10_000)
    """Tiles for each worker that are submitted and not yet sealed: this bounds memory."""
    gdal_cache_mb: int = Field(default=512, ge=16, le=1_000_000)
    """GDAL's block cache in each worker, in MiB."""
    decoded_cache_mb: int = Field(default=640, ge=0, le=1_000_000)
    """Decoded tiles of imagery that each worker keeps until the last block that needs them was read, in MiB. With 0
    they are decoded again."""
    memory_bytes: int | None = Field(default=None, ge=1)
    """Memory that a worker may take. A run whose projection exceeds it does not start. No limit by default."""
    device_memory_bytes: int | None = Field(default=None, ge=1)
    """The same limit for the memory of the worker's GPU."""
    folder: ConfigPath | None = None
    """For kind `slurm`: a folder that every node can read, for keys and addresses. By default `.clusters` beside the
    products."""
    wait_s: float = Field(default=300, gt=0, le=1e6)
    """Seconds to wait for the first worker."""
    lost_s: float = Field(default=60, gt=0, le=1e6)
    """Seconds without any worker, or without an answer from the scheduler, after which the cluster counts as lost."""


class LimitsSection(Section):
    """Limits for each domain: `landcover verify` fails where one is exceeded. None: the figure is only reported.

    Limits are no part of a fingerprint, so changing them maps nothing again.
    """

    missing_tiles: int = Field(default=0, ge=0)
    """Tiles of the input catalog that are not sealed, for any reason."""
    no_data_share: float | None = Field(default=None, ge=0, le=1)
    """Share of the sealed pixels that are nodata."""
    hole_share: float | None = Field(default=None, ge=0, le=1)
    """Share of the area without elevation, over the tiles whose holes `landcover stage` counted."""
    novel_share: float | None = Field(default=None, ge=0, le=1)
    """Share of the tiles with a novelty score whose score is above 1: imagery unlike that of the training."""
    seam_ratio: float | None = Field(default=None, gt=0)
    """Class changes across window, block or tile edges, divided by those beside them. The limit is exceeded where a
    ratio is above it by more than three standard errors."""


class GeneraliseSection(Section):
    """Minimum mapping units of the generalised map, which `landcover generalise` makes beside the map itself.

    Patches that are smaller go to their neighbours. Nothing here changes a byte of other maps.
    """

    preset: Literal["ocsge"] | None = None
    """`ocsge`: 200 m² for buildings and 500 m² for all other classes, as in IGN's OCS GE."""
    minimum_m2: dict[str, Annotated[float, Field(ge=0, le=MOST_UNIT_M2)]] = Field(default={})
    """Class or group of classes → smallest area of a patch in m², such as `{building: 100, woodland: 1000}`, instead of
    the preset's. Classes without one keep all their patches."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not any(self.units):
            raise ValueError("expected a preset or minimum_m2: no class has a minimum area")
        return self

    @property
    def units(self) -> tuple[int, ...]:
        """Smallest number of pixels of a patch of each class, by FLAIR value from 0 (nodata) on."""
        given = {value: _OCSGE_M2.get(value, 500.0) if self.preset else 0.0 for value in legend.BY_VALUE}
        try:
            # Groups first, so that a class that is named itself has its own.
            for name in sorted(self.minimum_m2, key=lambda name: -len(legend.members(name))):
                given |= dict.fromkeys(legend.members(name), self.minimum_m2[name])
        except ConfigError as error:
            raise ValueError(f"minimum_m2: {error}") from error
        return (0, *(math.ceil(given[value] * PIXELS_PER_M**2) for value in sorted(given)))


class Campaign(Section):
    """What to map, with which network, on which grid, and where to write it."""

    name: PlainName
    """Name of the campaign: letters, digits, `_`, `-` and `.`. It is written into each product."""
    catalog: ConfigPath
    """Folder of the input catalog that `landcover index` writes."""
    model: ModelSection
    domains: tuple[DomainSection, ...] = Field(min_length=1)
    engine: EngineName = "auto"
    """What runs the network. `auto` is PyTorch where there is a CUDA device, else OpenVINO where it is installed, else
    PyTorch; the choice is made when the run starts, and recorded."""
    precision: CampaignPrecision = "fp32"
    """Arithmetic of the network; part of the fingerprint. `fp16` needs CUDA, `int8` needs OpenVINO. `auto` is the
    fastest that `landcover quantize --check` showed to agree with fp32 on at least `minimum_agreement`, else `fp32`;
    the choice is made once for the campaign."""
    minimum_agreement: float | None = Field(default=None, gt=0, le=1, exclude_if=lambda share: share is None)
    """For `precision: auto`: share of the pixels that must have the class that fp32 gives them, in each domain that was
    left out of the quantization. Without it `auto` is `fp32`."""
    engine_threads: int | None = Field(default=None, ge=1, le=10_000)
    """Threads of the engine in each worker. By default the machine's cores divided by its workers, and recorded."""
    torch_compile: bool = False
    """With PyTorch: fuse the network with `torch.compile`, which takes minutes when a worker starts. Fused operations
    round differently, so this is part of the fingerprint."""
    grid: GridSection = GridSection()
    output: OutputSection = Field(default_factory=lambda: cast("OutputSection", {}), validate_default=True)
    cluster: ClusterSection = ClusterSection()
    limits: LimitsSection = LimitsSection()
    generalise: GeneraliseSection | None = None
    layers: tuple[OptionalLayer, ...] = ()
    """Optional layers beside the map, in folders of their own: `probabilities`, a byte for each live class, and
    `disagreement` between the forwards of `members` or `tta`. Each has a fingerprint of its own: adding one leaves
    sealed maps as they are, and repeats their forwards."""
    accept_limits: tuple[LimitName, ...] = ()
    """Limits of the model's card that this campaign exceeds on purpose. A domain that exceeds others is refused."""
    base: Path = Field(default=Path(), exclude=True)
    """Folder of the YAML file; `load_campaign` sets it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [d.name for d in self.domains]
        if len(set(names)) != len(names):
            raise ValueError(f"a domain is listed twice: {', '.join(names)}")
        if len(set(self.layers)) != len(self.layers):
            raise ValueError(f"a layer is listed twice: {', '.join(self.layers)}")
        if "disagreement" in self.layers and len(self.model.networks) == 1 and self.model.tta == "none":
            raise ValueError("the layer disagreement needs several forwards: set model.members or model.tta")
        if self.precision == "int8" and self.model.quantized is None:
            raise ValueError("precision int8 needs model.quantized: the XML file that `landcover quantize` writes")
        if self.minimum_agreement is not None and self.precision != "auto":
            raise ValueError("minimum_agreement is for precision: auto; remove it, or set precision: auto")
        if self.grid.auto and self.cluster.memory_bytes is None:
            raise ValueError(
                "grid: auto needs cluster.memory_bytes, the memory that a worker may take, such as 8_000_000_000"
            )
        tile, shard, chunk = self.grid.tile, self.shard, self.output.chunk
        if tile % shard or shard % chunk:
            raise ValueError(f"chunk {chunk} must divide shard {shard}, and shard {shard} must divide tile {tile} (px)")
        tile_km = tile / (1000 * PIXELS_PER_M)
        left, bottom, right, top = self.output.extent_km
        whole = all(abs(e / tile_km - round(e / tile_km)) < 1e-6 for e in self.output.extent_km)
        if left >= right or bottom >= top or not whole or max(map(abs, self.output.extent_km)) > MOST_KM:
            raise ValueError(
                f"extent_km must be (left, bottom, right, top) in multiples of a tile, {tile_km} km, up to {MOST_KM}; "
                f"found {self.output.extent_km}"
            )
        return self

    @property
    def boundaries(self) -> dict[Domain, Path]:
        """Domain → the file of its boundary, where it has one."""
        return {section.name: section.boundary for section in self.domains if section.boundary}

    @property
    def shard(self) -> int:
        """Side of the national store's shards in pixels."""
        return self.output.shard or self.grid.tile

    @property
    def stated_precision(self) -> Precision:
        """The precision.

        Raises:
            ConfigError: it is `auto` and not resolved.
        """
        if self.precision == "auto":
            raise ConfigError("precision is auto and not resolved yet; run `landcover plan` first")
        return self.precision

    @property
    def extent(self) -> Window:
        """Extent of the national store on the lattice."""
        left, bottom, right, top = (round(e * 1000 * PIXELS_PER_M) for e in self.output.extent_km)
        return Window.from_edges(-top, left, -bottom, right)

    @property
    def networks(self) -> tuple[MemberSection, ...]:
        """The networks, with the weights as `load_model` takes them."""
        return self.model.networks_from(self.base)

    @property
    def weights(self) -> str:
        """The weights of the only network, as `load_model` takes them.

        Raises:
            ConfigError: the campaign averages several networks.
        """
        if len(self.networks) > 1:
            raise ConfigError(f"campaign {self.name} averages {len(self.networks)} networks; expected a single one")
        return self.networks[0].weights

    def recipes(self) -> tuple[Recipe, ...]:
        """Reads the recipe of each network.

        Raises:
            ConfigError: there is no such recipe, or it is not valid.
        """
        try:
            return tuple(load_recipe(network.recipe, base=self.base) for network in self.model.networks)
        except ConfigError as error:
            raise ConfigError(f"campaign {self.name} in {self.base}: model.recipe: {error}") from error

    def recipe(self) -> Recipe:
        """Reads the recipe of the campaign's network, or the joint one of its networks.

        Raises:
            ConfigError: there is no such recipe, it is not valid, or the networks' recipes do not fit each other.
        """
        return joint_recipe(self.recipes())

    def product_folder(self, domain: Domain) -> Path:
        """Folder of a domain's product: its COGs, items and run record."""
        return self.output.domains / domain

    def on_cluster(
        self, kind: ClusterKind | None = None, scheduler: str | None = None, *, dashboard: bool = False
    ) -> Self:
        """This campaign on another kind of cluster, or on the running cluster of a scheduler; or with a dashboard."""
        chosen: dict[str, object] = {"dashboard": True} if dashboard else {}
        if kind or scheduler:
            chosen |= {"kind": kind or self.cluster.kind, "scheduler": scheduler}
        return self.model_copy(update={"cluster": self.cluster.model_copy(update=chosen)})

    def domain(self, name: str) -> DomainSection:
        """The section of the domain of this name.

        Raises:
            ConfigError: the campaign has no domain of this name.
        """
        for section in self.domains:
            if section.name == name:
                return section
        raise ConfigError(f"unknown domain {name!r}: the campaign has {', '.join(d.name for d in self.domains)}")

    def tile(self, name: str) -> Tile:
        """The tile of this name, such as `0595-6890`, at the campaign's tile size.

        Raises:
            ConfigError: not the name of a tile.
        """
        try:
            return Tile.named(name, self.grid.tile)
        except GridError as error:
            raise ConfigError(str(error)) from error


def load_campaign(path: Path | str) -> Campaign:
    """Reads and checks a campaign. Relative paths in it start at the folder of the file.

    Args:
        path: the YAML file.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, or values do not fit each other. The message
            names the file and each key.

    Examples:
        >>> campaign = load_campaign("build/demo/campaign.yaml")
        >>> campaign.recipe().stride
        32
    """
    path = Path(path)
    return read_yaml(Campaign, path, base=path.absolute().parent)

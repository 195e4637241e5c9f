"""The campaign: one YAML in which stands everything that a result depends on; and the recipe of its network.

Nothing here opens data: `load_campaign` reads the YAML, makes its paths absolute against the YAML's folder, and
checks that sizes fit each other.
"""

from pathlib import Path
from typing import Any, Literal, Self, cast

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pipeline import legend
from pipeline.config.cluster import ClusterKind, ClusterSection
from pipeline.config.section import Located, Section, config_folder, read_yaml
from pipeline.domain import Domain
from pipeline.errors import ConfigError, GridError
from pipeline.grid import PIXELS_PER_M, Layout, Tile, Window

DEFAULT_RECIPE = "flair-inc_rgbie_12cl_resnet34-unet"
Band = Literal["red", "green", "blue", "nir", "elevation"]
EngineName = Literal["auto", "torch", "openvino"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Architecture = Literal[
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "pan",
    "deeplabv3",
    "deeplabv3plus",
    "upernet",
    "segformer",
]
"""What segmentation-models-pytorch builds on any encoder, by its own names."""
LimitName = Literal["resolution", "bit_depth", "territory", "radiometry", "height_encoding", "whole_window"]
"""What the models' cards say that they are not for, and networks that no layout of windows maps without seams;
`pipeline.sources.inspection.model_card_limits` says why and looks for it."""

_POOLING: frozenset[Architecture] = frozenset({"manet", "pspnet", "pan", "deeplabv3", "deeplabv3plus", "upernet"})
"""Decoders with attention or pooling over all that the network sees at once."""

_FRANCE_KM = (90.0, 6040.0, 1250.0, 7120.0)
"""Metropolitan France with Corsica in EPSG:2154, each edge a multiple of 5 km."""


class Recipe(Section):
    """How a network's numbers become classes: bands, normalisation, and which logits are used.

    Every key changes the bytes of a product, so the whole recipe is part of the fingerprint.
    """

    name: str = Field(pattern=r"^[\w.\-]+$")
    """Name of the recipe: letters, digits, `_`, `-` and `.`."""
    architecture: Architecture = "unet"
    """Decoder of segmentation-models-pytorch."""
    encoder: str = "resnet34"
    """Name of the encoder in segmentation-models-pytorch."""
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    """Channels of the U-Net's five decoder blocks. Other architectures ignore it."""
    stride: int = Field(default=32, ge=1)
    """Stride of the network in pixels. Windows begin on its multiples, because the map depends on where they begin."""
    bands: tuple[Band, ...] = ("red", "green", "blue", "nir", "elevation")
    """Input channels, in the network's order."""
    mean: tuple[float, ...]
    """Mean of each channel, on the scale 0..255."""
    std: tuple[float, ...]
    """Standard deviation of each channel, on the scale 0..255; above 0."""
    logits: int = Field(default=19, ge=2, le=19)
    """Output channels of the network; logit i belongs to FLAIR class i + 1."""
    live: tuple[int, ...]
    """FLAIR values 1..19 that may appear in a map. All other logits are masked before the argmax."""
    height_step_m: float = Field(default=0.2, gt=0)
    """Metres of height for one unit of the elevation band, whose values are clipped to 0..255."""
    temperature: float = Field(default=1.0, gt=0)
    """Logits are divided by this number before the softmax: a value above 1 lowers confidences. `landcover calibrate`
    fits it. It changes no pixel's class."""
    licence: str = "etalab-2.0"
    """Licence of the weights (SPDX identifier in lower case)."""
    citation: str = ""
    """Citation of the weights, written into each product."""
    doi: str = ""
    """DOI of the citation."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        n = len(self.bands)
        if len(set(self.bands)) != n:
            raise ValueError(f"bands {self.bands} name one band twice")
        if len(self.mean) != n or len(self.std) != n:
            raise ValueError(f"{n} bands want {n} means and stds; got {len(self.mean)} and {len(self.std)}")
        if min(self.std) <= 0:
            raise ValueError(f"stds are above 0; got {self.std}")
        if len(self.live) < 2 or any(v not in legend.BY_VALUE or v > self.logits for v in self.live):
            raise ValueError(f"live wants two or more FLAIR values of 1..{self.logits}; got {self.live}")
        if tuple(sorted(set(self.live))) != self.live:
            raise ValueError(f"live wants each value once, ascending; got {self.live}")
        return self

    @property
    def pools_whole_window(self) -> bool:
        """Whether each pixel's class depends on its whole window, so that seams show where two windows meet.

        By the decoder; what an encoder does (squeeze-and-excitation, attention) its name does not tell.
        """
        return self.architecture in _POOLING

    @model_serializer(mode="wrap")
    def _without_what_changes_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A temperature of 1 is left out: maps that were made before there was one keep their fingerprints."""
        content: dict[str, Any] = dump(self)
        if self.temperature == 1.0:
            content.pop("temperature", None)
        return content


class ModelSection(Section):
    """Which weights under which recipe."""

    weights: str
    """Path of the checkpoint (relative to the campaign's folder), or `hf://org/name[/file]` on the Hugging Face hub."""
    recipe: str = DEFAULT_RECIPE
    """Name of a recipe under `configs/models/`, or the path of a recipe's YAML."""
    quantized: Located | None = None
    """The XML that `landcover quantize` made from these weights. Only `precision: int8` reads it."""


class DomainSection(Section):
    """One département and vintage, and where its polygon is."""

    name: Domain
    """Name of the domain, `D034_2021`: département 034, imagery of 2021."""
    boundary: Located | None = None
    """GeoJSON polygon of the département, in EPSG:4326 or with a `crs` member. It decides who owns the pixels along
    borders."""


class GridSection(Section):
    """Sizes in pixels of 0.20 m: the core divides the block, and the block divides the tile."""

    tile: int = Field(default=25_000, ge=50, le=50_000)
    """Side of a tile: the unit that is sealed and published. 25 000 px are 5 km."""
    block: int = Field(default=5_000, ge=1)
    """Side of a block: one Dask task. It divides the tile."""
    core: int = Field(default=2_500, ge=1)
    """Side of the part of a window that is kept. It divides the block."""
    halo: int = Field(default=160, ge=0)
    """Pixels on each side of the core that the network sees and that are thrown away."""
    window: int = Field(default=2_848, ge=1)
    """Side of what the network sees at once: at least the core and two halos, rounded up to the stride."""

    def layout(self, stride: int) -> Layout:
        """The windows' layout for a network of this stride.

        Raises:
            ConfigError: sizes that do not divide each other or a core that loses its halo.
        """
        layout = Layout(core=self.core, halo=self.halo, window=self.window, stride=stride)
        layout.check_block(self.block, self.tile)
        return layout


class OutputSection(Section):
    """Where products are written, and the extent and chunks of the national store."""

    domains: Located = Field(default=Path("products"), validate_default=True)
    """Folder of the domain products, with one folder for each domain."""
    national: Located = Field(default=Path("national"), validate_default=True)
    """Folder of the national product."""
    extent_km: tuple[float, float, float, float] = _FRANCE_KM
    """(left, bottom, right, top) of the national store in km of the lattice's CRS; a multiple of the tile. The default
    is metropolitan France in EPSG:2154; a campaign overseas gives its own, which `landcover plan` proposes."""
    chunk: int = Field(default=1_000, ge=1)
    """Side of the national store's inner chunks in pixels. It divides the shard."""
    shard: int | None = Field(default=None, ge=1)
    """Side of the national store's shards in pixels. It divides the tile; by default it is the tile."""
    attribution: str = "IGN"
    """Producer of the imagery, named as its licence asks."""


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
    seam_ratio: float | None = Field(default=None, gt=0)
    """Class changes across window, block or tile edges, divided by those beside them. The limit is exceeded where a
    ratio is above it by more than three standard errors."""


class Campaign(Section):
    """What to map, with which network, on which grid, and where to write it."""

    name: str = Field(pattern=r"^[\w.\-]+$")
    """Name of the campaign: letters, digits, `_`, `-` and `.`. It is written into each product."""
    catalog: Located
    """Folder of the input catalog that `landcover index` writes."""
    model: ModelSection
    domains: tuple[DomainSection, ...] = Field(min_length=1)
    engine: EngineName = "auto"
    """What runs the network. `auto` is PyTorch where there is a CUDA device, else OpenVINO where it is installed, else
    PyTorch; the choice is made when the run starts, and recorded."""
    precision: Precision = "fp32"
    """Arithmetic of the network; part of the fingerprint. `fp16` needs CUDA, `int8` needs OpenVINO."""
    engine_threads: int | None = Field(default=None, ge=1)
    """Threads of the engine in each worker. By default the machine's cores divided by its workers, and recorded."""
    torch_compile: bool = False
    """With PyTorch: fuse the network with `torch.compile`, which takes minutes when a worker starts. Fused operations
    round differently, so this is part of the fingerprint."""
    grid: GridSection = GridSection()
    output: OutputSection = Field(default_factory=lambda: cast("OutputSection", {}), validate_default=True)
    cluster: ClusterSection = ClusterSection()
    limits: LimitsSection = LimitsSection()
    accept_limits: tuple[LimitName, ...] = ()
    """Limits of the model's card that this campaign exceeds on purpose. A domain that exceeds others is refused."""
    base: Path = Field(default=Path(), exclude=True)
    """The YAML's folder; set on load."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [d.name for d in self.domains]
        if len(set(names)) != len(names):
            raise ValueError(f"a domain is named twice: {names}")
        if self.precision == "int8" and self.model.quantized is None:
            raise ValueError("precision int8 wants model.quantized, the XML that `landcover quantize` makes")
        tile, shard, chunk = self.grid.tile, self.shard, self.output.chunk
        if tile % shard or shard % chunk:
            raise ValueError(f"chunk {chunk} must divide shard {shard}, and that the tile {tile} px")
        tile_km = tile / (1000 * PIXELS_PER_M)
        left, bottom, right, top = self.output.extent_km
        whole = all(abs(e / tile_km - round(e / tile_km)) < 1e-6 for e in self.output.extent_km)
        if left >= right or bottom >= top or not whole:
            raise ValueError(f"extent_km {self.output.extent_km} is no rectangle of whole tiles of {tile_km} km")
        return self

    @property
    def shard(self) -> int:
        """The national store's shard in pixels."""
        return self.output.shard or self.grid.tile

    @property
    def extent(self) -> Window:
        """The national store on the lattice."""
        left, bottom, right, top = (round(e * 1000 * PIXELS_PER_M) for e in self.output.extent_km)
        return Window.from_edges(-top, left, -bottom, right)

    @property
    def weights(self) -> str:
        """The weights as `model.load` takes them: an absolute path, or `hf://…`."""
        given = self.model.weights
        return given if given.startswith("hf://") else str(Path(self.base, Path(given).expanduser()).absolute())

    def on_cluster(self, kind: ClusterKind | None = None, scheduler: str | None = None) -> Self:
        """This campaign on another cluster: of this kind, or the running one of this scheduler."""
        if kind is None and scheduler is None:
            return self
        chosen = {"kind": kind or self.cluster.kind, "scheduler": scheduler}
        return self.model_copy(update={"cluster": self.cluster.model_copy(update=chosen)})

    def domain(self, name: str) -> DomainSection:
        """The domain of this name.

        Raises:
            ConfigError: the campaign has none of this name.
        """
        for section in self.domains:
            if section.name == name:
                return section
        raise ConfigError(f"unknown domain {name!r}: the campaign has {', '.join(d.name for d in self.domains)}")

    def tile(self, name: str) -> Tile:
        """The tile of this name at the campaign's tile size.

        Raises:
            ConfigError: it is no such name.
        """
        try:
            return Tile.named(name, self.grid.tile)
        except GridError as error:
            raise ConfigError(str(error)) from error


def load_recipe(name_or_path: str, *, base: Path = Path()) -> Recipe:
    """A recipe by its name under `configs/models/`, or by the path of its YAML (from `base`).

    Raises:
        ConfigError: there is none, or it does not hold.
    """
    shipped = config_folder() / "models"
    if "/" not in name_or_path and not name_or_path.endswith((".yaml", ".yml")):
        path = shipped / f"{name_or_path}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in shipped.glob("*.yaml")))
            raise ConfigError(f"unknown recipe {name_or_path!r}: expected a path to a YAML or one of {known}")
    else:
        path = Path(base, Path(name_or_path).expanduser())
    return read_yaml(Recipe, path)


def load_campaign(path: Path) -> Campaign:
    """Reads and checks a campaign; its paths become absolute against the YAML's folder.

    Raises:
        ConfigError: no such file, no YAML, an unknown key, or values that do not fit each other; the
            message names the file and each key.
    """
    base = path.absolute().parent
    return read_yaml(Campaign, path, base=base)

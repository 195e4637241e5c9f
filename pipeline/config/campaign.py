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
    """How a network's numbers become classes: bands, normalisation, and which logits live.

    Everything here changes bytes of a product, so the whole recipe is part of the fingerprint.
    """

    name: str = Field(pattern=r"^[\w.\-]+$")
    architecture: Architecture = "unet"
    """A decoder of segmentation-models-pytorch."""
    encoder: str = "resnet34"
    """An encoder's name in segmentation-models-pytorch."""
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    """Channels of the U-Net's five decoder blocks; no other architecture reads it."""
    stride: int = Field(default=32, ge=1)
    """The network commutes only with shifts of this many pixels."""
    bands: tuple[Band, ...] = ("red", "green", "blue", "nir", "elevation")
    """Input channels, in order."""
    mean: tuple[float, ...]
    """Channel means in units of uint8, 0..255."""
    std: tuple[float, ...]
    """Channel standard deviations in units of uint8, above 0."""
    logits: int = Field(default=19, ge=2, le=19)
    """Output channels of the network; logit i is FLAIR class i + 1."""
    live: tuple[int, ...]
    """FLAIR values 1..19 that may appear; every other logit is masked before the argmax."""
    height_step_m: float = Field(default=0.2, gt=0)
    """Metres of one unit of the elevation band, clipped to 0..255."""
    temperature: float = Field(default=1.0, gt=0)
    """What logits are divided by before the softmax: above 1 the confidence sinks. `landcover calibrate` fits it; the
    class of a pixel does not depend on it."""
    licence: str = "etalab-2.0"
    """Licence of the weights (SPDX identifier in lower case)."""
    citation: str = ""
    """How the weights want to be cited."""
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
    """A path (relative to the campaign's folder) or `hf://org/name[/file]`."""
    recipe: str = DEFAULT_RECIPE
    """A name under `configs/models/`, or the path of a recipe's YAML."""
    quantized: Located | None = None
    """The XML that `landcover quantize` made of these weights; what precision int8 runs, read by no other."""


class DomainSection(Section):
    """One département and vintage, and where its polygon is."""

    name: Domain
    boundary: Located | None = None
    """GeoJSON polygon in EPSG:4326 or with a `crs` member; it decides the owner of pixels along borders."""


class GridSection(Section):
    """Tile, block, core, halo and window in pixels; each divides the one before."""

    tile: int = Field(default=25_000, ge=50, le=50_000)
    block: int = Field(default=5_000, ge=1)
    core: int = Field(default=2_500, ge=1)
    halo: int = Field(default=160, ge=0)
    window: int = Field(default=2_848, ge=1)

    def layout(self, stride: int) -> Layout:
        """The windows' layout for a network of this stride.

        Raises:
            ConfigError: sizes that do not divide each other or a core that loses its halo.
        """
        layout = Layout(core=self.core, halo=self.halo, window=self.window, stride=stride)
        layout.check_block(self.block, self.tile)
        return layout


class OutputSection(Section):
    """Where products go, and the national store's extent and chunks."""

    domains: Located = Field(default=Path("products"), validate_default=True)
    """Folder of the domain products: one folder a domain."""
    national: Located = Field(default=Path("national"), validate_default=True)
    """Folder of the national product."""
    extent_km: tuple[float, float, float, float] = _FRANCE_KM
    """(left, bottom, right, top) of the national store in km of the lattice's CRS; whole tiles. By default France in
    EPSG:2154; a territory overseas gives its own."""
    chunk: int = Field(default=1_000, ge=1)
    """Inner chunk of the national store in pixels; divides the shard."""
    shard: int | None = Field(default=None, ge=1)
    """Shard in pixels: a whole part of a tile; by default the tile."""
    attribution: str = "IGN"
    """Producer of the imagery, as its licence wants it named."""


class LimitsSection(Section):
    """Beyond which `landcover verify` fails, of each domain; None: it is only reported. No fingerprint knows them."""

    missing_tiles: int = Field(default=0, ge=0)
    """Tiles of the input catalogue that are not sealed, whatever the reason."""
    no_data_share: float | None = Field(default=None, ge=0, le=1)
    """Share of the sealed pixels that are no data."""
    hole_share: float | None = Field(default=None, ge=0, le=1)
    """Share of the tiles' area without elevation, of those whose holes `landcover stage` counted."""
    seam_ratio: float | None = Field(default=None, gt=0)
    """Of window, block or tile edges each; passed where the ratio is above it by more than three standard errors."""


class Campaign(Section):
    """What to map, with what, onto which grid, and where to put it."""

    name: str = Field(pattern=r"^[\w.\-]+$")
    catalog: Located
    """The input catalogue's folder, as `landcover index` writes it."""
    model: ModelSection
    domains: tuple[DomainSection, ...] = Field(min_length=1)
    engine: EngineName = "auto"
    """`auto` is resolved at submission and recorded."""
    precision: Precision = "fp32"
    """Arithmetic of the forward; part of the fingerprint."""
    engine_threads: int | None = Field(default=None, ge=1)
    """Threads of the engine a worker; by default the machine's cores over its workers, recorded too."""
    torch_compile: bool = False
    """With engine torch: `torch.compile` fuses the graph, which takes minutes at a worker's start. Fused operations
    round elsewhere, so it is part of the fingerprint."""
    grid: GridSection = GridSection()
    output: OutputSection = Field(default_factory=lambda: cast("OutputSection", {}), validate_default=True)
    cluster: ClusterSection = ClusterSection()
    limits: LimitsSection = LimitsSection()
    accept_limits: tuple[LimitName, ...] = ()
    """Limits of the model's card that this campaign passes knowingly; a domain indexed past others is refused."""
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

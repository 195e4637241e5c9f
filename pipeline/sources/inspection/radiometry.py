"""Means and deviations of the imagery's levels, by tile, beside those of the training images."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Recipe
from pipeline.sources.domain_inputs import IMAGERY, DomainInputs
from pipeline.sources.inspection.lowest_level import BandSums, LowestLevel, cache_key
from pipeline.sources.inspection.scan_cache import CACHE_FILE, ScanCache

MEAN_STDS = 1.0
"""How far a domain's mean may lie from the training mean, in training standard deviations.

The spread of the 75 training domains is not published. The published deviation is over all pixels, so its square is the
variance inside domains plus that between them. Even if half of it lay between domains, one such deviation would be 1.4
of theirs. Single patches of 100 m lie up to 1.4 off (bare rock); a département averages 10⁹ pixels.
"""
STD_RATIO = (1 / 3, 2.0)
"""Limits of a domain's deviation over the training deviation. Small values are allowed because the lowest resolution
levels are averages; five real patches have 0.44..1.25."""


SMALL_KM2 = 25.0
"""Area of a tile. A smaller image may show one kind of ground only."""
_SMALL_MEAN_STDS = 2.0
"""`MEAN_STDS` of small images: five real patches of 100 m lie up to 1.4 off. Their deviation may be small (water)."""


@dataclass(frozen=True)
class BandLevels:
    """Mean and deviation of a band and of the training images, in levels 0..255."""

    band: str
    mean: float
    std: float
    trained_mean: float
    trained_std: float

    @property
    def off(self) -> float:
        """Distance of the mean from the training mean, in training deviations."""
        return (self.mean - self.trained_mean) / self.trained_std

    @property
    def outlying(self) -> bool:
        """True if `index` would refuse a whole domain with these levels, see `model_card_limits`."""
        return self.beyond(mean_stds=MEAN_STDS, std_ratio=STD_RATIO)

    def beyond(self, *, mean_stds: float, std_ratio: tuple[float, float]) -> bool:
        """True if mean or deviation is outside of these limits."""
        return abs(self.off) > mean_stds or not std_ratio[0] <= self.std / self.trained_std <= std_ratio[1]


def limits_of(area_km2: float) -> tuple[float, tuple[float, float]]:
    """(limit of the mean's distance, limits of the deviation's ratio) for an image of this area."""
    return (_SMALL_MEAN_STDS, (0.0, STD_RATIO[1])) if area_km2 < SMALL_KM2 else (MEAN_STDS, STD_RATIO)


def levels(sums: BandSums, recipe: Recipe) -> tuple[BandLevels, ...]:
    """Levels of the recipe's imagery bands, from sums over the components of RVB and then those of IRC, if any."""
    return tuple(
        BandLevels(band, float(sums.mean[at]), float(sums.std[at]), mean, std)
        for band, mean, std in zip(recipe.bands, recipe.mean, recipe.std, strict=True)
        if band in IMAGERY and (at := IMAGERY.index(band)) < len(sums.first)
    )


def cached_levels(catalog: Path, inputs: DomainInputs) -> dict[str, BandSums]:
    """Tile → sums over its lowest resolution level, for the tiles in the domain's scan cache; opens no image."""
    cache = ScanCache(catalog / inputs.domain / CACHE_FILE)
    found = {}
    for tile in inputs.tiles:
        signatures: dict[str, str] = {a.kind: a.signature for a in tile.assets if a.kind in ("rvb", "irc")}
        stated = any(a.validity for a in tile.assets)
        entry = cache.get(cache_key(signatures.get("rvb"), signatures.get("irc"), stated=stated))
        if entry is not None:
            found[tile.tile.name] = LowestLevel.from_json(entry).sums
    return found

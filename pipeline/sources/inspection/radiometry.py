"""The imagery's levels tile by tile, as `index` saw them, beside those that a network was trained on."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Recipe
from pipeline.sources.domain_inputs import IMAGERY, DomainInputs
from pipeline.sources.inspection.lowest_level import Look, Sums, look_key
from pipeline.sources.inspection.model_card_limits import MEAN_STDS, STD_RATIO
from pipeline.sources.inspection.scan_cache import JOURNAL_FILE, Journal


@dataclass(frozen=True)
class BandLevels:
    """Mean and deviation of a band, beside the training images'; levels 0..255."""

    band: str
    mean: float
    std: float
    trained_mean: float
    trained_std: float

    @property
    def off(self) -> float:
        """Training deviations by which the mean lies off the training mean."""
        return (self.mean - self.trained_mean) / self.trained_std

    @property
    def outlying(self) -> bool:
        """True where `index` would refuse a whole domain of it: see `limits`."""
        return abs(self.off) > MEAN_STDS or not STD_RATIO[0] <= self.std / self.trained_std <= STD_RATIO[1]


def levels(sums: Sums, recipe: Recipe) -> tuple[BandLevels, ...]:
    """The recipe's imagery bands, of sums over three components of RVB, then those of IRC where there are any."""
    return tuple(
        BandLevels(band, float(sums.mean[at]), float(sums.std[at]), mean, std)
        for band, mean, std in zip(recipe.bands, recipe.mean, recipe.std, strict=True)
        if band in IMAGERY and (at := IMAGERY.index(band)) < len(sums.first)
    )


def seen_levels(catalog: Path, inputs: DomainInputs) -> dict[str, Sums]:
    """Tile → sums over its lowest resolution level, of the tiles that the domain's index remembers.

    Reads what `index` wrote down beside the items; no image is opened.
    """
    journal = Journal(catalog / inputs.domain / JOURNAL_FILE)
    found = {}
    for tile in inputs.tiles:
        signatures: dict[str, str] = {a.kind: a.signature for a in tile.assets if a.kind in ("rvb", "irc")}
        entry = journal.get(look_key(signatures.get("rvb"), signatures.get("irc")))
        if entry is not None:
            found[tile.tile.name] = Look.of_json(entry).sums
    return found

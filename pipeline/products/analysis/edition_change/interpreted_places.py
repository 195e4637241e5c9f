"""Reads the sample of a change after people have looked at its places."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray

from pipeline import legend
from pipeline.errors import ProductError
from pipeline.products.analysis.edition_change.comparison import KINDS
from pipeline.products.analysis.edition_change.places import LAYER, STRATA
from pipeline.untrusted.vector_files import reading_features

_NEEDED = ("place", "stratum", "stratum_m2", "stratum_places", "reference_from", "reference_to", "x", "y")
_EXPECTED = "a sample of `landcover change`"


@dataclass(frozen=True, eq=False)
class InterpretedPlaces:
    """The places of a sample, in any order."""

    strata: NDArray[np.int64]
    """int64 (place,): position in `STRATA`."""
    before: NDArray[np.int64]
    """int64 (place,): FLAIR value that people saw at the first date."""
    after: NDArray[np.int64]
    areas_m2: tuple[float, ...]
    """Area of each stratum; 0 for one without places."""


def is_sample_of_change(path: Path) -> bool:
    """Whether a file is a sample that `landcover change` drew.

    Raises:
        ProductError: it cannot be read.
    """
    with reading_features(path, ProductError, expected="a sample") as name:
        return LAYER in pyogrio.list_layers(name)[:, 0]


def read_places(path: Path) -> InterpretedPlaces:
    """Reads an interpreted sample.

    Raises:
        ProductError: it cannot be read, lacks or repeats places, or has places that nobody has looked at.
    """
    with reading_features(path, ProductError, expected=_EXPECTED) as name:
        meta, _, wkb, values = pyogrio.raw.read(name, layer=LAYER)
        columns: dict[str, NDArray[Any]] = dict(zip(meta["fields"], values, strict=True))
        if lacking := [name for name in _NEEDED if name not in columns]:
            raise ProductError(
                f"{path}: attributes {', '.join(lacking)} are missing; expected {_EXPECTED}. Run it again if an older "
                "version drew the sample"
            )
        moved = np.abs(shapely.get_coordinates(shapely.from_wkb(wkb)) - np.stack([columns["x"], columns["y"]], axis=1))
    strata, areas = _strata(path, columns)
    if (odd := int((moved > 1e-3).any(axis=1).sum())) or len(set(columns["place"].tolist())) < len(strata):
        raise ProductError(f"{path}: {odd or 'some'} places were moved or repeated; expected those that were drawn")
    before, after = (np.nan_to_num(columns[n].astype(np.float64)) for n in ("reference_from", "reference_to"))
    open_places = ~(np.isin(before, list(legend.BY_VALUE)) & np.isin(after, list(legend.BY_VALUE)))
    if number := int(open_places.sum()):
        raise ProductError(
            f"{path}: {number} of {len(strata)} places have no FLAIR value 1..19 in `reference_from` or "
            "`reference_to`; interpret all of them, because a sample without its difficult places is not random"
        )
    return InterpretedPlaces(strata, before.astype(np.int64), after.astype(np.int64), areas)


def _strata(path: Path, columns: dict[str, NDArray[Any]]) -> tuple[NDArray[np.int64], tuple[float, ...]]:
    """The strata of the places, and their areas; checks that all places are there."""
    named, strata = columns["stratum"].astype(str), [KINDS[stratum] for stratum in STRATA]
    if odd := sorted(set(named) - set(strata)):
        raise ProductError(f"{path}: stratum {odd[0]!r}; expected {', '.join(strata)}")
    areas = []
    for name in strata:
        drawn, area = (set(columns[n][named == name].tolist()) for n in ("stratum_places", "stratum_m2"))
        number = int((named == name).sum())
        if number and (drawn != {number} or len(area) != 1):
            raise ProductError(
                f"{path}: has {number} places of {name}, {', '.join(map(str, sorted(drawn)))} were drawn; expected "
                "all, because a sample without some of its places is not random"
            )
        areas.append(float(area.pop()) if area else 0.0)
    return np.array([strata.index(name) for name in named], np.int64), tuple(areas)

"""Estimates areas of change from the interpreted sample of `landcover change`."""

from dataclasses import asdict
from pathlib import Path

from pipeline import legend
from pipeline.durable import write_json
from pipeline.errors import EvaluationError
from pipeline.evaluation.area_estimation import few_points
from pipeline.evaluation.change_areas import ChangeAreas, change_areas
from pipeline.products.analysis.edition_change.comparison import KINDS
from pipeline.products.analysis.edition_change.interpreted_places import read_places
from pipeline.products.analysis.edition_change.places import STRATA


def evaluate_change_sample(path: Path, *, out: Path) -> tuple[ChangeAreas, str]:
    """Estimates change from an interpreted sample, into `change-areas.json`.

    Args:
        path: the sample, a copy of a change's `sample.gpkg` with its references filled in.
        out: folder of the result.

    Returns:
        Areas in m², and a warning about few places, which may be empty.

    Raises:
        ProductError: the file cannot be read, lacks places, or is not interpreted completely.
        EvaluationError: a stratum has fewer than two places.
        StorageError: the result cannot be written.
    """
    places = read_places(path)
    names = [KINDS[stratum] for stratum in STRATA]
    numbers = [int((places.strata == at).sum()) for at in range(len(names))]
    try:
        found = change_areas(places.strata, places.before, places.after, places.areas_m2)
    except EvaluationError as error:
        raise EvaluationError(f"{path}: {dict(zip(names, numbers, strict=True))} places; {error}") from error
    drawn = [(name, n) for name, n, area in zip(names, numbers, places.areas_m2, strict=True) if area]
    note = few_points([name for name, _ in drawn], [n for _, n in drawn], option="--places")
    content = {
        "places": dict(zip(names, numbers, strict=True)),
        "mapped_m2": dict(zip(names, places.areas_m2, strict=True)),
        "changed_m2": asdict(found.changed),
        "mapped_change_that_is_true": asdict(found.right),
        "true_change_that_is_mapped": asdict(found.found),
        "by_class": [
            {"from": legend.BY_VALUE[a].slug, "to": legend.BY_VALUE[b].slug, "m2": asdict(area)}
            for (a, b), area in found.by_class.items()
        ],
        "note": note,
    }
    write_json(out / "change-areas.json", content)
    return found, note

"""Evaluates a network on labelled patches, or a map against a reference, by one streamed confusion matrix."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import legend
from pipeline.config import EngineName, Precision, load_recipe
from pipeline.errors import EvaluationError
from pipeline.grid import Window
from pipeline.inference import Engine, predictor_for, resolve_engine
from pipeline.legend import Nomenclature
from pipeline.model import Model, load_model
from pipeline.products.assessment.class_maps import ClassMap, find_maps
from pipeline.progress import SILENT, Progress
from pipeline.runs.accuracy.scoring import (
    DEFAULT,
    BlockComparison,
    EvaluationOptions,
    EvaluationResult,
    Units,
    compare,
    evaluate_jobs,
)
from pipeline.sources.labels.patches import Patch, find_patches, read_image, read_mask
from pipeline.sources.labels.reference import Reference

_BATCH = 8
"""Patches a job: a task of a second or two."""
_BLOCK = 5_000
"""Pixels a side of a block that is compared at once: 1 km."""


def evaluate_set(
    places: Sequence[Path],
    *,
    weights: str,
    sha256: str | None = None,
    recipe: str,
    out: Path,
    metadata: Path | None = None,
    engine: EngineName = "auto",
    precision: Precision = "fp32",
    options: EvaluationOptions = DEFAULT,
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Maps every patch as one window, as the cards do, and compares it with its mask.

    Args:
        places: folders and CSV lists of labelled patches.
        weights: path or `hf://…`, with `recipe`, a name or a path.
        sha256: checksum that the weights must have.
        out: folder of the results.
        metadata: JSON that says domain and zone where paths do not.
        engine: what runs the network, with `precision`.
        options: mode, units, processes.
        progress: counts patches.

    Raises:
        DeliveryError, SourceError: patches are missing, or cannot be read.
        WeightsError, EngineError, ConfigError: weights, engine or recipe cannot be loaded.
        EvaluationError: nothing to compare.
        ClusterError: the running cluster does not answer, or was lost.
        StorageError: `out` cannot be written.
    """
    patches = find_patches(places, metadata=metadata)
    rules = load_recipe(recipe)
    model = load_model(weights, rules, sha256=sha256)
    resolved = resolve_engine(engine, precision=precision)
    zones = _by_zones(patches, options.units)
    progress.start(len(patches))
    return evaluate_jobs(
        (patches[start : start + _BATCH] for start in range(0, len(patches), _BATCH)),
        partial(_compare_patches, model=model, engine=resolved, zones=zones),
        title=f"{rules.name} on {len(patches)} patches",
        live=rules.live,
        units="zones" if zones else "patches",
        about={
            "weights": f"{weights}, SHA-256 {model.weights_hash}",
            "recipe": rules.name,
            "engine": f"{resolved.name} {resolved.precision}",
            "patches": ", ".join(map(str, places)),
        },
        out=out,
        options=options,
        progress=progress,
    )


def _by_zones(patches: Sequence[Patch], units: Units) -> bool:
    zones = {p.unit for p in patches}
    known = all(p.zone for p in patches)
    if units == "zones" and not known:
        lacking = next(p for p in patches if not p.zone)
        raise EvaluationError(f"{lacking.image}: its zone is not known; give --metadata, or use --units patches")
    return units == "zones" or (units == "auto" and known and len(zones) > 1)


def _compare_patches(batch: Sequence[Patch], *, model: Model, engine: Engine, zones: bool) -> list[BlockComparison]:
    """One window a patch: no halo, as the cards' own measurement."""
    recipe, predictor = model.recipe, predictor_for(model, engine)
    compared = []
    for patch in batch:
        pixels, truth = read_image(patch, bands=recipe.bands), read_mask(patch)
        if truth.shape[0] % recipe.stride or truth.shape[1] % recipe.stride:
            raise EvaluationError(
                f"{patch.image}: found {truth.shape[0]} × {truth.shape[1]} px, expected multiples of the network's "
                f"stride, {recipe.stride}; map it with `landcover predict` and evaluate the map"
            )
        classes, confidence = predictor(pixels[None], np.ones((1, *truth.shape), np.bool_))[0]
        unit = patch.unit if zones else patch.name
        compared.append(compare(truth, classes, confidence, live=recipe.live, unit=unit, domain=patch.domain))
    return compared


def evaluate_map(
    place: Path,
    reference: Path,
    *,
    out: Path,
    nomenclature: Nomenclature = "flair19",
    field: str = "",
    classes: Nomenclature = "flair12",
    options: EvaluationOptions = DEFAULT,
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Compares maps with a reference raster or polygons, block by block, on the maps' own pixels.

    Args:
        place: a GeoTIFF of FLAIR values, a folder of `…-landcover.tif`, or a national product.
        reference: raster of one band or polygons, in any CRS.
        out: folder of the results.
        nomenclature: nomenclature of the reference's numbers.
        field: of polygons: the attribute that holds them.
        classes: nomenclature whose classes are compared; those that the reference lacks are left out too.
        options: mode and processes; the bootstrap draws tiles, and blocks of 1 km of a single map.
        progress: counts blocks.

    Raises:
        ProductError, SourceError: maps or a reference that cannot be read.
        EvaluationError: they do not overlap.
        ClusterError: the running cluster does not answer, or was lost.
        StorageError: `out` cannot be written.
    """
    maps = find_maps(place)
    truth = Reference.open(reference, nomenclature=nomenclature, field=field)
    known = set(legend.to_flair(nomenclature).values())
    live = tuple(v for v in sorted(legend.to_flair(classes).values()) if v in known)
    jobs = [(one, window) for one in maps for window in one.window.split(_BLOCK)]
    several = len(maps) > 1
    progress.start(len(jobs))
    return evaluate_jobs(
        jobs,
        partial(_compare_block, reference=truth, live=live, tiles=several),
        title=f"{place.name} against {reference.name}",
        live=live,
        units="tiles" if several else "blocks of 1 km",
        about={"maps": str(place), "reference": f"{reference}, {nomenclature}", "classes": classes},
        out=out,
        options=options,
        progress=progress,
    )


def _compare_block(
    job: tuple[ClassMap, Window], *, reference: Reference, live: tuple[int, ...], tiles: bool
) -> list[BlockComparison]:
    one, window = job
    truth = reference.read(one.geobox[window.slices])
    unit = one.name if tiles else f"{one.name} ({window.row}, {window.col})"
    # Where there is no truth, nothing needs to be read.
    classes = one.read(window) if truth.any() else np.zeros_like(truth)
    return [compare(truth, classes, None, live=live, unit=unit, domain=one.domain)]

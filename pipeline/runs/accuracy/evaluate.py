"""Evaluates a network on labelled patches, or a map against a reference, by one streamed confusion matrix."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import legend
from pipeline.config import EngineName, Precision
from pipeline.errors import EvaluationError
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.inference import Engine, predictor_for, resolve_engine
from pipeline.inference.averaging import members_of
from pipeline.inference.block_mapping import map_block
from pipeline.inference.turns import TURNS
from pipeline.legend import LAYERS, Nomenclature
from pipeline.model import Ensemble, Model
from pipeline.products.assessment.class_maps import ClassMap, find_generalised, find_maps
from pipeline.progress import SILENT, Progress
from pipeline.runs.accuracy.scoring import (
    DEFAULT,
    BlockComparison,
    EvaluationOptions,
    EvaluationResult,
    Units,
    compare,
    score_jobs,
    write_evaluation,
)
from pipeline.sources.inspection.model_card_limits import check_halo
from pipeline.sources.labels.patch_mosaic import PatchMosaic, mosaic_patches
from pipeline.sources.labels.patches import Patch, find_patches, read_image, read_mask
from pipeline.sources.labels.reference import Reference

_BATCH = 8
"""Patches a job: a task of a second or two."""
_BLOCK = 5_000
"""Pixels a side of a block that is compared at once: 1 km."""


def evaluate_set(
    places: Sequence[Path],
    *,
    model: Model | Ensemble,
    out: Path,
    metadata: Path | None = None,
    engine: EngineName = "auto",
    precision: Precision = "fp32",
    options: EvaluationOptions = DEFAULT,
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Compares labelled patches with their masks: mapped patch by patch as the cards do, and as a product is mapped.

    For the second figure (`as_mapped`), adjoining patches of a zone are put together and mapped in the default windows
    with their halo; one block of a core is in memory at a time.

    Args:
        places: folders and CSV lists of labelled patches.
        model: a network, or an average of several forwards.
        out: folder of the results.
        metadata: JSON that says domain and zone where paths do not.
        engine: what runs the network, with `precision`.
        options: mode, units, processes, and whether both figures are measured.
        progress: counts patches, for each of the figures.

    Raises:
        DeliveryError, SourceError: patches are missing, or cannot be read.
        EngineError, ConfigError: the engine is not installed, or the recipe has no windows for a map.
        EvaluationError: nothing to compare.
        ClusterError: the running cluster does not answer, or was lost.
        StorageError: `out` cannot be written.
    """
    patches = find_patches(places, metadata=metadata)
    rules = model.recipe
    layout = rules.layout()
    check_halo(rules, layout, ())
    resolved = resolve_engine(engine, precision=precision)
    zones = _by_zones(patches, options.units)
    mosaics = mosaic_patches(patches, bands=rules.bands) if options.as_mapped else ()
    blocks = [(m.around(layout.read_of_block(b)), b) for m in mosaics for b in m.window.split(layout.core)]
    blocks = [(mosaic, block) for mosaic, block in blocks if mosaic.meeting(block)]
    progress.start(len(patches) + sum(len(mosaic.meeting(block)) for mosaic, block in blocks))
    score = partial(
        score_jobs,
        title=f"{rules.name} on {len(patches)} patches",
        live=rules.live,
        units="zones" if zones else "patches",
        options=options,
        progress=progress,
    )
    found = score(
        (patches[start : start + _BATCH] for start in range(0, len(patches), _BATCH)),
        partial(_compare_patches, model=model, engine=resolved, zones=zones),
        about=about_networks(model)
        | {"engine": f"{resolved.name} {resolved.precision}", "patches": ", ".join(map(str, places))},
    )
    if mosaics:
        work = partial(_compare_block_of_patches, model=model, engine=resolved, layout=layout, zones=zones)
        found = replace(found, as_mapped=score(blocks, work, about=_about_mosaics(mosaics, layout)))
    return write_evaluation(out, found)


def about_networks(model: Model | Ensemble) -> dict[str, str]:
    """Weights and recipe of a network, or those of all that are averaged, and how often each maps a window."""
    members = members_of(model)
    many = [f" {number}" for number in range(1, len(members) + 1)] if len(members) > 1 else [""]
    about: dict[str, str] = {}
    for number, member in zip(many, members, strict=True):
        about[f"weights{number}"] = f"{member.source or 'in memory'}, SHA-256 {member.weights_hash}"
        about[f"recipe{number}"] = member.recipe.name
    if isinstance(model, Ensemble):
        positions = len(TURNS[model.tta])
        about["average"] = (
            f"of {len(members) * positions} forwards: {len(members)} networks, "
            f"{positions} positions of each window (test-time augmentation {model.tta})"
        )
    return about


def _about_mosaics(mosaics: Sequence[PatchMosaic], layout: Layout) -> dict[str, str]:
    """How patches were put together, in sentences."""
    alone = sum(len(m.patches) == 1 for m in mosaics)
    together = sum(len(m.patches) for m in mosaics) - alone
    about = {
        "windows": f"core {layout.core} px, halo {layout.halo}, window {layout.window}",
        "adjoining": f"{together} patches in {len(mosaics) - alone} mosaics",
    }
    if alone:
        about["without a neighbour"] = (
            f"{alone} patches: the image is reflected beyond their edges, as at the edge of a delivery"
        )
    return about


def _compare_block_of_patches(
    job: tuple[PatchMosaic, Window], *, model: Model | Ensemble, engine: Engine, layout: Layout, zones: bool
) -> list[BlockComparison]:
    """Maps a block of adjoining patches with its halo, and compares the part of each patch in it."""
    mosaic, block = job
    classes, confidence = map_block(mosaic, block, layout=layout, predictor=predictor_for(model, engine))
    compared = []
    for patch, window in ((placed.patch, placed.window) for placed in mosaic.meeting(block)):
        part = window.intersect(block)
        truth, inside = read_mask(patch)[part.slices_in(window)], part.slices_in(block)
        unit = patch.unit if zones else patch.name
        compared.append(
            compare(truth, classes[inside], confidence[inside], live=model.recipe.live, unit=unit, domain=patch.domain)
        )
    return compared


def _by_zones(patches: Sequence[Patch], units: Units) -> bool:
    zones = {p.unit for p in patches}
    known = all(p.zone for p in patches)
    if units == "zones" and not known:
        lacking = next(p for p in patches if not p.zone)
        raise EvaluationError(f"{lacking.image}: its zone is not known; give --metadata, or use --units patches")
    return units == "zones" or (units == "auto" and known and len(zones) > 1)


def _compare_patches(
    batch: Sequence[Patch], *, model: Model | Ensemble, engine: Engine, zones: bool
) -> list[BlockComparison]:
    """One window a patch: no halo, as the cards' own measurement."""
    recipe, predictor = model.recipe, predictor_for(model, engine)
    compared = []
    for patch in batch:
        pixels, truth = read_image(patch, bands=recipe.bands), read_mask(patch)
        if truth.shape[0] % recipe.side_step or truth.shape[1] % recipe.side_step:
            raise EvaluationError(
                f"{patch.image}: found {truth.shape[0]} × {truth.shape[1]} px, expected multiples of the network's "
                f"stride, {recipe.side_step}; map it with `landcover predict` and evaluate the map"
            )
        classes, confidence = predictor(pixels[None], np.ones((1, *truth.shape), np.bool_))[0, : len(LAYERS)]
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

    Where a national product has a generalised map, that one is compared too: `generalised`.

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
    generalised = [(one, window) for one in find_generalised(place) for window in one.window.split(_BLOCK)]
    several = len(maps) > 1
    progress.start(len(jobs) + len(generalised))
    score = partial(
        score_jobs,
        work=partial(_compare_block, reference=truth, live=live, tiles=several),
        title=f"{place.name} against {reference.name}",
        live=live,
        units="tiles" if several else "blocks of 1 km",
        about={"maps": str(place), "reference": f"{reference}, {nomenclature}", "classes": classes},
        options=options,
        progress=progress,
    )
    found = score(jobs)
    if generalised:
        found = replace(found, generalised=score(generalised))
    return write_evaluation(out, found)


def _compare_block(
    job: tuple[ClassMap, Window], *, reference: Reference, live: tuple[int, ...], tiles: bool
) -> list[BlockComparison]:
    one, window = job
    truth = reference.read(one.geobox[window.slices])
    unit = one.name if tiles else f"{one.name} ({window.row}, {window.col})"
    # Where there is no truth, nothing needs to be read.
    classes = one.read(window) if truth.any() else np.zeros_like(truth)
    return [compare(truth, classes, None, live=live, unit=unit, domain=one.domain)]

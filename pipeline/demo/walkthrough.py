"""The whole workflow on the demo's country: deliver → index → fit → run → publish → verify → compare with the truth.

Each step is that of a real campaign, except that the country and its network are made here.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline import legend
from pipeline.config import Campaign, load_campaign
from pipeline.demo.comparison_figure import side_by_side
from pipeline.demo.country import Country, DeliveredDomain, make_country
from pipeline.demo.network import DEFAULT_FIT, FitSettings, FittedNetwork, TrainingTile, fit
from pipeline.durable import write_json
from pipeline.errors import ConfigError, StorageError, VerifyFailed
from pipeline.evaluation import confusion_matrix, scores
from pipeline.grid import Tile
from pipeline.halo import Layout
from pipeline.products.analysis.open_product import open_product
from pipeline.products.assessment.edge_changes import Seams
from pipeline.products.gis.overviews import class_colours
from pipeline.products.tile.cog import read_cog
from pipeline.products.tile.seal import list_sealed
from pipeline.progress import OnMessage
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from pipeline.runs.quality.quality_metrics import cuts_of, domain_seams, ratio_json
from pipeline.runs.quality.verify import verify
from pipeline.runs.quality.write_reports import write_reports
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.untrusted.own_files import is_own

_GRID = {"tile": 1000, "block": 500, "core": 250, "halo": 96, "window": 480}
"""Two cores along a block and two blocks along a tile, so that there are edges of every kind."""
_MARKER = ".landcover-demo"
"""Empty file in a demo's folder: only a folder with it is ever replaced."""
_PREVIEW_STEP = 4
"""The preview shows every fourth pixel."""


def run_demo(out: Path, *, on_message: OnMessage) -> None:
    """Makes a country below `out`, maps it, compares the map with the truth, and writes `summary.json`.

    The accuracy, and the recall of each class, are over the tiles that were not for fitting.

    Args:
        out: a new folder, or the folder of an earlier demo, which is replaced.
        on_message: called with a line after each step.

    Raises:
        ConfigError: `out` holds files that are not from a demo of this user.
        StorageError: `out` cannot be written.
        VerifyFailed: the product does not verify.
    """
    started = time.monotonic()
    out = out.absolute()
    _empty(out)
    country, campaign = prepare(out, on_message=on_message)
    mapping = time.monotonic()
    ended = run(make_plan(campaign))
    rate = sum(e.pixels for e in ended) / 1e6 / (time.monotonic() - mapping)
    on_message(f"mapped: {len(ended)} tiles at {rate:.2f} Mpx/s, in {campaign.output.domains}")
    published = publish(campaign)
    on_message(f"published: edition {published.edition}, {published.written} shards, in {published.store}")
    verified = verify(campaign)
    if not verified.clean:
        raise VerifyFailed(f"the demo's product does not verify: {json.dumps(verified.as_json())}")
    on_message(f"verified: {sum(d.files for d in verified.domains)} files and the national store")
    on_message(f"reported: {', '.join(str(path) for path in write_reports(campaign))}")
    summary = {
        **_compare_with_truth(campaign, country),
        "class_shares": _class_shares(campaign),
        "seconds": round(time.monotonic() - started, 1),
        "mpx_per_s": round(rate, 3),
        "tiles": len(ended),
        "domains": [d.name for d in country.domains],
        "seams": _compare_seams(campaign, verified.metrics.seams, out / "without-halo", on_message),
        "campaign": str(out / "campaign.yaml"),
        "product": str(published.store),
        "preview": str(_draw_preview(out / "preview.png", campaign, country)),
    }
    _report(summary, on_message)
    write_json(out / "summary.json", summary)


def prepare(
    out: Path,
    *,
    on_message: OnMessage,
    rows: int = 3,
    columns: int = 5,
    tile_size: int = 1000,
    settings: FitSettings = DEFAULT_FIT,
    threads: int | None = None,
) -> tuple[Country, Campaign]:
    """Does all that comes before the first map: delivers and indexes a country, fits a network, writes a campaign.

    Args:
        out: absolute; holds no country yet.
        on_message: called with a line after each step.
        rows, columns, tile_size: of the country, see `make_country`.
        settings: of the fit.
        threads: threads of torch during the fit; by default one for each core. On a busy machine a single one is
            faster than several.

    Raises:
        DeliveryError: a country exists already.
        StorageError: `out` cannot be written.
    """
    country = make_country(out / "country", rows=rows, columns=columns, tile_size=tile_size)
    on_message(f"delivered: {len(country.domains)} domains in {country.root}")
    catalog = out / "catalog"
    for domain in country.domains:
        indexed = index([domain.delivery], domain=domain.name, catalog=catalog, tile_size=country.tile_size)
        on_message(f"indexed: {domain.name}, {len(indexed.tiles)} tiles, {indexed.size_bytes / 1e6:.0f} MB")
    tiles = training_tiles(country, catalog)
    threads = threads or len(os.sched_getaffinity(0))
    fitted = fit(tiles, out / "model", settings=settings, threads=threads)
    on_message(f"fitted: {fitted.weights}")
    return country, load_campaign(_write_campaign(out, country, fitted))


def _empty(out: Path) -> None:
    """Empties the folder of an earlier demo, and no other; marks it as a demo's."""
    try:
        if out.is_symlink() or (out.exists() and any(out.iterdir())):
            if not (is_own(out, kind="folder") and is_own(out / _MARKER, kind="file")):
                raise ConfigError(
                    f"{out} is not from a demo of this user, for it has no file {_MARKER}; choose an empty or a new "
                    "folder, or delete this one"
                )
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / _MARKER).touch()
    except OSError as error:
        raise StorageError(f"{out}: cannot be emptied: {error.strerror or error}; choose another folder") from error


def training_tiles(country: Country, catalog: Path) -> list[TrainingTile]:
    """The tiles for fitting, read through the catalog as a run reads them.

    Args:
        country: its tiles with labels.
        catalog: folder of the input catalog.
    """
    tiles = []
    for domain in country.domains:
        mosaic = domain_mosaic(catalog, domain, country.tile_size)
        for name in domain.training:
            window = Tile.named(name, country.tile_size).window
            pixels = mosaic.read(window).bands
            tiles.append(TrainingTile(f"{domain.name} {name}", pixels, domain.read_truth(window)))
    return tiles


def domain_mosaic(catalog: Path, domain: DeliveredDomain, tile_size: int) -> Mosaic:
    """The imagery of a domain, as a run reads it."""
    inputs = read_domain(catalog, domain.name, tile_size=tile_size)
    return Mosaic.of(inputs, bands=("red", "green", "blue", "nir", "elevation"))


def _write_campaign(out: Path, country: Country, fitted: FittedNetwork) -> Path:
    """Writes the demo's campaign with relative paths, so that its folder can be moved and used with every command."""
    edges = country.window.bounds
    campaign = {
        "name": "demo",
        "catalog": "catalog",
        "model": {"weights": str(fitted.weights.relative_to(out)), "recipe": str(fitted.recipe.relative_to(out))},
        "domains": [{"name": d.name, "boundary": str(d.boundary.relative_to(out))} for d in country.domains],
        "grid": _GRID | {"tile": country.tile_size},
        "output": {
            "domains": "products",
            "national": "national",
            "extent_km": [edge / 1000 for edge in edges],
            "chunk": 250,
            "attribution": "landcover-pipeline's demo: no real place",
        },
        # One process that reads in two threads: the country is small, and starting a process takes seconds.
        "cluster": {"workers": 1, "threads": 2, "tiles_in_flight": 3, "gdal_cache_mb": 256},
    }
    path = out / "campaign.yaml"
    text = "# The demo's campaign, on which every command can be tried, such as: landcover status campaign.yaml\n"
    path.write_text(text + yaml.safe_dump(campaign, sort_keys=False), encoding="utf-8")
    return path


def _compare_with_truth(campaign: Campaign, country: Country) -> dict[str, Any]:
    """Overall accuracy, and recall by class, over the held-out tiles of all domains, without nodata."""
    confusion = np.zeros((len(legend.FLAIR),) * 2, np.int64)
    for domain in country.domains:
        for name in domain.held_out:
            mapped = read_cog(campaign.product_folder(domain.name) / f"{domain.name}-{name}-landcover.tif")
            truth = domain.read_truth(Tile.named(name, country.tile_size).window)
            truth[mapped == legend.NODATA] = legend.NODATA
            confusion += confusion_matrix(truth - 1, mapped - 1, len(legend.FLAIR))
    live = campaign.recipe().live
    found = scores(confusion, live=[value - 1 for value in live])
    recall = zip(legend.classes(live), found["recall"].tolist(), strict=True)
    return {"accuracy": found["oa"], "class_accuracy": {c.name: share for c, share in recall}}


def _class_shares(campaign: Campaign) -> dict[str, float]:
    """Share of each class in the mapped area of the national product."""
    landcover = open_product(campaign.output.national)["landcover"].values
    counts = np.bincount(landcover.ravel(), minlength=20)
    return {c.name: float(counts[c.value] / counts[1:].sum()) for c in legend.classes(campaign.recipe().live)}


def _compare_seams(campaign: Campaign, seams: Seams, folder: Path, on_message: OnMessage) -> dict[str, Any]:
    """Maps the country again without a halo, and gives the seam ratios of both maps by kind of edge and for `all`."""
    without = seams_without_halo(campaign, folder)
    ratios = [s.ratios | {"all": (s.window + s.block + s.tile).seam_ratio} for s in (seams, without)]
    for kind in ratios[0]:
        on_message(f"seam ratio at {kind} edges: {ratios[0][kind]}, without a halo {ratios[1][kind]} (1 is seamless)")
    return {
        name: {kind: ratio_json(ratio) for kind, ratio in found.items()}
        for name, found in zip(("halo", "no_halo"), ratios, strict=True)
    }


def seams_without_halo(campaign: Campaign, folder: Path) -> Seams:
    """Maps a campaign without a halo, and counts class changes across the edges in all its domains.

    Core and block are kept. The windows have no halo, only what alignment adds.

    Args:
        campaign: as it was mapped with its halo.
        folder: for the tiles without a halo.

    Raises:
        LandcoverError: as `run` does.
    """
    layout = Layout.for_core(campaign.grid.core, halo=0, stride=campaign.recipe().stride)
    grid = campaign.grid.model_copy(update={"halo": 0, "window": layout.window})
    output = campaign.output.model_copy(update={"domains": folder})
    bare = campaign.model_copy(update={"grid": grid, "output": output, "accept_limits": ("halo",)})
    run(make_plan(bare))
    cuts, tile = cuts_of(bare), bare.grid.tile
    found = (domain_seams(list_sealed(folder / d.name, d.name, tile), cuts=cuts) for d in bare.domains)
    return sum(found, Seams())


def _draw_preview(path: Path, campaign: Campaign, country: Country) -> Path:
    """Draws image, truth and map side by side, each pixel from the domain that owns it."""
    national = open_product(campaign.output.national)
    step, window = _PREVIEW_STEP, country.window
    owner = national["domain"].values[::step, ::step]
    image = np.full((*owner.shape, 3), 255, np.uint8)
    truth = np.zeros(owner.shape, np.uint8)
    codes = {row["name"]: row["code"] for row in national.attrs["domains"]}
    for domain in country.domains:
        mosaic = domain_mosaic(campaign.catalog, domain, country.tile_size)
        part = window.intersect(mosaic.window)
        pixels = np.zeros((3, *window.shape), np.uint8)
        pixels[:, *part.slices_in(window)] = mosaic.read(part).bands[:3]
        owned = owner == codes[domain.name]
        image[owned] = np.moveaxis(pixels[:, ::step, ::step], 0, -1)[owned]
        truth[owned] = domain.read_truth(window)[::step, ::step][owned]
    panels = [
        ("synthetic BD ORTHO", image),
        ("truth", class_colours(truth)),
        ("map", class_colours(national["landcover"].values[::step, ::step])),
    ]
    side_by_side(path, panels, campaign.recipe().live)
    return path


def _report(summary: Mapping[str, Any], on_message: OnMessage) -> None:
    for name, share in summary["class_shares"].items():
        recall = summary["class_accuracy"][name]
        known = "–" if math.isnan(recall) else f"{recall:6.1%}"
        on_message(f"  {name:24s} {share:6.1%} of the map, recall {known}")
    on_message(f"accuracy on tiles that were not for fitting: {summary['accuracy']:.3f}")
    on_message(f"{summary['mpx_per_s']:.2f} Mpx/s; {summary['seconds']:.0f} s in all")
    on_message("\n".join(f"{what:8s} {summary[what]}" for what in ("product", "preview", "campaign")))

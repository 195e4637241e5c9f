"""The whole path on a made-up piece of country: deliver → index → fit → run → publish → verify → look.

Every step is the one that a real campaign takes; only the country and its network are made here.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pipeline import legend
from pipeline.config import Campaign, Recipe, load_campaign
from pipeline.demo.comparison_figure import colours_of, side_by_side
from pipeline.demo.country import Country, DeliveredDomain, make_country
from pipeline.demo.halo_comparison import seams_without_halo
from pipeline.demo.network import DEFAULT_EFFORT, Effort, Fitted, Sample, fit
from pipeline.durable import write_json
from pipeline.errors import ConfigError, VerifyFailed
from pipeline.evaluation.seams import total
from pipeline.grid import Tile
from pipeline.products.analysis.open_product import open_product
from pipeline.products.assessment.edge_changes import Seams
from pipeline.products.tile.cog import read_cog
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from pipeline.runs.quality.quality_metrics import ratio_json
from pipeline.runs.quality.verify import verify
from pipeline.runs.quality.write_reports import write_reports
from pipeline.sources.catalog.index import index, open_domain
from pipeline.sources.reading.mosaic import Mosaic

_GRID = {"tile": 1000, "block": 500, "core": 250, "halo": 96, "window": 480}
"""Two cores a block and two blocks a tile along each side, so that there are edges of all kinds to look at."""
_PREVIEW_STEP = 4
"""Every fourth pixel of the country is drawn."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Toured:
    """What the demo found; also in `summary.json`."""

    accuracy: float
    """Share of pixels that are mapped as the truth has them, over the tiles that nothing was fitted on."""
    class_accuracy: dict[str, float]
    """The same by true class: the recall, 0..1."""
    class_shares: dict[str, float]
    """Share of the mapped area, by class, in the national product."""
    seconds: float
    mpx_per_s: float
    """Of `landcover run`, the start of its workers included."""
    tiles: int
    domains: tuple[str, ...]
    seams: dict[str, Any]
    """`halo` as in the campaign, and `no_halo`: the first domain's seam ratio and its error, by kind of edge."""
    campaign: Path
    product: Path
    preview: Path


def run_demo(out: Path, *, say: Say, seed: int = 2022) -> Toured:
    """Makes a country below `out`, maps it, and measures the map against the truth.

    Args:
        out: a new folder, or one that an earlier demo made; made anew.
        say: told a line after each step.
        seed: of the country and of the fit.

    Raises:
        ConfigError: `out` holds something that no demo made.
        VerifyFailed: what was made is not what it says.
    """
    started = time.monotonic()
    out = out.absolute()
    _make_anew(out)
    country, campaign = prepare(out, say=say, seed=seed)
    mapping = time.monotonic()
    ended = run(make_plan(campaign))
    rate = sum(e.pixels for e in ended) / 1e6 / (time.monotonic() - mapping)
    say(f"mapped: {len(ended)} tiles at {rate:.2f} Mpx/s, in {campaign.output.domains}")
    published = publish(campaign)
    say(f"published: edition {published.edition}, {published.written} shards, in {published.store}")
    verified = verify(campaign)
    if not verified.clean:
        raise VerifyFailed(f"the demo's product is not clean: {json.dumps(verified.as_json())}")
    say(f"verified: {sum(d.files for d in verified.domains)} files and the national store are whole")
    pages = write_reports(campaign)
    say(f"reported: {', '.join(str(path) for path in pages)}")
    recipe = campaign.recipe()
    confusion = sum((_confusion(campaign, d, country.tile_size) for d in country.domains), np.zeros((20, 20), np.int64))
    toured = Toured(
        accuracy=float(np.trace(confusion) / confusion.sum()),
        class_accuracy={
            c.name: float(confusion[c.value, c.value] / max(1, confusion[c.value].sum()))
            for c in legend.classes(recipe.live)
        },
        class_shares=_shares(campaign, recipe),
        seconds=round(time.monotonic() - started, 1),
        mpx_per_s=round(rate, 3),
        tiles=len(ended),
        domains=tuple(d.name for d in country.domains),
        seams=_compare_seams(campaign, verified.metrics.seams, out / "without-halo", say),
        campaign=out / "campaign.yaml",
        product=published.store,
        preview=_draw(out / "preview.png", campaign, country, recipe),
    )
    _tell(toured, out, say)
    return toured


def prepare(
    out: Path,
    *,
    say: Say,
    seed: int = 2022,
    rows: int = 3,
    columns: int = 5,
    tile_size: int = 1000,
    effort: Effort = DEFAULT_EFFORT,
    threads: int | None = None,
) -> tuple[Country, Campaign]:
    """All that comes before the first map: a country delivered below `out`, indexed, its network fitted, a campaign.

    Args:
        out: absolute; holds no country yet.
        say: told a line after each step.
        seed: of the country and of the fit.
        rows, columns, tile_size: of the country, see `make_country`.
        effort: of the fit.
        threads: torch's while fitting; by default one a core. On a busy machine one alone is faster than several.

    Raises:
        DeliveryError: a country is there already.
        StorageError: `out` cannot be written.
    """
    country = make_country(out / "country", seed=seed, rows=rows, columns=columns, tile_size=tile_size)
    say(f"delivered: {len(country.domains)} domains in {country.root}")
    catalog = out / "catalog"
    for domain in country.domains:
        report = index([domain.delivery], domain=domain.name, catalog=catalog, tile_size=country.tile_size)
        say(f"indexed: {domain.name}, {len(report.tiles)} tiles, {report.size_bytes / 1e6:.0f} MB")
    fitted = _fit(country, catalog, out / "model", seed=seed, effort=effort, threads=threads)
    say(f"fitted: {fitted.weights}")
    return country, load_campaign(_write_campaign(out, country, fitted))


def _make_anew(out: Path) -> None:
    """Empties what an earlier demo made, and nothing else."""
    if out.exists() and any(out.iterdir()):
        if not (out / "country").is_dir():
            raise ConfigError(f"{out} holds something that no demo made; choose an empty or new folder")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def _fit(country: Country, catalog: Path, folder: Path, *, seed: int, effort: Effort, threads: int | None) -> Fitted:
    """Fits on the training tiles, read through the catalogue as a run reads them."""
    samples = []
    for domain in country.domains:
        mosaic = _mosaic(catalog, domain, country.tile_size)
        for name in domain.training:
            window = Tile.named(name, country.tile_size).window
            pixels = mosaic.read(window).bands
            samples.append(Sample(f"{domain.name} {name}", pixels, domain.read_truth(window)))
    return fit(samples, folder, seed=seed, effort=effort, threads=threads or len(os.sched_getaffinity(0)))


def _mosaic(catalog: Path, domain: DeliveredDomain, tile_size: int) -> Mosaic:
    inputs = open_domain(catalog, domain.name, tile_size=tile_size)
    return Mosaic.of(inputs, bands=("red", "green", "blue", "nir", "elevation"))


def _write_campaign(out: Path, country: Country, fitted: Fitted) -> Path:
    """The demo's campaign, with paths from its own folder: it can be moved, and every command tried on it."""
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
        # One process that reads in two threads: the country is small, and starting a process costs seconds.
        "cluster": {"workers": 1, "threads": 2, "tiles_in_flight": 3, "gdal_cache_mb": 256},
    }
    path = out / "campaign.yaml"
    text = "# A made-up piece of country; try every command on it, such as: landcover status campaign.yaml\n"
    path.write_text(text + yaml.safe_dump(campaign, sort_keys=False), encoding="utf-8")
    return path


def _confusion(campaign: Campaign, domain: DeliveredDomain, tile_size: int) -> NDArray[np.int64]:
    """int64 (truth, map) counts of FLAIR values over a domain's held-out tiles; no data is left out."""
    counts = np.zeros((20, 20), np.int64)
    for name in domain.held_out:
        mapped = read_cog(campaign.product_folder(domain.name) / f"{domain.name}-{name}-landcover.tif")
        truth = domain.read_truth(Tile.named(name, tile_size).window)
        known = (mapped != legend.NODATA) & (truth != legend.NODATA)
        pairs = truth[known].astype(np.int64) * 20 + mapped[known]
        counts += np.bincount(pairs, minlength=400).reshape(20, 20)
    return counts


def _shares(campaign: Campaign, recipe: Recipe) -> dict[str, float]:
    """Share of each class in what the national product maps."""
    landcover = open_product(campaign.output.national)["landcover"].values
    counts = np.bincount(landcover.ravel(), minlength=20)
    return {c.name: float(counts[c.value] / counts[1:].sum()) for c in legend.classes(recipe.live)}


def _compare_seams(campaign: Campaign, own: Seams, folder: Path, say: Say) -> dict[str, Any]:
    """Maps the country again without a halo, and says both ratios: of each kind of edge, and of `all` together."""
    bare = seams_without_halo(campaign, folder)
    ratios = [
        found.ratios | {"all": total([found.window, found.block, found.tile]).seam_ratio} for found in (own, bare)
    ]
    for kind in ratios[0]:
        say(f"seams at {kind} edges: {ratios[0][kind]}, and without a halo {ratios[1][kind]} (1 is seamless)")
    return {
        name: {kind: ratio_json(ratio) for kind, ratio in found.items()}
        for name, found in zip(("halo", "no_halo"), ratios, strict=True)
    }


def _draw(path: Path, campaign: Campaign, country: Country, recipe: Recipe) -> Path:
    """Image, truth and map side by side, each pixel from the domain that owns it."""
    national = open_product(campaign.output.national)
    step, window = _PREVIEW_STEP, country.window
    owner = national["domain"].values[::step, ::step]
    image = np.full((*owner.shape, 3), 255, np.uint8)
    truth = np.zeros(owner.shape, np.uint8)
    codes = {row["name"]: row["code"] for row in national.attrs["domains"]}
    for domain in country.domains:
        mosaic = _mosaic(campaign.catalog, domain, country.tile_size)
        part = window.intersect(mosaic.window)
        pixels = np.zeros((3, *window.shape), np.uint8)
        pixels[:, *part.slices_in(window)] = mosaic.read(part).bands[:3]
        mine = owner == codes[domain.name]
        image[mine] = np.moveaxis(pixels[:, ::step, ::step], 0, -1)[mine]
        truth[mine] = domain.read_truth(window)[::step, ::step][mine]
    panels = [
        ("BD ORTHO, made up", image),
        ("truth", colours_of(truth)),
        ("map", colours_of(national["landcover"].values[::step, ::step])),
    ]
    side_by_side(path, panels, recipe.live)
    return path


def _tell(toured: Toured, out: Path, say: Say) -> None:
    """Prints what was found and writes `summary.json`."""
    for name, share in toured.class_shares.items():
        say(f"  {name:24s} {share:6.1%} of the map, {toured.class_accuracy[name]:6.1%} of its true pixels found")
    say(f"accuracy on tiles that nothing was fitted on: {toured.accuracy:.3f}")
    say(f"{toured.mpx_per_s:.2f} Mpx/s; {toured.seconds:.0f} s in all")
    say(f"product  {toured.product}\npreview  {toured.preview}\ncampaign {toured.campaign}")
    write_json(
        out / "summary.json",
        {k: str(v) if isinstance(v, Path) else v for k, v in vars(toured).items()},
    )

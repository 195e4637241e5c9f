"""A product's report as one HTML page that needs no other file: what was gathered in, HTML out."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation import product_charts as charts
from pipeline.evaluation.html import STYLE, class_name, image, swatch, table
from pipeline.evaluation.seams import Crossings, SeamRatio
from pipeline.grid import PIXELS_PER_M
from pipeline.products.gis.overviews import STATE_COLOURS, State, class_colours
from pipeline.products.national.edition_record import Edition
from pipeline.runs.quality.metrics import Exceeded, Figures
from pipeline.runs.tracking.run_record import Pace
from pipeline.sources.inspection.radiometry import BandLevels

_LISTED = 40
"""Tiles that a list names; the rest it counts."""

_MORE_STYLE = """figure{margin:1rem 0}figcaption{color:#444}.pair{display:grid;grid-template-columns:1fr 1fr;gap:1rem}
.map img{image-rendering:pixelated;width:100%;border:1px solid #bbb;box-sizing:border-box}.key span{margin-right:1.1rem;
white-space:nowrap}.bad{color:#b00020;font-weight:600}.good{color:#1b6e3c;font-weight:600}h2{margin-top:2.2rem}"""

_KINDS = {
    "window": "cores inside blocks",
    "block": "blocks inside tiles",
    "tile": "tiles of one domain",
}


@dataclass(frozen=True, eq=False)
class Pictures:
    """What is drawn of a product: uint8 (y, x) or (y, x, 3)."""

    classes: NDArray[np.uint8]
    """FLAIR values."""
    confidence: NDArray[np.uint8]
    states: NDArray[np.uint8]
    """rgb: what became of each tile."""
    confidence_counts: NDArray[np.int64]
    """int64 (256,): of a sample at full resolution."""


@dataclass(frozen=True, eq=False)
class Report:
    """All that a page shows of one domain, or of the nation."""

    title: str
    about: Mapping[str, str]
    figures: Figures
    exceeded: Sequence[Exceeded]
    pictures: Pictures
    shares: Mapping[str, Mapping[int, float]]
    """Domain → FLAIR value → share of its mapped area; the page's own first, then its neighbours."""
    live: Sequence[int]
    """FLAIR values that may appear."""
    failures: Sequence[tuple[str, str]]
    """(tile, cause)."""
    missing: Sequence[str]
    gaps: Sequence[tuple[str, float]]
    """(tile, 0..1 of it without data), the largest first."""
    holes: Sequence[tuple[str, float]]
    """(tile, 0..1 of it without elevation), the largest first."""
    pace: Mapping[str, Pace]
    """Domain → of its last run."""
    sealed_tiles: Sequence[Mapping[str, Any]]
    """What run records say of tiles: `tile`, `seconds`, `pixels`."""
    levels: Mapping[str, Sequence[BandLevels]]
    """Domain → its imagery's levels by band."""
    tile_levels: Mapping[str, Sequence[BandLevels]]
    """Tile → the same."""
    unseen: int
    """Tiles whose levels the catalogue does not remember."""
    domains: Mapping[str, Figures]
    """Of the nation's page: domain → its figures; empty for a domain's page."""
    borders: Crossings | None = None
    """Across borders of domains; None for a domain's page."""
    edition: Edition | None = None
    """Of the nation's page: whose claims are told; None for a domain's page."""


def page(given: Report) -> str:
    """The page."""
    about = "<br>".join(f"{html.escape(k)}: {html.escape(v)}" for k, v in given.about.items())
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(given.title)}</title><style>{STYLE}{_MORE_STYLE}</style>
<h1>{html.escape(given.title)}</h1>
<p><small>{about}</small></p>
{_verdict(given)}
{_maps(given)}
{_domains(given)}
{_claims(given.edition)}
<h2>Classes</h2>{_classes(given)}
<h2>Confidence</h2>{_confidence(given)}
<h2>Coverage</h2>{_coverage(given)}
<h2>Elevation</h2>{_elevation(given)}
<h2>Seams</h2>{_seams(given)}
<h2>Radiometry</h2>{_radiometry(given)}
<h2>Throughput</h2>{_throughput(given)}
</html>
"""


def _verdict(given: Report) -> str:
    if not given.exceeded:
        return '<p class="good">No limit of the campaign is passed.</p>'
    lines = "".join(f"<li>{html.escape(str(e))}</li>" for e in given.exceeded)
    return f'<p class="bad">Limits of the campaign that are passed:</p><ul>{lines}</ul>'


def _maps(given: Report) -> str:
    p = given.pictures
    present = [v for v in given.live if (p.classes == v).any()]
    key = "".join(f"<span>{class_name(v)}</span>" for v in present)
    states: dict[State, int] = {
        "sealed": given.figures.coverage.sealed,
        "damaged": given.figures.coverage.damaged,
        "failed": given.figures.coverage.failed,
        "missing": given.figures.coverage.missing,
    }
    tiles = "".join(f"<span>{swatch(STATE_COLOURS[s], f'{n} {s}')}</span>" for s, n in states.items())
    return f"""<figure class="map">{image("land cover", charts.picture(class_colours(p.classes)))}
<figcaption class="key">{key}</figcaption></figure>
<div class="pair"><figure class="map">{image("confidence", charts.picture(charts.confidence_colours(p.confidence)))}
<figcaption>Confidence: dark is unsure, bright is sure.</figcaption></figure>
<figure class="map">{image("tiles by state", charts.picture(p.states))}
<figcaption class="key">Tiles: {tiles}</figcaption></figure></div>"""


def _domains(given: Report) -> str:
    if not given.domains:
        return ""
    rows = []
    for name, f in given.domains.items():
        ratios = (_ratio(r) for r in f.seams.ratios.values())
        done = f"{f.coverage.sealed} of {f.coverage.expected}"
        rows.append((html.escape(name), done, _percent(f.no_data_share), _percent(f.holes.share), *ratios))
    head = ("domain", "tiles sealed", "no data", "elevation holes", "window seams", "block seams", "tile seams")
    return f"<h2>Domains</h2>{table(head, rows)}"


def _claims(edition: Edition | None) -> str:
    """Who claims, owns and shows the edition's pixels, as its publish counted them."""
    if edition is None:
        return ""
    if not edition.tallies:
        return "<h2>Claims</h2><p>The edition is older than their counting: publish again.</p>"
    t, beyond = edition.tally, edition.undelivered_km2
    rows = [
        (
            html.escape(name),
            _km2(t.owned.get(name, 0)),
            _km2(t.filled.get(name, 0)),
            f"{beyond.get(name, 0.0):,.2f} km²",
        )
        for name in edition.domains
    ]
    head = ("domain", "owns", "shows where others own and lack imagery", "polygon outside its tiles")
    return (
        f"<h2>Claims</h2><p>Claimed by several domains: {t.several:,} pixels ({_km2(t.several)}); by none, in "
        f"delivered tiles: {t.nobody:,} pixels ({_km2(t.nobody)}).</p>{table(head, rows)}"
    )


def _km2(pixels: int) -> str:
    return f"{pixels / PIXELS_PER_M**2 / 1e6:,.2f} km²"


def _classes(given: Report) -> str:
    values = [v for v in given.live if any(own.get(v) for own in given.shares.values())]
    if not values:
        return "<p>Nothing is mapped yet.</p>"
    rows = [(class_name(v), *(_percent(own.get(v, 0.0)) for own in given.shares.values())) for v in values]
    found = table(("share of the mapped area", *(html.escape(name) for name in given.shares)), rows)
    return image("class shares", charts.class_bars(given.shares, values)) + found


def _confidence(given: Report) -> str:
    counts = given.pictures.confidence_counts
    total = int(counts[1:].sum())
    if not total:
        return "<p>Nothing is mapped yet.</p>"
    mean = float((counts * np.arange(256)).sum()) / total / 255
    unsure = counts[1:128].sum() / total
    return (
        f"<p>Mean {mean:.3f}; {_percent(float(unsure))} of pixels are below one half. Counted on {total / 1e6:.1f} Mpx "
        f"at full resolution, evenly spread over the tiles.</p>{image('confidence', charts.confidence_bars(counts))}"
    )


def _coverage(given: Report) -> str:
    f, c = given.figures, given.figures.coverage
    counts = table(
        ("tiles", "expected", "sealed", "damaged", "failed", "missing", "share sealed"),
        [("", *(str(n) for n in (c.expected, c.sealed, c.damaged, c.failed, c.missing)), _percent(c.share))],
    )
    gaps = f"<p>{_percent(f.no_data_share)} of the sealed pixels are no data.</p>"
    worst = [(html.escape(name), _percent(share)) for name, share in given.gaps[:_LISTED]]
    gaps += table(("tile with gaps", "without data"), worst) if worst else ""
    failed = [(html.escape(name), html.escape(cause)) for name, cause in given.failures[:_LISTED]]
    named = table(("failed tile", "cause"), failed) + _more(given.failures) if failed else "<p>No tile failed.</p>"
    missing = ", ".join(html.escape(name) for name in given.missing[:_LISTED])
    lacking = f"<p>Missing: {missing}{_more(given.missing)}</p>" if missing else ""
    return counts + gaps + named + lacking


def _elevation(given: Report) -> str:
    holes = given.figures.holes
    if not holes.counted:
        return (
            f"<p>Holes are not counted: the heights of all {holes.tiles} tiles are made while reading. "
            "<code>landcover stage</code> writes them as files, and counts.</p>"
        )
    told = f"{_percent(holes.share)} of {holes.counted} tiles, of {holes.tiles} in all, have no elevation"
    rows = [(html.escape(name), _percent(share)) for name, share in given.holes[:_LISTED]]
    return f"<p>{told}.</p>" + (table(("tile", "without elevation"), rows) if rows else "")


def _seams(given: Report) -> str:
    rows = [(f"{kind}: {called}", *_counts(getattr(given.figures.seams, kind))) for kind, called in _KINDS.items()]
    if given.borders is not None:
        rows.append(("borders of domains", *_counts(given.borders)))
    borders = (
        " At borders of domains imagery, and often the year, changes: no seam of the mapping." if given.borders else ""
    )
    head = ("edges of", "ratio", "changes across edges", "changes beside them", "pixel pairs", "segments")
    return (
        "<p>Class changes between neighbouring pixels across edges, over changes across parallel lines beside them: 1 "
        f"is seamless. ± is one standard error, from segments of a block's length.{borders}</p>{table(head, rows)}"
    )


def _counts(found: Crossings) -> tuple[str, ...]:
    if found.seam_ratio is None:
        return ("there are none", "", "", "", "")
    changes, pairs, beside, pairs_beside = found.sums
    rates = (f"{100 * changes / pairs:.3f} %", f"{100 * beside / pairs_beside:.3f} %")
    return (_ratio(found.seam_ratio), *rates, f"{found.pairs:,}", f"{found.segments:,}")


def _radiometry(given: Report) -> str:
    if not given.levels:
        return "<p>The catalogue does not remember the imagery's levels: index the domain again.</p>"
    rows = [
        (
            f"{html.escape(name)} {b.band}",
            f"{b.mean:.1f}",
            f"{b.std:.1f}",
            f"{b.trained_mean:.1f}",
            f"{b.trained_std:.1f}",
            f"{b.off:+.2f}",
        )
        for name, bands in given.levels.items()
        for b in bands
    ]
    head = ("band", "mean", "deviation", "trained mean", "trained deviation", "off by, in deviations")
    offs: dict[str, list[float]] = {}
    for bands in given.tile_levels.values():
        for b in bands:
            offs.setdefault(b.band, []).append(b.off)
    outlying = [
        (
            html.escape(tile),
            "; ".join(f"{b.band} {b.mean:.0f} ± {b.std:.0f} ({b.off:+.2f})" for b in bands if b.outlying),
        )
        for tile, bands in given.tile_levels.items()
        if any(b.outlying for b in bands)
    ]
    listed = "<p>No tile is outlying.</p>"
    if outlying:
        listed = table(("outlying tile", "mean ± deviation (off by)"), outlying[:_LISTED]) + _more(outlying)
    unseen = f"<p>Of {given.unseen} tiles nothing is remembered: index again.</p>" if given.unseen else ""
    return (
        "<p>Levels of the lowest resolution level, without fill, beside those of the training images. A tile is "
        "outlying where its mean lies more than one training deviation off, or its deviation is outside ⅓..2 times "
        f"theirs: what <code>landcover index</code> refuses of a whole domain.</p>{table(head, rows)}"
        f"{image('tiles against training', charts.tile_dots(offs, limit=1.0))}{listed}{unseen}"
    )


def _throughput(given: Report) -> str:
    if not given.pace:
        return "<p>No run left a record.</p>"
    rows = []
    for name, p in given.pace.items():
        times = (
            ("not predicted", "") if not p.predicted_s else (_clock(p.predicted_s), f"{p.seconds / p.predicted_s:.2f}")
        )
        mapped = (f"{p.sealed_pixels / 1e6:,.1f}", f"{p.mpx_per_s:.3f}")
        rows.append((html.escape(name), *mapped, _clock(p.seconds), *times))
    head = ("last run of", "Mpx mapped", "Mpx/s", "took", "predicted", "actual / predicted")
    tiles = given.sealed_tiles
    drawn = image("speed of tiles", charts.pace([t["seconds"] for t in tiles], [t["pixels"] for t in tiles]))
    return table(head, rows) + (drawn if tiles else "")


def _ratio(ratio: SeamRatio | None) -> str:
    return "–" if ratio is None else html.escape(str(ratio))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"


def _more(found: Sequence[Any]) -> str:
    return f" … and {len(found) - _LISTED} more" if len(found) > _LISTED else ""


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

"""`windows`: what window, margin, head and blending do to maps of networks that see farther than a U-Net on a ResNet.

Stand-ins for published networks map an endless plane of the imagery's patches in windows. Each map is compared with one
forward of the whole image: the share of pixels that differ, and the seam ratio of `landcover verify` on the edges of
cores. There the whole forward has no seams, so its ratio on the same lines shows what chance and patches make of it.

The heads of UPerNet and FPN enlarge their logits by 4. Both ways of enlarging are measured on the same forwards. For
UPerNet they are also compared with labels, by networks that were trained with the published head.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from pipeline.bench.development.networks.border_accuracy import HeadAccuracy, as_lines
from pipeline.bench.development.networks.split_network import Classes, Head, SplitNetwork, map_in_windows, map_whole
from pipeline.bench.development.networks.stand_ins import StandIn, labelled_patches, stand_ins
from pipeline.bench.imagery import Imagery, PatchStack
from pipeline.bench.report import BenchReport
from pipeline.config import load_recipe
from pipeline.demo.network import TrainingTile
from pipeline.evaluation.figures import as_png
from pipeline.evaluation.seams import Crossings, Cuts, SeamRatio
from pipeline.halo import Layout
from pipeline.model import Model
from pipeline.progress import OnMessage

_CUT = 13
"""Pixels cut off the patches, so that their borders do not lie on edges of cores."""
_EDGES = 4_000
"""Pixels along edges of cores that are enough, except for the default windows: others map a smaller image."""


def run(imagery: Imagery, *, on_message: OnMessage) -> BenchReport:
    """Trains the stand-ins and maps with them, which takes minutes."""
    tiles, notes = labelled_patches(imagery)
    plane = np.stack([tile.pixels for tile in tiles])[..., :-_CUT, :-_CUT]
    windows: dict[str, list[dict[str, Any]]] = {}
    accuracy: dict[str, list[dict[str, Any]]] = {}
    for one in stand_ins(quick=imagery.scale.quick):
        network, rows = _trained(one, tiles, imagery.model)
        on_message(f"{one.name}: trained")
        if rows:
            accuracy[one.name] = rows
        windows[one.name] = _measured(network, one, plane)
        for line in (*as_lines(rows), *_lines(windows[one.name])):
            on_message(line)
    figures = _figures(windows, accuracy)
    notes = (*imagery.notes, *notes, "stand-ins: small networks, trained for minutes")
    return BenchReport(figures, {"windows": windows, "accuracy": accuracy}, _chart(windows), notes)


def _trained(one: StandIn, tiles: Sequence[TrainingTile], start: Model) -> tuple[SplitNetwork, list[dict[str, Any]]]:
    """Networks that each left out another patch: the first of them, and the accuracy of all."""
    recipe, networks = one.recipe(tiles), []
    accuracy = HeadAccuracy(recipe.live)
    for fold in range(max(1, one.folds)):
        others = [tile for i, tile in enumerate(tiles) if i != fold]
        networks.append(SplitNetwork(one.trained(others, recipe, start=start, seed=fold), recipe))
        if one.folds:
            accuracy.add(networks[-1], [tiles[fold]], patches="left out")
            accuracy.add(networks[-1], others, patches="trained on")
    return networks[0], accuracy.rows()


def _measured(network: SplitNetwork, one: StandIn, plane: PatchStack) -> list[dict[str, Any]]:
    stride = one.layouts[0].stride
    padding = -(-max(layout.halo for layout in one.layouts) // stride) * stride
    whole = map_whole(network, plane, one.side, padding)
    rows = []
    for layout in one.layouts:
        side = _side(one, layout)
        maps = map_in_windows(network, plane, layout, side)
        rows += [_row(layout, head, maps[head], whole[head][:side, :side]) for head in network.heads]
    return rows


def _side(one: StandIn, layout: Layout) -> int:
    """Side of the image: whole cores, as many as it may have or as have enough edges between them."""
    most = one.side // layout.core
    if layout == one.layouts[0]:
        return most * layout.core
    enough = (n for n in range(2, most) if 2 * n * (n - 1) * layout.core >= _EDGES)
    return next(enough, most) * layout.core


def _row(layout: Layout, head: Head, maps: tuple[Classes, Classes], whole: Classes) -> dict[str, Any]:
    row: dict[str, Any] = {
        "window": layout.window,
        "margin": layout.halo,
        "core": layout.core,
        "head": head,
        "computed_for_each_kept": layout.overlap_factor,
        "image": len(whole),
    }
    for name, classes in (("whole", whole), ("plain", maps[0]), ("blended", maps[1])):
        found = seam_ratio(classes, layout)
        row[f"{name}_seams"] = found.ratio if found else None
        row[f"{name}_seams_error"] = found.standard_error if found else None
        if name != "whole":
            row[f"{name}_differs"] = float((classes != whole).mean())
    return row


def seam_ratio(classes: Classes, layout: Layout) -> SeamRatio | None:
    """The seam ratio of a square map on the edges of its cores, as `landcover verify` has it for windows."""
    cuts, found = Cuts(block=layout.core, core=layout.core, stride=layout.stride), Crossings()
    for edge in range(layout.core, len(classes), layout.core):
        near = slice(edge - cuts.reach, edge + cuts.reach)
        found += cuts.crossings(classes[near]) + cuts.crossings(classes[:, near].T)
    return found.seam_ratio


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows for a screen of 80 columns, with their heading."""
    lines = [
        f"{'':30} {'':4} {'':8} {'':11} {'whole:':>6}  blended:",
        f"  {'window/margin':15} {'head':12} {'cost':>4} {'differ':>8} {'seams':>11} {'seams':>6} {'differ':>9} seams",
    ]
    for row in rows:
        layout = f"{row['window']}/{row['margin']}"
        seams = f"{_number(row['plain_seams'])} ± {_number(row['plain_seams_error'])}"
        lines.append(
            f"  {layout:15} {row['head']:12} {row['computed_for_each_kept']:4.1f} {100 * row['plain_differs']:6.2f} % "
            f"{seams:>11} {_number(row['whole_seams']):>6} {100 * row['blended_differs']:7.2f} % "
            f"{_number(row['blended_seams']):>5}"
        )
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _figures(
    windows: Mapping[str, Sequence[Mapping[str, Any]]], accuracy: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, float]:
    """Figures of the default windows of both UPerNets with the head of the shipped recipe, and of both heads."""
    figures: dict[str, float] = {}
    for one in stand_ins(quick=False):
        if not one.folds:
            continue
        rows = {row["head"]: row for row in windows[one.name][:2]}
        shipped = rows["centred" if load_recipe(one.shipped).centred_upsampling else "published"]
        key = "swin" if "Swin" in one.name else "default"
        figures[f"windows.seam_ratio_{key}"] = shipped["plain_seams"]
        figures[f"windows.disagreement_{key}"] = shipped["plain_differs"]
        figures[f"windows.seam_ratio_{key}_published_head"] = rows["published"]["plain_seams"]
        left_out = {row["head"]: row for row in accuracy[one.name] if row["patches"] == "left out"}
        for name in ("oa", "oa_near_borders"):
            figures[f"windows.{name}_ratio_{key}"] = left_out["centred"][name] / left_out["published"][name]
    return figures


_STYLES = {
    "published": ("C1", "o", "plain_seams"),
    "published, blended": ("C1", "x", "blended_seams"),
    "centred": ("C0", "o", "plain_seams"),
    "centred, blended": ("C0", "x", "blended_seams"),
    "whole image": ("0.5", "_", "whole_seams"),
}


def _chart(windows: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Seam ratio, and below it the share that differs, of each network's windows."""
    counts = [max(2, len({(r["window"], r["margin"]) for r in rows})) for rows in windows.values()]
    figure = Figure(figsize=(10, 6.4), dpi=110, layout="constrained")
    panels = figure.subplots(2, len(windows), sharex="col", sharey="row", squeeze=False, width_ratios=counts)
    for column, (name, rows) in enumerate(windows.items()):
        upper, lower = panels[:, column]
        _draw(upper, lower, rows)
        upper.set_title(name, fontsize=10)
        upper.axhline(1, color="0.8", linewidth=1, zorder=0)
    panels[0, 0].set_ylabel("seam ratio")
    panels[1, 0].set_ylabel("differing pixels, %")
    panels[0, 0].set_ylim(bottom=0)
    panels[1, 0].set_yscale("log")
    panels[1, 0].yaxis.set_major_formatter("{x:g}")
    panels[1, 0].yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    figure.supxlabel("window / margin, px", fontsize=10)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9)
    return as_png(figure)


def _draw(upper: Axes, lower: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    places = sorted({(row["window"], row["margin"]) for row in rows})
    for shift, (label, (color, marker, key)) in enumerate(_STYLES.items()):
        head = "centred" if label.startswith("centred") else "published"
        own = [row for row in rows if row["head"] == head and row[key] is not None]
        at = [places.index((row["window"], row["margin"])) + 0.12 * (shift - 2) for row in own]
        errors = [row[f"{key}_error"] or 0.0 for row in own]
        upper.errorbar(at, [row[key] for row in own], yerr=errors, fmt=marker, color=color, label=label, elinewidth=0.8)
        if key != "whole_seams":
            differing = key.replace("seams", "differs")
            lower.plot(at, [100 * row[differing] for row in own], marker, color=color)
    lower.set_xticks(range(len(places)), [f"{window}\n{margin}" for window, margin in places], fontsize=8)

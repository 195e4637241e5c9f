"""Whether a network that was trained with the published head loses accuracy with the centred one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from pipeline.bench.development.networks.split_network import Head, SplitNetwork
from pipeline.demo.network import TrainingTile
from pipeline.evaluation.metrics import confusion_matrix, scores

_NEAR = 3
"""Pixels from a border between two classes."""
_CLASSES = 19


@dataclass
class _Counted:
    """Confusion of one head, network by network."""

    everywhere: list[NDArray[np.int64]] = field(default_factory=list)
    """int64 (class, class) of each network."""
    borders: list[NDArray[np.int64]] = field(default_factory=list)
    """The same near borders alone."""


class HeadAccuracy:
    """Accuracy of both heads over several networks, on patches that each was trained on and on others.

    A patch is one window, as in training.
    """

    def __init__(self, live: Sequence[int]) -> None:
        self._live = [value - 1 for value in live]
        self._counted: dict[tuple[str, Head], _Counted] = {}

    def add(self, network: SplitNetwork, tiles: Sequence[TrainingTile], *, patches: str) -> None:
        """Counts one more network on some patches: `left out` or `trained on`."""
        found = {head: np.zeros((2, _CLASSES, _CLASSES), np.int64) for head in network.heads}
        for tile in tiles:
            truth = np.where(np.isin(tile.truth - 1, self._live), tile.truth.astype(np.int64) - 1, -1)
            near = np.where(_near_borders(tile.truth), truth, -1)
            logits = network.small_logits(tile.pixels)
            for head in network.heads:
                mapped = network.classes(network.enlarged(logits, head)).astype(np.int64) - 1
                found[head] += np.stack([confusion_matrix(labels, mapped, _CLASSES) for labels in (truth, near)])
        for head, (everywhere, borders) in found.items():
            one = self._counted.setdefault((patches, head), _Counted())
            one.everywhere.append(everywhere)
            one.borders.append(borders)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each head and kind of patches; `…_gain` is over the published head, with its standard error."""
        return [self._row(patches, head) for patches, head in self._counted]

    def _row(self, patches: str, head: Head) -> dict[str, Any]:
        own, published = self._counted[patches, head], self._counted[patches, "published"]
        total = self._scores(sum(own.everywhere))
        row: dict[str, Any] = {"patches": patches, "head": head, "networks": len(own.everywhere)}
        row |= {"oa": total["oa"], "miou": total["miou"], "oa_near_borders": self._scores(sum(own.borders))["oa"]}
        kinds = {"oa": "everywhere", "miou": "everywhere", "oa_near_borders": "borders"}
        for name, kind in kinds.items():
            mean = name.removesuffix("_near_borders")
            gains = [
                self._scores(a)[mean] - self._scores(b)[mean]
                for a, b in zip(getattr(own, kind), getattr(published, kind), strict=True)
            ]
            row[f"{name}_gain"] = float(np.mean(gains))
            if len(gains) > 1:
                row[f"{name}_gain_error"] = float(np.std(gains, ddof=1) / np.sqrt(len(gains)))
        return row

    def _scores(self, matrix: Any) -> Mapping[str, Any]:
        return scores(matrix, live=self._live, mode="present")


def _near_borders(truth: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """True where another class lies within a square of `_NEAR` pixels around a pixel."""
    size = 2 * _NEAR + 1
    near: NDArray[np.bool_] = maximum_filter(truth, size) != minimum_filter(truth, size)
    return near


def as_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows for a screen of 80 columns, with a heading; none without rows."""
    lines = [f"  accuracy, %: a patch as one window; near: within {_NEAR} px of borders"] if rows else []
    lines += [f"  {'patches':10} {'head':9} {'OA':>6} {'mIoU':>6} {'near':>6}  gain: OA, near"] if rows else []
    for row in rows:
        figures = " ".join(f"{100 * row[key]:6.2f}" for key in ("oa", "miou", "oa_near_borders"))
        gained = "" if row["head"] == "published" else f"  {_gain(row, 'oa')}, {_gain(row, 'oa_near_borders')}"
        lines.append(f"  {row['patches']:10} {row['head']:9} {figures}{gained}")
    return lines


def _gain(row: Mapping[str, Any], key: str) -> str:
    error = row.get(f"{key}_gain_error")
    return f"{100 * row[f'{key}_gain']:+.2f}" + ("" if error is None else f" ± {100 * error:.2f}")

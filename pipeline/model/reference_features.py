"""Features of the imagery that a network was trained on, and how far other imagery is from them: the novelty score.

The encoder's deepest features are averaged over squares of cells. The distance of a square is Mahalanobis's to the
squares of labelled patches (Lee et al., NeurIPS 2018, arXiv 1807.03888; on pooled encoder features of networks for
segmentation, averaged over an image: González et al., Medical Image Analysis 82, 2022). There are often fewer squares
than channels, so the covariance is shrunk towards a multiple of the identity (Ledoit and Wolf, Journal of Multivariate
Analysis 88, 2004), after each channel was divided by its standard deviation.

A square's novelty is its distance divided by the threshold, and a tile's is the mean over its squares. The threshold is
the quantile `QUANTILE` of zones' mean distances, each zone left out of the fit, in which its squares would be too near.
So means are compared with means: above 1 a tile's imagery is unlike that of the patches, more than nearly all zones are
unlike the others. Single squares of usual imagery exceed 1 more often.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from pipeline.config import Recipe
from pipeline.durable import write_bytes
from pipeline.errors import EvaluationError, WeightsError
from pipeline.fingerprint import digest
from pipeline.untrusted.own_files import open_regular

SQUARE_CELLS = 8
"""Cells of the deepest features along a square's side, about: 256 px with a stride of 32."""
QUANTILE = 0.99
_FOLDS = 5
_LEAST_SQUARES = 20
_FLOOR = 0.1
"""Of the mean standard deviation, the least that a channel is divided by: one that never changed would decide alone."""
_KEY = "landcover"
_MOST_BYTES = 256 * 2**20
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReferenceFeatures:
    """The distribution of a network's pooled features over its training imagery."""

    mean: Floats
    """float64 (channel,)."""
    whitening: Floats
    """float64 (channel, channel): differences from the mean times this have unit covariance."""
    threshold: float
    """Mean distance that a share of 1 − `QUANTILE` of left out zones exceeds."""
    weights_sha256: str
    recipe: str
    """Digest of the recipe without its temperature: see `feature_digest`."""
    squares: int
    zones: int

    def novelty(self, squares: NDArray[np.float32]) -> Floats:
        """Novelty of squares, float64 (square,).

        Args:
            squares: float32 (square, channel), from `pool_squares`.
        """
        return _distances(squares.astype(np.float64), self.mean, self.whitening) / self.threshold

    def save(self, path: Path) -> None:
        """Writes the file: the same reference gives the same bytes.

        Raises:
            StorageError: it cannot be written.
        """
        about = {name: getattr(self, name) for name in ("threshold", "weights_sha256", "recipe", "squares", "zones")}
        arrays = {"mean": self.mean, "whitening": self.whitening}
        write_bytes(path, safetensors.numpy.save(arrays, {_KEY: json.dumps(about, sort_keys=True)}))


@dataclass(frozen=True)
class ReferenceFile:
    """A reference by its file and checksum, which travels to workers instead of the arrays."""

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "ReferenceFile":
        """Raises WeightsError if it cannot be read."""
        return cls(path, hashlib.sha256(_content(path)).hexdigest())

    def load(self) -> ReferenceFeatures:
        """The reference, which a process keeps.

        Raises:
            WeightsError: it cannot be read, is not a reference, or changed.
        """
        return _load(self.path, self.sha256)

    def check_fits(self, weights_sha256: str, recipe: Recipe) -> None:
        """Raises WeightsError if it was made with other weights or another recipe."""
        found = self.load()
        for what, own, expected in (
            ("weights", found.weights_sha256, weights_sha256),
            ("recipe", found.recipe, feature_digest(recipe)),
        ):
            if own != expected:
                raise WeightsError(
                    f"{self.path}: this reference was made with another {what.removesuffix('s')}: {own[:12]}, expected "
                    f"{expected[:12]}; make one with `landcover calibrate --reference`"
                )


def feature_digest(recipe: Recipe) -> str:
    """Of all in a recipe that features depend on: the temperature changes none."""
    return digest(recipe.model_dump(mode="json", exclude={"temperature"}))


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read: {error.strerror or error}; `landcover calibrate --reference` makes a reference"
        ) from error
    if len(content) > _MOST_BYTES:
        raise WeightsError(f"{path}: has more than {_MOST_BYTES} bytes; expected a reference")
    return content


@lru_cache(maxsize=2)
def _load(path: Path, sha256: str) -> ReferenceFeatures:
    content = _content(path)
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise WeightsError(f"{path}: changed while it was used: expected SHA-256 {sha256}, found {found}")
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header["__metadata__"][_KEY])
        arrays = safetensors.numpy.load(content)
        read = ReferenceFeatures(
            arrays["mean"],
            arrays["whitening"],
            float(about["threshold"]),
            str(about["weights_sha256"]),
            str(about["recipe"]),
            int(about["squares"]),
            int(about["zones"]),
        )
        _check(read)
    except (ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"{path}: not a reference of features: {error}; `landcover calibrate --reference` makes one"
        ) from error
    return read


def _check(read: ReferenceFeatures) -> None:
    shapes = read.mean.shape, read.whitening.shape
    arrays = (read.mean, read.whitening)
    if shapes != ((len(read.mean),), (len(read.mean),) * 2) or not all(np.isfinite(a).all() for a in arrays):
        raise ValueError(f"expected finite arrays (channel,) and (channel, channel), found {shapes}")
    if not 0 < read.threshold < np.inf:
        raise ValueError(f"expected a threshold above 0, found {read.threshold}")


def fit_reference(
    squares: NDArray[np.float32], zones: Sequence[str], *, weights_sha256: str, recipe: Recipe
) -> ReferenceFeatures:
    """The distribution of squares, and its threshold from zones that are left out of the fit in turn.

    Args:
        squares: float32 (square, channel).
        zones: of each square.
        weights_sha256: of the network.
        recipe: of the network.

    Raises:
        EvaluationError: fewer than two zones or 20 squares.
    """
    names, zone = np.unique(np.asarray(zones), return_inverse=True)
    if len(names) < 2 or len(squares) < _LEAST_SQUARES:
        raise EvaluationError(
            f"a reference needs labelled patches of two or more zones, and {_LEAST_SQUARES} squares of about "
            f"{SQUARE_CELLS} cells; found {len(names)} zones and {len(squares)} squares"
        )
    values = squares.astype(np.float64)
    fold = zone % min(_FOLDS, len(names))
    distances = np.empty(len(values))
    for k in range(int(fold.max()) + 1):
        distances[fold == k] = _distances(values[fold == k], *_fit(values[fold != k]))
    threshold = float(np.quantile([distances[zone == z].mean() for z in range(len(names))], QUANTILE))
    return ReferenceFeatures(*_fit(values), threshold, weights_sha256, feature_digest(recipe), len(squares), len(names))


def _distances(values: Floats, mean: Floats, whitening: Floats) -> Floats:
    distance: Floats = np.sqrt((((values - mean) @ whitening) ** 2).mean(axis=1))
    return distance


def _fit(values: Floats) -> tuple[Floats, Floats]:
    """Mean, and the whitening of the shrunk covariance."""
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    scale = np.maximum(deviation, max(_FLOOR * float(deviation.mean()), 1e-12))
    variances, vectors = np.linalg.eigh(shrunk_covariance((values - mean) / scale))
    return mean, vectors / np.sqrt(np.maximum(variances, 1e-12)) / scale[:, None]


def shrunk_covariance(centred: Floats) -> Floats:
    """Ledoit's and Wolf's covariance of values (n, channel) whose mean is 0."""
    n, channels = centred.shape
    sample = centred.T @ centred / n
    middle = float(np.trace(sample)) / channels
    target = middle * np.eye(channels)
    away = float(((sample - target) ** 2).sum())
    # Σ |x xᵀ − S|² / n² = (Σ |x|⁴ / n − |S|²) / n
    noise = (float(((centred**2).sum(axis=1) ** 2).mean()) - float((sample**2).sum())) / n
    weight = min(noise, away) / away if away > 0 else 0.0
    shrunk: Floats = weight * target + (1 - weight) * sample
    return shrunk


def pool_squares(
    features: NDArray[np.float32], valid: NDArray[np.bool_], kept: tuple[slice, slice]
) -> NDArray[np.float32]:
    """Means of features over squares of about `SQUARE_CELLS` cells: float32 (square, channel).

    Args:
        features: float32 (channel, row, col) of a window: the encoder's deepest ones.
        valid: bool (y, x) of the window: True = data. Squares in which most cells have none are left out.
        kept: rows and columns of the window whose cells are pooled: its core.
    """
    _, *cells = features.shape
    stride = tuple(side // n for side, n in zip(valid.shape, cells, strict=True))
    data = valid.reshape(cells[0], stride[0], cells[1], stride[1]).mean(axis=(1, 3)) > 0.5
    rows, cols = (_parts(-(-k.start // s), k.stop // s) for k, s in zip(kept, stride, strict=True))
    pooled = [
        features[:, r, c][:, data[r, c]].mean(axis=1, dtype=np.float64)
        for r in rows
        for c in cols
        if 2 * data[r, c].sum() > data[r, c].size
    ]
    return np.array(pooled, np.float32).reshape(-1, len(features))


def _parts(start: int, stop: int) -> list[slice]:
    count = stop - start
    if count < 1:
        return []
    edges = np.linspace(start, stop, max(1, round(count / SQUARE_CELLS)) + 1).round().astype(int).tolist()
    return [slice(a, b) for a, b in pairwise(edges)]

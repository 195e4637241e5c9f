"""Makes the reference of a network's features from labelled patches: `landcover calibrate --reference`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import EngineError
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.model import Ensemble, Model
from pipeline.model.reference_features import QUANTILE, ReferenceFeatures, fit_reference, pool_squares
from pipeline.progress import SILENT, Progress
from pipeline.sources.labels.patches import find_patches, read_image

REFERENCE = "reference.safetensors"


@dataclass(frozen=True, eq=False)
class WrittenReference:
    """A reference that was made."""

    path: Path
    features: ReferenceFeatures

    def __str__(self) -> str:
        own = self.features
        return (
            f"{own.squares} squares of {own.zones} zones, {len(own.mean)} channels; novelty 1 is the mean distance "
            f"that {100 * QUANTILE:.0f} % of the zones do not exceed where they are left out"
        )


def make_reference(
    places: Sequence[Path],
    *,
    model: Model | Ensemble,
    out: Path,
    metadata: Path | None = None,
    progress: Progress = SILENT,
) -> WrittenReference:
    """Maps each patch once, and writes the distribution of its features.

    Args:
        places: folders and CSV lists of the patches that the network was trained on, or of others of their kind.
        model: a single network.
        out: folder of the file.
        metadata: JSON with domain and zone of patches whose paths do not name them.
        progress: counts patches.

    Raises:
        DeliveryError, SourceError: patches that are missing, unreadable or not patches.
        EngineError: an average, or a network without an encoder.
        EvaluationError: fewer than two zones, or too few patches.
        StorageError: `out` cannot be written.
    """
    if isinstance(model, Ensemble):
        raise EngineError("the novelty score is of a single forward: make a reference of one network, without tta")
    rules, predictor = model.recipe, TorchPredictor(model)
    patches = find_patches(places, metadata=metadata)
    progress.start(len(patches))
    squares: list[NDArray[np.float32]] = []
    zones: list[str] = []
    for patch in progress.track(patches):
        image = read_image(patch, bands=rules.bands)
        valid = np.ones(image.shape[1:], np.bool_)
        _, features = predictor.with_features(image[None], valid[None])
        own = pool_squares(features[0], valid, (slice(0, image.shape[1]), slice(0, image.shape[2])))
        squares.append(own)
        zones += [patch.unit] * len(own)
    found = fit_reference(np.concatenate(squares), zones, weights_sha256=model.weights_hash, recipe=rules)
    path = out / REFERENCE
    found.save(path)
    return WrittenReference(path, found)

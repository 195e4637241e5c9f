"""The STAC item of a model, in the fields of the MLM extension: what the products were derived with."""

from collections.abc import Mapping
from typing import Any

import pystac
from pystac.utils import str_to_datetime

from pipeline import legend
from pipeline.config import Recipe
from pipeline.products.tile.stac_item import classes_of
from pipeline.stac_fields import checksum, extension_schemas, origin_fields

_EXTENSIONS = extension_schemas("mlm/v1.4.0", "classification/v2.0.0", "file/v2.1.0", "scientific/v1.0.0")
_ARCHITECTURES = {"unet": "U-Net", "fpn": "FPN"}
TASK = "semantic-segmentation"


def model_item(recipe: Recipe, *, sealed: Mapping[str, Any]) -> dict[str, Any]:
    """The item of the model that a product was derived with, as JSON-able content.

    It has neither place nor time of its own: its geometry is null, and its time is the year of the product's data.

    Args:
        recipe: of that model.
        sealed: content of the item of a tile that was mapped with it.
    """
    said = sealed["properties"]
    item = pystac.Item(
        id=f"{recipe.name}-{said['landcover:weights_sha256'][:12]}",
        geometry=None,
        bbox=None,
        datetime=None,
        start_datetime=str_to_datetime(said["start_datetime"]),
        end_datetime=str_to_datetime(said["end_datetime"]),
        properties=_fields(recipe, int(said["landcover:layout"]["window"]))
        | origin_fields(licence=recipe.licence, citation=recipe.citation, doi=recipe.doi),
        stac_extensions=list(_EXTENSIONS),
    )
    weights: dict[str, Any] = {
        "bands": [{"name": band, "data_type": "uint8"} for band in recipe.bands],
        "mlm:artifact_type": "torch.save",
        "file:checksum": checksum(said["landcover:weights_sha256"]),
    }
    item.add_asset(
        "weights",
        pystac.Asset(
            said["landcover:weights"],
            title=f"Weights of {recipe.name}",
            media_type="application/octet-stream; framework=pytorch",
            roles=["mlm:model", "mlm:weights"],
            extra_fields=weights,
        ),
    )
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def architecture(recipe: Recipe) -> str:
    """What MLM calls the architecture: `U-Net, resnet34`."""
    return f"{_ARCHITECTURES.get(recipe.architecture, recipe.architecture)}, {recipe.encoder}"


def _fields(recipe: Recipe, window: int) -> dict[str, Any]:
    """The model as the MLM extension describes one: what goes in, normalised how, and what comes out."""
    size = [window, window]
    return {
        "mlm:name": recipe.name,
        "mlm:architecture": architecture(recipe),
        "mlm:tasks": [TASK],
        "mlm:framework": "PyTorch",
        "mlm:input": [
            {
                "name": "imagery and heights",
                "bands": list(recipe.bands),
                "input": {
                    "shape": [-1, len(recipe.bands), *size],
                    "dim_order": ["batch", "channel", "height", "width"],
                    "data_type": "float32",
                },
                "value_scaling": [
                    {"type": "z-score", "mean": mean, "stddev": std}
                    for mean, std in zip(recipe.mean, recipe.std, strict=True)
                ],
                "resize_type": None,
            }
        ],
        "mlm:output": [
            {
                "name": "logits",
                "tasks": [TASK],
                "description": "logit i is FLAIR class i + 1; those of other classes than these are masked",
                "result": {
                    "shape": [-1, recipe.logits, *size],
                    "dim_order": ["batch", "class", "height", "width"],
                    "data_type": "float32",
                },
                "classification:classes": classes_of(legend.classes(recipe.live)),
            }
        ],
        "mlm:hyperparameters": {"temperature": recipe.temperature},
    }

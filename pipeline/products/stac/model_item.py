"""The STAC item of a model, in the fields of the MLM extension; items of tiles link to it."""

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
    """The item of a model as JSON-able content.

    A model has no place or time of its own: the geometry is null, and the time span is that of the tile.

    Args:
        recipe: of the model.
        sealed: the item of a tile that the model mapped.
    """
    tile = sealed["properties"]
    item = pystac.Item(
        id=f"{recipe.name}-{tile['landcover:weights_sha256'][:12]}",
        geometry=None,
        bbox=None,
        datetime=None,
        start_datetime=str_to_datetime(tile["start_datetime"]),
        end_datetime=str_to_datetime(tile["end_datetime"]),
        properties=_fields(recipe, int(tile["landcover:layout"]["window"]))
        | origin_fields(licence=recipe.licence, citation=recipe.citation, doi=recipe.doi),
        stac_extensions=list(_EXTENSIONS),
    )
    single = {"weights": tile["landcover:weights"], "sha256": tile["landcover:weights_sha256"], "recipe": recipe.name}
    members = tile.get("landcover:members", [single])
    for number, member in enumerate(members, 1):
        item.add_asset("weights" if len(members) == 1 else f"weights-{number}", _weights(recipe, member))
    if len(members) > 1 or "landcover:tta" in tile:
        averaged = {"members": [member["recipe"] for member in members], "tta": tile.get("landcover:tta", "none")}
        averaged |= {"temperature": tile["landcover:temperature"]} if "landcover:temperature" in tile else {}
        item.properties["mlm:hyperparameters"] = averaged
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def _weights(recipe: Recipe, member: Mapping[str, str]) -> pystac.Asset:
    return pystac.Asset(
        member["weights"],
        title=f"Weights of {member['recipe']}",
        media_type="application/octet-stream; framework=pytorch",
        roles=["mlm:model", "mlm:weights"],
        extra_fields={
            "bands": [{"name": band, "data_type": "uint8"} for band in recipe.bands],
            "mlm:artifact_type": "torch.save",
            "file:checksum": checksum(member["sha256"]),
        },
    )


def architecture(recipe: Recipe) -> str:
    """The name of the architecture in the MLM extension: `U-Net, resnet34`."""
    return f"{_ARCHITECTURES.get(recipe.architecture, recipe.architecture)}, {recipe.encoder}"


def _fields(recipe: Recipe, window: int) -> dict[str, Any]:
    """Inputs with their normalisation, outputs and hyperparameters, as the MLM extension describes them."""
    return {
        "mlm:name": recipe.name,
        "mlm:architecture": architecture(recipe),
        "mlm:tasks": [TASK],
        "mlm:framework": "PyTorch",
        "mlm:input": [
            {
                "name": "imagery and heights",
                "bands": list(recipe.bands),
                "input": _array("channel", len(recipe.bands), window),
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
                "description": _order_of_logits(recipe),
                "result": _array("class", recipe.logits, window),
                "classification:classes": classes_of(legend.classes(recipe.live)),
            }
        ],
        "mlm:hyperparameters": {"temperature": recipe.temperature},
    }


def _order_of_logits(recipe: Recipe) -> str:
    if not recipe.logit_values:
        return "logit i is FLAIR class i + 1; those of other classes than these are masked"
    values = ", ".join(map(str, recipe.logit_values))
    return f"the logits are FLAIR classes {values}; those of other classes than these are masked"


def _array(axis: str, length: int, window: int) -> dict[str, Any]:
    """Shape, axes and type of a batch of windows."""
    shape, axes = [-1, length, window, window], ["batch", axis, "height", "width"]
    return {"shape": shape, "dim_order": axes, "data_type": "float32"}

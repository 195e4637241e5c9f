"""What the generalised map of an edition changed, for the report."""

from typing import Any

from pipeline import legend
from pipeline.grid import PIXELS_PER_M
from pipeline.products.national.edition_record import Edition
from pipeline.products.national.generalised.layer import class_balance, read_layer


def generalised_areas(edition: Edition) -> dict[str, Any] | None:
    """The areas that classes gained and lost in the generalised map; None where an edition has none.

    Returns:
        `moved`, the share of the mapped area that changed class, 0..1; and `rows`: class, minimum area of a patch in m²
        (0 for none), then mapped, gained and lost hectares.

    Raises:
        ProductError: the layer's record cannot be read.
    """
    layer = read_layer(edition.path)
    if layer is None:
        return None
    balance, mapped = class_balance(layer.moved), layer.mapped
    units = {int(value): pixels / PIXELS_PER_M**2 for value, pixels in layer.units.items()}
    return {
        "moved": sum(layer.moved.values()) / max(1, sum(mapped.values())),
        "rows": [
            (kind, units.get(kind.value, 0.0), *map(_hectares, (mapped[kind.value], *balance.get(kind.value, (0, 0)))))
            for kind in legend.classes(mapped)
        ],
    }


def _hectares(pixels: int) -> float:
    return pixels / PIXELS_PER_M**2 / 1e4

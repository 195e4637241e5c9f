"""What the files of polygons and of changes in an edition say, for the report."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from pipeline import legend
from pipeline.errors import product_error
from pipeline.products.edition_files import EditionFile, EditionLayer, edition_layers
from pipeline.products.national.edition_record import Edition
from pipeline.untrusted.documents import Document, DocumentError, read_model

_Hectares = Annotated[float, Field(ge=0)]


class _Polygons(Document):
    landcover: int
    polygons: int
    area_m2: float


class _VectorRecord(Document):
    """What is read of `vectors.json`."""

    tolerance_m: float
    polygons: int
    area_m2: float
    classes: dict[str, _Polygons]


class _Options(Document):
    min_confidence: float
    min_area_m2: float


class ChangeFigures(Document):
    """What is read of the figures of a change; shares are None where nothing was compared."""

    compared_ha: _Hectares
    uncertain_ha: _Hectares
    other_imagery_ha: _Hectares
    land_change_ha: _Hectares
    land_change_share: float | None
    if_together: float | None
    if_independent: float | None
    same_imagery_ha: _Hectares
    map_change_ha: _Hectares
    map_change_share: float | None
    expected: float | None = None


class _ChangeRecord(Document):
    """What is read of `change.json`."""

    options: _Options
    figures: ChangeFigures


@dataclass(frozen=True)
class ReportedPolygons:
    """The polygons in a folder."""

    domain: str | None
    """The only domain; None for all."""
    tolerance_m: float
    number: int
    rows: tuple[tuple[legend.LandCover, int, float], ...]
    """Class, number of polygons, hectares."""
    files: tuple[EditionFile, ...]


@dataclass(frozen=True)
class ReportedChange:
    """A change since another edition."""

    since: int
    generalised: bool
    min_confidence: float
    min_area_m2: float
    figures: ChangeFigures
    files: tuple[EditionFile, ...]


def polygon_figures(edition: Edition) -> tuple[ReportedPolygons, ...]:
    """Number and area of the polygons of each class, for each folder of them in an edition.

    Raises:
        ProductError: a record cannot be read.
    """
    found = []
    for layer in _of_kind(edition, "polygons"):
        path = edition.path / layer.name / "vectors.json"
        with product_error(f"{path}: cannot be read; `landcover vectorize` writes it again", DocumentError):
            record = read_model(_VectorRecord, path)
        classes = sorted(record.classes.values(), key=lambda own: -own.area_m2)
        rows = tuple((legend.BY_VALUE[own.landcover], own.polygons, own.area_m2 / 1e4) for own in classes)
        found.append(ReportedPolygons(layer.domain, record.tolerance_m, record.polygons, rows, layer.files))
    return tuple(found)


def change_figures(edition: Edition) -> tuple[ReportedChange, ...]:
    """The figures of each change to an edition.

    Raises:
        ProductError: a record cannot be read.
    """
    found = []
    for layer in _of_kind(edition, "change"):
        path = edition.path / layer.name / "change.json"
        with product_error(f"{path}: cannot be read; `landcover change` writes it again", DocumentError):
            record = read_model(_ChangeRecord, path)
        options = record.options
        found.append(
            ReportedChange(
                layer.since or 0,
                layer.generalised,
                options.min_confidence,
                options.min_area_m2,
                record.figures,
                layer.files,
            )
        )
    return tuple(found)


def _of_kind(edition: Edition, kind: str) -> list[EditionLayer]:
    return [layer for layer in edition_layers(edition.path) if layer.kind == kind]

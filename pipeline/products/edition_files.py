"""The files of an edition: its map, and what later commands add: a generalised map, polygons, changes since others.

Sizes and checksums are those of the manifests, which an edition and each added folder have: no other file is opened.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.products.manifest import SealedFile, has_manifest, read_manifest

LayerKind = Literal["map", "generalised", "polygons", "change"]

_MAP = ("product.zarr", "pyramid.zarr", "catalog")
"""What is listed of the edition's own files."""
_FOLDERS: dict[LayerKind, re.Pattern[str]] = {
    "generalised": re.compile(r"generalised"),
    "polygons": re.compile(r"vectors(?:-(?P<domain>D\w{2,3}_\d{4}))?"),
    "change": re.compile(r"change-(?P<since>\d{6})(?P<generalised>-generalised)?"),
}
_CONTENT = {
    "product.zarr": "land cover and confidence at 0.20 m",
    "catalog": "STAC collections and items",
    "landcover.zarr": "generalised land cover at 0.20 m",
    "pyramid.zarr": "coarser levels",
    "landcover.parquet": "polygons of all domains",
    "landcover.pmtiles": "polygons in tiles, for maps on the web",
    "change.zarr": "change of each pixel",
    "areas.csv": "change by zone",
    "classes.csv": "change from class to class by zone",
    "polygons.parquet": "polygons of changed places",
    "polygons.gpkg": "polygons of changed places",
    "sample.gpkg": "places to look at",
}
"""Name of a file or of a folder that is opened as one → what it contains. Others are named by themselves."""
_MEDIA = {
    ".zarr": "application/vnd.zarr",
    ".parquet": "application/vnd.apache.parquet",
    ".gpkg": "application/geopackage+sqlite3",
    ".pmtiles": "application/vnd.pmtiles",
    ".csv": "text/csv",
    ".json": "application/json",
}


@dataclass(frozen=True)
class EditionFile:
    """A file, or a folder that is opened as one: a Zarr, or a table of many files."""

    layer: LayerKind
    path: str
    """From the edition's folder."""
    content: str
    """In a few words."""
    size: int | None
    """Bytes; None where only a part of the manifest is left."""
    sha256: str | None
    """None of a folder."""
    domain: str | None = None
    """The domain that it is of; None for all."""

    @property
    def media_type(self) -> str | None:
        """Media type, None where the kind of file is unknown."""
        return _MEDIA.get(Path(self.path).suffix)

    @property
    def role(self) -> Literal["data", "metadata"]:
        """Role of an asset in STAC."""
        return "metadata" if self.path.endswith(".json") else "data"


@dataclass(frozen=True)
class EditionLayer:
    """A folder that a command added to an edition."""

    kind: LayerKind
    name: str
    """Of the folder."""
    files: tuple[EditionFile, ...]
    domain: str | None = None
    """Of polygons: the only domain; None for all."""
    since: int | None = None
    """Of a change: the number of the earlier edition."""
    generalised: bool = False
    """Whether a change is that of generalised maps."""

    def has(self, *names: str) -> bool:
        """Whether all of these files or folders are in it."""
        return {f"{self.name}/{name}" for name in names} <= {file.path for file in self.files}

    def is_folder(self, name: str) -> bool:
        """Whether a file of it is a folder of files."""
        return any(file.path == f"{self.name}/{name}" and file.sha256 is None for file in self.files)


def edition_layers(edition: Path) -> tuple[EditionLayer, ...]:
    """The finished layers in an edition's folder: the generalised map, polygons, then changes."""
    return tuple(_layers(edition))


def edition_files(edition: Path, domains: Collection[str] | None = None) -> tuple[EditionFile, ...]:
    """The files of an edition and of its added layers.

    Args:
        edition: folder of a finished edition.
        domains: leaves out files that are of other domains only; None for all.
    """
    own = [f for f in _files("map", edition, None) if f.path in _MAP]
    found = [*own, *(file for layer in _layers(edition) for file in layer.files)]
    return tuple(f for f in found if domains is None or f.domain is None or f.domain in domains)


def _layers(edition: Path) -> Iterator[EditionLayer]:
    names = sorted(path.name for path in edition.iterdir() if path.is_dir() and has_manifest(path))
    for kind, pattern in _FOLDERS.items():
        for name, match in ((name, match) for name in names if (match := pattern.fullmatch(name))):
            about = match.groupdict()
            since, domain = about.get("since"), about.get("domain")
            files = tuple(_files(kind, edition / name, domain))
            yield EditionLayer(kind, name, files, domain, int(since) if since else None, bool(about.get("generalised")))


def _files(kind: LayerKind, folder: Path, domain: str | None) -> Iterator[EditionFile]:
    """One entry for each file of a layer's manifest, and for each folder of many."""
    parts: dict[str, list[tuple[str, SealedFile]]] = {}
    for path, file in read_manifest(folder).files.items():
        name, _, rest = path.partition("/")
        if name != "zarr.json":  # describes the Zarrs beside it
            parts.setdefault(name, []).append((rest, file))
    for name, inside in sorted(parts.items()):
        sizes = [file.size for _, file in inside if file.size is not None]
        size = sum(sizes) if len(sizes) == len(inside) else None
        whole = inside[0][1].sha256 if inside[0][0] == "" else None
        of = Path(name).stem if kind == "polygons" and name.endswith(".gpkg") else domain
        content = f"polygons of {of}" if of and name.endswith((".gpkg", ".parquet")) else _CONTENT.get(name, "")
        path = name if kind == "map" else f"{folder.name}/{name}"
        yield EditionFile(kind, path, content or _described(name), size, whole, of)


def _described(name: str) -> str:
    return "figures and options" if name.endswith(".json") else Path(name).stem.replace("_", " ").replace("-", " ")

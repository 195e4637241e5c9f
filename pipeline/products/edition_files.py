"""The files that later commands add to an edition: the generalised map, polygons, and changes since other editions.

Each folder of them has its own manifest, from which sizes and checksums are taken: no file is opened here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.products.manifest import SealedFile, has_manifest, read_manifest

LayerKind = Literal["generalised", "polygons", "change"]

_FOLDERS: dict[LayerKind, re.Pattern[str]] = {
    "generalised": re.compile(r"generalised"),
    "polygons": re.compile(r"vectors(?:-(?P<domain>D\w{2,3}_\d{4}))?"),
    "change": re.compile(r"change-(?P<since>\d{6})(?P<generalised>-generalised)?"),
}
_CONTENT = {
    "landcover.zarr": "generalised land cover at 0.20 m",
    "pyramid.zarr": "coarser levels of the generalised land cover",
    "landcover.parquet": "polygons of all domains",
    "landcover.pmtiles": "polygons in tiles, for maps on the web",
    "change.zarr": "change of each pixel",
    "areas.csv": "change by zone",
    "classes.csv": "change from class to class by zone",
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


def _layers(edition: Path) -> Iterator[EditionLayer]:
    names = sorted(path.name for path in edition.iterdir() if path.is_dir() and has_manifest(path))
    for kind, pattern in _FOLDERS.items():
        for name, match in ((name, match) for name in names if (match := pattern.fullmatch(name))):
            about = match.groupdict()
            since, domain = about.get("since"), about.get("domain")
            files = tuple(_files(kind, edition / name, domain))
            yield EditionLayer(kind, name, files, domain, since and int(since), bool(about.get("generalised")))


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
        yield EditionFile(kind, f"{folder.name}/{name}", content or _described(name), size, whole, of)


def _described(name: str) -> str:
    return "figures and options" if name.endswith(".json") else Path(name).stem.replace("_", " ").replace("-", " ")

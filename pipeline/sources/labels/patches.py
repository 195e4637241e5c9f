"""Labelled patches in the layouts of FLAIR's datasets: images and their masks, by domain and zone.

Three layouts are read: folders (`…/D004_2021/Z1_NN/img/IMG_000001.tif` and `…/D004_2021/Z1_NN/msk/MSK_000001.tif`,
below one root or two), flat folders with a metadata JSON, and CSV lists of image,mask pairs without a header.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from pipeline import legend
from pipeline.durable import replacing
from pipeline.errors import DeliveryError, SourceError
from pipeline.sources.delivery.headers import match_crs
from pipeline.sources.delivery.names import files_below
from pipeline.sources.domain_inputs import BANDS
from pipeline.sources.gdal_open import environment
from pipeline.sources.reading.raster import open_raster_file
from pipeline.sources.short_lists import first_names
from pipeline.untrusted.documents import Document, DocumentError, read_json, read_model
from pipeline.untrusted.limits import PATCH_PIXELS
from pipeline.untrusted.own_files import open_regular

_NAME = re.compile(r"(IMG|MSK)_(.+)\.tif", re.IGNORECASE)
_DOMAIN = re.compile(r"D(0?2[AB]|[0-9]{2,3})_[0-9]{4}", re.IGNORECASE)
_ZONE = re.compile(r"Z[0-9]+_\w+|[0-9]{4,6}-[0-9]{4,6}", re.IGNORECASE)
"""FLAIR's zones; and tiles by their north-west corner, which are the zones of our own patches."""
_TOLERANCE_M = 0.01
"""Largest distance of the corners of an image and its mask: a twentieth of a pixel. Real pairs agree to 10⁻⁸ m."""


@dataclass(frozen=True, order=True)
class Patch:
    """An image and its mask."""

    name: str
    """`IMG_000001`, or the image's stem."""
    image: Path
    mask: Path
    domain: str = ""
    """`D004_2021`; empty if neither path nor metadata contains it."""
    zone: str = ""
    """`Z1_NN`; empty if neither path nor metadata contains it."""

    @property
    def unit(self) -> str:
        """Name of the unit that is sampled as a whole: domain and zone, else the patch itself."""
        return f"{self.domain} {self.zone}" if self.zone else self.name


def find_patches(places: Sequence[Path], *, metadata: Path | None = None) -> tuple[Patch, ...]:
    """Finds the labelled patches in folders and CSV lists, and sorts them.

    Args:
        places: folders, searched at any depth, with images and masks in the same or in different ones; and `.csv` files
            without a header, whose lines have an image and its mask, absolute or relative to the CSV's folder.
        metadata: JSON by image name, `{"IMG_000001": {"domain": …, "zone": …}}`, or a list with `image_id`; it is used
            if a path does not contain domain and zone.

    Raises:
        DeliveryError: no patches, images without masks or the reverse, two files with the same name, or a list or
            metadata that cannot be read.

    Example:
        >>> patches = find_patches([Path("flair/aerial"), Path("flair/labels")])
    """
    about = _read_metadata(metadata) if metadata else {}
    pairs: list[tuple[Path, Path]] = []
    for place in places:
        if place.suffix.lower() == ".csv":
            pairs += _read_list(place)
    pairs += _find_pairs([p for p in places if p.suffix.lower() != ".csv"])
    if not pairs:
        raise DeliveryError(
            f"{', '.join(map(str, places))}: no labelled patches; expected IMG_….tif with MSK_….tif, or a CSV of "
            "image,mask"
        )
    twice = [str(image) for image, times in Counter(image for image, _ in pairs).items() if times > 1]
    if twice:
        where, named = ", ".join(map(str, places)), first_names(sorted(twice))
        raise DeliveryError(f"{where}: {len(twice)} images are listed twice, list them once: {named}")
    return tuple(sorted(_patch(image, mask, about) for image, mask in pairs))


class _About(Document):
    """What metadata say of a patch."""

    domain: str = ""
    zone: str = ""


class _Listed(_About):
    image_id: str


def _patch(image: Path, mask: Path, about: Mapping[str, _About]) -> Patch:
    own = about.get(image.stem, _About())
    folders = image.parts[:-1]
    domain = next((p for p in reversed(folders) if _DOMAIN.fullmatch(p)), own.domain)
    zone = next((p for p in reversed(folders) if _ZONE.fullmatch(p)), own.zone)
    return Patch(image.stem, image, mask, domain, zone)


def _read_list(path: Path) -> list[tuple[Path, Path]]:
    try:
        with open_regular(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
            rows = [row for row in csv.reader(text) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DeliveryError(f"{path}: cannot be read as a list of image,mask: {error}") from error
    pairs = []
    for number, row in enumerate(rows, start=1):
        files = [Path(path.absolute().parent, cell.strip()) for cell in row]
        if len(files) != 2 or not all(f.is_file() for f in files):
            raise DeliveryError(f"{path}, line {number}: expected an existing image and an existing mask, found {row}")
        pairs.append((files[0], files[1]))
    return pairs


def _find_pairs(folders: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Images with the masks that have the same domain, zone and number."""
    found: dict[str, dict[tuple[str, ...], Path]] = {"IMG": {}, "MSK": {}}
    for path in sorted(files_below(folders, (".tif",))):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        place = tuple(p for p in path.parts[:-1] if _DOMAIN.fullmatch(p) or _ZONE.fullmatch(p))
        key = (*place, match[2])
        former = found[match[1].upper()].setdefault(key, path)
        if former != path:
            raise DeliveryError(f"{path} and {former} have the same domain, zone and number: leave one of them out")
    for one, other, what in (("IMG", "MSK", "mask"), ("MSK", "IMG", "image")):
        if lone := [str(found[one][k]) for k in found[one].keys() - found[other].keys()]:
            raise DeliveryError(
                f"{len(lone)} files have no {what} with their domain, zone and number: {first_names(sorted(lone))}"
            )
    return [(path, found["MSK"][key]) for key, path in found["IMG"].items()]


def _read_metadata(path: Path) -> dict[str, _About]:
    try:
        if isinstance(read_json(path), list):
            return {entry.image_id: entry for entry in read_model(tuple[_Listed, ...], path)}
        return read_model(dict[str, _About], path)
    except (FileNotFoundError, DocumentError) as error:
        raise DeliveryError(
            f"{path}: cannot be read as JSON of patches: {error}; expected an object by image name, or a list "
            "of objects with image_id"
        ) from error


def read_image(patch: Patch, *, bands: Sequence[str]) -> NDArray[np.uint8]:
    """Reads a patch's pixels, uint8 (band, y, x), in the order of `bands`.

    Args:
        patch: its image has the first three, four or five of red, green, blue, near infrared, height.
        bands: names of the bands to read.

    Raises:
        SourceError: the image cannot be read, is not uint8, or lacks a band.
    """
    with environment(georeference=True), open_raster_file(patch.image) as file:
        has = BANDS[: file.count]
        if file.count > len(BANDS) or not set(bands) <= set(has):
            raise SourceError(
                f"{patch.image}: has {file.count} bands, read as {', '.join(has)}; expected {', '.join(bands)} among "
                "them"
            )
        return _read(file, patch.image, [has.index(b) + 1 for b in bands])


def read_mask(patch: Patch) -> NDArray[np.uint8]:
    """Reads a patch's labels, uint8 (y, x): FLAIR values 1..19, 0 without a label.

    If the mask's CRS cannot be used (some real masks have a LOCAL_CS), only its transform is compared with the image's.

    Raises:
        SourceError: the mask cannot be read, has other values, or does not lie on its image.
    """
    with environment(georeference=True), open_raster_file(patch.image) as image, open_raster_file(patch.mask) as file:
        if file.count != 1 or file.shape != image.shape:
            raise SourceError(
                f"{patch.mask}: is {file.count} × {file.height} × {file.width}; expected 1 × {image.height} × "
                f"{image.width} as its image {patch.image}"
            )
        _check_place(patch, image, file)
        mask: NDArray[np.uint8] = _read(file, patch.mask, [1])[0]
    if mask.max(initial=0) > len(legend.FLAIR):
        odd = sorted(set(np.unique(mask).tolist()) - {0, *legend.BY_VALUE})
        raise SourceError(f"{patch.mask}: has values {odd[:10]}; expected FLAIR values 1..19, and 0 for no label")
    return mask


def _check_place(patch: Patch, image: Any, mask: Any) -> None:
    if image.transform.is_identity or mask.transform.is_identity:
        return
    off = max(abs(a - b) for a, b in zip(image.bounds, mask.bounds, strict=True))
    usable = mask.crs is not None and (mask.crs.is_projected or mask.crs.is_geographic)
    if off > _TOLERANCE_M or (usable and image.crs is not None and not _same_crs(mask.crs, image.crs)):
        raise SourceError(
            f"{patch.mask}: lies at {tuple(mask.bounds)} in {mask.crs and mask.crs.to_string()[:40]}, its image "
            f"{patch.image} at {tuple(image.bounds)} in {image.crs and image.crs.to_string()[:40]}; they must agree"
        )


def _same_crs(one: Any, other: Any) -> bool:
    """True for equal CRSs; Lambert-93 without its code equals Lambert-93 with it."""
    return bool(one == other) or match_crs(one)[1] == match_crs(other)[1]


def _read(file: Any, path: Path, indexes: list[int]) -> NDArray[np.uint8]:
    if set(file.dtypes) != {"uint8"}:
        raise SourceError(f"{path}: samples are {file.dtypes[0]}; expected uint8")
    PATCH_PIXELS.check(file.width * file.height, path, SourceError)
    pixels: NDArray[np.uint8] = file.read(indexes)
    return pixels


def write_patch(
    root: Path, patch: tuple[str, str, int], pixels: NDArray[np.uint8], mask: NDArray[np.uint8], *, geobox: GeoBox
) -> Patch:
    """Writes an image and its mask in FLAIR's layout: `aerial/<domain>/<zone>/img/IMG_000001.tif`, `labels/…/msk/…`.

    Args:
        root: folder of the set.
        patch: (domain, zone, number).
        pixels: uint8 (band, y, x).
        mask: uint8 (y, x), FLAIR values, 0 without a label.
        geobox: of both.

    Raises:
        StorageError: the folder cannot be written.
    """
    domain, zone, number = patch
    files = []
    for branch, folder, kind, array in (("aerial", "img", "IMG", pixels), ("labels", "msk", "MSK", mask[None])):
        path = root / branch / domain / zone / folder / f"{kind}_{number:06d}.tif"
        bands, height, width = array.shape
        profile = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": "uint8"}
        profile |= {"compress": "ZSTD", "crs": str(geobox.crs), "transform": geobox.affine}
        with replacing(path) as temporary, rasterio.open(temporary, "w", **profile) as file:
            file.write(array)
        files.append(path)
    return Patch(files[0].stem, files[0], files[1], domain, zone)


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation of each channel over a set, with which a recipe normalises."""

    mean: tuple[float, ...]
    """In levels 0..255."""
    std: tuple[float, ...]
    """Deviation of the whole population, in levels."""


def channel_statistics(patches: Sequence[Patch], *, bands: Sequence[str]) -> Statistics:
    """Means and deviations over all pixels of a set, exact and in a few kilobytes of memory.

    They follow from the counts of the 256 levels, which one pass over the images gives.

    Raises:
        SourceError: an image cannot be read or lacks a band.
        DeliveryError: no patches.
    """
    if not patches:
        raise DeliveryError("no patches to compute statistics from")
    counts = np.zeros((len(bands), 256), np.int64)
    for patch in patches:
        counts += np.stack([np.bincount(band.ravel(), minlength=256) for band in read_image(patch, bands=bands)])
    levels, total = np.arange(256), int(counts[0].sum())
    mean = counts @ levels / total
    variance = np.array([row @ (levels - m) ** 2 for row, m in zip(counts, mean, strict=True)]) / total
    return Statistics(tuple(mean.tolist()), tuple(np.sqrt(variance).tolist()))

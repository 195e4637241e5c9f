"""Verifies the current edition: the link to it, every file, and what its record says must be there."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ProductError
from pipeline.products.manifest import changed_additions, has_manifest
from pipeline.products.map_page.page_files import MAP_FOLDER
from pipeline.products.national.edition_record import Edition, damaged_files, damaged_in, edition_numbers, read_edition
from pipeline.products.national.pyramid.store import check_pyramid, link_problems
from pipeline.products.national.zarr_store import check_shards
from pipeline.products.vectors.vector_folder import VECTORS, options_of


@dataclass(frozen=True)
class NationVerification:
    """The verification of the national product."""

    problems: tuple[str, ...] | None
    """None where nothing is published."""
    edition: Edition | None = None
    """The current one; the newest where `current` names none; None where its record cannot be read."""
    restore: bool = False
    """Whether `current` names no edition, and `landcover editions --restore` can make `edition` current again."""
    publish: bool = False
    """Whether a file of the edition is damaged, which `landcover publish --recheck` writes again."""
    report: bool = False
    """Whether there are problems of what `landcover report` wrote."""
    vectors: tuple[str, ...] = ()
    """Folders of vector files with problems, which `landcover vectorize` writes again."""

    def vectorize_options(self, name: str) -> list[str]:
        """The options by which `landcover vectorize` writes a folder of vector files of the edition again."""
        return options_of(self.edition.path / name) if self.edition else []

    @property
    def manifest(self) -> bool:
        """Whether all files are checked by a manifest; older versions wrote none."""
        return self.edition is None or self.edition.manifest


def check_nation(national: Path, crs: str) -> NationVerification:
    """Reads every file of the current edition.

    Args:
        national: the product's folder.
        crs: `EPSG:…` of the expected lattice.
    """
    pointer, numbers = national / "current", edition_numbers(national)
    linked = (pointer / "edition.json").exists() or has_manifest(pointer)
    if not linked and not pointer.is_symlink() and not pointer.exists() and not numbers:
        return NationVerification(None)
    lost = () if linked else (f"{pointer}: names no edition, expected a link to one in {national / 'editions'}",)
    if not linked and not numbers:
        return NationVerification(lost, publish=True)
    folder = pointer.resolve() if linked else national / "editions" / f"{numbers[-1]:06d}"
    changed = changed_additions(folder)
    added = [f"{folder / name}: {problem}" for name, problem in changed.items()]
    folders = {name.partition("/")[0] for name in changed}
    vectors = tuple(sorted(name for name in folders if name.partition("-")[0] == VECTORS))
    page, report = MAP_FOLDER in folders, bool(folders - {MAP_FOLDER, *vectors})
    try:
        edition = read_edition(folder)
    except ProductError as error:
        damaged = [f"{folder / name}: {problem}" for name, problem in damaged_in(folder, read_all=True).items()]
        problems = (*lost, str(error), *damaged, *link_problems(folder), *added)
        return NationVerification(problems, publish=True, report=report, vectors=vectors)
    damaged = [f"{folder / name}: {problem}" for name, problem in damaged_files(edition, read_all=True).items()]
    # Without a manifest, and where it was made of an incomplete store, what must be there is known from the record.
    known = bool(damaged) and edition.manifest
    damaged += link_problems(edition.path) if known else [*check_shards(edition, crs=crs), *check_pyramid(edition)]
    restore = not linked and not check_shards(edition)
    publish = bool(damaged or (lost and not restore))
    return NationVerification((*lost, *damaged, *added), edition, restore, publish or page, report, vectors)

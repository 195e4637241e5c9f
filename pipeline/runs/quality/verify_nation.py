"""Verifies the current edition: the link to it, every file, and what its record says must be there."""

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import ProductError
from pipeline.products.analysis.edition_change.change_store import CHANGE_FOLDER, change_folder
from pipeline.products.analysis.edition_change.change_store import options_of as options_of_change
from pipeline.products.manifest import changed_additions, has_manifest
from pipeline.products.map_page.page_files import MAP_FOLDER
from pipeline.products.national.edition_record import Edition, damaged_files, damaged_in, edition_numbers, read_edition
from pipeline.products.national.generalised.layer import GENERALISED_FOLDER
from pipeline.products.national.pyramid.store import check_pyramid, link_problems
from pipeline.products.national.zarr_store import check_shards
from pipeline.products.stac.layer_collection import LAYERS_FOLDER
from pipeline.products.vectors.vector_folder import VECTORS, options_of
from pipeline.progress import SILENT, Progress


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
    generalise: bool = False
    """Whether there are problems of the generalised map."""
    changes: tuple[tuple[int, bool], ...] = ()
    """Changes with problems: number of the edition from which, and whether it is of the generalised maps."""

    def vectorize_options(self, name: str) -> list[str]:
        """The options by which `landcover vectorize` writes a folder of vector files of the edition again."""
        return options_of(self.edition.path / name) if self.edition else []

    def change_options(self, first: int, *, generalised: bool) -> list[str]:
        """The options by which `landcover change` writes a change since an edition again, but for the editions."""
        if not self.edition:
            return []
        return options_of_change(change_folder(self.edition.path, first, generalised=generalised))

    @property
    def manifest(self) -> bool:
        """Whether all files are checked by a manifest; older versions wrote none."""
        return self.edition is None or self.edition.manifest


def check_nation(national: Path, crs: str, *, progress: Progress = SILENT) -> NationVerification:
    """Reads every file of the current edition.

    Args:
        national: the product's folder.
        crs: `EPSG:…` of the expected lattice.
        progress: counts the bytes of the files.
    """
    pointer, numbers = national / "current", edition_numbers(national)
    linked = (pointer / "edition.json").exists() or has_manifest(pointer)
    if not linked and not pointer.is_symlink() and not pointer.exists() and not numbers:
        return NationVerification(None)
    lost = () if linked else (f"{pointer}: names no edition, expected a link to one in {national / 'editions'}",)
    if not linked and not numbers:
        return NationVerification(lost, publish=True)
    folder = pointer.resolve() if linked else national / "editions" / f"{numbers[-1]:06d}"
    added, additions, page = _check_additions(folder)
    try:
        edition = read_edition(folder)
    except ProductError as error:
        damaged = [
            f"{folder / name}: {problem}"
            for name, problem in damaged_in(folder, read_all=True, progress=progress).items()
        ]
        problems = (*lost, str(error), *damaged, *link_problems(folder), *added)
        return replace(additions, problems=problems, publish=True)
    changed = damaged_files(edition, read_all=True, progress=progress)
    damaged = [f"{folder / name}: {problem}" for name, problem in changed.items()]
    # Without a manifest, and where it was made of an incomplete store, what must be there is known from the record.
    known = bool(damaged) and edition.manifest
    damaged += link_problems(edition.path) if known else [*check_shards(edition, crs=crs), *check_pyramid(edition)]
    restore = not linked and not check_shards(edition)
    publish = bool(damaged or (lost and not restore))
    problems = (*lost, *damaged, *added)
    return replace(additions, problems=problems, edition=edition, restore=restore, publish=publish or page)


def _check_additions(edition: Path) -> tuple[list[str], NationVerification, bool]:
    """Checks what was added to a sealed edition: all problems, what to write again, and if the map page is damaged."""
    changed = changed_additions(edition)
    folders = {name.partition("/")[0] for name in changed}
    published = folders & {MAP_FOLDER, LAYERS_FOLDER}
    vectors = tuple(sorted(name for name in folders if name.partition("-")[0] == VECTORS))
    found = {name: match for name in folders if (match := CHANGE_FOLDER.fullmatch(name))}
    additions = NationVerification(
        None,
        report=bool(folders - {*published, GENERALISED_FOLDER, *vectors, *found}),
        vectors=vectors,
        generalise=GENERALISED_FOLDER in folders,
        changes=tuple((int(match[1]), match[2] is not None) for _, match in sorted(found.items())),
    )
    return [f"{edition / name}: {problem}" for name, problem in changed.items()], additions, bool(published)

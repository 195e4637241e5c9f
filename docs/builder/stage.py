"""Puts the site's Markdown together: the pages of `docs/`, with what the code says in place of their markers."""

import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from docs.builder import tables
from docs.builder.commands import commands
from docs.builder.errors import DocsError
from docs.builder.gallery import write_gallery
from docs.builder.python_api import python_api
from docs.builder.settings import settings
from pipeline.cluster.slurm.site import Site
from pipeline.config import Campaign, Recipe
from pipeline.training.run_config import Training

_MARKER = re.compile(r"^<!-- generated: (?P<name>[a-z-]+)(?: (?P<file>\S+))? -->$", re.MULTILINE)

GENERATED: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "campaign": lambda: settings(Campaign),
    "recipe": lambda: settings(Recipe),
    "cluster": lambda: settings(Site),
    "training": lambda: settings(Training),
    "python-api": python_api,
    "errors": tables.errors,
    "classes": tables.classes,
    "groups": tables.groups,
    "recipes": tables.recipes,
    "clusters": tables.clusters,
}
"""What a line `<!-- generated: NAME -->` of a page becomes.

`<!-- generated: file PATH -->` becomes the text of a file of the repository, and `<!-- generated: figure NAME -->` the
SVG of this name, inline, so that it follows the page's light or dark mode.
"""


def stage(root: Path, folder: Path, *, executed: Path) -> None:
    """Writes the site's Markdown into a folder that is made anew.

    Args:
        root: the repository.
        folder: where the pages go.
        executed: the folder of executed notebooks.

    Raises:
        DocsError: a page has an unknown marker, or the code lacks a text that a page needs.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "docs", folder, ignore=shutil.ignore_patterns("builder", "__pycache__"))
    for page in sorted(folder.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        page.write_text(_MARKER.sub(partial(_fill, root, page), text), encoding="utf-8")
    write_gallery(root / "notebooks", executed, folder / "gallery")


def _fill(root: Path, page: Path, marker: re.Match[str]) -> str:
    name, file = marker["name"], marker["file"]
    if name == "file" and file is not None:
        # A file of the repository's root links from there; the page that shows it lies one folder down, in docs/.
        return (root / file).read_text(encoding="utf-8").replace("](docs/", "](../").strip()
    if name == "figure" and file is not None:
        return "".join(
            line.strip() for line in (root / "docs" / "assets" / f"{file}.svg").read_text("utf-8").splitlines()
        )
    if name not in GENERATED:
        raise DocsError(f"{page.name}: unknown marker {name!r}; expected one of {', '.join(GENERATED)} or file PATH")
    return GENERATED[name]()

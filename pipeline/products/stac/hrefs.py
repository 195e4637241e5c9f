"""Relative and absolute hrefs of files; relative ones stay valid when a product is moved."""

import os
from pathlib import Path
from urllib.parse import urlparse


def relative_href(path: Path, folder: Path) -> str:
    """The path of a file from a folder, with `/`. Symbolic links are resolved first; the folder need not exist."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def absolute_href(href: str, folder: Path) -> str:
    """An href of a file in `folder` as an absolute path; absolute paths and URLs are returned unchanged."""
    if urlparse(href).scheme or Path(href).is_absolute():
        return href
    return os.path.normpath(folder.resolve() / href)

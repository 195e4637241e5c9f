"""`python -m docs.builder`: builds the site into `build/site`, and fails where a link, anchor or text is missing."""

import subprocess
import sys
from pathlib import Path

import yaml
from rich.text import Text

from docs.builder.check import check_navigation, check_own_resources
from docs.builder.errors import DocsError
from docs.builder.stage import stage

_ROOT = Path(__file__).parents[2]
_PAGES, _SITE, _EXECUTED = (_ROOT / "build" / name for name in ("docs", "site", "gallery"))


def build() -> None:
    """Stages the pages, runs Zensical in its strict mode, and checks what comes out.

    Raises:
        DocsError: the first rule that does not hold.
    """
    stage(_ROOT, _PAGES, executed=_EXECUTED)
    config = yaml.safe_load((_ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    check_navigation(config["nav"], _PAGES)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        # It colours what it prints, and ends with its own traceback, which says nothing about the pages.
        said = Text.from_ansi(done.stdout + done.stderr).plain.partition("\nTraceback ")[0]
        raise DocsError(f"Zensical found problems in build/docs, which is made from docs/:\n{said}")
    check_own_resources(_SITE)


if __name__ == "__main__":
    try:
        build()
    except DocsError as error:
        sys.exit(f"docs: {error}")
    sys.stdout.write(f"docs: {_SITE / 'index.html'}\n")

"""The notebooks as pages: with figures where `make docs-gallery` executed them, else without."""

from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

_WIDGET = "application/vnd.jupyter.widget-view+json"


def write_gallery(notebooks: Path, executed: Path, folder: Path) -> None:
    """Writes a page of each notebook, and its figures beside it.

    Args:
        notebooks: the folder of the notebooks, which are kept without outputs.
        executed: the folder of their executed copies; where one is missing its page has no figures.
        folder: the folder of the pages; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(notebooks.glob("*.ipynb")):
        copy = executed / path.name
        _write_page(copy if copy.is_file() else path, folder, has_figures=copy.is_file())


def _write_page(path: Path, folder: Path, *, has_figures: bool) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if _is_shown(o)]
    settings = Config()
    settings.NbConvertBase.display_data_priority = ["image/png", "text/plain"]
    exporter = MarkdownExporter(config=settings)
    page, resources = exporter.from_notebook_node(notebook, {"output_files_dir": f"{path.stem}_files"})
    for name, content in resources["outputs"].items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    title, _, rest = page.lstrip().partition("\n")
    (folder / f"{path.stem}.md").write_text(
        f"{title}\n\n{_note(path, has_figures=has_figures)}\n{rest}", encoding="utf-8"
    )


def _note(path: Path, *, has_figures: bool) -> str:
    where = f"This page is `notebooks/{path.name}`."
    if has_figures:
        return f"*{where} It was executed on the demo's made-up country.*\n"
    return f"*{where} Its figures are missing here: `make demo docs-gallery docs` executes it on the demo.*\n"


def _is_shown(output: nbformat.NotebookNode) -> bool:
    """Figures, printed text and values; progress bars, widgets and warnings are left out."""
    kind = str(output.output_type)
    if kind == "stream":
        return str(output.name) == "stdout"
    return kind != "error" and _WIDGET not in output.data

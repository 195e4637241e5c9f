"""Legends for other programs, all from the table of `pipeline.legend`: a QGIS style, or a table as CSV."""

import csv
import io
from pathlib import Path
from xml.etree import ElementTree as ET

from pipeline import legend
from pipeline.durable import write_text
from pipeline.errors import ConfigError
from pipeline.legend import LandCover, Language, Names, Palette

_CSV_COLUMNS = ("value", "name", "colour", "cosia", "cosia_name", "flair_hub")


def write_legend(path: Path, *, language: Language = "en", names: Names = "flair", palette: Palette = "flair") -> None:
    """Writes a QGIS style (`.qml`) or a table (`.csv`) of all classes.

    Args:
        path: its ending chooses the format.
        language: of FLAIR's names.
        names: FLAIR's or CoSIA's.
        palette: FLAIR's colours, or colours for colour-blind users.

    Raises:
        ConfigError: another ending.
        StorageError: it cannot be written.
    """
    rows = [(entry, entry.label(language, names), entry.colour_in(palette)) for entry in legend.FLAIR]
    if path.suffix.lower() == ".qml":
        write_text(path, _style(rows))
    elif path.suffix.lower() == ".csv":
        write_text(path, _table(rows))
    else:
        raise ConfigError(f"{path}: a legend is a QGIS style or a table; give a name that ends in .qml or .csv")


def _style(rows: list[tuple[LandCover, str, str]]) -> str:
    """QGIS's XML: colour and name of each class, no data transparent."""
    root = ET.Element("qgis", version="3.28", styleCategories="AllStyleCategories")
    renderer = ET.SubElement(
        ET.SubElement(root, "pipe"), "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1"
    )
    palette = ET.SubElement(renderer, "colorPalette")
    for entry, name, colour in rows:
        ET.SubElement(palette, "paletteEntry", value=str(entry.value), color=colour, label=name, alpha="255")
    ET.SubElement(root, "blendMode").text = "0"
    ET.indent(root)
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + ET.tostring(root, encoding="unicode") + "\n"


def _table(rows: list[tuple[LandCover, str, str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for entry, name, colour in rows:
        cosia = ("", "") if entry.cosia is None else (entry.cosia, entry.cosia_name)
        writer.writerow((entry.value, name, colour, *cosia, entry.flair_hub))
    return text.getvalue()

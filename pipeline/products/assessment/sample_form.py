"""How QGIS shows a sample: a form with the crop and a list of classes for `reference`, and no column of the map.

QGIS finds it in the table `layer_styles` of the GeoPackage, and takes it when the layer is opened.
"""

import sqlite3
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from pipeline import legend
from pipeline.html_page import Wording
from pipeline.legend import Language

_TABLE = """
CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
  f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
  update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""
_SHOWN = ("point", "reference", "crop")
"""Columns of the form, which tell nothing of the map's class."""
_CROP_FOLDER = "file_path(layer_property(@layer, 'path'))"
"""QGIS's expression for the folder of the GeoPackage, from which paths of crops start."""


def add_form(geopackage: bytes, *, layer: str, columns: Sequence[str], language: Language) -> bytes:
    """A GeoPackage with the form.

    Args:
        geopackage: the content of the file.
        layer: its name.
        columns: all attributes of the layer.
        language: of labels and names of classes.
    """
    with sqlite3.connect(":memory:") as database:
        database.deserialize(geopackage)
        database.execute(_TABLE)
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', '')"
        )
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner) VALUES ('', '', ?, 'geom', ?, ?, '', 1, '', '')",
            (layer, layer, form_style(columns, language)),
        )
        database.commit()
        content: bytes = database.serialize()
    database.close()
    return content


def form_style(columns: Sequence[str], language: Language) -> str:
    """The style of the layer as QGIS's XML."""
    say = Wording(language)
    names = {"point": say("point"), "reference": say("class that you see"), "crop": say("crop")}
    root = ET.Element("qgis", version="3.28", styleCategories="Fields|Forms|AttributeTable")
    fields = ET.SubElement(root, "fieldConfiguration")
    for name in columns:
        _field(fields, name, language)
    aliases = ET.SubElement(root, "aliases")
    for k, name in enumerate(columns):
        ET.SubElement(aliases, "alias", field=name, index=str(k + 1), name=names.get(name, ""))
    table = ET.SubElement(ET.SubElement(root, "attributetableconfig"), "columns")
    for name in columns:
        ET.SubElement(table, "column", name=name, type="field", hidden=str(int(name not in _SHOWN)), width="-1")
    ET.SubElement(root, "editorlayout").text = "tablayout"
    form = ET.SubElement(root, "attributeEditorForm")
    for name in _SHOWN:
        ET.SubElement(form, "attributeEditorField", name=name, index=str(columns.index(name) + 1), showLabel="1")
    editable = ET.SubElement(root, "editable")
    for name in columns:
        ET.SubElement(editable, "field", name=name, editable=str(int(name == "reference")))
    ET.indent(root)
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + ET.tostring(root, encoding="unicode")


def _field(fields: ET.Element, name: str, language: Language) -> None:
    field = ET.SubElement(fields, "field", name=name)
    kind = {"reference": "ValueMap", "crop": "ExternalResource"}.get(name, "TextEdit")
    config = ET.SubElement(ET.SubElement(field, "editWidget", type=kind), "config")
    own = ET.SubElement(config, "Option", type="Map")
    if kind == "ValueMap":
        entries = ET.SubElement(own, "Option", name="map", type="List")
        for entry in legend.FLAIR:
            pair = ET.SubElement(entries, "Option", type="Map")
            ET.SubElement(pair, "Option", name=entry.label(language), value=str(entry.value), type="QString")
    elif kind == "ExternalResource":
        for option, value, type_ in (
            ("DocumentViewer", "1", "int"),
            ("DocumentViewerHeight", "512", "int"),
            ("DocumentViewerWidth", "512", "int"),
            ("FileWidget", "true", "bool"),
            ("RelativeStorage", "2", "int"),
            ("StorageMode", "0", "int"),
        ):
            ET.SubElement(own, "Option", name=option, value=value, type=type_)
        given = ET.SubElement(own, "Option", name="PropertyCollection", type="Map")
        ET.SubElement(given, "Option", name="name", value="", type="QString")
        root = ET.SubElement(ET.SubElement(given, "Option", name="properties", type="Map"), "Option")
        root.attrib |= {"name": "propertyRootPath", "type": "Map"}
        for option, value, type_ in (
            ("active", "true", "bool"),
            ("expression", _CROP_FOLDER, "QString"),
            ("type", "3", "int"),
        ):
            ET.SubElement(root, "Option", name=option, value=value, type=type_)
        ET.SubElement(given, "Option", name="type", value="collection", type="QString")

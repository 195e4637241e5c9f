"""What a run leaves beside a domain's product: the campaign as it was resolved, and what failed."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.errors import ProductError

RUN_FILE = "run.json"
_PACKAGES = ("landcover-pipeline", "torch", "segmentation-models-pytorch", "dask", "rasterio", "numpy", "xarray")


def software() -> dict[str, str]:
    """Versions of what computed a result: provenance, never part of a fingerprint."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def read_run(folder: Path) -> dict[str, Any]:
    """A domain folder's run record; empty where there is none.

    Raises:
        ProductError: it is no JSON.
    """
    path = folder / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ProductError(f"{path} cannot be read: {error}; remove it, the next run writes it anew") from error
    if not isinstance(content, dict):
        raise ProductError(f"{path}: expected a mapping; remove it, the next run writes it anew")
    return content

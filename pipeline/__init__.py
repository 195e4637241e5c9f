"""Land cover of a whole country at 20 cm, from BD ORTHO deliveries to one national product."""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"
__all__ = ["__version__", "open_product", "predict"]


def __getattr__(name: str) -> Any:
    """The public calls, imported when they are first used: torch alone takes seconds."""
    if name == "predict":
        return import_module("pipeline.inference").predict
    if name == "open_product":
        return import_module("pipeline.products.analysis.open_product").open_product
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

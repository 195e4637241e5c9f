"""What counts as a ready catalogue, and which of its items are wanted."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Query:
    """Which items of a catalogue are wanted."""

    collections: tuple[str, ...] = ()
    """All where empty."""
    bbox: tuple[float, float, float, float] | None = None
    """(west, south, east, north) in degrees."""
    datetime: str | None = None
    """A day, or `start/end`, as STAC APIs take it."""


def is_catalogue(source: str) -> bool:
    """True for a URL or a JSON file; a folder is a delivery."""
    return is_web(source) or source.lower().endswith(".json")


def is_web(source: str) -> bool:
    """True for an http or https URL."""
    return source.lower().startswith(("http://", "https://"))

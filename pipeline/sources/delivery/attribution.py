"""Producer, licence and citation of a domain's data: they follow its pixels into every product."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.config import LimitName
from pipeline.domain import Domain
from pipeline.grid import CRS
from pipeline.sources.delivery.acquisition_dates import Days
from pipeline.sources.delivery.names import DeliveredFile

LICENCE = "etalab-2.0"
"""BD ORTHO, RGE ALTI and LiDAR HD since 2021."""
_LICENCE_NAME = "Licence Ouverte Etalab 2.0"
PRODUCER = "IGN"

_ELEVATION_NAMES = (("LHD_", "LiDAR HD"), ("RGEALTI_", "RGE ALTI"))


@dataclass(frozen=True)
class Origin:
    """Producer, licence and citation; empty where unknown."""

    attribution: str = ""
    """Producer, product and vintage: `IGN, BD ORTHO 2021`."""
    licence: str = ""
    """SPDX identifier in lower case."""
    citation: str = ""
    doi: str = ""

    @classmethod
    def joined(cls, origins: Iterable["Origin"]) -> "Origin":
        """All origins as one. Several licences become `other`, as STAC prescribes."""
        given = list(origins)
        licences = _distinct(o.licence for o in given)
        return cls(
            "; ".join(_distinct(o.attribution for o in given)),
            licences[0] if len(licences) == 1 else "other" if licences else "",
            " ".join(_distinct(o.citation for o in given)),
            " ".join(_distinct(o.doi for o in given)),
        )


@dataclass(frozen=True)
class DomainDescription:
    """What all items of a domain share."""

    domain: Domain
    origin: Origin
    crs: str = CRS
    limits: tuple[LimitName, ...] = ()
    """Limits of the model card that are exceeded and were accepted, sorted."""
    acquired: Days | None = None
    """First and last day of acquisition over all tiles for which they are known."""


def origin_of(files: Sequence[DeliveredFile], *, year: int) -> Origin:
    """The origin of files with IGN's names: `IGN, BD ORTHO 2021, LiDAR HD`.

    The citation is what the licence requires: producer, products with their vintage, and the licence itself.
    """
    products = []
    if any(f.kind in ("rvb", "irc") for f in files):
        products.append(f"BD ORTHO {year}")
    for f in files:
        if f.kind in ("dsm", "dtm"):
            names = [product for prefix, product in _ELEVATION_NAMES if f.path.name.upper().startswith(prefix)]
            products += names or ([f"MNS-Correl {f.year}"] if f.year else [])
    attribution = ", ".join(_distinct([PRODUCER, *products]))
    return Origin(attribution, LICENCE, f"{attribution} ({_LICENCE_NAME})")


def _distinct(texts: Iterable[str]) -> list[str]:
    """The texts without empty and repeated ones, in their order."""
    return list(dict.fromkeys(t for t in texts if t))

"""Writes an edition of the national product, or one of its domains, as polygons."""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distributed import Client

from pipeline.cluster.bounded_submission import map_in_order
from pipeline.cluster.client import open_cluster
from pipeline.cluster.slurm.queue import is_job_running
from pipeline.config import Campaign
from pipeline.domain import Domain
from pipeline.errors import ConfigError
from pipeline.lock import lock_folder
from pipeline.products.analysis.campaign_map import update_layers
from pipeline.products.national.edition_record import published_edition
from pipeline.products.national.zarr_store import check_whole
from pipeline.products.vectors.vector_folder import VECTORS, Staging
from pipeline.products.vectors.vectorization import write_vectors
from pipeline.progress import SILENT, Progress

TOLERANCE_M = 0.5
"""Default tolerance: the steps of pixels along slanting borders go, and no border moves by more than half a metre."""
_MOST_M = 100
"""Largest tolerance in metres. Borders are simplified in cells of 200 m."""


@dataclass(frozen=True)
class VectorProduct:
    """Vector files that were written."""

    folder: Path
    edition: int
    polygons: int
    area_m2: float
    files: tuple[str, ...]


def vectorize(
    campaign: Campaign,
    *,
    domain: str | None = None,
    edition: int | None = None,
    tolerance_m: float = TOLERANCE_M,
    out: Path | None = None,
    tiles: bool = True,
    client: Client | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> VectorProduct:
    """Writes the polygons of an edition as vector files, in an order and with bytes that do not depend on tiles.

    Args:
        campaign: whose national product is read.
        domain: write only what the edition shows of this domain; polygons end where other domains begin.
        edition: number; None for the current one.
        tolerance_m: borders are simplified by at most so many metres; 0 keeps the pixels.
        out: a new folder, or one that an earlier call wrote. By default `vectors` in the edition, or
            `vectors-<domain>`.
        tiles: write PMTiles too, which one process makes.
        client: a client of a running cluster, which is left open. By default the campaign's cluster is opened.
        workers: number of worker processes, instead of the campaign's.
        progress: counts blocks, then parts of the dataset, then files.

    Raises:
        ConfigError: the tolerance is out of range, the edition does not have the domain, or `out` holds other files.
        ClusterError: the cluster did not start, or was lost.
        LockError: another process writes into the same folder.
        ProductError: there is no such edition, it has no pixels, or a shard cannot be read.
        StorageError: a file cannot be written.
    """
    if not 0 <= tolerance_m <= _MOST_M:
        raise ConfigError(f"a tolerance of {tolerance_m:g} m: expected 0 to {_MOST_M} m")
    found = published_edition(campaign.output.national, edition)
    check_whole(found)
    name = None if domain is None else Domain(domain)
    staging = Staging.beside(out or found.path / (f"{VECTORS}-{name}" if name else VECTORS))
    section = campaign.cluster
    with (
        lock_folder(staging.folder, what=f"the vector files {staging.final}", job_runs=is_job_running) as lock,
        open_cluster(campaign, client=client, workers=workers) as opened,
    ):
        for_each = partial(
            map_in_order, client=opened, per_worker=2 * section.threads, lost_s=section.lost_s, progress=progress
        )
        record = write_vectors(staging, found, domain=name, tolerance_m=tolerance_m, for_each=for_each, tiles=tiles)
        lock.check()
        staging.commit()
    with suppress(OSError):
        staging.folder.rmdir()
    if out is None:
        update_layers(campaign, found)
    files = tuple(sorted(path.name for path in staging.final.iterdir()))
    return VectorProduct(staging.final, found.number, record["polygons"], record["area_m2"], files)

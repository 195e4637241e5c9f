"""Finds the edition that `landcover view` shows, and the folders that its server may read."""

from collections.abc import Mapping
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

from pipeline.config import Campaign
from pipeline.errors import ConfigError
from pipeline.products.analysis.campaign_map import write_campaign_map
from pipeline.products.map_page.server import Answer, ProductServer
from pipeline.products.national.edition_record import Edition, published_edition
from pipeline.runs.viewing.campaign_answers import campaign_answers


@dataclass(frozen=True)
class View:
    """A page, and what it reads."""

    edition: Edition
    folders: Mapping[tuple[str, ...], Path]
    """(first parts of the path) → folder: the editions, and the domains' tiles, which stay as far from each other as on
    the disk."""
    page: str
    """Path of the page, in these."""
    answers: Mapping[str, Answer]
    """Path → what computes the reply to a request for it."""

    def serve(self, port: int = 0) -> ProductServer:
        """A server that listens.

        Raises:
            ConfigError: the port is in use.
        """
        try:
            return ProductServer(self.folders, answers=self.answers, port=port)
        except OSError as error:
            raise ConfigError(f"--port {port}: cannot be used: {error.strerror or error}") from error


def prepare_view(campaign: Campaign, number: int | None = None) -> View:
    """The view of an edition, into which the map page is written where it has none.

    Args:
        campaign: whose national product is shown.
        number: of the edition; None for the current one.

    Raises:
        MachineError: the package was built without the page.
        ProductError: nothing is published, or the edition does not exist or is of an older version.
        StorageError: the page cannot be written.
    """
    edition = published_edition(campaign.output.national, number)
    page = write_campaign_map(campaign, edition)
    editions, domains = edition.path.resolve().parent, campaign.output.domains.resolve()
    above = Path(commonpath([editions, domains]))
    folders = {folder.relative_to(above).parts: folder for folder in (editions, domains)}
    path = page.resolve().relative_to(above).as_posix()
    return View(edition, folders, path, campaign_answers(campaign, edition, path))

"""Fixtures of the tests of bad deliveries and catalogs."""

import shutil
from pathlib import Path

import pytest

from tests.support.damaged_delivery import DamagedDelivery
from tests.support.deliveries import Delivery, make_delivery


@pytest.fixture(scope="package")
def good_delivery(tmp_path_factory: pytest.TempPathFactory) -> Delivery:
    """A good delivery of two tiles."""
    return make_delivery(tmp_path_factory.mktemp("good") / "in", at=[(0, 0), (0, 1)])


@pytest.fixture
def damaged(good_delivery: Delivery, tmp_path: Path) -> DamagedDelivery:
    """A copy of the good delivery, for the test to damage."""
    shutil.copytree(good_delivery.folder, tmp_path / "in")
    return DamagedDelivery(tmp_path, good_delivery.tiles)

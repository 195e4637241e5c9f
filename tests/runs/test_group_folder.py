"""Two users of one group share a folder: one maps and publishes, the other goes on, as their umask allows it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import Client

from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from pipeline.runs.quality.verify import verify
from tests.support.archives import files_of
from tests.support.campaigns import Made, cog_bytes, make_campaign
from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv, to be two other users"
    ),
]
TWO = ((0, 0), (0, 1))
FIRST, SECOND, GROUP = 64_001, 64_002, 64_000
STEPS = """
import sys
from pathlib import Path
from pipeline import load_campaign
from pipeline.errors import LandcoverError
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from tests.support.dask_client import in_process_client

campaign, force, tiles = load_campaign(Path(sys.argv[1])), sys.argv[2] == "force", sys.argv[3:]
with in_process_client() as client:
    try:
        run(make_plan(campaign, tiles=tiles, force=force), client=client)
    except LandcoverError as error:
        print("run:", error)
    try:
        edition = publish(campaign, client=client)
        print(f"edition {edition.edition}: {edition.written} written, {edition.linked} linked")
    except LandcoverError as error:
        print("publish:", error)
"""


def go_on(made: Made, user: int, umask: str, *arguments: str) -> str:
    """Runs and publishes as another user, who may read everything, as Python lies in root's folders."""
    home = made.folder.parent / f"home-{user}"
    home.mkdir(exist_ok=True)
    os.chown(home, user, user)
    rights = ("--reuid", str(user), "--regid", str(user), "--groups", str(GROUP))
    reads = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    steps = ("sh", "-c", f'umask {umask}; exec "$@"', "sh", sys.executable, "-c", STEPS, str(made.config), *arguments)
    environment = os.environ | {"HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        ["setpriv", *rights, *reads, *steps], check=False, capture_output=True, text=True, cwd=home, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def shared(tmp_path: Path) -> Made:
    """A campaign of two tiles in a folder of the group, whose members may read and write its files."""
    made = make_campaign(tmp_path / "group", at=TWO)
    for path in (made.folder, *made.folder.rglob("*")):
        os.chown(path, FIRST, GROUP)
        path.chmod(0o2775 if path.is_dir() else 0o664)
    return made


def test_both_users_write_where_the_group_may_write(shared: Made, tmp_path: Path, dask_client: Client) -> None:
    names = sorted(tile.name for tile in shared.delivery.tiles)
    assert "edition 1: 2 written, 0 linked" in go_on(shared, FIRST, "0002", "", *names[:1])
    assert "edition 2: 1 written, 1 linked" in go_on(shared, SECOND, "0002", "", *names[1:])
    owners = {path.stat().st_uid for path in shared.products.rglob("*.tif")}
    assert owners == {FIRST, SECOND}
    assert verify(shared.campaign).clean
    alone = make_campaign(tmp_path / "alone", at=TWO)
    run(make_plan(alone.campaign), client=dask_client)
    publish(alone.campaign, client=dask_client)
    assert cog_bytes(shared.products) == cog_bytes(alone.products)


def test_a_user_who_may_not_write_changes_nothing_and_reads_all(shared: Made) -> None:
    assert "edition 1: 2 written, 0 linked" in go_on(shared, FIRST, "0027", "")
    before = files_of(shared.folder)
    refused = go_on(shared, SECOND, "0027", "force")
    assert f"run: {shared.products / shared.delivery.domain} cannot be written: Permission denied" in refused
    assert f"publish: {shared.folder / 'national'} cannot be written: Permission denied" in refused
    assert files_of(shared.folder) == before

"""Cluster files: the shipped ones are valid, and invalid ones are refused by key."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.slurm.site import load_site
from pipeline.config import config_folder
from pipeline.errors import ConfigError
from tests.support.slurm.campaigns import write_site

CLUSTERS = sorted(path.stem for path in (config_folder() / "clusters").glob("*.yaml"))


def test_every_shipped_cluster_loads_by_its_name() -> None:
    assert {"jean-zay-v100", "jean-zay-a100", "jean-zay-h100", "jean-zay-cpu", "generic"} <= set(CLUSTERS)
    for name in CLUSTERS:
        site = load_site(name)
        assert site.name == name
        assert site.publish is None or load_site(site.publish).gpus_per_node == 0


def test_jean_zay_has_the_documented_values() -> None:
    sites = {name: load_site(f"jean-zay-{name}") for name in ("v100", "a100", "h100", "cpu")}
    for name, site in sites.items():
        assert site.account("xxx") == f"xxx@{name}"
        assert site.hint == "nomultithread"
        assert not site.internet
        assert site.limit_hours(None) == 20
    assert {n: (s.partition, s.gpus_per_node, s.cores_per_gpu) for n, s in sites.items() if s.gpu} == {
        "v100": (None, 4, 10),
        "a100": ("gpu_p5", 8, 8),
        "h100": ("gpu_p6", 4, 24),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"partitions": "main"}, "unknown key 'partitions'"),
        ({"gpu": "a100"}, "set both gpu and gpus_per_node"),
        ({"gpu": "a100", "gpus_per_node": 4}, "more than the node's 2 cores"),
        ({"max_hours": None}, "set qos or max_hours"),
        ({"constraint": "a100; rm -rf /"}, "constraint"),
        ({"umask": "27"}, "umask"),
        ({"caches": "$(id)"}, "caches"),
    ],
)
def test_an_invalid_cluster_is_refused_by_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_site(str(write_site(tmp_path, **changes)))


def test_an_unknown_cluster_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown cluster 'occigen': expected the path of a YAML file, or one of generic, jean"
    ):
        load_site("occigen")

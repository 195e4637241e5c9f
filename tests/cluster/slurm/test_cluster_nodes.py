"""A request that no node can meet is refused with the cluster's figures."""

from dataclasses import replace

import pytest

from pipeline.cluster.slurm.cluster_nodes import ClusterNode, check_request
from pipeline.cluster.slurm.script import JobRequest
from pipeline.cluster.slurm.site import Site
from pipeline.errors import ConfigError

NODES = (
    ClusterNode("cpu", default=True, cores=40, memory_mib=180_000, gpus=0, features=frozenset({"cascade"})),
    ClusterNode("gpu", default=False, cores=32, memory_mib=90_000, gpus=4, features=frozenset({"v100"})),
    ClusterNode("gpu", default=False, cores=64, memory_mib=500_000, gpus=8, features=frozenset({"a100"})),
)
SITE = Site(name="here", cores_per_node=8, max_hours=1)
REQUEST = JobRequest("job", None, None, 60, 8)


@pytest.mark.parametrize(
    ("site", "request_", "message"),
    [
        ({}, {"cores": 41}, "1 × 41 cores, and the default partition has 1 nodes with up to 40 cores, 0 GPUs"),
        ({"partition": "gpu_p9"}, {}, "partition gpu_p9 does not exist; there are cpu, gpu"),
        ({"partition": "gpu", "constraint": "h100"}, {}, "no node has the feature h100; there are a100, v100"),
        ({"partition": "gpu", "constraint": "v100"}, {"gpus": 8}, "partition gpu with v100 has 1 nodes .* 4 GPUs"),
        ({"partition": "gpu"}, {"nodes": 2, "gpus": 8}, "2 × 8 cores, 8 GPUs, and partition gpu has 2 nodes"),
        ({"memory": "200G"}, {}, "200G of memory, .* and 180000 MiB"),
    ],
)
def test_what_can_never_start_is_refused(site: dict[str, str], request_: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_request(SITE.model_copy(update=site), replace(REQUEST, **request_), NODES)


def test_what_some_nodes_can_meet_is_accepted() -> None:
    check_request(SITE, replace(REQUEST, cores=40), NODES)
    check_request(SITE.model_copy(update={"memory": "170G"}), REQUEST, NODES)
    gpus = SITE.model_copy(update={"partition": "gpu", "memory": "400G"})
    check_request(gpus, replace(REQUEST, cores=64, gpus=8), NODES)
    # An expression is SLURM's to check.
    check_request(gpus.model_copy(update={"constraint": "a100&nvme"}), REQUEST, NODES)

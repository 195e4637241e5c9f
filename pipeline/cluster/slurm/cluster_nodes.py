"""Compares a job's request with the nodes that a cluster has, before SLURM gets it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.cluster.slurm.queue import run_slurm
from pipeline.cluster.slurm.script import JobRequest
from pipeline.cluster.slurm.site import Site
from pipeline.errors import ConfigError

_FORMAT = "%P|%c|%m|%G|%f"
_GPUS = re.compile(r"gpu(?::[^:(,]+)?:(\d+)")
_MIB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}


@dataclass(frozen=True)
class ClusterNode:
    """A node in one of its partitions."""

    partition: str
    default: bool
    """Whether the partition is the default one."""
    cores: int
    memory_mib: int
    gpus: int
    features: frozenset[str]
    """What `--constraint` chooses by."""


def read_nodes() -> tuple[ClusterNode, ...]:
    """All nodes of the cluster, once for each of their partitions.

    Raises:
        ConfigError: SLURM is not installed, or does not answer.
    """
    printed = run_slurm("sinfo", "--noheader", "--Node", f"--format={_FORMAT}", error=ConfigError)
    nodes = []
    for line in printed.splitlines():
        partition, cores, memory, gres, features = line.strip().split("|", 4)
        nodes.append(
            ClusterNode(
                partition.removesuffix("*"),
                partition.endswith("*"),
                int(cores.rstrip("+")),
                int(memory.rstrip("+")),
                sum(int(number) for number in _GPUS.findall(gres)),
                frozenset(features.split(",")),
            )
        )
    return tuple(nodes)


def check_request(site: Site, request: JobRequest, nodes: Sequence[ClusterNode]) -> None:
    """Refuses a request that no node can ever meet.

    Args:
        site: names partition, constraint and memory.
        request: of a job.
        nodes: of the cluster.

    Raises:
        ConfigError: there is no such partition or feature, or its nodes have fewer cores, GPUs or memory. The message
            has the cluster's own figures.
    """
    partitions = sorted({node.partition for node in nodes})
    if site.partition and site.partition not in partitions:
        raise _refused(site, f"partition {site.partition} does not exist; there are {', '.join(partitions)}")
    there = [n for n in nodes if (n.partition == site.partition if site.partition else n.default)]
    where = f"partition {site.partition}" if site.partition else "the default partition"
    # Other constraints are expressions, which SLURM checks.
    if site.constraint and site.constraint.isidentifier():
        features = sorted({f for n in there for f in n.features})
        there = [n for n in there if site.constraint in n.features]
        where += f" with {site.constraint}"
        if not there:
            raise _refused(site, f"no node has the feature {site.constraint}; there are {', '.join(features)}")
    memory_mib = _mib(site.memory) if site.memory else 0
    fitting = [n for n in there if n.cores >= request.cores and n.gpus >= request.gpus and n.memory_mib >= memory_mib]
    if there and len(fitting) < request.nodes:
        most = max(there, key=lambda n: (n.gpus, n.cores, n.memory_mib))
        wanted = [f"{request.cores} cores"]
        wanted += [f"{request.gpus} GPUs"] if request.gpus else []
        wanted += [f"{site.memory} of memory"] if site.memory else []
        raise _refused(
            site,
            f"a job asks for {request.nodes} × {', '.join(wanted)}, and {where} has {len(there)} nodes with up to "
            f"{most.cores} cores, {most.gpus} GPUs and {most.memory_mib} MiB",
        )


def _refused(site: Site, problem: str) -> ConfigError:
    return ConfigError(
        f"cluster {site.name}: {problem}. The job would never start; correct the cluster file that --cluster names"
    )


def _mib(text: str) -> float:
    """`60G` → 61 440; without a letter SLURM takes MiB."""
    unit = text[-1] if text[-1] in _MIB else "M"
    return int(text.rstrip("".join(_MIB))) * _MIB[unit]

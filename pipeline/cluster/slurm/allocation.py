"""The SLURM job that this process runs in: its number, its nodes and their addresses."""

import os
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address

from distributed.utils import get_ip

from pipeline.cluster.slurm.queue import ask
from pipeline.errors import ClusterError


@dataclass(frozen=True)
class Allocation:
    """A job's nodes."""

    job: str
    restarts: int
    """How often SLURM has started this job anew."""
    addresses: dict[str, str]
    """Node name → IP address under which the other nodes reach it."""

    @property
    def here(self) -> str:
        """This process's own address among the nodes: a node of the job, or a login node beside them."""
        own = self.addresses.get(os.environ.get("SLURMD_NODENAME", ""))
        return own or get_ip(next(iter(self.addresses.values())))

    @classmethod
    def current(cls) -> "Allocation":
        """Reads the environment that SLURM gives a job, and asks `scontrol` for the nodes' addresses.

        Raises:
            ClusterError: this process runs in no job, or SLURM does not answer.
        """
        job = os.environ.get("SLURM_JOB_ID")
        nodes = os.environ.get("SLURM_JOB_NODELIST")
        if not job or not nodes:
            raise ClusterError(
                "cluster kind slurm wants a SLURM job around it, and SLURM_JOB_ID is not set: "
                "start it in a job script or in `salloc`, or choose --cluster local"
            )
        shown = ask("scontrol", "show", "node", "--oneliner", nodes, error=ClusterError)
        named = re.findall(r"^NodeName=(\S+) .*?\bNodeAddr=(\S+)", shown, re.MULTILINE)
        if not named:
            raise ClusterError(f"job {job}: `scontrol show node {nodes}` names no address: {shown[:200]!r}")
        addresses = {name: _resolved(name, address) for name, address in named}
        return cls(job, int(os.environ.get("SLURM_RESTART_COUNT", "0")), _reachable(addresses))


def job_nodes() -> int:
    """Nodes of the job around this process; 1 outside a job."""
    return int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))


def _resolved(name: str, address: str) -> str:
    try:
        return str(socket.getaddrinfo(address, None, family=socket.AF_INET, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise ClusterError(f"node {name}: its address {address} cannot be resolved: {error}") from error


def _reachable(addresses: dict[str, str]) -> dict[str, str]:
    """Some systems give a machine's own name a loopback address; from outside it has another one."""
    loops = {name for name, address in addresses.items() if ip_address(address).is_loopback}
    others = [address for name, address in addresses.items() if name not in loops]
    # All of them: a single node, or several on one machine.
    return {n: get_ip(others[0]) if n in loops and others else a for n, a in addresses.items()}

"""The SLURM job around this process: its number, its nodes and their addresses."""

import os
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address

from pipeline.cluster.slurm.queue import run_slurm
from pipeline.errors import ClusterError


@dataclass(frozen=True)
class Allocation:
    """A job and its nodes."""

    job: str
    restarts: int
    """How often SLURM has restarted this job."""
    addresses: dict[str, str]
    """Node name → IP address under which the other nodes reach it."""

    @property
    def here(self) -> str:
        """The address of this process among the nodes. It runs on a node of the job, or on a login node beside them."""
        own = self.addresses.get(os.environ.get("SLURMD_NODENAME", ""))
        return own or _own_address(next(iter(self.addresses.values())))

    @classmethod
    def current(cls) -> "Allocation":
        """Reads the environment that SLURM gives a job, and the nodes' addresses from `scontrol`.

        Raises:
            ClusterError: this process runs in no job, or SLURM does not answer.
        """
        job = os.environ.get("SLURM_JOB_ID")
        nodes = os.environ.get("SLURM_JOB_NODELIST")
        if not job or not nodes:
            raise ClusterError(
                "cluster kind slurm needs a SLURM job around the command, and SLURM_JOB_ID is not set: "
                "run it in a job script or in `salloc`, or use --cluster local"
            )
        shown = run_slurm("scontrol", "show", "node", "--oneliner", nodes, error=ClusterError)
        named = re.findall(r"^NodeName=(\S+) .*?\bNodeAddr=(\S+)", shown, re.MULTILINE)
        if not named:
            raise ClusterError(f"job {job}: `scontrol show node {nodes}` prints no address: {shown[:200]!r}")
        addresses = {name: _resolve(name, address) for name, address in named}
        return cls(job, int(os.environ.get("SLURM_RESTART_COUNT", "0")), _reachable(addresses))


def job_node_count() -> int:
    """Number of nodes of the job around this process; 1 outside a job."""
    return int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))


def _resolve(name: str, address: str) -> str:
    try:
        return str(socket.getaddrinfo(address, None, family=socket.AF_INET, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise ClusterError(f"node {name}: its address {address} cannot be resolved: {error}") from error


def _reachable(addresses: dict[str, str]) -> dict[str, str]:
    """Replaces loopback addresses: some systems resolve a machine's own name to one, and other nodes need another."""
    loops = {name for name, address in addresses.items() if ip_address(address).is_loopback}
    others = [address for name, address in addresses.items() if name not in loops]
    # If all of them are: a single node, or several on one machine.
    return {n: _own_address(others[0]) if n in loops and others else a for n, a in addresses.items()}


def _own_address(towards: str) -> str:
    """The address of this machine from which it reaches another one."""
    from distributed.utils import get_ip

    return str(get_ip(towards))

"""A SLURM site: what its documentation says that a job may ask for, from `configs/clusters/*.yaml`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.config import Section, find_config, read_yaml
from pipeline.errors import ConfigError

_Word = Annotated[str, Field(pattern=r"^[\w.@+/:-]+$")]
"""Of a job script's `#SBATCH` lines: nothing that a shell or SLURM would read as more than one word."""
_Place = Annotated[str, Field(pattern=r"^[\w.$/{}-]+$")]
"""A path that may name variables: `$WORK/.cache`."""


class Site(Section):
    """One kind of node of one cluster."""

    name: str = Field(pattern=r"^[\w.\-]+$")
    account_suffix: _Word | None = None
    """What the site appends to a project's name, `@a100`; an account must then be given."""
    constraint: _Word | None = None
    partition: _Word | None = None
    qos: dict[_Word, float] = Field(default_factory=dict)
    """Hours that a job may take, by quality of service; the first is the default."""
    max_hours: float | None = Field(default=None, gt=0)
    """Hours that a job may take where there is no QoS."""
    gpu: _Word | None = None
    """The GPU's model, `a100`: says how fast it is."""
    gpus_per_node: int = Field(default=0, ge=0)
    cores_per_gpu: int = Field(default=1, ge=1)
    """Cores that come with a GPU."""
    cores_per_node: int = Field(ge=1)
    max_nodes: int = Field(default=1, ge=1)
    """Nodes of one job."""
    modules: tuple[_Word, ...] = ()
    """Loaded in this order, after `module purge`."""
    hint: _Word | None = "nomultithread"
    disks: dict[_Word, _Place] = Field(default_factory=dict)
    """What for → the variable that names the disk; a job does not start where one is not set."""
    caches: _Place | None = None
    """Folder of the hub's, torch's, matplotlib's and our own caches; None leaves them in $HOME."""
    umask: str | None = Field(default=None, pattern=r"^0[0-7]{3}$")
    requeue: bool = True
    """Whether a job may requeue itself; it submits itself anew where not."""
    internet: bool = True
    """Whether compute nodes reach the internet."""
    max_array: int = Field(default=1000, ge=1)
    """Elements of an array; 1 000 is SLURM's own default."""
    throttle: int = Field(default=8, ge=1)
    """Domains mapped at once."""
    lead_minutes: float = Field(default=10, gt=0)
    """Minutes between the warning and the time limit, for the tiles in flight; at least a few times a tile's."""
    publish: str | None = None
    """The site that publishes; None: this one."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.gpu is None) != (self.gpus_per_node == 0):
            raise ValueError(f"gpu {self.gpu} and gpus_per_node {self.gpus_per_node} go together or not at all")
        if self.gpus_per_node * self.cores_per_gpu > self.cores_per_node:
            raise ValueError(
                f"{self.gpus_per_node} GPUs with {self.cores_per_gpu} cores each are more than the node's "
                f"{self.cores_per_node} cores"
            )
        if not self.qos and self.max_hours is None:
            raise ValueError("either qos or max_hours says how long a job may take")
        if any(hours <= 0 for hours in self.qos.values()):
            raise ValueError(f"hours of a qos are above 0; got {self.qos}")
        return self

    def account(self, project: str | None) -> str | None:
        """The account of a project: `xxx` → `xxx@a100`.

        Raises:
            ConfigError: none was given and the site wants one, or it is another machine's.
        """
        suffix = self.account_suffix
        if suffix is None:
            return project
        if not project:
            raise ConfigError(f"cluster {self.name} wants --account PROJECT, and charges PROJECT{suffix}")
        if "@" in project and not project.endswith(suffix):
            raise ConfigError(
                f"cluster {self.name} charges accounts in {suffix}, got {project}: give --account PROJECT"
            )
        return project.removesuffix(suffix) + suffix

    def limit_hours(self, qos: str | None) -> float:
        """Hours that a job may take under a QoS, or the default one.

        Raises:
            ConfigError: the site has no such QoS.
        """
        if qos is None and not self.qos:
            return self.max_hours or 0.0
        name = qos or next(iter(self.qos))
        if name not in self.qos:
            raise ConfigError(f"cluster {self.name} has no QoS {name!r}: it has {', '.join(self.qos) or 'none'}")
        return self.qos[name]


def load_site(name_or_path: str) -> Site:
    """Reads a site by its name in `configs/clusters/`, or by the path of its YAML file.

    Raises:
        ConfigError: there is no such site, or it is not valid.
    """
    return read_yaml(Site, find_config(name_or_path, folder="clusters", kind="cluster"))

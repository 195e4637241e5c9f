"""A SLURM site: what a job may request there, from `configs/clusters/*.yaml`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.config import Section, find_config, read_yaml
from pipeline.errors import ConfigError

_Word = Annotated[str, Field(pattern=r"^[\w.@+/:-]+$")]
"""A word in a job script's `#SBATCH` line. It contains nothing that a shell or SLURM would split."""
_Place = Annotated[str, Field(pattern=r"^[\w.$/{}-]+$")]
"""A path that may contain variables: `$WORK/.cache`."""


class Site(Section):
    """One kind of node of a cluster."""

    name: str = Field(pattern=r"^[\w.\-]+$")
    account_suffix: _Word | None = None
    """What the site appends to the name of a project, `@a100`. An account is then required."""
    constraint: _Word | None = None
    partition: _Word | None = None
    qos: dict[_Word, float] = Field(default_factory=dict)
    """Quality of service (QoS) → hours that a job may take. The first is the default."""
    max_hours: float | None = Field(default=None, gt=0)
    """Hours that a job may take on a site without QoS."""
    gpu: _Word | None = None
    """The GPU's model, `a100`. Predictions depend on it."""
    gpus_per_node: int = Field(default=0, ge=0)
    cores_per_gpu: int = Field(default=1, ge=1)
    """Cores that a job gets with each GPU."""
    cores_per_node: int = Field(ge=1)
    max_nodes: int = Field(default=1, ge=1)
    """Nodes that one job may have."""
    modules: tuple[_Word, ...] = ()
    """Loaded in this order, after `module purge`."""
    hint: _Word | None = "nomultithread"
    disks: dict[_Word, _Place] = Field(default_factory=dict)
    """Use → variable that contains the disk's path. A job does not start where one is not set."""
    caches: _Place | None = None
    """Folder for the caches of the model hub, torch, matplotlib and this package. None leaves them in $HOME."""
    umask: str | None = Field(default=None, pattern=r"^0[0-7]{3}$")
    requeue: bool = True
    """Whether a job may requeue itself. Otherwise it submits itself again."""
    internet: bool = True
    """Whether compute nodes reach the internet."""
    max_array: int = Field(default=1000, ge=1)
    """Elements that an array may have; 1 000 is SLURM's default."""
    throttle: int = Field(default=8, ge=1)
    """Domains that are mapped at once."""
    lead_minutes: float = Field(default=10, gt=0)
    """Minutes between the warning and the time limit, in which the tiles in flight are sealed."""
    publish: str | None = None
    """The site that publishes; None: this site."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.gpu is None) != (self.gpus_per_node == 0):
            raise ValueError(f"set both gpu and gpus_per_node, or neither; found {self.gpu} and {self.gpus_per_node}")
        if self.gpus_per_node * self.cores_per_gpu > self.cores_per_node:
            raise ValueError(
                f"{self.gpus_per_node} GPUs with {self.cores_per_gpu} cores each need more than the node's "
                f"{self.cores_per_node} cores"
            )
        if not self.qos and self.max_hours is None:
            raise ValueError("set qos or max_hours: how long a job may take")
        if any(hours <= 0 for hours in self.qos.values()):
            raise ValueError(f"the hours of a qos must be above 0, found {self.qos}")
        return self

    def account(self, project: str | None) -> str | None:
        """The account of a project: `xxx` → `xxx@a100`.

        Raises:
            ConfigError: the site requires an account and none is given, or it is an account of another machine.
        """
        suffix = self.account_suffix
        if suffix is None:
            return project
        if not project:
            raise ConfigError(f"cluster {self.name} requires --account PROJECT; it charges PROJECT{suffix}")
        if "@" in project and not project.endswith(suffix):
            raise ConfigError(
                f"cluster {self.name} charges accounts that end in {suffix}, found {project}: use --account PROJECT"
            )
        return project.removesuffix(suffix) + suffix

    def limit_hours(self, qos: str | None) -> float:
        """Hours that a job may take under a QoS; None: under the default one.

        Raises:
            ConfigError: the site has no such QoS.
        """
        if qos is None and not self.qos:
            return self.max_hours or 0.0
        name = qos or next(iter(self.qos))
        if name not in self.qos:
            raise ConfigError(f"cluster {self.name} has no QoS {name!r}; it has {', '.join(self.qos) or 'none'}")
        return self.qos[name]


def load_site(name_or_path: str) -> Site:
    """Reads a site by its name in `configs/clusters/`, or by the path of its YAML file.

    Raises:
        ConfigError: there is no such site, or it is not valid.
    """
    return read_yaml(Site, find_config(name_or_path, folder="clusters", kind="cluster"))

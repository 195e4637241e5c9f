"""A SLURM site: what its documentation says that a job may ask for, from `configs/clusters/*.yaml`."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.config import Section, config_folder, read_yaml
from pipeline.errors import ConfigError

_Word = Annotated[str, Field(pattern=r"^[\w.@+/:-]+$")]
"""Of a job script's `#SBATCH` lines: nothing that a shell or SLURM would read as more than one word."""
_Place = Annotated[str, Field(pattern=r"^[\w.$/{}-]+$")]
"""A path that may name variables: `$WORK/.cache`."""


class Site(Section):
    """One kind of node of one SLURM cluster: what a job may ask for there."""

    name: str = Field(pattern=r"^[\w.\-]+$")
    """Name of this kind of node."""
    account_suffix: _Word | None = None
    """Suffix that the site adds to a project's name, such as `@a100`. With one, `--account` is required."""
    constraint: _Word | None = None
    """Value of SLURM's `--constraint`."""
    partition: _Word | None = None
    """Value of SLURM's `--partition`."""
    qos: dict[_Word, float] = Field(default_factory=dict)
    """Longest time of a job in hours, for each quality of service. The first one is the default."""
    max_hours: float | None = Field(default=None, gt=0)
    """Longest time of a job in hours, where the site has no QoS."""
    gpu: _Word | None = None
    """Model of the GPU, such as `a100`; predictions of time follow from it."""
    gpus_per_node: int = Field(default=0, ge=0)
    """GPUs of a node."""
    cores_per_gpu: int = Field(default=1, ge=1)
    """Cores that a job gets for each GPU."""
    cores_per_node: int = Field(ge=1)
    """Cores of a node."""
    max_nodes: int = Field(default=1, ge=1)
    """Most nodes that one job may take."""
    modules: tuple[_Word, ...] = ()
    """Environment modules that a job loads, in this order, after `module purge`."""
    hint: _Word | None = "nomultithread"
    """Value of SLURM's `--hint`; none leaves it out."""
    disks: dict[_Word, _Place] = Field(default_factory=dict)
    """Purpose → the environment variable that names the disk. A job does not start where one is not set."""
    caches: _Place | None = None
    """Folder for the caches of the Hugging Face hub, PyTorch, matplotlib and landcover. None leaves them in `$HOME`."""
    umask: str | None = Field(default=None, pattern=r"^0[0-7]{3}$")
    """The jobs' umask, such as `0027`: who else may read what they write."""
    requeue: bool = True
    """Whether a job may requeue itself. Where it may not, it submits itself again."""
    internet: bool = True
    """Whether compute nodes reach the internet."""
    max_array: int = Field(default=1000, ge=1)
    """Most elements of a job array; 1 000 is SLURM's own default."""
    throttle: int = Field(default=8, ge=1)
    """Domains that are mapped at the same time."""
    lead_minutes: float = Field(default=10, gt=0)
    """Minutes between the warning and the time limit, in which the tiles in flight are sealed. Give at least a few
    times what one tile takes."""
    publish: str | None = None
    """Name of the cluster file whose nodes publish. None: this one."""

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
    """A site by its name under `configs/clusters/`, or by the path of its YAML.

    Raises:
        ConfigError: there is none, or it does not hold.
    """
    shipped = config_folder() / "clusters"
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return read_yaml(Site, Path(name_or_path).expanduser())
    path = shipped / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in shipped.glob("*.yaml")))
        raise ConfigError(f"unknown cluster {name_or_path!r}: expected a path to a YAML or one of {known}")
    return read_yaml(Site, path)

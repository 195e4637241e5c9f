"""A SLURM site: what a job may request there, from `configs/clusters/*.yaml`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.config import PlainName, Section, find_config, read_yaml, text_of
from pipeline.errors import ConfigError

_Word = Annotated[str, text_of(r"[\w.@+/:-]+", "one word of letters, digits and `_.@+/:-`")]
"""A word in a job script's `#SBATCH` line. It contains nothing that a shell or SLURM would split."""
_VARIABLE = r"\$(?:[A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\})"
_Variable = Annotated[str, text_of(_VARIABLE, "a variable such as $WORK or ${WORK}")]
"""A shell variable: `$WORK` or `${WORK}`."""
_Place = Annotated[
    str, text_of(rf"(?:[\w./-]|{_VARIABLE})+", "a path that may contain variables, such as $WORK/.cache")
]
"""A path that may contain variables: `$WORK/.cache`."""
_Option = Annotated[str, text_of(r"[a-z][a-z0-9-]*", "an option of sbatch in small letters, without its dashes")]
_Memory = Annotated[str, text_of(r"[1-9][0-9]*[KMGT]?", "a number with K, M, G or T, such as 60G")]
_Umask = Annotated[str, text_of(r"0[0-7]{3}", 'four octal digits, such as "0027"')]


class Site(Section):
    """One kind of node of one SLURM cluster: what a job may ask for there."""

    name: PlainName
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
    memory: _Memory | None = None
    """Value of SLURM's `--mem`, the memory of a job on each node, such as `180G`. None: the site's default."""
    sbatch: dict[_Option, str | int | bool] = Field(default_factory=dict)
    """Further `#SBATCH` lines: option → value, or `true` for an option without one, such as `exclusive: true`."""
    max_nodes: int = Field(default=1, ge=1)
    """Most nodes that one job may take."""
    modules: tuple[_Word, ...] = ()
    """Environment modules that a job loads, in this order, after `module purge`."""
    hint: _Word | None = "nomultithread"
    """Value of SLURM's `--hint`; none leaves it out."""
    disks: dict[_Word, _Variable] = Field(default_factory=dict)
    """Purpose → the environment variable that names the disk. A job does not start where one is not set."""
    caches: _Place | None = None
    """Folder for the caches of the Hugging Face hub, PyTorch, matplotlib and landcover. None leaves them in `$HOME`."""
    umask: _Umask | None = None
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

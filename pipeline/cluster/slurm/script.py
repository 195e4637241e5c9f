"""Job scripts: the templates of `slurm/`, completed with a site's options, modules and variables."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.cluster.slurm.site import Site
from pipeline.errors import ConfigError
from pipeline.untrusted.escape import for_directive, for_script

_MARK = "#SITE\n"
_CACHES = {
    "HF_HOME": "huggingface",
    "TORCH_HOME": "torch",
    "MPLCONFIGDIR": "matplotlib",
    "LANDCOVER_CACHE": "landcover",
}
"""Variable → folder below the site's `caches`. Without them libraries keep their caches in $HOME."""


@dataclass(frozen=True)
class JobRequest:
    """The resources that a job requests from SLURM."""

    name: str
    account: str | None
    qos: str | None
    minutes: int
    cores: int
    """Per node."""
    gpus: int = 0
    """Per node."""
    nodes: int = 1
    log: str = "%x-%j.log"
    """Name of the log, with SLURM's patterns."""
    comment: str = ""
    array: str = ""
    """Elements of an array, `0-95%8`; empty for a single job."""
    lead_s: int = 0
    """Seconds between the warning and the time limit; 0: no warning."""


def scripts_folder() -> Path:
    """The folder `slurm/`: inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).parents[2]
    packaged = package / "_slurm"
    return packaged if packaged.is_dir() else package.parent / "slurm"


def complete_script(name: str, site: Site, request: JobRequest, *, variables: Mapping[str, str]) -> str:
    """Completes a script of `slurm/` for one site, ready for `sbatch`.

    Args:
        name: of the script, `map.sbatch`.
        site: its options, modules, disks, caches and umask are used.
        request: the job's resources.
        variables: exported variables that the script reads.

    Returns:
        The content of the script.

    Raises:
        ConfigError: a value cannot be written into a script, or the site sets an option that landcover sets.
    """
    template = (scripts_folder() / name).read_text(encoding="utf-8")
    before, mark, after = template.partition(_MARK)
    if not mark:
        raise ValueError(f"slurm/{name} has no line {_MARK!r}")
    return before + "\n".join((*_options(site, request), *_shell(site, variables))) + "\n" + after


def _options(site: Site, request: JobRequest) -> list[str]:
    chosen = {
        "job-name": request.name,
        "account": request.account,
        "partition": site.partition,
        "constraint": site.constraint,
        "qos": request.qos,
        "time": request.minutes,
        "nodes": request.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": request.cores,
        "gres": f"gpu:{request.gpus}" if request.gpus else None,
        "hint": site.hint,
        "array": request.array or None,
        "signal": f"B:USR1@{request.lead_s}" if request.lead_s else None,
        "output": request.log,
        "comment": request.comment or None,
        "mem": site.memory,
        "export": "ALL",
        "requeue" if site.requeue else "no-requeue": True,
    }
    if clash := site.sbatch.keys() & {*chosen, "requeue", "no-requeue"}:
        raise ConfigError(f"cluster {site.name}: sbatch must not set {', '.join(sorted(clash))}; landcover sets it")
    given = {key: value for key, value in (chosen | site.sbatch).items() if value is not None and value is not False}
    return [
        f"#SBATCH --{key}" + ("" if value is True else f"={for_directive(value, f'#SBATCH --{key}')}")
        for key, value in given.items()
    ]


def _shell(site: Site, variables: Mapping[str, str]) -> list[str]:
    """Shell lines that precede the script's own."""
    lines = [f"umask {site.umask}"] if site.umask else []
    if site.modules:
        lines += ["module purge", *(f"module load {for_script(module, 'modules')}" for module in site.modules)]
    for use, variable in site.disks.items():
        name = variable.strip("${}")
        lines.append(f': "${{{name}:?the {use} disk of {site.name}}}"')
    if "job" in site.disks:
        lines.append(f'export TMPDIR="{site.disks["job"]}"')
    if site.caches:
        lines += [f'export {name}="${{{name}:-{site.caches}/{folder}}}"' for name, folder in _CACHES.items()]
    lines += [f"export {name}={for_script(value, name)}" for name, value in variables.items()]
    # The Python that submitted: modules may have put another one before it.
    return [*lines, f'export PATH={for_script(Path(sys.executable).parent, "the folder of Python")}:"$PATH"']

"""What every YAML of ours has in common: strict, frozen sections, paths from the file's own folder, errors by key."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo

from pipeline.domain import Domain
from pipeline.errors import ConfigError

_Model = TypeVar("_Model", bound=BaseModel)

# YAML files that are written name domains as plain strings.
yaml.SafeDumper.add_representer(Domain, lambda dumper, domain: dumper.represent_str(str(domain)))


def _absolute(path: Path, info: ValidationInfo) -> Path:
    """Relative paths of a YAML are meant from its own folder."""
    base = (info.context or {}).get("base", Path())
    return Path(base, path.expanduser()).absolute()


Located = Annotated[Path, AfterValidator(_absolute)]


class Section(BaseModel):
    """What all sections share: frozen, strict about types and about keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def config_folder() -> Path:
    """The folder `configs/`: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "_configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def read_yaml(kind: type[_Model], path: Path, **extra: Any) -> _Model:
    """Reads a YAML into a frozen model.

    Args:
        kind: the model.
        path: the YAML.
        extra: values that no YAML gives; they are also the context of validators.

    Raises:
        ConfigError: no such file, no YAML, an unknown key, or values that do not fit; the message names the file
            and each key.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no such file: {path}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(given).__name__}")
    if clash := extra.keys() & given.keys():
        raise ConfigError(f"{path}: unknown key {', '.join(sorted(clash))}")
    try:
        return kind.model_validate(given | extra, context=extra)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"]) or "(top level)"
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key {where!r}")
        elif item["type"] == "missing":
            lines.append(f"missing key {where!r}")
        else:
            lines.append(f"{where}: {item['msg'].removeprefix('Value error, ')} (got {item['input']!r:.80})")
    return "; ".join(lines)

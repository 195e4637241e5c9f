"""Base of all YAML files of this package: frozen sections, relative paths, and errors that name the key."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo

from pipeline.domain import Domain
from pipeline.errors import MALFORMED, ConfigError
from pipeline.untrusted.documents import DocumentError, place_in_yaml, read_yaml_document

_Model = TypeVar("_Model", bound=BaseModel)

# YAML files that are written name domains as plain strings.
yaml.SafeDumper.add_representer(Domain, lambda dumper, domain: dumper.represent_str(str(domain)))


def _absolute(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base", Path())
    try:
        return Path(base, path.expanduser()).absolute()
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def text_of(pattern: str, expected: str) -> AfterValidator:
    """A validator for texts of a YAML file; its error says in words what is expected.

    Args:
        pattern: a regular expression for the whole text.
        expected: what it means: `letters and digits`.
    """

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


PlainName = Annotated[str, text_of(r"[\w.\-]+", "letters, digits, `_`, `-` and `.`")]
"""The name of a campaign, recipe, training run or site."""
Sha256 = Annotated[str, text_of("[0-9a-f]{64}", "64 hexadecimal digits, as `sha256sum` prints them")]
"""A checksum."""
ConfigPath = Annotated[Path, AfterValidator(_absolute)]
"""A path in a YAML file. A relative path starts at the folder of that file."""


class Section(BaseModel):
    """A frozen section of a YAML file. Unknown keys, infinities and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def config_folder() -> Path:
    """The folder `configs/`: inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "_configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def find_config(name_or_path: str, *, folder: str, kind: str, base: Path = Path()) -> Path:
    """Finds a YAML file by the name of a shipped one, or by its path.

    Args:
        name_or_path: a name in `configs/<folder>/`, or a path: it contains `/` or ends in `.yaml` or `.yml`.
        folder: the sub-folder of `configs/`.
        kind: what the file describes, for the error message: `recipe`.
        base: the folder at which a relative path starts.

    Raises:
        ConfigError: no shipped file has this name.

    Example:
        >>> find_config("generic", folder="clusters", kind="cluster").name
        'generic.yaml'
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return Path(base, Path(name_or_path).expanduser())
    shipped = config_folder() / folder
    path = shipped / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in shipped.glob("*.yaml")))
        raise ConfigError(f"unknown {kind} {name_or_path!r}: expected the path of a YAML file, or one of {known}")
    return path


def read_yaml(kind: type[_Model], path: Path, **extra: Any) -> _Model:
    """Reads a YAML file into a frozen model.

    Args:
        kind: the model.
        path: the file.
        extra: values that the file must not contain. They are also the context of the validators.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, or values do not fit each other. The message
            names the file and each key.
    """
    try:
        given = read_yaml_document(path)
    except FileNotFoundError as error:
        raise ConfigError(f"no such file: {path}") from error
    except DocumentError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, found {type(given).__name__}")
    if clash := extra.keys() & given.keys():
        raise ConfigError(f"{path}: unknown key {', '.join(sorted(clash))}")
    try:
        return kind.model_validate(given | extra, context=extra)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_problems(error, kind, path)}") from error
    except MALFORMED as error:
        raise ConfigError(f"{path}: values cannot be used: {error}") from error


def _problems(error: ValidationError, kind: type[BaseModel], path: Path) -> str:
    lines = []
    for item in error.errors(include_url=False):
        loc = item["loc"]
        where, found = ".".join(map(str, loc)) or "(top level)", f"(found {item['input']!r:.80})"
        place = place_in_yaml(path, loc)
        if item["type"] == "extra_forbidden":
            lines.append(f"{place}: unknown key {where!r}; {_nearest(str(loc[-1]), _section_at(kind, loc))}")
        elif item["type"] == "missing":
            lines.append(f"{place}: missing key {where!r}")
        else:
            lines.append(f"{place}: {where}: {item['msg'].removeprefix('Value error, ')} {found}")
    return "; ".join(lines)


def _section_at(kind: type[BaseModel], loc: Sequence[int | str]) -> type[BaseModel]:
    """The section that has, or should have, the last of these keys."""
    for key in loc[:-1]:
        field = kind.model_fields.get(str(key))
        kind = next(_sections_of(field.annotation), kind) if field else kind
    return kind


def _sections_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections in a type, such as `tuple[DomainSection, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_of(part)


def _nearest(key: str, section: type[BaseModel]) -> str:
    """`did you mean block?`, or all keys where none is similar."""
    known = [name for name, field in section.model_fields.items() if not field.exclude]
    if near := get_close_matches(key, known, n=1):
        return f"did you mean {near[0]}?"
    return f"expected {', '.join(known)}"

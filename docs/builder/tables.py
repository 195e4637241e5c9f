"""Short tables from the code: exit codes, classes, groups, shipped configuration."""

from collections import defaultdict
from pathlib import Path

import yaml

from docs.builder.markdown import code, prose, table
from pipeline import legend
from pipeline.config import config_folder
from pipeline.errors import LandcoverError


def errors() -> str:
    """Each exception of the package, with the exit code that the command line gives it."""
    by_code: dict[int, list[type[LandcoverError]]] = defaultdict(list)
    for kind in _descendants(LandcoverError):
        by_code[kind.exit_code].append(kind)
    rows = [(str(number), code(k.__name__), prose(k.__doc__)) for number in sorted(by_code) for k in by_code[number]]
    return table(("exit code", "exception", "meaning"), rows)


def classes() -> str:
    """The classes of the map with their values, names and colours, and the numbers of other nomenclatures."""
    rows = []
    for c in legend.FLAIR:
        cosia = "–" if c.cosia is None else f"{c.cosia} {c.cosia_name}"
        safe = _swatch(c.safe) if c.safe else "–"
        rows.append((str(c.value), c.name, c.french, _swatch(c.colour), safe, cosia, str(c.flair_hub)))
    return table(("value", "class", "in French", "colour", "for colour-blind users", "CoSIA", "FLAIR-HUB"), rows)


def _swatch(colour: str) -> str:
    return f'<span class="swatch" style="background:{colour}"></span>{code(colour)}'


def groups() -> str:
    """The groups of classes that questions may name."""
    rows = [(name, ", ".join(legend.BY_VALUE[v].name for v in values)) for name, values in legend.GROUPS.items()]
    return table(("group", "classes"), rows)


def recipes() -> str:
    """The recipes that are shipped."""
    rows = []
    for path in _shipped("models"):
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        network = f"{recipe.get('architecture', 'unet')}, {recipe.get('encoder', 'resnet34')}"
        rows.append((code(path.stem), network, ", ".join(recipe["bands"]), str(len(recipe["live"]))))
    return table(("recipe", "network", "bands", "classes"), rows)


def clusters() -> str:
    """The cluster files that are shipped."""
    rows = []
    for path in _shipped("clusters"):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        rows.append((code(path.stem), first.removeprefix("# ")))
    return table(("cluster file", "what it describes"), rows)


def _shipped(kind: str) -> list[Path]:
    return sorted((config_folder() / kind).glob("*.yaml"))


def _descendants(kind: type[LandcoverError]) -> list[type[LandcoverError]]:
    return [d for child in kind.__subclasses__() for d in (child, *_descendants(child))]

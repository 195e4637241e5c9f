"""The reference of the Python package: what `import pipeline` offers, for mkdocstrings to fill."""

import inspect

import pipeline
from docs.builder.errors import DocsError


def python_api() -> str:
    """A mkdocstrings block for each public name of `pipeline`, in alphabetical order.

    Raises:
        DocsError: a public name, or a public member of a class among them, has no docstring.
    """
    names = sorted(n for n in pipeline.__all__ if not n.startswith("__"))
    public = {name: getattr(pipeline, name) for name in names}
    missing = [m for name, found in public.items() for m in _undocumented(name, found)]
    if missing:
        raise DocsError(f"public names without a docstring: {', '.join(missing)}")
    return "\n\n".join(_block(name, found) for name, found in public.items())


def _undocumented(name: str, found: object) -> list[str]:
    members = [(name, found)]
    if inspect.isclass(found):
        members += [(f"{name}.{m}", v) for m, v in vars(found).items() if not m.startswith("_") and _is_code(v)]
    return [path for path, member in members if not inspect.getdoc(member)]


def _is_code(member: object) -> bool:
    return callable(member) or isinstance(member, property | classmethod | staticmethod)


def _block(name: str, found: object) -> str:
    path = f"{found.__module__}.{found.__qualname__}"  # type: ignore[attr-defined]
    options = {"heading": f"pipeline.{name}", "toc_label": name, "show_root_heading": "true", "heading_level": "2"}
    lines = [f"[](){{ #pipeline.{name} }}", "", f"::: {path}", "    options:"]
    return "\n".join([*lines, *(f"      {key}: {value}" for key, value in options.items())])

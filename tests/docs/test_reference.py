"""The reference is complete: what the code does not explain stops the build."""

from typing import Annotated, Literal

import pytest
import typer
from pydantic import BaseModel, Field

from docs.builder import commands as commands_page
from docs.builder.commands import command_options, commands
from docs.builder.errors import DocsError
from docs.builder.settings import settings
from docs.builder.stage import GENERATED
from pipeline.config import Campaign
from pipeline.errors import ClusterError, LandcoverError


class Inner(BaseModel):
    """A part of the file."""

    size: int = Field(default=3, ge=1)
    """How large."""
    kind: Literal["a", "b"] | None = None
    """Which one."""


class Outer(BaseModel):
    """A file."""

    name: str
    """What it is called."""
    parts: tuple[Inner, ...] = ()
    hidden: int = Field(default=0, exclude=True)


class Silent(BaseModel):
    """A file with a key that nobody explained."""

    name: str


def test_a_file_is_a_table_of_keys_with_type_default_and_meaning() -> None:
    page = settings(Outer)
    assert "| `name` | text | **required** | What it is called. |" in page
    assert "| `parts` | list of [sections](#parts) | `[]` | A part of the file. |" in page
    assert "## `parts` { #parts }" in page
    assert "| `size` | whole number, ≥ 1 | `3` | How large. |" in page
    assert "| `kind` | `a`, `b` | none | Which one. |" in page
    assert "hidden" not in page


def test_a_key_without_a_description_is_an_error() -> None:
    with pytest.raises(DocsError, match=r"Silent\.name"):
        settings(Silent)


def test_every_key_of_a_campaign_has_its_row() -> None:
    page = settings(Campaign)
    assert [name for name in Campaign.model_fields if name != "base" and f"| `{name}` |" not in page] == []


def small_app(*, help_text: str | None, epilog: str | None) -> typer.Typer:
    app = typer.Typer()

    @app.command(epilog=epilog)
    def copy(
        source: Annotated[str, typer.Argument(metavar="SOURCE", help="What to copy.")],
        level: Annotated[int, typer.Option("--level", help=help_text)] = 2,
        force: Annotated[bool, typer.Option("--force", "-f", help="Replace <target>.")] = False,  # noqa: FBT002
    ) -> None:
        """Copy a thing.

        Twice as <name>.
        """

    return app


def test_a_command_has_usage_arguments_options_and_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_page, "app", small_app(help_text="How far.", epilog="Example: landcover copy x"))
    page = commands()
    assert "## copy\n\nCopy a thing.\n\nTwice as &lt;name>." in page
    assert "landcover copy SOURCE [OPTIONS]" in page
    assert "| `SOURCE` | What to copy. |" in page
    assert "| `--level` `INTEGER` | `2` | How far. |" in page
    assert "| `--force` or `-f` |  | Replace &lt;target>. |" in page
    assert page.endswith("```sh\nlandcover copy x\n```")
    assert command_options() == {"copy": frozenset({"--level", "--force", "-f"})}


@pytest.mark.parametrize(
    ("help_text", "epilog", "missing"),
    [(None, "Example: landcover copy x", "level"), ("How far.", None, "example")],
)
def test_an_unexplained_option_or_a_missing_example_is_an_error(
    help_text: str | None, epilog: str | None, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_page, "app", small_app(help_text=help_text, epilog=epilog))
    with pytest.raises(DocsError, match=missing):
        commands()


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_every_generated_part_says_something(name: str) -> None:
    assert len(GENERATED[name]()) > 100


def test_every_exception_has_its_exit_code_in_the_table() -> None:
    page = GENERATED["errors"]()
    assert f"| {ClusterError.exit_code} | `ClusterError` |" in page
    assert [kind.__name__ for kind in LandcoverError.__subclasses__() if f"`{kind.__name__}`" not in page] == []

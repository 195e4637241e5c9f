"""What commands print is text: names from outside neither move the cursor, nor begin lines, nor are markup."""

import io
import json
import logging
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from pipeline import cli
from pipeline.cli import _LogLines, app, output
from pipeline.cli.fetch_stage_index import _grouped
from pipeline.errors import ConfigError
from pipeline.progress import progress_bar
from tests.support.campaigns import make_campaign

HOSTILE = "a\x1b]0;owned\x07\r\nerror: b\x9b2J\u202e[/bad][red]:warning:"
ESCAPED = r"a\x1b]0;owned\x07\r\nerror: b\x9b2J\u202e[/bad][red]:warning:"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    shown = io.StringIO()
    # Not the property `file`: it would be restored to this test's standard output, for every later test.
    monkeypatch.setattr(output.console, "_file", shown)
    return shown


def printed(screen: io.StringIO) -> str:
    return screen.getvalue()


def test_lines_and_tables_show_names_as_they_are_written(screen: io.StringIO) -> None:
    output.say(f"found {HOSTILE}")
    assert printed(screen) == f"found {ESCAPED}\n"
    output.console.print(output.number_table(("file", "size"), [(HOSTILE, 1)]), width=200)
    assert ESCAPED in printed(screen)
    assert "\x1b" not in printed(screen)


def test_a_message_keeps_its_own_lines_and_no_other(screen: io.StringIO) -> None:
    output.say(f"2 problems:\n  {HOSTILE}\n  b")
    assert printed(screen) == f"2 problems:\n  {ESCAPED}\n  b\n"


def test_log_lines_and_tracebacks_are_escaped(screen: io.StringIO) -> None:
    record = logging.LogRecord("landcover", logging.WARNING, "", 0, "ignored %s", (HOSTILE,), None)
    _LogLines().emit(record)
    assert printed(screen).endswith(f" warning: ignored {ESCAPED}\n")
    error = ValueError(HOSTILE)
    record = logging.LogRecord("other", logging.ERROR, "", 0, "failed", None, (ValueError, error, None))
    _LogLines().emit(record)
    assert "ValueError: a" in printed(screen)
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(printed(screen))
    assert "\nerror:" not in printed(screen)


def test_json_is_ascii(screen: io.StringIO) -> None:
    output.print_json({"name": HOSTILE})
    assert printed(screen).isascii()
    assert "\x1b" not in printed(screen)
    assert json.loads(printed(screen)) == {"name": HOSTILE}


def test_an_error_is_escaped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(**_: object) -> None:
        raise ConfigError(f"{HOSTILE}: no such file")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err == f"error: {ESCAPED}: no such file\n"


def test_a_bug_is_escaped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(**_: object) -> None:
        raise KeyError(f"{HOSTILE}") from OSError(2, HOSTILE, HOSTILE)

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(shown)


@pytest.mark.parametrize("given", [[HOSTILE], ["run", f"--{HOSTILE}"], ["plan", "a", HOSTILE], ["run", "a", HOSTILE]])
def test_an_error_of_the_command_line_is_escaped(given: list[str]) -> None:
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 2
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(done.output)
    assert "\nerror:" not in done.output


def test_a_progress_bar_shows_its_description_as_text() -> None:
    shown = io.StringIO()
    with progress_bar(HOSTILE, console=Console(file=shown, force_terminal=True, width=200)) as progress:
        progress.start(2)
        progress.advance()
    assert ESCAPED in shown.getvalue()


@pytest.mark.parametrize("name", ["[/bad]", "[bold]x[/]", "a\x1b[31mb", "a\nerror: b"])
def test_doctor_accepts_any_name_of_a_folder(tmp_path: Path, name: str) -> None:
    made = make_campaign(tmp_path / "made", at=[(0, 0)])
    output = yaml.safe_load(made.config.read_text())["output"]
    made.change(output=output | {"domains": name, "national": f"{name}/national"})
    done = CliRunner().invoke(app, ["doctor", str(made.config)])
    assert done.exception is None, done.output
    assert "\x1b[31m" not in done.output
    assert "\nerror: b" not in done.output


def test_notes_on_tiles_are_one_line_even_where_their_figures_differ() -> None:
    notes = [("a", "holes: 0.5%"), ("b", "holes: 12.25%"), ("c", "no CRS"), ("d", "no CRS"), ("e", "holes: 0.5%")]
    assert _grouped(notes) == {"holes: 0.5%": "a, b, e, with other figures", "no CRS": "c, d"}

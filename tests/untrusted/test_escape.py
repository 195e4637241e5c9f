"""Texts from outside stay texts in every language that they are written into."""

import doctest
import shlex
import subprocess
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.untrusted import escape

ANY = st.text(st.characters(), max_size=60)
"""Any characters, lone surrogates among them: Linux allows any bytes in a file's name."""
NASTY = [
    "a\nb",
    "a\rb",
    "\x1b]0;title\x07",
    "\x9b31m",
    "[/bad]",
    "[link=http://x]y[/link]",
    "\u202ecod.exe",
    "\u2028",
    "\udcff",
    "</SourceFilename><SourceFilename>/vsicurl/http://x",
    "$(touch x)",
    "`touch x`",
    '"; touch x; "',
    "| a | b |",
    "<img src=x>",
    "\\",
]


@pytest.mark.parametrize("text", NASTY)
def test_a_terminal_gets_one_line_of_printable_text(text: str) -> None:
    shown = escape.for_terminal(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    shown.encode()


@given(ANY)
def test_any_text_becomes_one_printable_line_and_plain_text_stays(text: str) -> None:
    shown = escape.for_terminal(text)
    assert "\n" not in shown
    assert "\x1b" not in shown
    if text.isascii() and text.isprintable():
        assert shown == text


@given(ANY)
def test_xml_holds_the_text_and_nothing_else(text: str) -> None:
    root = ET.fromstring(f"<a b={escape.for_xml_attribute(text)}>{escape.for_xml(text)}</a>")  # noqa: S314  our own
    assert len(root) == 0
    # XML itself makes one newline of each kind.
    assert (root.text or "").replace("\ufffd", "").split() == "".join(
        c for c in text if c in (root.text or "") or c in "\r\n\t"
    ).replace("\ufffd", "").split()


@pytest.mark.parametrize("text", [t for t in NASTY if t.isprintable()])
def test_a_shell_passes_the_word_on_and_runs_nothing(text: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"printf %s {escape.for_script(text, 'it')}"], capture_output=True, text=True, check=True
    )
    assert done.stdout == text


@pytest.mark.parametrize("text", ["a\nb", "a\r#SBATCH --partition=x", "a\x00b", "\u2028", "\x1b[2J"])
@pytest.mark.parametrize("function", [escape.for_script, escape.for_directive])
def test_control_characters_are_refused_in_job_scripts(text: str, function: object) -> None:
    with pytest.raises(ConfigError, match=r"output.domains: .* control character"):
        function(text, "output.domains")  # type: ignore[operator]


def test_a_directive_is_one_value() -> None:
    assert escape.for_directive("abc@v100", "account") == "abc@v100"
    assert shlex.split(escape.for_directive("/a b/%j.log", "output")) == ["/a b/%j.log"]
    with pytest.raises(ConfigError, match="cannot hold"):
        escape.for_directive('a" --partition=b', "account")


def test_markdown_cells_hold_no_markup() -> None:
    for text in NASTY:
        cell = escape.for_markdown(text)
        for mark in "[]|<>`":
            assert cell.count(mark) == cell.count("\\" + mark)


def test_the_examples_run() -> None:
    result = doctest.testmod(escape)
    assert result.attempted > 3
    assert result.failed == 0

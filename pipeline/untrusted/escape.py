"""Texts from outside, written into other languages: one function for each language, used wherever one is written.

Names of files and domains, values of YAML files and catalogs, and answers of servers may contain anything. Written as
they are, a newline becomes a line of a job script, and an escape sequence moves the cursor of a terminal.
"""

import re
import shlex
from xml.sax.saxutils import escape as _escape_xml
from xml.sax.saxutils import quoteattr

from pipeline.errors import ConfigError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line and paragraph separators, marks that change the direction of text, and lone surrogates."""
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~&])")


def for_terminal(text: object) -> str:
    r"""One line of printable text: control characters, also newlines, as escapes such as `\x1b` and `\n`.

    Example:
        >>> print(for_terminal("red\x1b[31m\nline"))
        red\x1b[31m\nline
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), str(text))


def for_terminal_lines(text: object) -> str:
    r"""A message of this package, whose further lines begin with two spaces; any other newline is one from outside.

    Example:
        >>> print(for_terminal_lines("failed:\n  a\nb.tif"))
        failed:
          a\nb.tif
    """
    return "\n  ".join(map(for_terminal, str(text).split("\n  ")))


def for_markdown(text: object) -> str:
    r"""Text inside a paragraph, list or table cell of Markdown; HTML and links are text.

    Example:
        >>> print(for_markdown("[a](b)|<i>"))
        \[a\](b)\|\<i\>
    """
    return _MARKDOWN.sub(r"\\\1", for_terminal(text))


def for_xml(text: object) -> str:
    """Text between XML tags, of which characters that XML cannot hold are replaced by U+FFFD.

    Example:
        >>> for_xml("<a> & b")
        '&lt;a&gt; &amp; b'
    """
    return _escape_xml(_NOT_XML.sub("\ufffd", str(text)))


def for_xml_attribute(text: object) -> str:
    """A quoted XML attribute.

    Example:
        >>> print(for_xml_attribute('say "a" & b'))
        'say "a" &amp; b'
    """
    return quoteattr(_NOT_XML.sub("\ufffd", str(text)))


def for_script(text: object, what: str) -> str:
    """One word of a shell script.

    Args:
        text: the word.
        what: names it in the error message: `output.domains`.

    Raises:
        ConfigError: the text has a control character, such as a newline, which no value of a job script needs.

    Example:
        >>> for_script("a b; rm x", "cluster.account")
        "'a b; rm x'"
    """
    return shlex.quote(_one_line(text, what))


def for_directive(text: object, what: str) -> str:
    """The value of a `#SBATCH --option=value` line, which SLURM reads without a shell.

    Raises:
        ConfigError: the text has a control character, a quote or a backslash, which such a line cannot hold.
    """
    value = _one_line(text, what)
    if found := re.search(r"[\"'\\]", value):
        raise ConfigError(f"{what}: {for_terminal(value)!r} contains {found[0]}, which a #SBATCH line cannot hold")
    return f'"{value}"' if re.search(r"\s|#", value) else value


def _one_line(text: object, what: str) -> str:
    value = str(text)
    if _CONTROL.search(value):
        raise ConfigError(f"{what}: {for_terminal(value)!r} has a control character; expected one line of text")
    return value

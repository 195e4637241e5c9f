"""Lists of md5 sums as `md5sum` writes them, or as BSD does, or a sum alone."""

import re

_SUM_LINE = re.compile(r"\\?(?P<sum>[0-9a-f]{32})(\s+\*?(?P<name>.+))?", re.IGNORECASE)
_SUM_LINE_BSD = re.compile(r"MD5 ?\((?P<name>.+)\) ?= ?(?P<sum>[0-9a-f]{32})", re.IGNORECASE)


def parse_sums(content: bytes, *, alone: str) -> dict[str, str]:
    """File name → md5 in lower case; lines of any other form are skipped.

    Args:
        content: of an `.md5` file.
        alone: the file that a sum without a name belongs to.

    Example:
        >>> parse_sums(b"D41D8CD98F00B204E9800998ECF8427E  ./a.7z.001", alone="a.7z")
        {'a.7z.001': 'd41d8cd98f00b204e9800998ecf8427e'}
    """
    sums = {}
    # Names of volumes are ASCII, so other names may be decoded wrongly.
    for line in content.decode("utf-8-sig", errors="replace").splitlines():
        if match := _SUM_LINE.fullmatch(line.strip()) or _SUM_LINE_BSD.fullmatch(line.strip()):
            name = match["name"] or alone
            sums[name.replace("\\", "/").rsplit("/", 1)[-1].strip()] = match["sum"].lower()
    return sums
